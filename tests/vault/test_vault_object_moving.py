"""Processes that move, give up and remove the same bytes: whatever comes in between, a version keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from carelake.core.clock import FixedClock
from carelake.core.errors import NotFound
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import LifecycleRules, ObjectSettings, Settings
from carelake.vault import disk
from carelake.vault.blobs import Blob
from carelake.vault.tables import object_removal, object_version
from carelake.vault.workspace import Vault

DATA = b"x" * 5000
RULES = {"landing": LifecycleRules(cool_days=1, expire_old_days=3)}


@pytest.fixture
def permit(permit_for: Callable[..., Permit], clock: FixedClock) -> Permit:
    grants = [f"{zone}:{right}" for zone in ("landing", "lake") for right in ("read", "write", "keep")]
    return permit_for(*grants, "rows:read", "rows:write", expires=clock.now() + timedelta(days=1000))


@pytest.fixture
def opened(tmp_path: Path, clock: FixedClock) -> Iterator[Callable[[], Vault]]:
    settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=0), lifecycle=RULES)
    said: dict[str, Any] = {"settings": settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    made = [Vault.create(tmp_path / "ws", **said)]

    def another() -> Vault:
        made.append(Vault.open(tmp_path / "ws", **said))
        return made[-1]

    yield another
    for each in made:
        each.close()


def files(vault: Vault) -> list[str]:
    """Where the bytes lie, by class."""
    depot = vault.objects._depot
    return [f"{each.kind}:{each.blob.storage}" for each in depot.blobs.walk(depot.clock.now())]


def between(vault: Vault, patch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Do something once between the copy of a move and its entry."""
    blobs = vault.objects._depot.blobs
    real, done = blobs.move, list[int]()

    def move(*told: Any) -> Any:
        left = real(*told)
        if not done:
            done.append(1)
            act()
        return left

    patch.setattr(blobs, "move", move)


def test_a_move_that_another_finished_first_takes_nothing(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(), opened()
    one.objects.put(permit, "landing", "a", DATA)
    clock.move(days=2)

    def first() -> None:
        assert one.objects.lifecycle.run(permit, "landing").cooled == 1
        one.objects.keeping.hold(permit, "landing", "a", on=True)

    between(two, monkeypatch, first)
    assert two.objects.lifecycle.run(permit, "landing").cooled == 0
    assert one.objects.get(permit, "landing", "a") == DATA
    assert files(one) == ["blob:cool"]


def test_a_move_that_a_hold_overtakes_leaves_the_bytes_where_they_are(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(), opened()
    one.objects.put(permit, "landing", "a", DATA)
    clock.move(days=2)
    between(two, monkeypatch, lambda: one.objects.keeping.hold(permit, "landing", "a", on=True))
    assert two.objects.lifecycle.run(permit, "landing").cooled == 0
    assert one.objects.stat(permit, "landing", "a").storage == "hot"
    for each in (one, two):
        each.close()
    again = opened()
    assert again.objects.get(permit, "landing", "a") == DATA
    assert "blob:hot" in files(again)


def test_a_move_that_a_purge_overtakes_leaves_no_bytes(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = opened(), opened()
    one.objects.put(permit, "landing", "a", DATA)
    clock.move(days=2)
    between(two, monkeypatch, lambda: one.objects.keeping.purge(permit, "landing", "a"))
    assert two.objects.lifecycle.run(permit, "landing").cooled == 0
    assert files(one) == []


def test_one_that_cannot_move_does_not_end_the_run(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock
) -> None:
    one = opened()
    for name in ("a", "b", "c"):
        one.objects.put(permit, "landing", name, DATA)
    (lost, *_) = (each.blob for each in one.objects._depot.blobs.walk(clock.now()))
    one.objects._depot.blobs.remove(lost)
    clock.move(days=2)
    done = one.objects.lifecycle.run(permit, "landing")
    assert (done.cooled, done.failed) == (2, 1)


def removals(vault: Vault) -> list[Any]:
    with vault.database.snapshot() as connection:
        return list(connection.execute(select(object_removal)))


def give_up_wrongly(vault: Vault, permit: Permit, storage: str) -> None:
    with vault.database.writing(permit) as connection:
        (row,) = connection.execute(select(object_version)).all()
        said = {"object": row.object, "storage": storage, "account": row.account, "zone": row.zone}
        connection.execute(insert(object_removal), said)


def test_what_a_version_lies_in_is_not_given_up_at_the_next_open(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock
) -> None:
    one = opened()
    one.objects.put(permit, "landing", "a", DATA)
    give_up_wrongly(one, permit, "hot")
    one.close()
    again = opened()
    assert again.objects.get(permit, "landing", "a") == DATA
    assert removals(again) == []


def test_a_move_takes_back_what_was_given_up_where_it_goes(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock
) -> None:
    one = opened()
    one.objects.put(permit, "landing", "a", DATA)
    give_up_wrongly(one, permit, "cool")
    clock.move(days=2)
    assert one.objects.lifecycle.run(permit, "landing").cooled == 1
    assert [row.storage for row in removals(one)] == ["hot"]


def test_what_could_not_be_removed_may_be_given_up_again(
    opened: Callable[[], Vault], permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    old = one.objects.put(permit, "landing", "a", b"1" * 100)
    one.objects.put(permit, "landing", "a", b"2" * 100)

    def broken(blob: Blob) -> None:
        raise OSError(5, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(one.objects._depot.blobs, "remove", broken)
        one.objects.remove(permit, "landing", "a", version=old.version)
        assert len(removals(one)) == 1
        clock.move(days=5)
        one.objects.lifecycle.run(permit, "landing")  # the row that tells of it goes, and gives up once more
    one.close()
    assert len(files(opened())) == 1


def test_copies_of_one_file_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(DATA)
    real = disk.publish
    seen: list[Path] = []

    def publish(temporary: Path, final: Path) -> None:
        seen.append(temporary)
        if len(seen) == 1:
            disk.copy_durably(source, target)  # another begins and ends in between
            target.unlink()
            monkeypatch.setattr("os.fsync", broken)
            with pytest.raises(OSError, match="full"):
                disk.copy_durably(source, target)
            monkeypatch.undo()
        real(temporary, final)

    def broken(handle: int) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(disk, "publish", publish)
    disk.copy_durably(source, target)
    assert target.read_bytes() == DATA
    assert len(set(seen)) == 2
    assert all(path.suffix == ".tmp" for path in seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_purge_takes_begun_uploads_along(opened: Callable[[], Vault], permit: Permit) -> None:
    one = opened()
    uploads = one.objects.uploads
    one.objects.put(permit, "landing", "a", DATA)
    begun, other = (uploads.begin(permit, "landing", name) for name in ("a", "b"))
    for each in (begun, other):
        uploads.put(permit, "landing", each.id, 1, b"part")
    one.objects.keeping.purge(permit, "landing", "a")
    assert [each.id for each in uploads.list(permit, "landing")] == [other.id]
    with pytest.raises(NotFound):
        uploads.complete(permit, "landing", begun.id)
    assert len(files(one)) == 1


def test_a_zone_is_tidied_by_a_walk_of_its_own(
    opened: Callable[[], Vault], permit: Permit, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = opened()
    blobs = one.objects._depot.blobs
    for zone in ("landing", "lake"):
        one.objects.put(permit, zone, "a", DATA)
    real, walked = blobs.walk, []

    def walk(*told: Any) -> Iterator[Any]:
        for each in real(*told):
            walked.append(each.blob.zone)
            yield each

    monkeypatch.setattr(blobs, "walk", walk)
    one.objects.lifecycle.run(permit, "lake")
    assert walked == ["lake"]


def test_of_three_versions_that_share_bytes_one_can_go(opened: Callable[[], Vault], permit: Permit) -> None:
    objects = opened().objects
    first = objects.put(permit, "landing", "a", DATA)
    shared = [first]
    for _ in range(3):
        objects.put(permit, "landing", "a", b"other")
        shared.append(objects.restore(permit, "landing", "a", first.version))
    for version in shared[:3]:
        objects.remove(permit, "landing", "a", version=version.version)
        assert objects.get(permit, "landing", "a") == DATA
