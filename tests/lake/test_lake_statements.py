"""What a statement may be made of, and that there is no way beside it."""

from __future__ import annotations

import duckdb
import pytest

from carelake.core.errors import CarelakeError, Invalid
from carelake.lake.statements import statement
from carelake.lake.statements.statement import Relation

GOOD = [
    "SELECT code, count(*) AS n FROM t GROUP BY code",
    "WITH z AS (SELECT 1 AS x) SELECT * FROM z, t, unnest([1, 2]) u(y)",
    "SELECT a.b.c, x[1], list_transform(l, e -> e.code) FROM t p JOIN t q USING (id) WHERE x LIKE '%a' GROUP BY ALL",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t QUALIFY 1 = 1",
    "SELECT {'a': 1}, x::int, TRY_CAST(x AS DATE), DATE '2020-01-01' + INTERVAL 3 DAY, extract(year FROM d) FROM t",
    "SELECT * EXCLUDE (a) REPLACE (b + 1 AS b) FROM t UNION ALL SELECT * FROM (VALUES (1)) v(x)",
    "SELECT count(*) FILTER (WHERE a), string_agg(x, ',' ORDER BY y) FROM t GROUP BY ROLLUP (a, b)",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT * FROM r, t",
    "FROM t PIVOT (sum(b) FOR a IN ('x', 'y'))",
    "UNPIVOT t ON a, b INTO NAME n VALUE v",
    "FROM t SELECT x",
    "TABLE t",
    "SELECT x.list_transform(e -> e + 1), x->>'$.a', a ~ 'x', a SIMILAR TO 'b', a ** 2, a IS DISTINCT FROM b FROM t",
    "SELECT * FROM t ASOF JOIN t u ON t.a >= u.a",
    "SELECT * FROM t WHERE a = ? AND b = $2",
]

BAD = [
    "DESCRIBE t",
    "SUMMARIZE t",
    "SHOW TABLES",
    "SELECT * FROM (DESCRIBE t)",
    "SELECT * FROM (SHOW TABLES)",
    "EXPLAIN SELECT 1",
    "PRAGMA version",
    "CALL pragma_version()",
    "SET threads = 1",
    "COPY t TO 'x'",
    "ATTACH 'x'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "INSERT INTO t VALUES (1)",
    "CREATE TABLE x AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT * FROM read_csv('x')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM parquet_metadata('x')",
    "SELECT * FROM glob('*')",
    "SELECT * FROM duckdb_tables()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM pragma_table_info('t')",
    "SELECT * FROM pragma_storage_info('t')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('t')",
    "SELECT * FROM histogram('t', x)",
    "SELECT * FROM summary((SELECT 1))",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('t')",
    "SELECT * FROM json_execute_serialized_sql('x')",
    "SELECT * FROM which_secret('x', 's3')",
    "SELECT * FROM t AT (VERSION => 3)",
    "SELECT * FROM a.b.c",
    "WITH duckdb_tables AS (SELECT 1) SELECT * FROM duckdb_tables",
    "SELECT getenv('HOME')",
    "SELECT current_setting('threads')",
    "SELECT getvariable('a')",
    "SELECT stats(x) FROM t",
    "SELECT index_key('a')",
    "SELECT nextval('x')",
    "SELECT sleep_ms(1000)",
    "SELECT pg_sleep(1)",
    "SELECT setseed(0.5)",
    "SELECT write_log('x')",
    "SELECT current_query()",
    "SELECT json_serialize_plan('SELECT 1')",
    "SELECT lower(current_setting('threads'))",
    "SELECT list_transform([1], x -> current_setting('a'))",
    "SELECT (SELECT getvariable('x')) FROM t",
    "SELECT * FROM t ORDER BY current_setting('x')",
    "SELECT count(*) FILTER (WHERE getvariable('a')) FROM t",
    "SELECT sum(x) OVER (ORDER BY getvariable('x')) FROM t",
    "SELECT * FROM t LIMIT (SELECT getvariable('x'))",
    "SELECT * REPLACE (getvariable('x') AS a) FROM t",
    "VALUES (getvariable('x'))",
    "SELECT * FROM range(getvariable('x'))",
    "SELECT * FROM t JOIN t u ON getvariable('x')",
    "WITH a AS (SELECT getvariable('x')) SELECT * FROM a",
    "SELECT 1 UNION SELECT getvariable('x')",
    "SELECT system.main.current_setting('x')",
    "SELECT 'x'.current_setting()",
    "not sql",
    "SELECT 1 \0",
    "\ud800",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT '" + "x" * 100_000 + "'",
    "",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_questions_are_made_of_is_read(text: str) -> None:
    assert statement.read(text).relations == {Relation("", "t")}


@pytest.mark.parametrize("text", BAD)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(CarelakeError) as caught:
        statement.read(text)
    assert caught.value.code == "lake.sql"


def test_a_name_that_a_statement_makes_hides_no_table_of_duckdb() -> None:
    text = "SELECT * FROM (WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master) a, sqlite_master b"
    with pytest.raises(Invalid):
        statement.read(text)


def test_tables_are_told_with_their_schemas() -> None:
    found = statement.read('SELECT * FROM deidentified."Patient" p JOIN Main.patients USING (id), "A.b"').relations
    assert found == {Relation("deidentified", "patient"), Relation("main", "patients"), Relation("", "a.b")}


def test_every_function_on_the_list_is_one_that_reads_nothing() -> None:
    """What a new DuckDB has is looked at when it comes: no name sounds of the catalog, files or settings."""
    _, tables, functions = statement._allowed()
    for word in (
        "duckdb_",
        "pragma_",
        "read_",
        "scan",
        "setting",
        "getenv",
        "variable",
        "glob",
        "secret",
        "query",
        "sequence",
        "nextval",
        "currval",
        "extension",
        "attach",
        "sleep",
        "pg_",
        "stats",
        "serialize",
        "execute",
        "sniff",
        "parquet",
        "file",
        "log_",
        "copy",
        "privilege",
    ):
        assert not [name for name in functions | tables if word in name], word


def test_what_is_written_of_a_query_means_the_same() -> None:
    text = "SELECT a, count(*) AS n FROM t WHERE b IN ('x', 'it''s') GROUP BY a HAVING count(*) > 1 ORDER BY n DESC"
    again = statement.written(statement.read(text).tree)
    with duckdb.connect() as connection:
        connection.sql("CREATE TABLE t AS SELECT range % 3 AS a, 'it''s' AS b FROM range(10)")
        assert connection.sql(again).fetchall() == connection.sql(text).fetchall()
