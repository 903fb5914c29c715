"""Transactions, snapshots, several threads and processes, kills, and a damaged file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.vault.database import Database, bounded, bulk, scope_of
from carelake.vault.sql.postgres import has_password, without_password
from carelake.vault.sql.sqlcipher import Sqlcipher
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
TABLE = Table("thing", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture
def rows(permit_for: PermitFor, vault: Vault) -> Permit:
    with vault.database.ledger() as connection:
        TABLE.create(connection)
    return permit_for("rows:read", "rows:write", "lake:read", "lake:write")


def count(vault: Vault, permit: Permit) -> int:
    with vault.database.reading(permit) as connection:
        return connection.scalar(select(func.count()).select_from(TABLE)) or 0


def test_a_transaction_flushes_acts_and_commits_or_rolls_back(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n) VALUES (?)", [(1,), (2,)])
        bulk(connection, "INSERT INTO thing (n) VALUES (?)", [])
    assert (count(vault, rows), rows.log.flushes) == (2, 1)  # type: ignore[attr-defined]

    def fail() -> None:
        with vault.database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": 3})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (count(vault, rows), rows.log.flushes) == (2, 1)  # type: ignore[attr-defined]


def test_an_act_that_cannot_be_written_undoes_the_data(vault: Vault, rows: Permit, permit_for: PermitFor) -> None:
    class Broken:
        def flush(self, connection: Any) -> None:
            raise ZeroDivisionError

    def fail() -> None:
        broken = permit_for("rows:write", log=Broken())
        with vault.database.transaction(broken) as connection:
            connection.execute(insert(TABLE), {"n": 1})

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count(vault, rows) == 0


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
    for _ in range(3):  # the pooled connection of the reading writes again
        with vault.database.transaction(rows) as writer:
            writer.execute(sqlalchemy.delete(TABLE))


def test_nested_writes_are_refused_at_once(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        for context in (vault.database.transaction(rows), vault.database.ledger()):
            with pytest.raises(Conflict) as caught:
                context.__enter__()
            assert caught.value.code == "vault.nested"
        connection.execute(insert(TABLE), {"n": 1})
    assert count(vault, rows) == 1


def test_objects_take_part_in_the_transaction(vault: Vault, rows: Permit) -> None:
    vault.objects.put(rows, "lake", "old", b"old")

    def fail() -> None:
        with vault.database.transaction(rows):
            vault.objects.put(rows, "lake", "new", b"new")
            vault.objects.put(rows, "lake", "old", b"changed")
            assert vault.objects.get(rows, "lake", "new") == b"new"
            vault.objects.delete(rows, "lake", "old")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [each.name for each in vault.objects.list(rows, "lake")] == ["old"]
    assert vault.objects.get(rows, "lake", "old") == b"old"
    assert len([path for path in (vault.root / "vault/production").rglob("*") if path.is_file()]) == 1
    with vault.database.transaction(rows):
        vault.objects.put(rows, "lake", "new", b"new")
    assert vault.objects.get(rows, "lake", "new") == b"new"


def test_an_object_written_during_a_reading_is_found(vault: Vault, rows: Permit) -> None:
    with vault.database.reading(rows):
        vault.objects.put(rows, "lake", "a", b"x")
        assert vault.objects.get(rows, "lake", "a") == b"x"


def test_an_object_that_a_savepoint_undid_is_swept(
    vault: Vault, rows: Permit, clock: FixedClock, tmp_path: Path
) -> None:
    with vault.database.transaction(rows) as connection:
        savepoint = connection.begin_nested()
        vault.objects.put(rows, "lake", "a", b"x")
        savepoint.rollback()
    vault.close()
    with Vault.open(vault.root, settings=vault.settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()):
        assert not [path for path in (vault.root / "vault/production").rglob("*") if path.is_file()]


def test_threads_write_and_read_together(vault: Vault, rows: Permit) -> None:
    def work(start: int) -> None:
        for number in range(start, start + 10):
            with vault.database.transaction(rows) as connection:
                connection.execute(insert(TABLE), {"n": number})
            assert count(vault, rows) > 0

    threads = [threading.Thread(target=work, args=(10 * index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(vault, rows) == 60


def test_a_suspended_reading_does_not_leak_into_another_thread(vault: Vault, rows: Permit) -> None:
    def stream() -> Iterator[int]:
        with vault.database.reading(rows) as connection:
            yield from connection.scalars(select(TABLE.c.n))

    with vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n) VALUES (?)", [(n,) for n in range(3)])
    running = stream()
    assert next(running) == 0
    rest: list[int] = []
    thread = threading.Thread(target=lambda: rest.extend(running))
    thread.start()
    thread.join()
    assert rest == [1, 2]
    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 9})
    assert count(vault, rows) == 4


def test_a_foreign_connection_is_not_taken(vault: Vault) -> None:
    with sqlalchemy.create_engine("sqlite://").connect() as connection, pytest.raises(Invalid):
        scope_of(connection)


def test_a_busy_database_says_so(vault: Vault, rows: Permit, clock: FixedClock) -> None:
    driver = Sqlcipher(vault.root / "carelake.db", vault.keyring.database_key(), busy_seconds=0.05)
    impatient = Database(driver, clock)
    with vault.database.transaction(rows):
        context = impatient.transaction(rows)
        thread = threading.Thread(target=_expect_busy, args=(context,))
        thread.start()
        thread.join()
    with impatient.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 1})
    impatient.close()
    assert count(vault, rows) == 1


def _expect_busy(context: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        context.__enter__()
    assert caught.value.code == "vault.busy"


def test_errors_hold_no_values(vault: Vault, rows: Permit) -> None:
    with vault.database.transaction(rows) as connection:
        with pytest.raises(sqlalchemy.exc.DBAPIError) as caught:
            connection.execute(sqlalchemy.text("INSERT INTO nowhere VALUES (:name)"), {"name": "Zebulon"})
        assert "Zebulon" not in str(caught.value)


def read_all(database: Database, permit: Permit) -> None:
    with database.reading(permit) as connection:
        for table in ("thing", "object_version", "patient_key"):
            connection.exec_driver_sql(f"SELECT count(*) FROM {table}").all()
        connection.exec_driver_sql("PRAGMA integrity_check").all()


def test_a_damaged_or_foreign_or_missing_database_is_said(
    vault: Vault, rows: Permit, clock: FixedClock, capfd: pytest.CaptureFixture[str]
) -> None:
    with vault.database.transaction(rows) as connection:
        bulk(connection, "INSERT INTO thing (n) VALUES (?)", [(n,) for n in range(20000)])
    vault.database.close()
    path = vault.root / "carelake.db"
    good = path.read_bytes()
    # Of a page that is free by chance nothing is ever read: not one page is hurt, but each of a quarter of them.
    quarter = len(good) // 4
    for places in ([20], range(quarter, 2 * quarter, 4096), range(2 * quarter, 3 * quarter, 4096)):
        bad = bytearray(good)
        for at in places:
            bad[at] ^= 1
        path.write_bytes(bad)
        damaged = Database(Sqlcipher(path, vault.keyring.database_key()), clock)
        with pytest.raises(Corrupt) as caught:
            read_all(damaged, rows)
        assert caught.value.code == "vault.database"
        damaged.close()
    path.write_bytes(good)
    stranger = Database(Sqlcipher(path, b"x" * 32), clock)
    with pytest.raises(Corrupt):
        stranger.reading(rows).__enter__()
    stranger.close()
    path.unlink()
    with pytest.raises(Unavailable, match="missing"):
        Database(Sqlcipher(path, b"x" * 32), clock)
    path.write_bytes(good)
    assert capfd.readouterr() == ("", "")


# -- processes ----------------------------------------------------------------------------------------------------


def _write_many(vault: Vault, permit: Permit, start: int, settled: Any) -> None:
    settled.wait()
    for number in range(start, start + 40):
        with vault.database.transaction(permit) as connection:
            connection.execute(insert(TABLE), {"n": number})


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_write_at_once_and_forks_do_not_share_connections(vault: Vault, rows: Permit) -> None:
    fork = multiprocessing.get_context("fork")
    settled = fork.Event()
    assert count(vault, rows) == 0  # there is a pooled connection to inherit
    children = [fork.Process(target=_write_many, args=(vault, rows, start, settled)) for start in (0, 1000)]
    for child in children:
        child.start()
    settled.set()
    for number in range(2000, 2020):
        with vault.database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": number})
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert count(vault, rows) == 100


KILLED = """
    import sys, time
    from datetime import UTC, datetime, timedelta
    from pathlib import Path
    from carelake.core.clock import SystemClock
    from carelake.core.ids import RandomIds
    from carelake.core.permit import mint
    from carelake.core.settings import ObjectSettings, Settings
    from carelake.vault.workspace import Vault

    class Log:
        def key(self, name): pass
        def flush(self, connection): pass

    root, keys = map(Path, sys.argv[1:])
    clock = SystemClock()
    said = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=0))
    vault = Vault.open(root, settings=said, key_dir=keys, clock=clock, ids=RandomIds())
    permit = mint(act="a", principal="t", account="production", purpose="TREAT", action="x", target="t", scope=(),
                  grants=["lake:write", "rows:write"], expires=clock.now() + timedelta(hours=1), log=Log())
    vault.objects.put(permit, "lake", "whole", b"whole")
    half = vault.objects.create(permit, "lake", "half")
    half.write(b"x" * 5_000_000)
    with vault.database.transaction(permit) as connection:
        vault.objects.put(permit, "lake", "uncommitted", b"x")
        print("ready", flush=True)
        time.sleep(60)
"""


def test_kill_9_leaves_no_half_object(vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path) -> None:
    vault.close()
    files = tmp_path / "ws" / "vault" / "production"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(vault.root), str(tmp_path / "keys")],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    said: dict[str, Any] = {
        "settings": vault.settings,
        "key_dir": tmp_path / "keys",
        "clock": clock,
        "ids": RandomIds(),
    }
    with Vault.open(vault.root, **said):
        # Somebody is writing: nothing may be swept under their hands.
        assert len([path for path in files.rglob("*") if path.is_file()]) == 3
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    permit = permit_for("lake:read", "vault:verify")
    with Vault.open(vault.root, **said) as again:
        assert [each.name for each in again.objects.list(permit, "lake")] == ["whole"]
        assert again.objects.get(permit, "lake", "whole") == b"whole"
        assert len([path for path in files.rglob("*") if path.is_file()]) == 1
        assert list(again.objects.verify(permit)) == []
    assert [path.name for path in (vault.root / "vault").glob(".open-*")] == []


def test_opening_is_quick(vault: Vault, clock: FixedClock, tmp_path: Path) -> None:
    start = time.perf_counter()
    said: dict[str, Any] = {
        "settings": vault.settings,
        "key_dir": tmp_path / "keys",
        "clock": clock,
        "ids": RandomIds(),
    }
    with Vault.open(vault.root, **said):
        assert time.perf_counter() - start < 0.2


def test_a_fault_after_a_commit_neither_undoes_it_nor_keeps_the_rest_from_happening(
    vault: Vault, rows: Permit
) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("fails")
        raise OSError("Zebulon")

    def interrupt() -> None:
        raise KeyboardInterrupt

    def write(number: int, *calls: Callable[[], object], fault: BaseException | None = None) -> None:
        with vault.database.transaction(rows) as connection:
            connection.execute(insert(TABLE), {"n": number})
            scope_of(connection).after += calls  # type: ignore[arg-type]
            scope_of(connection).undo += calls  # type: ignore[arg-type]
            if fault is not None:
                raise fault

    write(1, fail, lambda: done.append("goes on"))
    assert (count(vault, rows), done) == (1, ["fails", "goes on"])
    with pytest.raises(ZeroDivisionError):
        write(2, fail, lambda: done.append("undone"), fault=ZeroDivisionError())
    assert (count(vault, rows), done[2:]) == (1, ["fails", "undone"])
    with pytest.raises(KeyboardInterrupt):
        write(3, interrupt, lambda: done.append("even so"))
    assert (count(vault, rows), done[4:]) == (2, ["even so"])


def test_an_erasure_whose_list_outside_cannot_be_written_is_told_to_it_at_the_next_open(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    permit = permit_for("rows:read", "rows:write", "rows:erase")

    def refuse(*_: object) -> None:
        raise PermissionError("Zebulon")

    with monkeypatch.context() as patch:
        patch.setattr(type(vault.forgotten), "note_patient", refuse)
        with vault.database.transaction(permit) as connection:
            vault.sealer.forget(permit, connection, "Zebulon")
    assert "PermissionError" in caplog.text
    assert "Zebulon" not in caplog.text
    assert [line for line in vault.forgotten.lines() if line.kind == "patient"] == []
    vault.close()
    said: dict[str, Any] = {
        "settings": vault.settings,
        "key_dir": vault.forgotten.key_dir,
        "clock": clock,
        "ids": RandomIds(),
    }
    with Vault.open(vault.root, **said) as again:
        assert len([line for line in again.forgotten.lines() if line.kind == "patient"]) == 1


URL = "postgresql://me@host:1/db?sslmode=require&options=-c%20search_path%3Dx"


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (URL, URL),
        ("postgresql://me:secret@host:1/db", "postgresql://me@host:1/db"),
        ("postgresql://me:se?cr#et@host/db", "postgresql://me@host/db"),
        ("postgresql://me:secret@secret@host/db", "postgresql://me@host/db"),
        (URL + "&password=secret", URL),
        (URL + "&pass%77ord=secret", URL),
        (URL + "&sslpassword=secret", URL),
        (URL + "&%73slpassword=secret", URL),
        ("postgresql:///db?password=secret", "postgresql:///db"),
        ("postgresql://:secret@/db", "postgresql://@/db"),
        ("postgresql://[::1]:5432,other/db", "postgresql://[::1]:5432,other/db"),
    ],
)
def test_an_address_is_kept_without_its_passwords(url: str, kept: str) -> None:
    assert without_password(url) == kept
    assert has_password(url) == (url != kept)
    assert without_password(kept) == kept


_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_question_that_takes_too_long_is_ended_and_the_connection_is_good_after(vault: Vault, rows: Permit) -> None:
    began = time.monotonic()
    with vault.database.reading(rows) as connection:
        with pytest.raises(Unavailable) as caught, bounded(connection, 0.2):
            connection.exec_driver_sql(_ENDLESS).all()
        assert caught.value.code == "vault.too_long"
        assert connection.scalar(select(func.count()).select_from(TABLE)) == 0
    assert time.monotonic() - began < 20


def test_a_bound_ends_with_its_block(vault: Vault, rows: Permit) -> None:
    with vault.database.reading(rows) as connection:
        with bounded(connection, 0.0):
            pass
        some = _ENDLESS.replace("FROM n)", "FROM n WHERE i < 200000)")
        assert connection.exec_driver_sql(some).scalar() == 200000


def test_readings_together_see_one_moment_and_still_show_their_permits(
    vault: Vault, rows: Permit, permit_for: PermitFor
) -> None:
    with vault.database.together():
        assert count(vault, rows) == 0
        other = threading.Thread(target=_add, args=(vault, rows, 1))
        other.start()
        other.join()
        assert count(vault, rows) == 0
        with vault.database.ledger_reading() as connection:
            assert connection.scalar(select(func.count()).select_from(TABLE)) == 0
        with pytest.raises(CarelakeError) as error, vault.database.reading(permit_for("lake:read")):
            pass
        assert error.value.code == "permit.grant"
        _add(vault, rows, 2)  # a write of this thread is a transaction of its own
    assert count(vault, rows) == 2


def _add(vault: Vault, permit: Permit, number: int) -> None:
    with vault.database.transaction(permit) as connection:
        bulk(connection, "INSERT INTO thing (n) VALUES (?)", [(number,)])


def test_no_writer_of_many_starves(vault: Vault, rows: Permit) -> None:
    """Sixteen that write without a pause: the slowest has done a fair part when the quickest is done."""
    done, over = [0] * 16, threading.Event()

    def write(number: int) -> None:
        while not over.is_set():
            _add(vault, rows, number * 1_000_000 + done[number])
            done[number] += 1
            if done[number] == 20:
                over.set()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert min(done) >= 3, done
