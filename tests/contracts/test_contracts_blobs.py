"""The behaviour of the port `vault.blobs.Blobs`: every driver passes every test here.

Gaps are marked with their reason and are strict: a test that passes in spite of its mark fails.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import Corrupt, Refused
from carelake.core.settings import S3Settings
from carelake.vault.blobs import HEADER_BYTES, Blob, Blobs, Guard
from carelake.vault.drivers.local import LocalBlobs
from carelake.vault.drivers.s3 import S3Blobs

HEAD = b"h" * HEADER_BYTES
NOW = datetime.now(UTC) + timedelta(seconds=5)


@pytest.fixture
def local(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs({name: tmp_path / name for name in ("hot", "cool", "archive")})


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest) -> Blobs:
    if request.param == "local":
        made: Blobs = request.getfixturevalue("local")
        return made
    settings: S3Settings = request.getfixturevalue("bucket")
    return S3Blobs.connect(settings)


def new(zone: str = "landing") -> Blob:
    return Blob("production", zone, uuid.uuid4().hex)


def write(blobs: Blobs, blob: Blob, data: bytes, guard: Guard | None = None) -> bytes:
    sink = blobs.create(blob, guard)
    for start in range(0, len(data), 1 << 20):
        sink.append(memoryview(data)[start : start + (1 << 20)])
    sink.finish(HEAD)
    return HEAD + data


def read(blobs: Blobs, blob: Blob) -> bytes:
    source = blobs.open(blob)
    out = bytearray(source.size)
    assert source.read_at(0, memoryview(out)) == source.size
    source.close()
    return bytes(out)


def found(blobs: Blobs, blob: Blob) -> list[str]:
    return [each.kind for each in blobs.walk(NOW) if each.blob.object.startswith(blob.object)]


@pytest.mark.parametrize("size", [0, 1, 4096, (8 << 20) - HEADER_BYTES, (8 << 20) + 1, 25_000_001])
def test_what_is_written_is_read(blobs: Blobs, size: int) -> None:
    blob = new()
    assert write(blobs, blob, os.urandom(size)) == read(blobs, blob)
    assert found(blobs, blob) == ["blob"]


def test_any_range_is_read(blobs: Blobs) -> None:
    blob, data = new(), os.urandom(3_000_000)
    plain = write(blobs, blob, data)
    source = blobs.open(blob)
    for start, length in [(0, 92), (2_999_000, 5000), (5, 1), (1_048_570, 100), (0, 2_000_000), (9_000_000, 10)]:
        out = bytearray(length)
        got = source.read_at(start, memoryview(out))
        assert bytes(out[:got]) == plain[start : start + length]
    source.close()


def test_nothing_is_there_before_it_is_finished_nor_after_a_discard(blobs: Blobs) -> None:
    blob = new()
    sink = blobs.create(blob)
    for _ in range(20):
        sink.append(memoryview(os.urandom(1 << 20)))
    with pytest.raises(Corrupt) as caught:
        blobs.open(blob)
    assert caught.value.code == "vault.missing"
    assert found(blobs, blob) == ["upload"]
    sink.discard()
    sink.discard()
    assert found(blobs, blob) == []


def test_a_discard_after_the_end_does_nothing(blobs: Blobs) -> None:
    blob = new()
    sink = blobs.create(blob)
    sink.finish(HEAD)
    sink.discard()
    assert read(blobs, blob) == HEAD


def test_a_forgotten_upload_is_removed_by_what_walk_found(blobs: Blobs) -> None:
    blob = new()
    sink = blobs.create(blob)
    for _ in range(20):
        sink.append(memoryview(bytes(1 << 20)))
    (left,) = (each for each in blobs.walk(NOW) if each.blob.object.startswith(blob.object))
    assert left.kind == "upload"
    assert left.seconds >= 0
    if isinstance(blobs, LocalBlobs):  # moto says that every upload was begun in 2010
        assert left.seconds < 60
    blobs.abort(left.blob)
    assert found(blobs, blob) == []


def test_to_abort_an_upload_leaves_the_finished_blob(blobs: Blobs) -> None:
    blob = new()
    plain = write(blobs, blob, b"finished")
    if isinstance(blobs, S3Blobs):  # as a move that was killed leaves it
        blobs._client.create_multipart_upload(Bucket=blobs._bucket, Key=blobs._key(blob))
    else:
        path = blobs.path(blob)  # type: ignore[attr-defined]
        path.with_name(f"{path.name}.0123.tmp").write_bytes(b"half")
    (left,) = (each for each in blobs.walk(NOW) if each.kind == "upload" and each.blob.object.startswith(blob.object))
    blobs.abort(left.blob)
    assert found(blobs, blob) == ["blob"]
    assert read(blobs, blob) == plain


def test_a_walk_can_be_of_one_zone(blobs: Blobs) -> None:
    one, other, aside = new(), new("lake"), new()
    for blob in (one, other, aside):
        write(blobs, blob, b"x")
    blobs.set_aside(aside)
    walked = {each.blob.object: each.kind for each in blobs.walk(NOW, "production/landing")}
    assert (walked[one.object], walked[aside.object]) == ("blob", "aside")
    assert other.object not in walked
    assert other.object in {each.blob.object for each in blobs.walk(NOW)}


def test_a_reader_goes_on_while_the_blob_moves(blobs: Blobs) -> None:
    blob = new()
    plain = write(blobs, blob, os.urandom(4 << 20))
    source = blobs.open(blob)
    out = bytearray(1000)
    assert source.read_at(0, memoryview(out)) == 1000
    old = blobs.move(blob, "cool")
    if old is not None:
        blobs.remove(old)
    assert source.read_at(3 << 20, memoryview(out)) == 1000
    assert bytes(out) == plain[3 << 20 : (3 << 20) + 1000]
    source.close()


def test_removed_is_gone_and_twice_is_no_error(blobs: Blobs) -> None:
    blob = new()
    write(blobs, blob, b"x")
    blobs.remove(blob)
    blobs.remove(blob)
    assert found(blobs, blob) == []
    with pytest.raises(Corrupt):
        blobs.open(blob)


def test_what_was_set_aside_comes_back_when_it_is_asked_for(blobs: Blobs) -> None:
    blob = new()
    plain = write(blobs, blob, b"still wanted")
    blobs.set_aside(blob)
    assert found(blobs, blob) == ["aside"]
    assert read(blobs, blob) == plain
    assert found(blobs, blob) == ["blob"]
    blobs.set_aside(blob)
    blobs.remove(blob)
    assert found(blobs, blob) == []


@pytest.mark.parametrize("storage", ["cool", "archive"])
def test_a_blob_moves_to_another_class_and_is_whole_in_between(blobs: Blobs, storage: str) -> None:
    blob = new()
    plain = write(blobs, blob, os.urandom(100_000))
    old = blobs.move(blob, storage)
    moved = Blob(blob.account, blob.zone, blob.object, storage)
    assert read(blobs, moved) == plain
    if old is not None:
        assert read(blobs, old) == plain
        blobs.remove(old)
    assert read(blobs, moved) == plain
    assert [each.blob.storage for each in blobs.walk(NOW) if each.blob.object == blob.object] == [storage]
    blobs.move(moved, storage)  # as after a crash: done again, it changes nothing
    assert read(blobs, moved) == plain


def test_a_blob_that_is_not_there_does_not_move(blobs: Blobs) -> None:
    with pytest.raises(Corrupt):
        blobs.move(new(), "cool")


def test_accounts_and_zones_are_apart(blobs: Blobs) -> None:
    blob = new()
    write(blobs, blob, b"x")
    for other in (Blob("research", blob.zone, blob.object), Blob(blob.account, "lake", blob.object)):
        with pytest.raises(Corrupt):
            blobs.open(other)


@pytest.fixture
def keeping(request: pytest.FixtureRequest, blobs: Blobs) -> Blobs:
    if isinstance(blobs, LocalBlobs):
        request.applymarker(pytest.mark.xfail(reason="never: whoever owns a file can remove it", strict=True))
    return blobs


def test_the_place_itself_keeps_what_is_under_compliance(keeping: Blobs) -> None:
    blob = new("audit")
    write(keeping, blob, b"x", Guard("compliance", NOW + timedelta(days=2190)))
    with pytest.raises(Refused) as caught:
        keeping.remove(blob)
    assert caught.value.code == "vault.bucket_denied"
    assert read(keeping, blob) == HEAD + b"x"


def test_the_place_itself_keeps_what_is_held(keeping: Blobs) -> None:
    blob = new()
    write(keeping, blob, b"x")
    keeping.protect(blob, Guard(hold=True))
    with pytest.raises(Refused):
        keeping.remove(blob)
    keeping.protect(blob, Guard())
    keeping.remove(blob)
    assert found(keeping, blob) == []


def test_what_keeps_a_blob_keeps_it_where_it_moves(keeping: Blobs) -> None:
    blob = new()
    write(keeping, blob, b"x")
    keeping.move(blob, "cool", Guard("governance", NOW + timedelta(days=30), hold=True))
    with pytest.raises(Refused):
        keeping.remove(blob)


def test_a_large_guarded_blob_is_kept_too(keeping: Blobs) -> None:
    blob = new("audit")
    write(keeping, blob, os.urandom(20_000_000), Guard("compliance", NOW + timedelta(days=2190)))
    with pytest.raises(Refused):
        keeping.remove(blob)


# -- what is so of one driver only ----------------------------------------------------------------------------------


def test_a_bucket_holds_opaque_keys_under_sse_kms(bucket: S3Settings) -> None:
    blobs = S3Blobs.connect(bucket)
    blob = new()
    for size in (10, 20_000_000):
        blob = new()
        write(blobs, blob, bytes(size))
        head: dict[str, Any] = blobs._client.head_object(Bucket=bucket.bucket, Key=f"ws/{blob.path}")
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"] == bucket.kms_key
        assert head["VersionId"] not in ("", "null")


def test_a_missing_bucket_or_extra_is_said(bucket: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    from carelake.core.errors import Invalid, Unavailable

    with pytest.raises(Invalid, match=r"s3\.bucket"):
        S3Blobs.connect(S3Settings())
    gone = S3Blobs.connect(msgspec.structs.replace(bucket, bucket="no-such-bucket-here"))
    with pytest.raises(Unavailable) as caught:
        write(gone, new(), b"x")
    assert caught.value.code == "vault.bucket"
    deaf = S3Blobs.connect(msgspec.structs.replace(bucket, endpoint_url="http://127.0.0.1:9"))
    deaf._client.meta.events.register("before-send.s3", _refuse)
    with pytest.raises(Unavailable):
        write(deaf, new(), b"x")


def _refuse(**_: object) -> None:
    from botocore.exceptions import EndpointConnectionError

    raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


def test_files_are_private_and_links_are_not_followed(local: LocalBlobs, tmp_path: Path) -> None:
    blob = new()
    write(local, blob, b"x")
    path = local.path(blob)
    for each in (path, *list(path.parents)[:4]):
        assert each.stat().st_mode & 0o077 == 0
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt):
        local.open(blob)
