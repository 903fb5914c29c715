"""Several processes on one database: concurrent writers, kills in the middle, a server that is restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table, func, insert, select

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
TABLE = Table("thing", MetaData(), Column("n", BigInteger, primary_key=True, autoincrement=False))

CHILD = """
    import sys, time
    from datetime import timedelta
    from pathlib import Path
    import msgspec
    from sqlalchemy import BigInteger, Column, MetaData, Table, func, insert, select
    from carelake.core.clock import SystemClock
    from carelake.core.errors import Unavailable
    from carelake.core.ids import RandomIds
    from carelake.core.permit import mint
    from carelake.core.settings import Settings
    from carelake.vault.workspace import Vault

    class Log:
        def key(self, name): pass
        def flush(self, connection): pass

    TABLE = Table("thing", MetaData(), Column("n", BigInteger, primary_key=True, autoincrement=False))
    root, keys, said, work = sys.argv[1:]
    clock = SystemClock()
    settings = msgspec.json.decode(said, type=Settings)
    vault = Vault.open(Path(root), settings=settings, key_dir=Path(keys), clock=clock, ids=RandomIds())
    permit = mint(act="a", principal="t", account="production", purpose="TREAT", action="x", target="t", scope=(),
                  grants=["rows:read", "rows:write"], expires=clock.now() + timedelta(hours=1), log=Log())

    def add():
        with vault.database.transaction(permit) as connection:
            last = connection.scalar(select(func.coalesce(func.max(TABLE.c.n), 0))) or 0
            connection.execute(insert(TABLE), {"n": last + 1})
        return last + 1

    if work == "many":
        for _ in range(40):
            add()
    elif work == "hang":
        with vault.database.transaction(permit) as connection:
            connection.execute(insert(TABLE), [{"n": n} for n in range(1000, 3000)])
            print("ready", flush=True)
            time.sleep(60)
    elif work == "forever":
        while True:
            try:
                print(add(), flush=True)
            except Unavailable as error:
                print(error.code, flush=True)
                time.sleep(0.05)
    vault.close()
"""


@pytest.fixture(params=["sqlcipher", "postgres"])
def vault(request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    settings = Settings(workspace="w1")
    if request.param == "postgres":
        settings = Settings(workspace="w1", database=request.getfixturevalue("postgres"))
    made = Vault.create(tmp_path / "ws", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
    with made:
        with made.database.ledger() as connection:
            TABLE.create(connection)
        yield made


@pytest.fixture
def rows(permit_for: PermitFor) -> Permit:
    return permit_for("rows:read", "rows:write")


def child(vault: Vault, work: str) -> subprocess.Popen[str]:
    said = msgspec.json.encode(vault.settings).decode()
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(vault.root), str(vault.root.parent / "keys"), said]
    return subprocess.Popen([*command, work], stdout=subprocess.PIPE, text=True)


def numbers(vault: Vault, permit: Permit) -> list[int]:
    with vault.database.reading(permit) as connection:
        return list(connection.scalars(select(TABLE.c.n).order_by(TABLE.c.n)))


@pytest.mark.slow
def test_processes_write_one_after_another_and_nobody_sees_a_gap(vault: Vault, rows: Permit) -> None:
    children = [child(vault, "many") for _ in range(3)]
    while any(one.poll() is None for one in children):
        seen = numbers(vault, rows)
        assert seen == list(range(1, len(seen) + 1))
        with vault.database.transaction(rows) as connection:
            last = connection.scalar(select(func.coalesce(func.max(TABLE.c.n), 0))) or 0
            connection.execute(insert(TABLE), {"n": last + 1})
        time.sleep(0.01)
    for one in children:
        assert one.stdout is not None
        one.stdout.close()
        assert one.returncode == 0
    seen = numbers(vault, rows)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 120


def test_kill_9_in_a_transaction_leaves_nothing_and_frees_the_others(vault: Vault, rows: Permit) -> None:
    one = child(vault, "hang")
    assert one.stdout is not None
    assert one.stdout.readline() == "ready\n"
    assert numbers(vault, rows) == []
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    one.stdout.close()
    start = time.perf_counter()
    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 1})
    assert time.perf_counter() - start < 5
    assert numbers(vault, rows) == [1]


@pytest.mark.parametrize("vault", ["postgres"], indirect=True)
def test_idle_connections_survive_a_restart_of_the_server(vault: Vault, rows: Permit, postgres_server: Any) -> None:
    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 1})
    postgres_server.restart()
    assert numbers(vault, rows) == [1]
    postgres_server.restart()
    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 2})
    assert numbers(vault, rows) == [1, 2]
    # Several at rest; and statements that are transactions of their own, which nobody could try again.
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(vault.database._engine.connect())
    postgres_server.restart()
    assert vault.database.ledger_at_once(f"SELECT count(*) FROM {TABLE.name}") == [(2,)]
    assert vault.database.ledger_rows(f"SELECT count(*) FROM {TABLE.name}") == [(2,)]
    assert numbers(vault, rows) == [1, 2]


@pytest.mark.parametrize("vault", ["postgres"], indirect=True)
def test_a_transaction_that_lost_its_server_says_so_and_is_undone(
    vault: Vault, rows: Permit, postgres_server: Any
) -> None:
    undone: list[int] = []

    def write() -> None:
        with vault.database.transaction(rows) as connection:
            scope_of(connection).undo.append(lambda: undone.append(1))
            connection.execute(insert(TABLE), {"n": 1})
            postgres_server.restart("immediate")
            connection.execute(insert(TABLE), {"n": 2})

    with pytest.raises(Unavailable) as caught:
        write()
    assert (caught.value.code, undone) == ("vault.database_down", [1])
    assert numbers(vault, rows) == []


@pytest.mark.parametrize("vault", ["postgres"], indirect=True)
def test_without_a_server_the_error_names_no_secret(vault: Vault, rows: Permit, postgres_server: Any) -> None:
    postgres_server.stop()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                numbers(vault, rows)
            said = f"{caught.value!r} {caught.value.message} {caught.value.__cause__!r}"
            assert caught.value.code == "vault.database_down"
            assert postgres_server.password not in said
            assert "127.0.0.1" not in said
    finally:
        postgres_server.start()
    assert numbers(vault, rows) == []


@pytest.mark.slow
@pytest.mark.parametrize("vault", ["postgres"], indirect=True)
def test_what_was_acknowledged_survives_crashes_of_the_server(
    vault: Vault, rows: Permit, postgres_server: Any
) -> None:
    """Three crashes under two writers: each number that a writer was told of is there, and none is there twice."""
    children = [child(vault, "forever") for _ in range(2)]
    said: list[list[str]] = [[], []]

    def listen(number: int) -> None:
        stdout = children[number].stdout
        assert stdout is not None
        for line in stdout:
            said[number].append(line.strip())

    threads = [threading.Thread(target=listen, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(1, 4):
            while min(len([s for s in one if s.isdigit()]) for one in said) < 15 * round_:
                assert all(one.poll() is None for one in children)
                time.sleep(0.05)
            postgres_server.restart("immediate")
    finally:
        for one in children:
            one.kill()
            one.wait()
        for thread in threads:
            thread.join()
        for one in children:
            assert one.stdout is not None
            one.stdout.close()
    told = [int(s) for one in said for s in one if s.isdigit()]
    assert {s for one in said for s in one if not s.isdigit()} <= {"vault.database_down"}
    found = numbers(vault, rows)
    assert len(told) == len(set(told))
    assert set(told) <= set(found)
    assert found == list(range(1, len(found) + 1))
    # At most one write of each writer and crash, or kill, was kept without its answer.
    assert len(found) - len(told) <= 8


@pytest.mark.parametrize("vault", ["postgres"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_do_not_share_connections(vault: Vault, rows: Permit) -> None:
    assert numbers(vault, rows) == []  # there is a pooled connection to inherit
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with vault.database.transaction(rows) as connection:
                connection.execute(insert(TABLE), {"n": 1})
            code = 0
        except CarelakeError:
            code = 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert numbers(vault, rows) == [1]
    with vault.database.transaction(rows) as connection:
        connection.execute(insert(TABLE), {"n": 2})
    assert numbers(vault, rows) == [1, 2]
