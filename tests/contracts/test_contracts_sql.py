"""The port of the database: one behaviour, whichever driver is behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import BigInteger, Boolean, Column, Float, LargeBinary, MetaData, Table, Text, func, insert, select

from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Corrupt, Invalid, Refused, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.database import Database, bulk, metadata, scope_of
from carelake.vault.sql.postgres import Postgres
from carelake.vault.sql.sqlcipher import Sqlcipher
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
TABLE = Table(
    "thing",
    MetaData(),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("text", Text),
    Column("real", Float),
    Column("blob", LargeBinary),
    Column("flag", Boolean),
)
INSERT = "INSERT INTO thing (n) VALUES (?)"


@pytest.fixture(params=["sqlcipher", "postgres"])
def settings(request: pytest.FixtureRequest) -> Settings:
    database = request.getfixturevalue("postgres") if request.param == "postgres" else None
    return Settings(workspace="w1") if database is None else Settings(workspace="w1", database=database)


@pytest.fixture
def vault(settings: Settings, tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    made = Vault.create(tmp_path / "ws", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
    with made:
        with made.database.ledger() as connection:
            TABLE.create(connection)
        yield made


@pytest.fixture
def rows(permit_for: PermitFor) -> Permit:
    return permit_for("rows:read", "rows:write", "lake:read", "lake:write", "vault:verify")


def count(vault: Vault, permit: Permit) -> int:
    with vault.database.reading(permit) as connection:
        return connection.scalar(select(func.count()).select_from(TABLE)) or 0


def impatient(vault: Vault, clock: FixedClock) -> Database:
    if vault.settings.database.url:
        return Database(Postgres(vault.settings.database, busy_seconds=0.05), clock)
    return Database(Sqlcipher(vault.root / "carelake.db", vault.keyring.database_key(), busy_seconds=0.05), clock)


def test_the_dialect_is_told(vault: Vault) -> None:
    assert vault.database.dialect == ("postgresql" if vault.settings.database.url else "sqlite")
    assert (vault.root / "carelake.db").exists() == (vault.database.dialect == "sqlite")


def test_a_transaction_commits_whole_or_not_at_all(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        bulk(connection, INSERT, [(1,), (2,)])
        bulk(connection, INSERT, [])
    assert (count(vault, rows), rows.log.flushes) == (2, 1)  # type: ignore[attr-defined]

    def fail() -> None:
        with vault.database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": 3})
            raise ZeroDivisionError

    for _ in range(12):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert count(vault, rows) == 2


def test_permits_are_asked_for(vault: Vault, permit_for: PermitFor) -> None:
    for context in (vault.database.transaction, vault.database.reading):
        with pytest.raises(Refused):
            context(permit_for("lake:read")).__enter__()


def test_values_come_back_as_they_went(vault: Vault, rows: Permit) -> None:
    said = [
        (1, "plain\ttab\\N\nline", 0.1, b"\x00\xff\\", True),
        (2, "", -1e300, b"", False),
        (2**62, "Ünïcode \U0001f600 \\.", 5e-324, bytes(range(256)), None),
        (4, None, None, None, None),
        (5, "\\N", 1.0, b"\\N", True),
    ]
    with vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n, text, real, blob, flag) VALUES (?, ?, ?, ?, ?)", said)
    with vault.database.reading(rows) as connection:
        found = connection.execute(select(TABLE).order_by(TABLE.c.n)).all()
    assert sorted(tuple(row) for row in found) == sorted(said)


def test_bulk_takes_any_statement(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n, text) VALUES (?, ?)", [(n, "100%") for n in range(10)])
        bulk(connection, "UPDATE thing SET text = ? WHERE n = ?", [("odd", n) for n in range(1, 10, 2)])
        bulk(connection, "DELETE FROM thing WHERE n = ? AND text <> '%'", [(n,) for n in range(5)])
        again = "INSERT INTO thing (n, text) VALUES (?, ?) ON CONFLICT (n) DO UPDATE SET text = excluded.text"
        bulk(connection, again, [(n, "new") for n in range(7, 12)])
    with vault.database.reading(rows) as connection:
        found = dict(connection.execute(select(TABLE.c.n, TABLE.c.text)).all())
    assert found == {5: "odd", 6: "100%", **dict.fromkeys(range(7, 12), "new")}


def test_a_reading_is_one_snapshot_and_cannot_write(vault: Vault, rows: Permit) -> None:
    with vault.database.reading(rows) as connection:
        with vault.database.transaction(rows) as writer:
            writer.execute(insert(TABLE), {"n": 1})
            with vault.database.reading(rows) as inner:
                assert inner.scalar(select(func.count()).select_from(TABLE)) == 1
        assert count(vault, rows) == 0
        with pytest.raises(Invalid) as caught:
            connection.execute(insert(TABLE), {"n": 2})
        assert caught.value.code == "vault.read_only"
    assert count(vault, rows) == 1
    for _ in range(12):  # the pooled connection of the reading writes again
        with vault.database.transaction(rows) as writer:
            writer.execute(sqlalchemy.delete(TABLE))
        assert count(vault, rows) == 0


def test_nested_writes_are_refused_at_once(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        for context in (vault.database.transaction(rows), vault.database.ledger()):
            with pytest.raises(Conflict) as caught:
                context.__enter__()
            assert caught.value.code == "vault.nested"
        connection.execute(insert(TABLE), {"n": 1})
    assert count(vault, rows) == 1


def test_one_statement_is_a_transaction_of_its_own(vault: Vault, rows: Permit) -> None:
    database, add = vault.database, "INSERT INTO thing (n) VALUES (?) RETURNING n"
    assert list(map(tuple, database.ledger_at_once(add, 1))) == [(1,)]
    assert list(map(tuple, database.ledger_rows("SELECT n FROM thing WHERE n > ?", 0))) == [(1,)]
    for _ in range(7):  # also when the driver has come to prepare it
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            database.ledger_at_once(add, 1)
    with database.ledger(), pytest.raises(Conflict) as caught:
        database.ledger_at_once(add, 2)
    assert (caught.value.code, count(vault, rows)) == ("vault.nested", 1)


def test_what_follows_a_shared_snapshot_is_done_when_all_is_read(vault: Vault, rows: Permit) -> None:
    database, add, seen = vault.database, "INSERT INTO thing (n) VALUES (?) RETURNING n", []

    def then() -> None:
        database.ledger_at_once(add, len(seen))  # on PostgreSQL this ends the snapshot, too
        seen.append(count(vault, rows))
        database.ledger_at_once(add, -len(seen))
        with database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": 1000 + len(seen)})

    for number in range(8):
        with database.together(then=then):
            assert count(vault, rows) == 3 * number
            assert len(seen) == number
        assert seen[number] == 3 * number + 1, "what was written is not seen"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), database.together(then=then):
            raise error
    with (
        pytest.raises(sqlalchemy.exc.IntegrityError),
        database.together(then=lambda: database.ledger_at_once(add, 0)),
    ):
        assert count(vault, rows) == 24
    assert (count(vault, rows), len(seen)) == (24, 8)
    with database.together(then=then):
        pass
    assert count(vault, rows) == 27


def test_objects_and_savepoints_take_part(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        vault.objects.put(rows, "lake", "kept", b"kept")
        savepoint = connection.begin_nested()
        before = scope_of(connection).generation
        connection.execute(insert(TABLE), {"n": 1})
        savepoint.rollback()
        assert scope_of(connection).generation > before
    assert count(vault, rows) == 0
    assert vault.objects.get(rows, "lake", "kept") == b"kept"


def test_the_epoch_is_of_the_snapshot(vault: Vault, rows: Permit) -> None:
    with vault.database.reading(rows) as before:
        with vault.database.ledger() as connection:
            connection.exec_driver_sql("UPDATE vault_epoch SET epoch = epoch + 1")
        assert scope_of(before).epoch == 0
    with vault.database.reading(rows) as after:
        assert scope_of(after).epoch == 1


def test_a_busy_database_says_so(vault: Vault, rows: Permit, clock: FixedClock) -> None:
    other = impatient(vault, clock)
    codes: list[str] = []

    def expect_busy() -> None:
        with pytest.raises(Unavailable) as caught:
            other.transaction(rows).__enter__()
        codes.append(caught.value.code)

    with vault.database.transaction(rows):
        thread = threading.Thread(target=expect_busy)
        thread.start()
        thread.join()
    assert codes == ["vault.busy"]
    with other.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 1})
    other.close()
    assert count(vault, rows) == 1


def test_writers_are_served_one_after_another(vault: Vault, rows: Permit) -> None:
    """Each reads the highest number and adds the next: with two at once, one would fail or be lost."""

    def work() -> None:
        for _ in range(15):
            with vault.database.transaction(rows) as connection:
                last = connection.scalar(select(func.coalesce(func.max(TABLE.c.n), 0))) or 0
                connection.execute(insert(TABLE), {"n": last + 1})
            seen.append(count(vault, rows))

    seen: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(vault, rows) == 60
    assert max(seen) == 60


def test_a_reading_waits_for_no_writer(vault: Vault, rows: Permit) -> None:
    took: list[float] = []

    def read() -> None:
        start = time.perf_counter()
        with vault.database.ledger_reading() as connection:
            assert connection.scalar(select(func.count()).select_from(TABLE)) == 0
        took.append(time.perf_counter() - start)

    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 1})
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert took[0] < 2


def test_errors_hold_no_values(vault: Vault, rows: Permit) -> None:
    def write(statement: Any, said: Any) -> None:
        with vault.database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": 1, "text": "Zebulon"})
            connection.execute(sqlalchemy.text(statement), said)

    def broken(statement: Any, said: Any) -> str:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            write(statement, said)
        return f"{caught.value!s} {caught.value!r} {caught.value.orig!r} {caught.value.__cause__!r}"

    unknown = broken("INSERT INTO nowhere VALUES (:name)", {"name": "Zebulon"})
    twice = broken("INSERT INTO thing (n, text) VALUES (:n, :name)", {"n": 1, "name": "Zebulon"})
    assert "Zebulon" not in unknown + twice
    assert "(1)" not in twice
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught, vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), [{"n": 7}, {"n": 7}])
    assert "7" not in str(caught.value.orig)


def test_a_failed_bulk_holds_no_values(vault: Vault, rows: Permit) -> None:
    named = [(n, "Zebulon") for n in (1, 2, 3, 4, 1)]
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught, vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n, text) VALUES (?, ?)", named)
    assert "Zebulon" not in f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r}"
    assert count(vault, rows) == 0


def test_texts_are_compared_by_code_point(vault: Vault, rows: Permit) -> None:
    words = ["B", "a", "Z", "é", "e", "_", "ß", "0", "\U0001f600", "a b", "ab"]
    with vault.database.transaction(rows) as connection:
        table = Table("word", MetaData(), Column("text", Text, primary_key=True))
        table.create(connection)
        bulk(connection, "INSERT INTO word (text) VALUES (?)", [(word,) for word in words])
        found = list(connection.scalars(select(table.c.text).order_by(table.c.text)))
    assert found == sorted(words)


def test_the_engine_for_libraries_runs_its_own_transactions(vault: Vault, rows: Permit) -> None:
    engine = vault.database.engine_for(rows)
    assert engine.url.password is None
    assert engine.url.username is None
    with engine.begin() as connection:
        connection.execute(insert(TABLE), {"n": 1})
    with engine.connect() as connection:
        connection.execute(insert(TABLE), {"n": 2})
        connection.rollback()
    assert count(vault, rows) == 1


def test_nothing_is_damaged(vault: Vault, rows: Permit) -> None:
    assert vault.database.damage(rows) == ""


def test_a_database_knows_its_workspace(vault: Vault) -> None:
    vault.database.check_workspace("w1")
    with pytest.raises(Corrupt) as caught:
        vault.database.check_workspace("w2")
    assert caught.value.code == "vault.workspace_mismatch"
    assert {"patient_key", "vault_epoch"} <= set(metadata.tables)


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)  # never sqlcipher: its file is its folder's own
def test_the_same_database_is_not_made_twice(vault: Vault, tmp_path: Path, clock: FixedClock) -> None:
    settings = msgspec.structs.replace(vault.settings, workspace="w2")
    with pytest.raises(Conflict) as caught:
        Vault.create(tmp_path / "ws2", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
    assert caught.value.code == "vault.exists"
