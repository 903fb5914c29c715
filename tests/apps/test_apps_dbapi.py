"""`carelake.connect`: PEP 249 as it says, rows that are run for when they are fetched, one act for each statement."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import date
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from tests.apps.asked import PATIENTS, SECRET, filled, own_workspace

import carelake
from carelake.apps import dbapi
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts

MANY = "SELECT a.range AS n, 'x' AS t FROM range({}) a"
ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dbapi")
    with own_workspace(place) as workspace:
        filled(workspace)
    return place


@pytest.fixture(scope="module")
def key(folder: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARELAKE_KEY_DIR", str(folder / "keys"))
        yield folder / "workspace"


@pytest.fixture(scope="module")
def way(key: Path) -> Iterator[dbapi.Connection]:
    with carelake.connect(key) as made:
        yield made


@pytest.fixture
def cursor(way: dbapi.Connection) -> Iterator[dbapi.Cursor]:
    with way.cursor() as made:
        yield made


def acts(way: dbapi.Connection) -> list[dict[str, Any]]:
    """What the trail has of statements, oldest first."""
    workspace: Any = way._workspace
    with workspace.vault.database.ledger_reading() as connection:
        return list(reversed(Acts(connection).find(limit=1000, action="lake:query")))


def test_the_module_is_one_of_pep_249() -> None:
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 1, "qmark")
    for name in ("InterfaceError", "DatabaseError"):
        assert issubclass(getattr(dbapi, name), dbapi.Error)
    for name in ("DataError", "OperationalError", "IntegrityError", "InternalError", "ProgrammingError"):
        assert issubclass(getattr(dbapi, name), dbapi.DatabaseError)
        assert getattr(dbapi.Connection, name) is getattr(dbapi, name)
    assert not issubclass(dbapi.Warning, dbapi.Error)
    assert dbapi.Date(2020, 1, 2) == date(2020, 1, 2)
    assert dbapi.Binary(b"x") == b"x"
    moment = dbapi.TimestampFromTicks(86_400 * 400)
    assert (dbapi.DateFromTicks(86_400 * 400), dbapi.TimeFromTicks(86_400 * 400)) == (moment.date(), moment.time())


def test_rows_are_fetched_in_order(cursor: dbapi.Cursor) -> None:
    cursor.execute("SELECT id, gender FROM Patient ORDER BY id")
    assert [one[0] for one in cursor.description or ()] == ["id", "gender"]
    assert (cursor.description or [])[0][1] == dbapi.STRING
    assert cursor.rowcount == -1
    assert cursor.fetchone() == ("p0", "female")
    assert cursor.fetchmany() == [("p1", "female")]
    cursor.arraysize = 3
    assert [row[0] for row in cursor.fetchmany()] == ["p10", "p11", "p12"]
    assert len(cursor.fetchmany(2)) == 2
    assert len(list(cursor)) == PATIENTS - 7
    assert (cursor.fetchone(), cursor.fetchmany(5), cursor.fetchall(), cursor.rowcount) == (None, [], [], PATIENTS)
    cursor.execute("SELECT 1 WHERE false")
    assert (cursor.fetchall(), cursor.rowcount) == ([], 0)


def test_values_have_their_types(cursor: dbapi.Cursor) -> None:
    cursor.execute(
        "SELECT 1::TINYINT, 1.10::DECIMAL(4,2), DATE '2020-01-02', 'x'::BLOB, NULL, [1, 2], {'a': 1}, true"
    )
    assert cursor.fetchone() == (1, Decimal("1.10"), date(2020, 1, 2), b"x", None, [1, 2], {"a": 1}, True)
    said = [one[1] for one in cursor.description or ()]
    assert said[:2] == [dbapi.NUMBER, dbapi.NUMBER]
    assert said[2:4] == [dbapi.DATETIME, dbapi.BINARY]
    assert said[0] != dbapi.STRING
    assert said[0] != dbapi.ROWID


def test_columns_of_one_name_stay_apart(cursor: dbapi.Cursor) -> None:
    assert cursor.execute("SELECT 1 AS a, 2 AS a").fetchall() == [(1, 2)]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT count(*) FROM Observation WHERE patient = ? AND code = ?", ["p1", "718-7"]),
        ("SELECT count(*) FROM Observation WHERE patient = $1 AND code = $2", ("p1", "718-7")),
        ("SELECT count(*) FROM Observation WHERE patient = $who AND code = $what", {"who": "p1", "what": "718-7"}),
        ("SELECT count(*) FROM Observation WHERE list_contains(?, patient) AND time > ?", [["p1"], "2000-01-01"]),
    ],
)
def test_parameters_are_bound(cursor: dbapi.Cursor, text: str, parameters: Any) -> None:
    assert cursor.execute(text, parameters).fetchone() == (3,)


@pytest.mark.parametrize("value", ["x' OR 1=1 --", "'; DROP TABLE Patient; --", "$$", "p1' OR '1'='1", '"', "\\'; x"])
def test_a_value_is_never_text(cursor: dbapi.Cursor, value: str) -> None:
    assert cursor.execute("SELECT count(*) FROM Patient WHERE id = ?", [value]).fetchone() == (0,)
    assert cursor.execute("SELECT $v", {"v": value}).fetchone() == (value,)


@pytest.mark.parametrize(
    "value", [object(), {"a": 1}, pa.table({"a": [1]}), [[[[[1]]]]], Path("/x"), "x" * 2_000_000]
)
def test_only_plain_values_are_bound(cursor: dbapi.Cursor, value: Any) -> None:
    with pytest.raises(dbapi.ProgrammingError) as found:
        cursor.execute("SELECT ?", [value])
    assert found.value.code == "lake.parameter"


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT ?", None),
        ("SELECT ?", [1, 2]),
        ("SELECT $a", {"b": 1}),
        ("SELECT 1; SELECT 2", None),
        ("DROP TABLE Patient", None),
        ("INSERT INTO Patient VALUES (1)", None),
        ("SELECT * FROM read_text('/etc/hostname')", None),
        (f"SELECT {SECRET} FROM Patient", None),
        (f"SELECT CAST('{SECRET}' AS INTEGER)", None),
        ("SELECT \ud800", None),
    ],
)
def test_what_is_refused_says_no_value(cursor: dbapi.Cursor, text: str, parameters: Any) -> None:
    with pytest.raises(dbapi.ProgrammingError) as found:
        cursor.execute(text, parameters).fetchall()
    assert found.value.code.startswith("lake.")
    assert SECRET not in str(found.value)
    with pytest.raises(dbapi.ProgrammingError):
        cursor.execute("SELECT a, CAST(name AS VARCHAR) FROM Patient").fetchall()


def test_an_error_in_the_middle_says_no_value(cursor: dbapi.Cursor) -> None:
    cursor.execute(
        "SELECT CASE WHEN range < 20000 THEN 1 ELSE CAST(? || 'x' AS INTEGER) END FROM range(30000)", [SECRET]
    )
    with pytest.raises(dbapi.ProgrammingError) as found:
        cursor.fetchall()
    assert SECRET not in str(found.value)
    with pytest.raises(dbapi.ProgrammingError):  # what was fetched is not all
        cursor.fetchall()


def test_what_is_closed_is_told(key: Path, way: dbapi.Connection) -> None:
    cursor = way.cursor()
    with pytest.raises(dbapi.ProgrammingError):
        cursor.fetchone()
    cursor.close()
    cursor.close()
    with pytest.raises(dbapi.InterfaceError):
        cursor.execute("SELECT 1")
    with carelake.connect(key) as other:
        left = other.execute("SELECT 1")
        other.commit()
        with pytest.raises(dbapi.NotSupportedError):
            other.rollback()
        with pytest.raises(dbapi.NotSupportedError):
            left.executemany("SELECT ?", [[1], [2]])
    other.close()
    for call in (other.cursor, other.commit, left.fetchall):
        with pytest.raises(dbapi.InterfaceError):
            call()


def test_frames(cursor: dbapi.Cursor, way: dbapi.Connection) -> None:
    cursor.execute("SELECT patient, count(*) AS n FROM Observation GROUP BY ALL ORDER BY ALL")
    assert cursor.fetchone() == ("p0", 3)
    table = cursor.arrow()
    assert (table.column_names, len(table), cursor.rowcount) == (["patient", "n"], PATIENTS - 1, PATIENTS)
    frame = way.execute("SELECT id FROM Patient").polars()
    assert frame.shape == (PATIENTS, 1)
    read = pl.read_database("SELECT id, gender FROM Patient", connection=way)  # what knows no more than PEP 249
    assert read.shape == (PATIENTS, 2)
    with pytest.raises(dbapi.OperationalError, match="pip install pandas") as found:
        way.execute("SELECT 1").pandas()
    assert found.value.code == "apps.no_pandas"


def test_rows_are_not_held(cursor: dbapi.Cursor) -> None:
    """Ten million rows go by, of which a batch at a time is there."""
    before = pa.total_allocated_bytes()
    most = rows = 0
    for batch in cursor.execute(MANY.format(10_000_000)).batches():
        rows += len(batch)
        most = max(most, pa.total_allocated_bytes() - before, batch.nbytes)
    assert rows == 10_000_000
    assert most < 8 << 20
    assert cursor.rowcount == rows


def test_a_statement_is_cancelled_by_another_thread(cursor: dbapi.Cursor) -> None:
    timer = threading.Timer(0.3, cursor.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(dbapi.OperationalError) as found:
        cursor.execute(ENDLESS).fetchall()
    assert found.value.code == "lake.cancelled"
    assert time.monotonic() - began < 10
    assert cursor.execute("SELECT 1").fetchone() == (1,)
    cursor.execute(MANY.format(10_000_000))
    assert cursor.fetchone() == (0, "x")
    cursor.cancel()
    with pytest.raises(dbapi.OperationalError):
        cursor.fetchall()


@pytest.mark.parametrize(
    ("setting", "value", "text", "code"),
    [
        ("SECONDS", "0.5", ENDLESS, "lake.too_long"),
        ("RESULT_BYTES", "1000000", MANY.format(10_000_000), "lake.too_large"),
        ("MEMORY_LIMIT", "40MB", "SELECT len(list(range)) FROM range(500000000)", "lake.memory"),
    ],
)
def test_limits_end_a_statement(key: Path, setting: str, value: str, text: str, code: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"CARELAKE_LAKE__{setting}", value)
        with carelake.connect(key) as way:
            began = time.monotonic()
            with pytest.raises(dbapi.OperationalError) as found:
                way.execute(text).fetchall()
            assert found.value.code == code
            assert time.monotonic() - began < 20
            assert way.execute("SELECT 1").fetchall() == [(1,)]


def test_each_statement_is_one_act(way: dbapi.Connection) -> None:
    before = len(acts(way))
    way.execute("SELECT id FROM Patient").fetchall()
    way.execute("SELECT id FROM Patient").close()
    with pytest.raises(dbapi.ProgrammingError):
        way.execute(f"SELECT {SECRET}")
    found = acts(way)[before:]
    assert [one["phase"] for one in found] == ["start", "done", "start", "done", "start", "failed"]
    assert len({one["correlation"] for one in found}) == 3
    whole, part, failed = found[1], found[3], found[5]
    assert whole["counts"] == {"rows": PATIENTS}
    assert part["changed"]["read"] == "in part"
    assert whole["changed"]["statement"] == part["changed"]["statement"]
    assert whole["changed"]["statement"].startswith("statement:")
    assert failed["error"] == "lake.sql"
    assert SECRET not in repr(found)
    assert whole["read"][0].startswith("snapshot:")


def test_who_may_not_gets_nothing(key: Path) -> None:
    with pytest.raises(dbapi.OperationalError) as found:
        carelake.connect(key, principal="nobody")
    assert found.value.code == "access.unknown_principal"
    with carelake.connect(key, principal="auditor") as way, pytest.raises(dbapi.OperationalError) as found:
        way.execute("SELECT 1")
    assert found.value.code == "access.denied"
    with carelake.connect(key, principal="doctor", purpose="TREAT") as way:
        assert way.execute("SELECT count(*) FROM Patient").fetchone() == (PATIENTS,)
    with pytest.raises(dbapi.ProgrammingError) as wrong:
        carelake.connect(key / "nowhere")
    assert wrong.value.code == "apps.no_workspace"


def test_it_is_as_it_was_or_fresh(tmp_path: Path) -> None:
    with own_workspace(tmp_path) as workspace, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARELAKE_KEY_DIR", str(tmp_path / "keys"))
        filled(workspace)
        with carelake.connect(tmp_path / "workspace") as way:
            snapshot = acts(way) or way.execute("SELECT 1").fetchall()
            add_patient(workspace)
            assert way.execute("SELECT count(*) FROM Patient").fetchone() == (PATIENTS,)
        with carelake.connect(tmp_path / "workspace", fresh=True) as way:
            assert way.execute("SELECT count(*) FROM Patient").fetchone() == (PATIENTS + 1,)
            (first, *_) = [one["read"][0] for one in acts(way) if "read" in one]
        with carelake.connect(tmp_path / "workspace", as_of=first) as way:
            assert way.execute("SELECT count(*) FROM Patient").fetchone() == (PATIENTS,)
        assert snapshot


def add_patient(workspace: Workspace) -> None:
    from tests.apps.asked import patient
    from tests.apps.served import fill

    fill(workspace, patient(99))


def test_cursors_beside_each_other(way: dbapi.Connection) -> None:
    """Each has its own statement and act; they need not end in the order in which they began."""
    before = len(acts(way))
    one, other = (way.execute("SELECT range AS n FROM range(30000)") for _ in range(2))
    assert (one.fetchone(), other.fetchmany(2), one.fetchone()) == ((0,), [(0,), (1,)], (1,))
    assert len(one.fetchall()) == 29_998
    assert len(other.fetchall()) == 29_998
    found = acts(way)[before:]
    assert [one["phase"] for one in found] == ["start", "start", "done", "done"]
    assert found[0]["correlation"] == found[2]["correlation"] != found[3]["correlation"]


def test_moments_beyond_pythons_years_are_text(cursor: dbapi.Cursor) -> None:
    cursor.execute("SELECT DATE '20000-01-01' AS d, [TIME_NS '10:00:00.000000001'] AS t FROM Patient LIMIT 1")
    assert cursor.fetchall() == [("20000-01-01", [time_of_day(10)])]


def test_after_an_error_the_rows_do_not_just_end(cursor: dbapi.Cursor) -> None:
    cursor.execute("SELECT id FROM Patient")
    cursor.cancel()
    for _ in range(2):
        with pytest.raises(dbapi.DatabaseError):
            cursor.fetchall()


def test_fewer_than_no_rows_are_not_fetched(cursor: dbapi.Cursor) -> None:
    with pytest.raises(dbapi.ProgrammingError):
        cursor.execute("SELECT id FROM Patient").fetchmany(-1)
