"""Backup and restore of one vault: points in time, what is shipped, what is refused, who waits."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select

from carelake.core.errors import CarelakeError, Conflict, Corrupt, Gone, Invalid, NotFound, Refused, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.settings import Settings
from carelake.vault.backup import pieces as pieces_module
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import Body, Entry, choose, names, points
from carelake.vault.backup.opening import open_ring, unlike
from carelake.vault.backup.pieces import Pieces, locked
from carelake.vault.backup.restore import MARKER, Restoration, begin
from carelake.vault.backup.retention import prune
from carelake.vault.backup.ship import DATABASE_KEY, Shipped, ship
from carelake.vault.backup.snapshot import frozen
from carelake.vault.tables import object_version, patient_key
from carelake.vault.workspace import Vault

BIG = 40_000  # longer than what is kept beside its row
ALL = ("vault:backup", "rows:read", "rows:write", "landing:read", "landing:write", "vault:verify", "rows:erase")


@pytest.fixture
def permit(permit_for: Callable[..., Any]) -> Any:
    return permit_for(*ALL)


@pytest.fixture(autouse=True)
def settings_file(vault: Any) -> None:
    (vault.root / "carelake.toml").write_text('workspace = "w1"\n')


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def backup(vault: Any, permit: Any, out: Path, **other: Any) -> Shipped:
    vault.clock.move(seconds=1)
    return ship(permit, vault, out, trail=lambda connection: {}, **other)


def opening(vault: Any, key_dir: Path | None = None) -> Callable[[Path, str, str], Any]:
    keys = key_dir or vault.head_folder
    told: dict[str, Any] = {"root_keys": keys, "beside": keys, "passphrase": None, "clock": vault.clock}
    return lambda path, name, copy: open_ring(path, name, copy, **told)


def named(vault: Any, work: Restoration) -> Settings:
    """The settings of the copy."""
    return msgspec.structs.replace(vault.settings, copy=work.copy)


@contextmanager
def restored(vault: Any, out: Path, folder: Path, **which: Any) -> Iterator[tuple[Vault, Restoration]]:
    work = begin(out, folder, open_ring=opening(vault), **which)
    settings = named(vault, work)
    work.assemble(settings)
    with Vault(
        folder,
        settings=settings,
        key_dir=vault.head_folder,
        keyring=work.keyring,
        clock=vault.clock,
        ids=RandomIds(),
    ) as copy:
        work.fill(copy)
        yield copy, work
    work.finish(settings)


def write_rows(vault: Any, permit: Any, *numbers: int) -> None:
    for number in numbers:
        with vault.database.transaction(permit) as tx:
            row = {"account": "a", "patient": f"p{number}", "version": 1, "parent_version": 1}
            tx.execute(insert(patient_key).values(**row, wrapped=os.urandom(100), created=f"{number:024d}"))


def count_rows(vault: Any, permit: Any) -> int:
    with vault.database.reading(permit) as connection:
        return int(connection.execute(select(func.count()).select_from(patient_key)).scalar_one())


def piece_files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "pieces").glob("*/*")}


def index_of(vault: Any, out: Path) -> Index:
    return Index(Pieces(out), vault.keyring.inner(DATABASE_KEY).secret, vault.settings.workspace)


def test_a_point_comes_back_as_it_was(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    (vault.root / "policies").mkdir()
    (vault.root / "policies" / "own.cedar").write_text("// ours\n")
    big, small = os.urandom(20 << 20), b"small"
    vault.objects.put(permit, "landing", "Ada Lovelace.ndjson", big)
    vault.objects.put(permit, "landing", "small", small)
    write_rows(vault, permit, 1, 2, 3)
    made = backup(vault, permit, out, label="before")
    write_rows(vault, permit, 4)
    with restored(vault, out, tmp_path / "copy") as (copy, work):
        assert work.body.label == "before"
        assert unlike(copy.database, work.body, lambda *_: None) == []
        assert copy.objects.get(permit, "landing", "Ada Lovelace.ndjson") == big
        assert copy.objects.get(permit, "landing", "small") == small
        assert count_rows(copy, permit) == 3
        assert list(copy.objects.verify(permit)) == []
        assert not (tmp_path / "copy" / "carelake.toml").exists()
    folder = tmp_path / "copy"
    assert (folder / "carelake.toml").read_text() == f'workspace = "w1"\ncopy = "{work.copy}"\n'
    assert (folder / "policies" / "own.cedar").read_text() == "// ours\n"
    assert not (folder / MARKER).exists()
    kinds = {path.is_dir(): path.stat().st_mode & 0o777 for path in (folder / "vault").rglob("*")}
    assert kinds == {True: 0o700, False: 0o600}
    assert (folder / "carelake.db").stat().st_mode & 0o777 == 0o600
    assert made.body.objects.count >= 1


def test_nothing_in_a_backup_is_in_the_clear(vault: Any, permit: Any, out: Path) -> None:
    (vault.root / "carelake.toml").write_text('workspace = "w1"\n# secretive-comment\n')
    vault.objects.put(permit, "landing", "Zebediah Quillfeather", b"Zebediah Quillfeather" * 4000)
    backup(vault, permit, out, label="Quillfeather's point")
    told = b"".join(path.read_bytes() + path.name.encode() for path in out.rglob("*") if path.is_file())
    for canary in (b"Zebediah", b"Quillfeather", b"secretive", b"patient_key", b"landing/"):
        assert canary not in told
    key = (vault.head_folder / "w1.key").read_text().strip()
    assert key.encode() not in told
    assert bytes.fromhex(key) not in told
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o600}


def test_a_second_run_ships_what_is_new(vault: Any, permit: Any, out: Path) -> None:
    vault.objects.put(permit, "landing", "a", os.urandom(3 << 20))
    first = backup(vault, permit, out)
    assert first.new_bytes > 3 << 20
    second = backup(vault, permit, out)
    assert second.new_bytes < 100_000
    vault.objects.put(permit, "landing", "b", os.urandom(1 << 20))
    third = backup(vault, permit, out)
    assert 1 << 20 < third.new_bytes < (1 << 20) + (1 << 19)
    assert [one.point for one in points(out)] == [one.envelope.point for one in (first, second, third)]
    assert third.envelope.previous == second.envelope.point


def test_a_lost_piece_is_shipped_again(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    vault.objects.put(permit, "landing", "a", data)
    backup(vault, permit, out)
    shutil.rmtree(out / "pieces")
    (out / "pieces").mkdir()
    backup(vault, permit, out)
    with restored(vault, out, tmp_path / "copy") as (copy, _):
        assert copy.objects.get(permit, "landing", "a") == data


@pytest.mark.parametrize("older_reader", [False, True], ids=["whole file", "file and WAL"])
def test_writers_go_on_while_it_is_copied(
    vault: Any, permit: Any, out: Path, tmp_path: Path, older_reader: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written and moved into the file meanwhile, the point is the one state of its moment."""
    write_rows(vault, permit, *range(50))
    stop, written = threading.Event(), 100

    def writer() -> None:
        nonlocal written
        while not stop.is_set():
            write_rows(vault, permit, written)
            written += 1
            engine = vault.database.engine_for(permit)
            raw = engine.raw_connection()
            raw.driver_connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            raw.close()

    from carelake.vault.backup import ship as ship_module

    cut = ship_module.cut_database
    seen = []

    def slow(run: Any, still: Any) -> Any:
        seen.append(still.wal_bytes)
        count = still.connection.execute(select(func.count()).select_from(patient_key)).scalar_one()
        thread = threading.Thread(target=writer)
        thread.start()
        while written < 120:
            pass
        try:
            return cut(run, still)
        finally:
            stop.set()
            thread.join()
            assert still.connection.execute(select(func.count()).select_from(patient_key)).scalar_one() == count

    monkeypatch.setattr(ship_module, "cut_database", slow)
    if older_reader:
        with vault.database.reading(permit):
            thread = threading.Thread(target=write_rows, args=(vault, permit, 60, 61, 62))
            thread.start()
            thread.join()
            made = backup(vault, permit, out)
        assert seen[0] > 0
    else:
        made = backup(vault, permit, out)
        assert seen == [0]
    assert made.stalled < 1.0
    with restored(vault, out, tmp_path / "copy") as (copy, work):
        assert unlike(copy.database, work.body, lambda *_: None) == []
        assert count_rows(copy, permit) == (53 if older_reader else 50)
        assert copy.database.damage(permit) == ""
    assert count_rows(vault, permit) > 70


def test_the_file_stands_still(vault: Any, permit: Any) -> None:
    write_rows(vault, permit, *range(20))
    path = vault.root / "carelake.db"
    code = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"

    def look() -> str:
        # By another process: one that opened it here would drop SQLite's locks when it closed it.
        return subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, check=True
        ).stdout.decode()

    with frozen(permit, vault.database, path) as still:
        before, stamp = look(), still.stamp()
        thread = threading.Thread(target=write_rows, args=(vault, permit, *range(100, 160)))
        thread.start()
        thread.join()
        assert look() == before
        still.check(stamp)
    vault.database.close()
    assert look() != before


def test_without_leave_nothing_is_shipped(vault: Any, permit: Any, permit_for: Callable[..., Any], out: Path) -> None:
    with pytest.raises(Refused):
        backup(vault, permit_for("rows:read", "rows:write"), out)
    assert not out.exists()
    backup(vault, permit, out)
    with pytest.raises(Refused):
        prune(permit_for("rows:read"), vault.keyring, vault.clock, out)


def test_one_at_a_time(vault: Any, permit: Any, out: Path) -> None:
    backup(vault, permit, out)
    with locked(out):
        for work in (lambda: backup(vault, permit, out), lambda: prune(permit, vault.keyring, vault.clock, out)):
            with pytest.raises(Conflict) as caught:
                work()
            assert caught.value.code == "vault.backup_running"


def test_places_that_are_refused(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    for inside in (vault.root / "out", vault.root, vault.root.parent):
        with pytest.raises((Invalid, Conflict)):
            backup(vault, permit, inside)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "theirs").touch()
    with pytest.raises(Conflict, match="neither empty"):
        backup(vault, permit, tmp_path / "full")
    backup(vault, permit, out)
    mark = out / "carelake-backup.json"
    mark.write_text(mark.read_text().replace("w1", "w2"))
    with pytest.raises(Conflict, match="another workspace"):
        backup(vault, permit, out)
    with pytest.raises(NotFound):
        choose(tmp_path / "nothing")
    mark.write_text(mark.read_text().replace("w2", "w1"))
    with pytest.raises(Conflict, match="not empty"):
        begin(out, tmp_path / "full", open_ring=opening(vault))
    with pytest.raises(Invalid):
        begin(out, out / "copy", open_ring=opening(vault))


def test_points_are_chosen_by_id_and_time(vault: Any, permit: Any, out: Path) -> None:
    made = [backup(vault, permit, out).envelope for _ in range(3)]
    assert choose(out).point == made[2].point
    assert choose(out, point=made[0].point[:20]).point == made[0].point
    assert choose(out, at=made[1].at).point == made[1].point
    for wrong in ({"point": "1999"}, {"at": "1999-01-01"}, {"point": "2"}):
        with pytest.raises(NotFound):
            choose(out, **wrong)
    with pytest.raises(Invalid):
        choose(out, at="yesterday")
    # A clock that was set back does not hide the newest point behind older ones.
    vault.clock.move(days=-30)
    assert choose(out).point != (last := backup(vault, permit, out).envelope).point or last.previous == made[2].point
    assert choose(out).point == last.point


def test_retention_keeps_what_points_need(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    contents = {}
    for name in "abc":
        contents[name] = os.urandom(BIG)
        vault.objects.put(permit, "landing", name, contents[name])
        if name == "b":
            vault.objects.delete(permit, "landing", "a")
        backup(vault, permit, out)
    (out / "pieces" / "00").mkdir(exist_ok=True)
    (out / "pieces" / "00" / ("0" * 64)).write_bytes(b"left by a killed run")
    before = piece_files(out)
    done = prune(permit, vault.keyring, vault.clock, out)
    assert (done.points, done.pieces, done.left) == (0, 1, 3)
    done = prune(permit, vault.keyring, vault.clock, out, keep=1)
    assert (done.points, done.left) == (2, 1)
    assert len(piece_files(out)) < len(before) - 2
    with restored(vault, out, tmp_path / "copy") as (copy, _):
        assert copy.objects.get(permit, "landing", "b") == contents["b"]
        assert copy.objects.get(permit, "landing", "c") == contents["c"]
    again = prune(permit, vault.keyring, vault.clock, out, keep=1)
    assert (again.points, again.pieces) == (0, 0)
    with pytest.raises(Invalid):
        prune(permit, vault.keyring, vault.clock, out, keep=0)


def test_nothing_is_pruned_while_a_point_cannot_be_read(vault: Any, permit: Any, out: Path) -> None:
    first = backup(vault, permit, out)
    vault.objects.put(permit, "landing", "a", os.urandom(BIG))
    backup(vault, permit, out)
    path = out / "points" / f"{first.envelope.point}.json"
    path.write_bytes(path.read_bytes()[:-40])
    before = piece_files(out)
    with pytest.raises(Corrupt) as caught:
        prune(permit, vault.keyring, vault.clock, out, keep=1)
    assert first.envelope.point in str(caught.value)
    assert piece_files(out) == before


def faulty(vault: Any, out: Path, tmp_path: Path, **which: Any) -> CarelakeError:
    with pytest.raises(CarelakeError) as caught, restored(vault, out, tmp_path / "copy", **which):
        pass
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    return caught.value


def test_each_piece_is_missed_and_each_change_is_found(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    vault.objects.put(permit, "landing", "a", os.urandom(BIG))
    backup(vault, permit, out)
    for name, data in piece_files(out).items():
        path = Pieces(out).path(name)
        for damaged in (data[:-1], bytes([data[0] ^ 1]) + data[1:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            error = faulty(vault, out, tmp_path)
            assert error.code == "vault.backup_piece"
            assert name in str(error)
        path.write_bytes(data)
    with restored(vault, out, tmp_path / "copy"):
        pass


def test_an_envelope_is_believed_only_if_it_is_signed(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    old = backup(vault, permit, out).envelope
    write_rows(vault, permit, 1)
    new = backup(vault, permit, out).envelope
    path = out / "points" / f"{new.point}.json"
    whole = json.loads(path.read_text())
    older = json.loads((out / "points" / f"{old.point}.json").read_text())
    changed = [
        {**whole, "body": older["body"]},
        {**whole, "at": older["at"]},
        {**whole, "signature": older["signature"]},
        {**whole, "signature": "zz"},
        {**older, "point": whole["point"]},
        {**whole, "workspace": "w2"},
        {**whole, "more": 1},
        {**whole, "point": old.point},
    ]
    for value in changed:
        path.write_text(json.dumps(value))
        assert faulty(vault, out, tmp_path).code == "vault.backup_point"
    for cut in (0, 10, len(path.read_bytes()) - 1):
        path.write_bytes(json.dumps(whole).encode()[:cut])
        error = faulty(vault, out, tmp_path)
        assert error.code == "vault.backup_point"
        assert new.point in str(error)
    # The older one stands in nobody's shadow.
    with restored(vault, out, tmp_path / "copy", point=old.point):
        pass


def test_a_list_of_another_workspace_is_refused(vault: Any, permit: Any, out: Path) -> None:
    made = backup(vault, permit, out)
    other = Index(Pieces(out), vault.keyring.inner(DATABASE_KEY).secret, "w2")
    with pytest.raises(Corrupt) as caught:
        other.get(made.envelope.body, Body)
    assert caught.value.code == "vault.backup_list"
    with pytest.raises(Corrupt):
        index_of(vault, out).get(made.envelope.body, list[Entry])


def test_paths_that_lead_out_are_refused(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    backup(vault, permit, out)
    work = begin(out, tmp_path / "copy", open_ring=opening(vault))
    for path in ("../outside", "/etc/outside", "a/../../b", ""):
        with pytest.raises(Corrupt):
            work._below(path)


def test_the_root_key_is_asked_for(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    backup(vault, permit, out)
    keys = tmp_path / "other keys"
    with pytest.raises(Unavailable, match=r"w1\.key"):
        begin(out, tmp_path / "copy", open_ring=opening(vault, keys))
    keys.mkdir(exist_ok=True)
    (keys / "w1.key").write_text("00" * 32)
    with pytest.raises(Corrupt, match="root key is not the one"):
        begin(out, tmp_path / "copy", open_ring=opening(vault, keys))
    shutil.copy(vault.head_folder / "w1.key", keys / "w1.key")
    work = begin(out, tmp_path / "copy", open_ring=opening(vault, keys))
    work.assemble(vault.settings)
    work.finish(vault.settings)


def test_a_restore_goes_on_where_it_was_killed(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    data = os.urandom(BIG)
    vault.objects.put(permit, "landing", "a", data)
    first = backup(vault, permit, out).envelope
    second = backup(vault, permit, out).envelope
    folder = tmp_path / "copy"
    work = begin(out, folder, open_ring=opening(vault), point=first.point)
    work.assemble(vault.settings)
    (stored,) = [path for path in (folder / "vault").rglob("*") if path.is_file()]
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    (stored.parent / "half.tmp").write_bytes(b"half")
    (folder / "carelake.db").write_bytes(b"half")
    with pytest.raises(Conflict, match=first.point):
        begin(out, folder, open_ring=opening(vault), point=second.point)
    with restored(vault, out, folder, point=first.point) as (copy, again):
        assert again.restore == work.restore
        assert copy.objects.get(permit, "landing", "a") == data
    assert not list(folder.rglob("*.tmp"))
    with pytest.raises(Conflict):
        begin(out, folder, open_ring=opening(vault), point=first.point)
    # Killed between the settings and the marker: it is whole, and is not begun again over what was done since.
    (folder / MARKER).write_text(json.dumps({"restore": work.restore, "point": first.point}))
    with pytest.raises(Conflict) as caught:
        begin(out, folder, open_ring=opening(vault), point=first.point)
    assert caught.value.code == "vault.restore_ended"


def test_an_erased_patient_stays_erased(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    with vault.database.transaction(permit) as tx:
        sealed = {who: vault.sealer.seal(permit, tx, who, b"c", b"told in confidence") for who in ("p1", "p2")}
    old = backup(vault, permit, out).envelope
    with vault.database.transaction(permit) as tx:
        vault.sealer.forget(permit, tx, "p1")
    backup(vault, permit, out)
    keys = tmp_path / "new machine"
    keys.mkdir()
    shutil.copy(vault.head_folder / "w1.key", keys / "w1.key")  # the list beside it was lost with the old machine
    work = begin(out, tmp_path / "copy", open_ring=opening(vault, keys), point=old.point)
    work.assemble(vault.settings)
    with Vault(
        tmp_path / "copy",
        settings=named(vault, work),
        key_dir=keys,
        keyring=work.keyring,
        clock=vault.clock,
        ids=RandomIds(),
    ) as copy:
        assert work.replay(copy) == 1
        with copy.database.transaction(permit) as tx:
            assert copy.sealer.open(permit, tx, "p2", b"c", sealed["p2"]) == b"told in confidence"
            with pytest.raises(Gone):
                copy.sealer.open(permit, tx, "p1", b"c", sealed["p1"])
        assert work.replay(copy) == 0


class FullDisk:
    """No space at the n-th write, as a file system tells it."""

    def __init__(self, number: int) -> None:
        self.left = number
        self._write = os.write

    def __call__(self, handle: int, data: Any) -> int:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(handle, data)


def test_a_full_disk_at_any_write_leaves_points_whole(
    vault: Any, permit: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backup(vault, permit, out)
    vault.objects.put(permit, "landing", "a", os.urandom(BIG))
    met, number = 0, 1
    while True:
        disk = FullDisk(number)
        with monkeypatch.context() as patched:
            patched.setattr(pieces_module.os, "write", disk)
            with suppress(Unavailable):
                backup(vault, permit, out)
        if disk.left > 0:
            break
        met += 1
        assert names(out) == [first.envelope.point]
        assert not list(out.rglob("*.tmp"))
        number += 1
    assert met >= 3
    with restored(vault, out, tmp_path / "old", point=first.envelope.point):
        pass
    with restored(vault, out, tmp_path / "new") as (copy, _):
        assert copy.objects.stat(permit, "landing", "a").size == BIG


def test_objects_deleted_meanwhile_begin_the_snapshot_again(
    vault: Any, permit: Any, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carelake.vault.backup import ship as ship_module

    cut, times = ship_module.cut_database, []

    def slow(run: Any, still: Any) -> Any:
        done = cut(run, still)
        if not times:
            vault.objects.delete(permit, "landing", "late")
        times.append(1)
        return done

    def named(connection: Any, whole: Any = ship_module.named) -> Any:
        if not times and not late:
            late.append(vault.objects.put(permit, "landing", "late", os.urandom(BIG)))
            return []
        return whole(connection)

    late: list[Any] = []
    monkeypatch.setattr(ship_module, "cut_database", slow)
    monkeypatch.setattr(ship_module, "named", named)
    made = backup(vault, permit, out)
    assert len(times) == 2
    assert made.body.missing == []
    with restored(vault, out, tmp_path / "copy") as (copy, _):
        assert list(copy.objects.verify(permit)) == []


def test_lost_bytes_do_not_stop_a_backup_and_are_told(vault: Any, permit: Any, out: Path) -> None:
    vault.objects.put(permit, "landing", "a", os.urandom(BIG))
    vault.objects.put(permit, "landing", "b", os.urandom(BIG))
    with vault.database.reading(permit) as connection:
        name = connection.scalar(select(object_version.c.object).where(object_version.c.name == "a"))
    (path,) = vault.root.rglob(name)
    path.unlink()
    made = backup(vault, permit, out)
    assert made.body.missing == [str(path.relative_to(vault.root / "vault"))]
    assert made.body.objects.count == 1


def test_what_lay_in_an_earlier_point_is_not_lost(vault: Any, permit: Any, out: Path, tmp_path: Path) -> None:
    data = os.urandom(BIG)
    vault.objects.put(permit, "landing", "a", data)
    backup(vault, permit, out)
    for path in (vault.root / "vault").rglob("*"):
        if path.is_file() and len(path.name) == 32:
            path.unlink()
    assert backup(vault, permit, out).body.missing == []
    with restored(vault, out, tmp_path / "copy") as (copy, _):
        assert copy.objects.get(permit, "landing", "a") == data


def test_pieces_are_what_their_names_say(vault: Any, permit: Any, out: Path) -> None:
    vault.objects.put(permit, "landing", "a", os.urandom(9 << 20))
    backup(vault, permit, out)
    files = piece_files(out)
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in files.items())
    assert max(map(len, files.values())) == 8 << 20
