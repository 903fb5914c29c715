"""Backup of a workspace whose rows are in PostgreSQL: into another database, and into a file for a drill."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy
from sqlalchemy import func, insert, select

from carelake.core.errors import Conflict, Corrupt
from carelake.core.ids import RandomIds
from carelake.core.settings import DatabaseSettings, Settings
from carelake.vault.backup import restore, rows
from carelake.vault.backup.manifest import choose
from carelake.vault.backup.opening import open_ring, unlike
from carelake.vault.backup.restore import begin
from carelake.vault.backup.ship import Shipped, ship
from carelake.vault.tables import object_version, patient_key
from carelake.vault.workspace import Vault

ALL = ("vault:backup", "rows:read", "rows:write", "landing:read", "landing:write", "vault:verify")


@pytest.fixture
def permit(permit_for: Callable[..., Any]) -> Any:
    return permit_for(*ALL)


@pytest.fixture
def far(tmp_path: Path, clock: Any, postgres: DatabaseSettings) -> Iterator[Vault]:
    """A workspace whose rows are on a server."""
    from carelake.apps.wiring import import_tables

    import_tables()
    settings = Settings(workspace="w1", database=postgres)
    made = Vault.create(tmp_path / "ws", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
    text = f'workspace = "w1"\n[database]\nurl = "{postgres.url}"\npassword_file = "{postgres.password_file}"\n'
    (made.root / "carelake.toml").write_text(text)
    with made:
        yield made


def fill(vault: Any, permit: Any, numbers: range) -> None:
    with vault.database.transaction(permit) as tx:
        row = {"account": "a", "version": 1, "parent_version": 1}
        rows = [{**row, "patient": f"p{n:06}", "wrapped": os.urandom(60), "created": f"{n:024d}"} for n in numbers]
        tx.execute(insert(patient_key), rows)


def count(connection: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(patient_key)).scalar_one())


def backup(vault: Any, permit: Any, out: Path) -> Shipped:
    vault.clock.move(seconds=1)
    return ship(permit, vault, out, trail=lambda connection: {})


def restored(vault: Any, out: Path, folder: Path, database: DatabaseSettings) -> tuple[Vault, Any]:
    keys = vault.head_folder
    work = begin(
        out,
        folder,
        open_ring=lambda path, name, copy: open_ring(
            path, name, copy, root_keys=keys, beside=keys, passphrase=None, clock=vault.clock
        ),
    )
    settings = msgspec.structs.replace(vault.settings, database=database, copy=work.copy)
    work.assemble(settings)
    copy = Vault(folder, settings=settings, key_dir=keys, keyring=work.keyring, clock=vault.clock, ids=RandomIds())
    return copy, work


@pytest.fixture
def empty(postgres_server: Any, postgres: DatabaseSettings) -> Iterator[DatabaseSettings]:
    name = f"test_{uuid4().hex}"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield msgspec.structs.replace(postgres, url=postgres_server.url(name))
    with postgres_server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("place", ["server", "file"])
def test_rows_come_back(far: Any, permit: Any, tmp_path: Path, empty: DatabaseSettings, place: str) -> None:
    engine = far.database.engine_for(permit)
    with engine.begin() as connection:
        # As a library makes them, that we know nothing of.
        connection.exec_driver_sql("CREATE TABLE iceberg_things (a varchar(20) PRIMARY KEY, n bigint, b boolean)")
        connection.exec_driver_sql(
            "INSERT INTO iceberg_things VALUES ('x', 9007199254740993, true), ('y', NULL, NULL)"
        )
    fill(far, permit, range(5000))
    data = os.urandom(50_000)
    far.objects.put(permit, "landing", "a", data)
    made = backup(far, permit, tmp_path / "out")
    assert made.body.dialect == "postgresql"
    fill(far, permit, range(5000, 5010))
    target = empty if place == "server" else DatabaseSettings()
    copy, work = restored(far, tmp_path / "out", tmp_path / "copy", target)
    with copy:
        work.fill(copy)
        copy.database.check_workspace("w1")
        assert unlike(copy.database, work.body, lambda *_: None) == []
        assert copy.objects.get(permit, "landing", "a") == data
        with copy.database.reading(permit) as connection:
            assert count(connection) == 5000
            things = connection.exec_driver_sql("SELECT a, n, b FROM iceberg_things ORDER BY a").all()
            assert things == [("x", 9007199254740993, 1), ("y", None, None)]
            highest = connection.scalar(select(func.max(object_version.c.seq)))
        copy.objects.put(permit, "landing", "b", b"next")  # its number comes after the restored ones
        with copy.database.reading(permit) as connection:
            assert connection.scalar(select(func.max(object_version.c.seq))) > highest
        # From here on these rows are the copy's: the settings of the original do not open them.
        assert work.replay(copy) == 0
        copy.database.check_workspace(copy.settings.copy_name)
        with pytest.raises(Corrupt, match="not that of workspace"):
            copy.database.check_workspace("w1")
        far.database.check_workspace("w1")
        work.finish(copy.settings)
        if place == "server":
            assert f'url = "{empty.url}"' in (tmp_path / "copy" / "carelake.toml").read_text()


def test_the_living_database_is_not_written_over(far: Any, permit: Any, tmp_path: Path) -> None:
    fill(far, permit, range(3))
    backup(far, permit, tmp_path / "out")
    copy, work = restored(far, tmp_path / "out", tmp_path / "copy", far.settings.database)
    with copy, pytest.raises(Conflict, match="empty"):
        work.fill(copy)
    with far.database.reading(permit) as connection:
        assert count(connection) == 3


class _Killed(BaseException):
    pass


def _killed(*_: Any) -> None:
    raise _Killed


@pytest.mark.parametrize("point", ["made", "loading", "loaded", "become", "replayed"])
def test_a_killed_restore_goes_on(
    far: Any, permit: Any, tmp_path: Path, empty: DatabaseSettings, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    fill(far, permit, range(100))
    backup(far, permit, tmp_path / "out")
    copy, work = restored(far, tmp_path / "out", tmp_path / "copy", empty)
    killed = {"made": "_mark", "loading": "_count_on"}.get(point)
    with copy, monkeypatch.context() as patch, suppress(_Killed):
        if killed:
            patch.setattr(rows, killed, _killed)
        if point == "become":
            patch.setattr(restore, "ready", _killed)
        work.fill(copy)
        if point != "loaded":
            work.replay(copy)
    copy, work = restored(far, tmp_path / "out", tmp_path / "copy", empty)
    with copy:
        work.fill(copy)
        assert unlike(copy.database, work.body, lambda *_: None) == []
        copy.database.check_workspace("w1")
        work.replay(copy)
        copy.database.check_workspace(copy.settings.copy_name)
        with copy.database.reading(permit) as connection:
            assert count(connection) == 100
            assert not [name for name in sqlalchemy.inspect(connection).get_table_names() if "restoring" in name]
    # Another restore does not take it for its own.
    other, second = restored(far, tmp_path / "out", tmp_path / "other", empty)
    with other, pytest.raises(Conflict, match="empty"):
        second.fill(other)


def test_only_changed_rows_are_shipped_again(far: Any, permit: Any, tmp_path: Path) -> None:
    fill(far, permit, range(0, 20_000, 2))
    first = backup(far, permit, tmp_path / "out")
    assert backup(far, permit, tmp_path / "out").new_bytes < 50_000
    fill(far, permit, range(9001, 9010, 2))  # in the middle
    third = backup(far, permit, tmp_path / "out")
    assert third.new_bytes < first.new_bytes / 2


def test_writers_meanwhile_are_not_in_it(
    far: Any, permit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carelake.vault.backup import ship as ship_module

    whole = ship_module.ship_rows

    def slow(index: Any, connection: Any, progress: Any) -> Any:
        thread = threading.Thread(target=fill, args=(far, permit, range(100, 200)))
        thread.start()
        thread.join()
        return whole(index, connection, progress)

    fill(far, permit, range(10))
    monkeypatch.setattr(ship_module, "ship_rows", slow)
    backup(far, permit, tmp_path / "out")
    copy, work = restored(far, tmp_path / "out", tmp_path / "copy", DatabaseSettings())
    with copy:
        work.fill(copy)
        with copy.database.reading(permit) as connection:
            assert count(connection) == 10
    assert choose(tmp_path / "out").workspace == "w1"
