"""What is put in comes out: whole, in ranges, as streams, versioned, listed, deleted."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.core.errors import Gone, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.vault.chunks import CHUNK_BYTES, HEADER_BYTES, ChunkReader, ChunkWriter, Place, stored_size
from carelake.vault.keyring import Key
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
PLACE = Place("w", "production", "lake", "ob", "v1")
KEY = Key("production/lake", 1, b"k" * 32, None)  # type: ignore[arg-type]


@pytest.fixture
def all_zones(permit_for: PermitFor) -> Permit:
    return permit_for("landing:read", "landing:write", "lake:read", "lake:write", "audit:read", "audit:write")


def written(path: Path, pieces: list[bytes], chunk: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    writer = ChunkWriter(handle, PLACE, chunk)
    for piece in pieces:
        assert writer.write(piece) == len(piece)
    assert writer.finish(KEY) == hashlib.sha256(b"".join(pieces)).hexdigest()
    return handle


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(max_size=70), max_size=8),
    chunk=st.integers(1, 40),
    moves=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 200)), max_size=8),
)
def test_any_range_equals_the_plain_bytes(
    tmp_path: Path, pieces: list[bytes], chunk: int, moves: list[tuple[int, int]]
) -> None:
    plain = b"".join(pieces)
    path = tmp_path / "object"
    reader = ChunkReader(written(path, pieces, chunk), PLACE, lambda version: KEY)
    assert path.stat().st_size == stored_size(len(plain), chunk)
    with io.BufferedReader(reader, 16) as file:
        for start, length in moves:
            file.seek(start)
            assert file.read(length) == plain[start : start + length]
        file.seek(0)
        assert file.read() == plain
        assert file.tell() == len(plain)


@pytest.mark.parametrize("size", [0, 1, 4096, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_sizes_around_the_chunk(vault: Vault, all_zones: Permit, size: int) -> None:
    data = os.urandom(size)
    told = vault.objects.put(all_zones, "landing", "a", data, tags={"source": "x"})
    assert vault.objects.get(all_zones, "landing", "a") == data
    assert (told.size, told.sha256, told.tags) == (size, hashlib.sha256(data).hexdigest(), {"source": "x"})
    assert vault.objects.stat(all_zones, "landing", "a") == told
    with vault.objects.open(all_zones, "landing", "a") as file:
        assert file.seek(-min(size, 10), os.SEEK_END) == max(0, size - 10)
        assert file.read() == data[-10:]


def test_lines_are_read_from_an_open_object(vault: Vault, all_zones: Permit) -> None:
    lines = [f"line {number}\n".encode() for number in range(1000)]
    vault.objects.put(all_zones, "landing", "a", b"".join(lines))
    with vault.objects.open(all_zones, "landing", "a") as file:
        assert list(file) == lines


def test_the_writer_does_not_keep_a_callers_buffer(vault: Vault, all_zones: Permit) -> None:
    buffer = bytearray(b"a" * (CHUNK_BYTES + 5))
    with vault.objects.writer(all_zones, "lake", "a") as file:
        file.write(buffer)
        buffer[:] = b"b" * len(buffer)
        file.write(buffer)
    plain = b"a" * len(buffer) + b"b" * len(buffer)
    assert vault.objects.get(all_zones, "lake", "a") == plain
    assert vault.objects.stat(all_zones, "lake", "a").sha256 == hashlib.sha256(plain).hexdigest()


def test_overwriting_makes_a_version_and_the_lake_replaces(vault: Vault, all_zones: Permit) -> None:
    objects = vault.objects
    first = objects.put(all_zones, "landing", "a", b"one")
    objects.put(all_zones, "landing", "a", b"two")
    assert objects.get(all_zones, "landing", "a") == b"two"
    assert objects.get(all_zones, "landing", "a", first.version) == b"one"
    old = objects.put(all_zones, "lake", "a", b"one")
    objects.put(all_zones, "lake", "a", b"two")
    with pytest.raises(NotFound):
        objects.get(all_zones, "lake", "a", old.version)
    assert len(files(vault, "lake")) == 1
    assert len(files(vault, "landing")) == 2


def test_delete_removes_the_bytes_of_all_versions(vault: Vault, all_zones: Permit) -> None:
    first = vault.objects.put(all_zones, "landing", "a", b"one")
    vault.objects.put(all_zones, "landing", "a", b"two")
    vault.objects.delete(all_zones, "landing", "a")
    assert files(vault, "landing") == []
    assert vault.objects.list(all_zones, "landing") == []
    for version in (None, first.version):
        with pytest.raises(Gone):
            vault.objects.get(all_zones, "landing", "a", version)
    with pytest.raises(NotFound):
        vault.objects.delete(all_zones, "landing", "a")
    vault.objects.put(all_zones, "landing", "a", b"three")
    assert vault.objects.get(all_zones, "landing", "a") == b"three"


def test_list_by_prefix(vault: Vault, all_zones: Permit) -> None:
    names = ["a", "a/1", "a/2", "a%", "a_b", "b", "é/ü", "a/\U0010ffff"]
    for name in names:
        vault.objects.put(all_zones, "lake", name, b"")
    for prefix in ("", "a", "a/", "a%", "a_", "é", "z"):
        found = [each.name for each in vault.objects.list(all_zones, "lake", prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))


def test_the_audit_zone_is_locked(vault: Vault, all_zones: Permit) -> None:
    vault.objects.put(all_zones, "audit", "segment-1", b"one")
    with pytest.raises(Refused, match="locked"):
        vault.objects.put(all_zones, "audit", "segment-1", b"two")
    with pytest.raises(Refused, match="locked"):
        vault.objects.delete(all_zones, "audit", "segment-1")
    assert vault.objects.get(all_zones, "audit", "segment-1") == b"one"
    assert len(files(vault, "audit")) == 1


def test_a_locked_name_taken_while_writing_is_refused_at_commit(vault: Vault, all_zones: Permit) -> None:
    late = vault.objects.create(all_zones, "audit", "segment-1")
    vault.objects.put(all_zones, "audit", "segment-1", b"one")
    with pytest.raises(Refused, match="locked"):
        late.commit()
    late.discard()
    assert vault.objects.get(all_zones, "audit", "segment-1") == b"one"
    assert len(files(vault, "audit")) == 1


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 1025, "\ud800"])
def test_bad_names_are_refused(vault: Vault, all_zones: Permit, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        vault.objects.put(all_zones, "landing", name, b"")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/abs", "a/../../b", "..", "C:\\x", "a\nb", "x" * 1024, "💉" * 256]
)
def test_path_tricks_are_just_names(vault: Vault, all_zones: Permit, name: str) -> None:
    vault.objects.put(all_zones, "landing", name, b"x")
    assert vault.objects.get(all_zones, "landing", name) == b"x"
    assert [each.name for each in vault.objects.list(all_zones, "landing")] == [name]
    (path,) = files(vault, "landing")
    assert path.parent.parent == vault.root / "vault" / "production" / "landing"


def test_bad_tags_and_zones_are_refused(vault: Vault, all_zones: Permit) -> None:
    with pytest.raises(Invalid, match="Tags"):
        vault.objects.put(all_zones, "landing", "a", b"", tags={"a": "x" * 9000})
    with pytest.raises(Invalid, match="zone"):
        vault.objects.put(all_zones, "../lake", "a", b"")
    assert files(vault, "landing") == []


def test_a_failed_or_forgotten_writer_leaves_nothing(vault: Vault, all_zones: Permit) -> None:
    def fail() -> None:
        with vault.objects.writer(all_zones, "lake", "a") as file:
            file.write(b"x" * 3_000_000)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with vault.objects.writer(all_zones, "lake", "b") as file:
        file.write(b"x")
        file.close()
        assert vault.objects.list(all_zones, "lake") == []
    forgotten = vault.objects.create(all_zones, "lake", "c")
    forgotten.write(b"x")
    del forgotten
    assert [each.name for each in vault.objects.list(all_zones, "lake")] == ["b"]
    assert len(files(vault, "lake")) == 1


def test_private_modes_and_header_room(vault: Vault, all_zones: Permit) -> None:
    vault.objects.put(all_zones, "lake", "a", b"")
    (path,) = files(vault, "lake")
    assert path.stat().st_size == HEADER_BYTES + 16
    for each in [vault.root, *vault.root.rglob("*")]:
        assert each.stat().st_mode & 0o077 == 0, each.name


def files(vault: Vault, zone: str) -> list[Path]:
    return [path for path in (vault.root / "vault" / "production" / zone).rglob("*") if path.is_file()]
