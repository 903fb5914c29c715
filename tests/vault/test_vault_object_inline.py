"""Small objects in the database, and what is sealed there: bytes, tags, lists of parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import ObjectSettings, Settings
from carelake.vault.blobs import Blob
from carelake.vault.tables import object_inline, object_manifest, object_part, object_version
from carelake.vault.workspace import Vault
from carelake.vault.writing import ObjectWriter

PermitFor = Callable[..., Permit]
V, P = object_version.c, object_part.c


@pytest.fixture
def small(tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=1000))
    keys = tmp_path / "keys"
    with Vault.create(tmp_path / "ws", settings=settings, key_dir=keys, clock=clock, ids=RandomIds()) as made:
        yield made


@pytest.fixture
def permit(permit_for: PermitFor) -> Permit:
    grants = [f"{zone}:{right}" for zone in ("landing", "lake", "audit") for right in ("read", "write", "keep")]
    return permit_for(*grants, "rows:read", "rows:write", "vault:verify")


def files(vault: Vault) -> list[Path]:
    return [path for path in (vault.root / "vault").glob("*/*/*/*") if path.is_file()]


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 0), (1000, 0), (1001, 1), (2_000_000, 1)])
def test_small_objects_make_no_file(small: Vault, permit: Permit, size: int, count: int) -> None:
    data = os.urandom(size)
    told = small.objects.put(permit, "landing", "a", data)
    assert small.objects.get(permit, "landing", "a") == data
    assert small.objects.stat(permit, "landing", "a") == told
    assert len(files(small)) == count
    with small.objects.open(permit, "landing", "a") as file:
        file.seek(size // 2)
        assert file.read() == data[size // 2 :]
    small.objects.delete(permit, "landing", "a")
    assert files(small) == []
    with small.database.ledger_reading() as connection:
        assert connection.execute(select(object_inline)).all() == []


def test_evidence_is_never_inline(small: Vault, permit: Permit) -> None:
    small.objects.put(permit, "audit", "segment-1", b"x")
    assert len(files(small)) == 1


def test_inline_bytes_are_sealed_and_bound_to_their_place(small: Vault, permit: Permit) -> None:
    for name in ("a", "b"):
        small.objects.put(permit, "landing", name, b"Zebulon " + name.encode())
    with small.database.ledger() as connection:
        one, two = connection.execute(select(object_inline)).all()
        assert b"Zebulon" not in one.sealed + two.sealed
        change = update(object_inline)
        connection.execute(change.where(object_inline.c.object == one.object).values(sealed=two.sealed))
        connection.execute(change.where(object_inline.c.object == two.object).values(sealed=one.sealed[:-1] + b"x"))
    for name in ("a", "b"):
        with pytest.raises(Corrupt) as caught:
            small.objects.get(permit, "landing", name)
        assert caught.value.code == "vault.altered"
    assert [fault.kind for fault in small.objects.verify(permit)] == ["altered", "altered"]
    with small.database.ledger() as connection:
        connection.execute(object_inline.delete())
    assert [fault.kind for fault in small.objects.verify(permit)] == ["missing", "missing"]


def test_tags_are_sealed_in_the_table(small: Vault, permit: Permit) -> None:
    small.objects.put(permit, "landing", "a", b"", tags={"source": "Zebulon"})
    small.objects.put(permit, "landing", "b", b"", tags={"source": "Other"})
    with small.database.ledger() as connection:
        rows = connection.execute(select(object_version).order_by(V.seq)).all()
        assert "Zebulon" not in rows[0].tags
        connection.execute(update(object_version).where(V.seq == rows[0].seq).values(tags=rows[1].tags))
    with pytest.raises(Corrupt):
        small.objects.stat(permit, "landing", "a")


FORGED: dict[str, dict[str, Any]] = {
    "name": {"name": "c"},
    "size": {"size": 7},
    "digest": {"sha256": "0" * 64},
    "tags": {"tags": '{"x": "forged"}'},
    "no tags": {"tags": "{}"},
    "retention": {"retain_until": "2026-01-01T00:00:00.000Z"},
    "hold": {"held": False},
    "object": {"object": "0" * 32},
    "as of the first format": {"name": "c", "voucher": None},
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_row_is_noticed(small: Vault, permit: Permit, clock: FixedClock, how: str) -> None:
    """By somebody who can edit the rows (PostgreSQL)."""
    objects, until = small.objects, clock.now() + timedelta(days=99)
    told = objects.put(permit, "landing", "a", b"x", tags={"k": "v"})
    objects.keeping.retain(permit, "landing", "a", "governance", until)
    objects.keeping.hold(permit, "landing", "a", on=True)
    objects.tag(permit, "landing", "a", {"more": "tags"})
    assert list(objects.verify(permit)) == []
    with small.database.ledger() as connection:
        connection.execute(update(object_version).where(V.version == told.version).values(FORGED[how]))
    name = str(FORGED[how].get("name", "a"))
    doors: list[Callable[[], object]] = [
        lambda: objects.get(permit, "landing", name),
        lambda: objects.stat(permit, "landing", name, told.version),
        lambda: objects.list(permit, "landing"),
        lambda: objects.versions(permit, "landing", name),
        lambda: objects.tag(permit, "landing", name, {}),
        lambda: objects.keeping.hold(permit, "landing", name, on=False),
    ]
    for door in doors:
        with pytest.raises(Corrupt) as caught:
            door()
        assert caught.value.code == "vault.row_altered"
    assert [(fault.kind, fault.name) for fault in objects.verify(permit)] == [("altered", name)]


def test_two_objects_whose_names_are_exchanged_are_both_named(small: Vault, permit: Permit) -> None:
    for name in ("ann", "bob", "cyd"):
        small.objects.put(permit, "landing", name, name.encode())
    with small.database.ledger() as connection:
        for old, new in (("ann", "tmp"), ("bob", "ann"), ("tmp", "bob")):
            connection.execute(update(object_version).where(V.name == old).values(name=new))
    for name in ("ann", "bob"):
        with pytest.raises(Corrupt):
            small.objects.get(permit, "landing", name)
    assert small.objects.get(permit, "landing", "cyd") == b"cyd"
    assert sorted((fault.kind, fault.name) for fault in small.objects.verify(permit)) == [
        ("altered", "ann"),
        ("altered", "bob"),
    ]


def test_markers_restored_versions_and_uploads_are_vouched_for(small: Vault, permit: Permit) -> None:
    objects = small.objects
    first = objects.put(permit, "landing", "a", b"x", tags={"k": "v"})
    objects.remove(permit, "landing", "a")
    objects.restore(permit, "landing", "a")
    begun = objects.uploads.begin(permit, "landing", "a", tags={"k": "w"})
    objects.uploads.put(permit, "landing", begun.id, 1, b"y")
    objects.uploads.complete(permit, "landing", begun.id)
    assert [one.tags for one in objects.versions(permit, "landing", "a")] == [{"k": "w"}, {"k": "v"}, {}, {"k": "v"}]
    assert objects.get(permit, "landing", "a", first.version) == b"x"
    with small.database.ledger() as connection:
        assert connection.execute(select(object_version).where(V.voucher.is_(None))).all() == []


def test_parts_cannot_be_reordered_dropped_or_taken_from_elsewhere(small: Vault, permit: Permit) -> None:
    """By somebody who can edit the rows (PostgreSQL): whatever they write, the sealed list says otherwise."""
    uploads = small.objects.uploads
    for name in ("a", "b"):
        begun = uploads.begin(permit, "landing", name)
        for number in (1, 2, 3):
            uploads.put(permit, "landing", begun.id, number, f"{name}{number}".encode())
        uploads.complete(permit, "landing", begun.id)
    whole = b"a1a2a3"
    with small.database.ledger() as connection:
        rows = connection.execute(select(object_part).order_by(P.version, P.number)).all()
        # Renumbered rows change nothing: the order is that of the sealed list.
        for row, number in zip(rows[:3], (13, 12, 11), strict=True):
            change = update(object_part).where(P.version == row.version, P.number == row.number)
            connection.execute(change.values(number=number))
    assert small.objects.get(permit, "landing", "a") == whole
    with small.database.ledger() as connection:
        one, two = connection.execute(select(object_manifest).order_by(object_manifest.c.version)).all()
        m = object_manifest.c
        connection.execute(update(object_manifest).where(m.version == one.version).values(sealed=two.sealed))
    with pytest.raises(Corrupt):
        small.objects.get(permit, "landing", "a")
    with small.database.ledger() as connection:
        connection.execute(update(object_manifest).where(m.version == one.version).values(sealed=one.sealed))
        connection.execute(object_part.delete().where(P.object == rows[1].object))
    assert [(fault.kind, fault.name) for fault in small.objects.verify(permit)] == [("missing", "a")]


def test_a_flipped_byte_in_a_part_is_named(small: Vault, permit: Permit) -> None:
    uploads = small.objects.uploads
    begun = uploads.begin(permit, "landing", "a")
    for number in (1, 2):
        uploads.put(permit, "landing", begun.id, number, bytes(5000))
    uploads.complete(permit, "landing", begun.id)
    path = max(files(small))
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    assert [(fault.kind, fault.name) for fault in small.objects.verify(permit)] == [("altered", "a")]
    fault = small.objects.check(permit, "landing", "a")
    assert fault is not None


def test_removed_bytes_that_a_killed_process_left_are_removed_at_the_next_open(
    small: Vault, permit: Permit, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.objects.put(permit, "landing", "a", os.urandom(5000))
    blobs = small.objects._depot.blobs

    def fail(blob: Blob) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(blobs, "remove", fail)
    small.objects.keeping.purge(permit, "landing", "a")
    assert len(files(small)) == 1
    small.close()
    monkeypatch.undo()
    said = {"settings": small.settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.open(small.root, **said) as again:  # type: ignore[arg-type]
        assert files(again) == []
        with again.database.ledger_reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM object_removal").scalar() == 0


def test_every_keeping_door_asks_for_its_own_grant(small: Vault, permit: Permit, permit_for: PermitFor) -> None:
    small.objects.put(permit, "landing", "a", b"x")
    begun = small.objects.uploads.begin(permit, "landing", "b")
    objects, keeping, uploads = small.objects, small.objects.keeping, small.objects.uploads
    writer, keeper = permit_for("landing:read", "landing:write"), permit_for("landing:keep", "rows:read")
    doors: list[tuple[Permit, Callable[[Permit], object]]] = [
        (writer, lambda p: keeping.hold(p, "landing", "a", on=True)),
        (writer, lambda p: keeping.retain(p, "landing", "a", None, None)),
        (writer, lambda p: keeping.purge(p, "landing", "a")),
        (writer, lambda p: objects.lifecycle.run(p, "landing")),
        (writer, lambda p: objects.report.usage(p)),
        (keeper, lambda p: objects.get(p, "landing", "a")),
        (keeper, lambda p: objects.versions(p, "landing", "a")),
        (keeper, lambda p: objects.report.inventory(p, "landing")),
        (keeper, lambda p: objects.remove(p, "landing", "a")),
        (keeper, lambda p: objects.restore(p, "landing", "a")),
        (keeper, lambda p: objects.tag(p, "landing", "a", {})),
        (keeper, lambda p: uploads.begin(p, "landing", "a")),
        (keeper, lambda p: uploads.put(p, "landing", begun.id, 1, b"")),
        (keeper, lambda p: uploads.complete(p, "landing", begun.id)),
        (keeper, lambda p: uploads.abort(p, "landing", begun.id)),
    ]
    for wrong, door in doors:
        with pytest.raises(CarelakeError) as caught:
            door(wrong)
        assert caught.value.code == "permit.grant"
    with pytest.raises(CarelakeError) as caught:
        uploads.abort(permit_for("landing:write", account="research"), "landing", begun.id)
    assert caught.value.code == "vault.upload"


@pytest.mark.parametrize("size", [10, 5000])
def test_a_writer_that_failed_to_commit_stores_nothing_later(
    small: Vault, permit: Permit, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = small.objects.create(permit, "landing", "a")
    writer.write(bytes(size))
    begun = small.objects.uploads.begin(permit, "landing", "b")
    part = small.objects.uploads.part(permit, "landing", begun.id, 1)
    part.write(bytes(size))
    with monkeypatch.context() as patch:
        patch.setattr(small.database, "writing", None)
        for each in (writer, part):
            with pytest.raises(TypeError):
                each.commit()
    for each in (writer, part):
        with pytest.raises(Conflict) as caught:
            each.commit()
        assert caught.value.code == "vault.discarded"
    writer.close()
    assert small.objects.list(permit, "landing") == []
    assert small.objects.uploads.parts(permit, "landing", begun.id) == []
    assert files(small) == []
    assert small.objects._depot.unsure == 0


@pytest.mark.parametrize("size", [10, 5000])
def test_bytes_that_are_finished_want_their_row(small: Vault, permit: Permit, size: int) -> None:
    """For a transaction that others wait for: what was made durable before it is there when it commits, or goes."""

    def finished(name: str) -> ObjectWriter:
        writer = small.objects.create(permit, "landing", name)
        writer.write(bytes(size))
        writer.finish()
        return writer

    kept, given_up, undone = finished("kept"), finished("given up"), finished("undone")
    assert small.objects.list(permit, "landing") == []
    given_up.discard()
    with small.database.transaction(permit):
        kept.commit()
    with suppress(ZeroDivisionError), small.database.transaction(permit):
        undone.commit()
        raise ZeroDivisionError
    assert [one.name for one in small.objects.list(permit, "landing")] == ["kept"]
    assert small.objects.get(permit, "landing", "kept") == bytes(size)
    assert len(files(small)) == (size > 1000)
    with pytest.raises(Conflict) as caught:
        given_up.finish()
    assert caught.value.code == "vault.discarded"
    assert small.objects._depot.unsure == 0
