"""Objects of the vault over each driver of `vault.blobs.Blobs`: what holds on files holds in a bucket."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FSSpecHandler, PyFileSystem
from sqlalchemy import select

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Gone, Invalid, NotFound, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import LifecycleRules, ObjectSettings, S3Settings, Settings
from carelake.vault.blobs import Blob, Guard
from carelake.vault.drivers.local import LocalBlobs
from carelake.vault.filesystem import VaultFileSystem
from carelake.vault.tables import object_version
from carelake.vault.workspace import Vault

GRANTS = [f"{zone}:{right}" for zone in ("landing", "lake", "audit") for right in ("read", "write", "keep")]
RULES = {"landing": LifecycleRules(cool_days=10, archive_days=20, expire_days=40, expire_old_days=5)}


@pytest.fixture(params=["local", "s3"])
def vault(request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    s3 = S3Settings()
    if request.param == "s3":
        bucket: S3Settings = request.getfixturevalue("bucket")
        s3 = msgspec.structs.replace(bucket, prefix=f"{tmp_path.name}/")
    # Every object a blob, so that both drivers have something to do.
    objects = ObjectSettings(driver=request.param, inline_bytes=0)
    settings = Settings(workspace="w1", objects=objects, s3=s3, lifecycle=RULES)
    keys = tmp_path / "keys"
    with Vault.create(tmp_path / "ws", settings=settings, key_dir=keys, clock=clock, ids=RandomIds()) as made:
        yield made


@pytest.fixture
def permit(permit_for: Callable[..., Permit], clock: FixedClock) -> Permit:
    expires = clock.now() + timedelta(days=10_000)
    return permit_for(*GRANTS, "rows:read", "rows:write", "vault:verify", expires=expires)


def blobs(vault: Vault) -> int:
    depot = vault.objects._depot
    return sum(found.kind == "blob" for found in depot.blobs.walk(depot.clock.now()))


def test_versions_ranges_and_conditions(vault: Vault, permit: Permit) -> None:
    objects = vault.objects
    data = os.urandom(2_500_000)
    one = objects.put(permit, "landing", "a", data, if_none_match=True)
    with pytest.raises(Conflict) as caught:
        objects.put(permit, "landing", "a", b"", if_none_match=True)
    assert caught.value.code == "vault.precondition"
    two = objects.put(permit, "landing", "a", b"two", if_match=one.version)
    with objects.open(permit, "landing", "a", one.version) as file:
        for start, length in [(0, 10), (1_048_570, 20), (2_499_990, 100)]:
            file.seek(start)
            assert file.read(length) == data[start : start + length]
    assert [each.version for each in objects.versions(permit, "landing", "a")] == [two.version, one.version]
    marker = objects.remove(permit, "landing", "a")
    assert marker is not None
    with pytest.raises(Gone):
        objects.get(permit, "landing", "a")
    back = objects.restore(permit, "landing", "a", one.version)
    assert objects.get(permit, "landing", "a") == data
    assert (back.sha256, back.size) == (one.sha256, one.size)
    assert blobs(vault) == 2
    objects.remove(permit, "landing", "a", version=one.version)
    assert objects.get(permit, "landing", "a") == data, "the restored version keeps the bytes"
    assert list(objects.verify(permit)) == []
    assert vault.objects.keeping.purge(permit, "landing", "a") == 2
    assert blobs(vault) == 0
    with pytest.raises(NotFound):
        objects.versions(permit, "landing", "a")


def test_an_upload_in_parts_resumes_in_another_process(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    data = os.urandom(7_000_000)
    uploads = vault.objects.uploads
    begun = uploads.begin(permit, "lake", "big", tags={"k": "v"}, part_bytes=3_000_000)
    uploads.put(permit, "lake", begun.id, 2, data[3_000_000:6_000_000])
    broken = uploads.part(permit, "lake", begun.id, 1)
    broken.write(data[:2_000_000])
    broken.close()
    assert vault.objects.list(permit, "lake") == []
    with pytest.raises(Invalid):
        uploads.part(permit, "lake", begun.id, 10_001)
    vault.close()
    said: dict[str, Any] = {"settings": vault.settings, "key_dir": vault.root.parent / "keys", "clock": clock}
    with Vault.open(vault.root, ids=RandomIds(), **said) as again:
        uploads = again.objects.uploads
        assert [part.number for part in uploads.parts(permit, "lake", begun.id)] == [2]
        assert uploads.list(permit, "lake", "big") == [begun]
        uploads.put(permit, "lake", begun.id, 1, data[:3_000_000])
        uploads.put(permit, "lake", begun.id, 3, data[6_000_000:])
        parts = uploads.parts(permit, "lake", begun.id)
        with pytest.raises(Conflict):
            uploads.complete(permit, "lake", begun.id, [altered(parts[0])])
        told = uploads.complete(permit, "lake", begun.id, parts)
        assert (told.size, told.parts, told.tags) == (len(data), 3, {"k": "v"})
        objects = again.objects
        assert objects.get(permit, "lake", "big") == data
        with objects.open(permit, "lake", "big") as file:
            for start in (0, 2_999_990, 5_999_999, 6_999_990):
                file.seek(start)
                assert file.read(20) == data[start : start + 20]
        assert objects.check(permit, "lake", "big") is None
        assert list(objects.verify(permit)) == []
        with pytest.raises(NotFound):
            uploads.abort(permit, "lake", begun.id)
        again.objects.put(permit, "lake", "big", b"replaced")
        assert blobs(again) == 1


def altered(part: Any) -> Any:
    return replace(part, sha256="0" * 64)


def test_an_aborted_upload_leaves_nothing(vault: Vault, permit: Permit) -> None:
    uploads = vault.objects.uploads
    begun = uploads.begin(permit, "landing", "a")
    uploads.put(permit, "landing", begun.id, 1, b"x")
    assert blobs(vault) == 1
    uploads.abort(permit, "landing", begun.id)
    assert blobs(vault) == 0
    with pytest.raises(NotFound):
        uploads.put(permit, "landing", begun.id, 1, b"x")
    assert blobs(vault) == 0


def test_the_audit_zone_is_written_once_and_kept(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    told = vault.objects.put(permit, "audit", "segment-1", b"one")
    assert told.retain_mode == "compliance"
    assert told.retain_until == "2032-01-01T03:04:05.000Z"  # 2,190 days later
    keeping, objects = vault.objects.keeping, vault.objects
    clock.move(days=3000)
    for call in (
        lambda: objects.put(permit, "audit", "segment-1", b"two"),
        lambda: objects.delete(permit, "audit", "segment-1"),
        lambda: objects.remove(permit, "audit", "segment-1"),
        lambda: objects.remove(permit, "audit", "segment-1", version=told.version),
        lambda: keeping.purge(permit, "audit", "segment-1"),
        lambda: keeping.retain(permit, "audit", "segment-1", None, None),
        lambda: keeping.hold(permit, "audit", "segment-1", on=False),
        lambda: objects.uploads.begin(permit, "audit", "segment-1"),
        lambda: objects.restore(permit, "audit", "segment-1", told.version),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "vault.locked"
    assert objects.lifecycle.run(permit, "audit").expired == 0
    assert objects.get(permit, "audit", "segment-1") == b"one"


def test_holds_and_retention_keep_the_bytes(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    objects, keeping = vault.objects, vault.objects.keeping
    told = objects.put(permit, "landing", "a", b"x")
    keeping.hold(permit, "landing", "a", on=True)
    clock.move(days=400)
    assert objects.lifecycle.run(permit, "landing").kept > 0
    for call in (
        lambda: keeping.purge(permit, "landing", "a"),
        lambda: objects.delete(permit, "landing", "a"),
        lambda: objects.remove(permit, "landing", "a", version=told.version),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "vault.held"
    keeping.hold(permit, "landing", "a", on=False)
    # Ends of retention lie ahead of the bucket's own clock too.
    until = clock.now() + timedelta(days=9000)
    keeping.retain(permit, "landing", "a", "governance", until)
    with pytest.raises(Refused):
        keeping.purge(permit, "landing", "a")
    keeping.retain(permit, "landing", "a", None, None)
    objects.put(permit, "lake", "b", b"x")
    keeping.retain(permit, "lake", "b", "compliance", until)
    with pytest.raises(Refused):
        objects.put(permit, "lake", "b", b"an overwrite would remove it")
    with pytest.raises(Refused):
        keeping.retain(permit, "lake", "b", "compliance", until - timedelta(days=1))
    assert objects.get(permit, "lake", "b") == b"x"
    keeping.retain(permit, "lake", "b", "compliance", until + timedelta(days=1))


def test_what_shares_its_bytes_with_a_held_version_stays_where_it_is(
    vault: Vault, permit: Permit, clock: FixedClock
) -> None:
    objects, depot = vault.objects, vault.objects._depot
    first = objects.put(permit, "landing", "a", b"one")
    objects.keeping.hold(permit, "landing", "a", on=True)
    objects.put(permit, "landing", "a", b"two")
    again = objects.restore(permit, "landing", "a", first.version)
    objects.put(permit, "landing", "b", b"free")
    blob = Blob("production", "landing", depot_object(vault, first.version))
    objects.keeping.hold(permit, "landing", "a", on=True, version=again.version)
    objects.keeping.hold(permit, "landing", "a", on=False, version=again.version)
    if not isinstance(depot.blobs, LocalBlobs):
        with pytest.raises(Refused):  # the other version's hold is there still
            depot.blobs.remove(blob)
    clock.move(days=11)
    assert objects.lifecycle.run(permit, "landing", dry_run=True).kept == 3  # held, by two rules; and sharing
    done = objects.lifecycle.run(permit, "landing")
    assert (done.cooled, done.kept, done.failed) == (1, 3, 0)
    assert objects.stat(permit, "landing", "a").storage == "hot"
    assert objects.get(permit, "landing", "a") == b"one"
    objects.keeping.hold(permit, "landing", "a", on=False, version=first.version)
    assert objects.lifecycle.run(permit, "landing").cooled == 1
    assert objects.get(permit, "landing", "a") == b"one"


def depot_object(vault: Vault, version: str) -> str:
    with vault.database.snapshot() as connection:
        query = select(object_version.c.object).where(object_version.c.version == version)
        return str(connection.execute(query).scalar_one())


def test_workspaces_in_one_place_leave_each_other_alone(
    request: pytest.FixtureRequest, tmp_path: Path, vault: Vault, permit: Permit, clock: FixedClock
) -> None:
    cold = ObjectSettings(driver=vault.settings.objects.driver, inline_bytes=0, cool_folder=str(tmp_path / "cold"))
    for name in ("one", "two"):
        settings = msgspec.structs.replace(vault.settings, workspace=name, objects=cold)
        home = tmp_path / name
        made = Vault.create(home, settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds())
        request.addfinalizer(made.close)
        made.objects.put(permit, "landing", name, name.encode())
        if name == "one":
            one = made
    clock.move(days=4000)
    rules = msgspec.structs.replace(one.settings, lifecycle={"landing": LifecycleRules(cool_days=1)})
    one.objects._depot.settings = rules
    made.objects._depot.settings = msgspec.structs.replace(rules, workspace="two")
    for each in (one, made, one, made):
        assert each.objects.lifecycle.run(permit, "landing").swept == 0
        clock.move(days=40)
    (mine,), (other,) = (list(each.objects._depot.blobs.walk(clock.now())) for each in (one, made))
    assert mine.blob != other.blob
    assert (mine.blob.storage, other.blob.storage) == ("cool", "cool")
    assert one.objects.get(permit, "landing", "one") == b"one"
    assert made.objects.get(permit, "landing", "two") == b"two"


def test_a_sweep_at_open_knows_of_this_machine_only(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    depot = vault.objects._depot
    there = Blob("production", "landing", "ab" * 16)
    sink = depot.blobs.create(there)
    sink.append(memoryview(b"another machine's, whose row comes soon"))
    sink.finish(bytes(92))
    vault.close()
    (vault.root / "vault" / ".open-dead").touch()
    keys = vault.head_folder
    with Vault.open(vault.root, settings=vault.settings, key_dir=keys, clock=clock, ids=RandomIds()) as again:
        walked = [each.kind for each in again.objects._depot.blobs.walk(clock.now())]
    assert walked == (["aside"] if isinstance(depot.blobs, LocalBlobs) else ["blob"])
    assert not list((vault.root / "vault").glob(".open-*"))


def test_a_locked_orphan_ends_neither_open_nor_run(
    vault: Vault, permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = vault.objects._depot
    clock.move(days=(datetime.now(UTC) - clock.now()).days + 1)  # the bucket's own clock is the true one
    for number in range(2):
        guard = None if number else Guard("compliance", clock.now() + timedelta(days=3000))
        sink = depot.blobs.create(Blob("production", "landing", f"{number}a" * 16), guard)
        sink.finish(bytes(92))
    clock.move(days=2)
    assert vault.objects.lifecycle.run(permit, "landing").swept == 2
    if isinstance(depot.blobs, LocalBlobs):  # where the owner can lock a file: by the mode of its folder
        real = depot.blobs.remove

        def remove(blob: Blob) -> None:
            if blob.object == "0a" * 16:
                raise PermissionError
            real(blob)

        monkeypatch.setattr(depot.blobs, "remove", remove)
    clock.move(days=40)
    done = vault.objects.lifecycle.run(permit, "landing")
    assert (done.swept, done.failed) == (1, 1)
    assert vault.objects.sweep() == 0


def test_lifecycle_cools_expires_and_aborts(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    objects, lifecycle = vault.objects, vault.objects.lifecycle
    first = objects.put(permit, "landing", "a", b"one")
    objects.put(permit, "landing", "a", b"two")
    objects.restore(permit, "landing", "a", first.version)
    objects.put(permit, "lake", "b", b"x")
    begun = objects.uploads.begin(permit, "landing", "c")
    objects.uploads.put(permit, "landing", begun.id, 1, b"part")
    clock.move(days=4)
    assert not any(vars_of(lifecycle.run(permit, "landing")).values())
    clock.move(days=8)
    planned = vars_of(lifecycle.run(permit, "landing", dry_run=True))
    assert (planned["expired_old"], planned["aborted"]) == (2, 1)
    done = vars_of(lifecycle.run(permit, "landing"))
    assert (done["expired_old"], done["aborted"], done["cooled"]) == (2, 1, 1)
    assert objects.get(permit, "landing", "a") == b"one"
    assert objects.stat(permit, "landing", "a").storage == "cool"
    assert [row["storage"] for row in objects.report.usage(permit) if row["zone"] == "landing"] == ["cool"]
    clock.move(days=10)
    assert lifecycle.run(permit, "landing").archived == 1
    assert objects.get(permit, "landing", "a") == b"one"
    assert list(objects.verify(permit)) == []
    clock.move(days=30)
    assert lifecycle.run(permit, "landing").expired == 1
    with pytest.raises(Gone):
        objects.get(permit, "landing", "a")
    clock.move(days=6)
    lifecycle.run(permit, "landing")
    with pytest.raises(NotFound):
        objects.versions(permit, "landing", "a")
    assert blobs(vault) == 1, "the lake has no rules here"


def vars_of(passed: Any) -> dict[str, int]:
    return asdict(passed)


def test_usage_tells_no_names_and_inventory_tells_all(vault: Vault, permit: Permit) -> None:
    objects = vault.objects
    one = objects.put(permit, "landing", "Zebulon", b"12345")
    objects.put(permit, "landing", "Zebulon", b"1")
    objects.restore(permit, "landing", "Zebulon", one.version)
    objects.remove(permit, "landing", "Zebulon")
    usage = objects.report.usage(permit)
    assert "Zebulon" not in repr(usage)
    (row,) = usage
    assert (row["objects"], row["versions"], row["markers"], row["bytes"]) == (0, 3, 1, 11)
    assert row["stored"] == 2 * (92 + 16) + 6
    listed = list(objects.report.inventory(permit, "landing"))
    assert [each.size for each in listed] == [5, 1, 5, 0]
    assert {each.name for each in listed} == {"Zebulon"}


def test_blobs_that_change_places_are_found(vault: Vault, permit: Permit) -> None:
    objects = vault.objects
    begun = objects.uploads.begin(permit, "landing", "a")
    for number in (1, 2):
        objects.uploads.put(permit, "landing", begun.id, number, bytes([number]) * 1000)
    objects.uploads.complete(permit, "landing", begun.id)
    depot = objects._depot
    one, two = [found.blob for found in depot.blobs.walk(depot.clock.now())]
    sealed = [raw(vault, each) for each in (one, two)]
    for blob, data in ((one, sealed[1]), (two, sealed[0])):
        depot.blobs.remove(blob)
        sink = depot.blobs.create(blob)
        sink.append(memoryview(data)[92:])
        sink.finish(data[:92])
    with pytest.raises(Corrupt) as caught:
        objects.get(permit, "landing", "a")
    assert caught.value.code == "vault.altered"
    assert [fault.kind for fault in objects.verify(permit)] == ["altered"]


def raw(vault: Vault, blob: Blob) -> bytes:
    source = vault.objects._depot.blobs.open(blob)
    out = bytearray(source.size)
    source.read_at(0, memoryview(out))
    source.close()
    return bytes(out)


def test_parquet_and_duckdb_through_the_filesystem(vault: Vault, permit: Permit) -> None:
    lake = VaultFileSystem(vault.objects, permit)
    table = pa.table({"n": range(50_000)})
    pq.write_table(table, "lake/t/part-0.parquet", filesystem=PyFileSystem(FSSpecHandler(lake)))
    assert pq.read_table("lake/t/part-0.parquet", filesystem=PyFileSystem(FSSpecHandler(lake))).equals(table)
    with duckdb.connect(config={"temp_directory": ""}) as duck:
        duck.register_filesystem(lake)
        query = "SELECT count(*), max(n) FROM read_parquet('vault://lake/t/*.parquet')"
        assert duck.execute(query).fetchall() == [(50_000, 49_999)]
    lake.rm("lake/t", recursive=True)
    assert blobs(vault) == 0


def test_a_rolled_back_transaction_leaves_no_blob(vault: Vault, permit: Permit) -> None:
    def fail() -> None:
        with vault.database.transaction(permit):
            vault.objects.put(permit, "landing", "a", b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert blobs(vault) == 0
    with vault.database.transaction(permit):
        vault.objects.put(permit, "landing", "a", b"x")
        vault.objects.put(permit, "landing", "b", b"y")
    assert blobs(vault) == 2


def test_what_was_set_aside_comes_back_with_its_row(vault: Vault, permit: Permit) -> None:
    """An old database beside newer objects: they are not lost when the newer database is found again."""
    vault.objects.put(permit, "landing", "a", b"older")
    told = vault.objects.put(permit, "landing", "a", b"newer")
    depot = vault.objects._depot
    found = vault.objects._catalogue.find("production", "landing", "a", told.version)
    depot.blobs.set_aside(Blob("production", "landing", found.row.object))
    assert vault.objects.get(permit, "landing", "a") == b"newer"


def test_a_stream_of_several_chunks(vault: Vault, permit: Permit) -> None:
    writer = vault.objects.create(permit, "lake", "stream")
    for _ in range(12):
        writer.write(b"x" * 1_000_000)
    writer.close()
    assert vault.objects.stat(permit, "lake", "stream").size == 12_000_000
    with io.BufferedReader(vault.objects._reader(permit, "lake", "stream", None)) as file:
        assert file.read(3) == b"xxx"


def test_errors_tell_no_name(vault: Vault, permit: Permit) -> None:
    objects = vault.objects
    objects.put(permit, "landing", "Zebulon", b"x", tags={"who": "Zebulon"})
    objects.keeping.hold(permit, "landing", "Zebulon", on=True)
    for call in (
        lambda: objects.keeping.purge(permit, "landing", "Zebulon"),
        lambda: objects.restore(permit, "landing", "Zebulon"),
        lambda: objects.put(permit, "landing", "Zebulon", b"", if_none_match=True),
        lambda: objects.restore(permit, "landing", "Zebulon", "Zebulon"),
    ):
        with pytest.raises(CarelakeError) as caught:
            call()
        assert "Zebulon" not in caught.value.message + repr(caught.value.facts)
    objects.keeping.hold(permit, "landing", "Zebulon", on=False)


def test_both_drivers_are_those_of_the_settings(vault: Vault) -> None:
    local = isinstance(vault.objects._depot.blobs, LocalBlobs)
    assert local == (vault.settings.objects.driver == "local")
