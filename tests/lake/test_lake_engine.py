"""The engine: one answer however many rows, nothing left behind, nothing outside within reach."""

from __future__ import annotations

from datetime import datetime

import duckdb
import pyarrow as pa
import pytest

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings
from carelake.lake.engines import engine


def numbers(count: int) -> pa.Table:
    return pa.table({"n": pa.array(range(count), pa.int64())})


SQL = "SELECT sum(n)::BIGINT AS s, count(*) AS c FROM t WHERE n >= $least::INTEGER"


def test_few_and_many_rows_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = engine.run(SQL, {"t": numbers(100)}, {"least": 10})
    monkeypatch.setattr(engine, "_FEW_ROWS", 0)
    assert engine.run(SQL, {"t": numbers(100)}, {"least": 10}).equals(kept)
    assert kept.to_pylist() == [{"s": 4905, "c": 90}]


def test_a_kept_statement_keeps_no_rows() -> None:
    for count in (5, 2, 0, 3):
        assert engine.run(SQL, {"t": numbers(count)}, {"least": 0}).to_pylist()[0]["c"] == count


def test_moments_and_macros_reach_a_kept_statement() -> None:
    made = engine.run(
        "SELECT later(n) < $end::TIMESTAMP AS yes FROM t",
        {"t": numbers(2)},
        {"end": datetime(2020, 1, 2, 0, 0, 0, 5)},  # noqa: DTZ001 - UTC without a zone
        setup="CREATE TEMP MACRO later(n) AS TIMESTAMP '2020-01-01 12:00:00' + to_days(n::INTEGER)",
    )
    assert made.column("yes").to_pylist() == [True, False]


@pytest.mark.parametrize("rows", [1, 30_000])
def test_a_query_that_needs_too_much_names_the_setting(rows: int) -> None:
    limits = LakeSettings(memory_limit="30MB", threads=1)
    sql = "SELECT * FROM t, range(10000000) r(i) ORDER BY hash(i), n"
    with pytest.raises(Unavailable, match=r"lake\.memory_limit"):
        engine.run(sql, {"t": numbers(rows)}, limits=limits)
    assert engine.run("SELECT count(*) AS c FROM t", {"t": numbers(3)}, limits=limits).to_pylist() == [{"c": 3}]


@pytest.mark.parametrize("sql", ["SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM '/etc/hostname'"])
def test_files_are_out_of_reach(sql: str) -> None:
    with pytest.raises(duckdb.Error), engine.connect() as connection:
        connection.sql(sql).to_arrow_table()


@pytest.mark.parametrize("setting", ["temp_directory = '/tmp'", "enable_external_access = true", "threads = 8"])
def test_settings_are_locked(setting: str) -> None:
    with pytest.raises(duckdb.Error), engine.connect() as connection:
        connection.sql(f"SET {setting}")


def test_python_variables_are_not_tables() -> None:
    mine = numbers(1)
    with pytest.raises(duckdb.CatalogException), engine.connect() as connection:
        connection.sql("SELECT * FROM mine").to_arrow_table()
    assert len(mine) == 1
