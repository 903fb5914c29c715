"""Files in the clear: whole or not at all, never over another one, and nothing left by a kill."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from carelake.apps.cli import object_files
from carelake.apps.cli.object_files import clear_file, copy, put_large
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict, Invalid
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
PART = 5 << 20


@pytest.fixture(params=["unnamed", "named", "without links"])
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has files without names, one that has none, and one that has no hard links either."""
    if request.param != "unnamed":
        monkeypatch.setattr(object_files, "_unnamed", lambda folder: -1)
    if request.param == "without links":

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "link", refuse)


def write(path: Path, mode: Literal["wb", "xb"], data: bytes, *, then: Callable[[], object] = lambda: None) -> None:
    with clear_file(str(path), mode) as file:
        file.write(data)
        file.flush()
        then()


@pytest.mark.usefixtures("files")
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TypeError):
        write(out, "xb", b"half", then=lambda: 1 + "")  # type: ignore[operator]
    assert os.listdir(tmp_path) == []
    write(out, "xb", b"whole")
    assert (os.listdir(tmp_path), out.read_bytes(), out.stat().st_mode & 0o777) == (["out"], b"whole", 0o600)
    seen: list[bytes] = []
    write(out, "wb", b"another", then=lambda: seen.append(out.read_bytes()))
    assert seen == [b"whole"]
    assert (os.listdir(tmp_path), out.read_bytes()) == (["out"], b"another")


@pytest.mark.usefixtures("files")
def test_a_file_that_comes_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Conflict) as caught:
        write(out, "xb", b"ours", then=lambda: out.write_bytes(b"theirs"))
    assert caught.value.code == "apps.file_exists"
    assert (os.listdir(tmp_path), out.read_bytes()) == (["out"], b"theirs")


@pytest.mark.parametrize("mode", ["rb", "wb", "xb"])
def test_a_folder_is_no_file(tmp_path: Path, mode: str) -> None:
    with pytest.raises((Invalid, Conflict)), clear_file(str(tmp_path), mode):  # type: ignore[arg-type]
        pass
    with pytest.raises(Invalid), clear_file(str(tmp_path / "no" / "such"), mode):  # type: ignore[arg-type]
        pass


_WRITES = """
import sys, time
from carelake.apps.cli import object_files
if sys.argv[2] == "named":
    object_files._unnamed = lambda folder: -1
with object_files.clear_file(sys.argv[1], "xb") as file:
    file.write(b"Zebulon")
    file.flush()
    print("there", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unnamed", "named"])
def test_a_kill_leaves_nothing_that_the_next_does_not_remove(tmp_path: Path, how: str) -> None:
    words = [sys.executable, "-c", _WRITES, str(tmp_path / "out"), how]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        beside = tmp_path / "beside"
        with clear_file(str(beside), "xb"):
            pass
        assert len(os.listdir(tmp_path)) == 1 + (how == "named"), "what a living process writes stays"
        running.send_signal(signal.SIGKILL)
    left = sorted(os.listdir(tmp_path))
    assert len(left) == 1 + (how == "named")
    with clear_file(str(beside), "wb"):
        pass
    assert os.listdir(tmp_path) == ["beside"]


def test_a_copy_of_fewer_bytes_than_asked_for_fails() -> None:
    out = io.BytesIO()
    copy(io.BytesIO(b"12345"), out, 5, "")
    copy(io.BytesIO(b"12345"), out, -1, "")
    assert out.getvalue() == b"1234512345"
    with pytest.raises(Conflict) as caught:
        copy(io.BytesIO(b"1234"), out, 5, "")
    assert caught.value.code == "apps.source_changed"


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Vault:
    return Vault.create(
        tmp_path / "ws", settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    )


@pytest.mark.parametrize("real", [PART // 2, PART, PART + 1, 2 * PART + 2])
def test_a_source_that_changes_its_size_is_not_stored(vault: Vault, permit_for: PermitFor, real: int) -> None:
    permit, said = permit_for("landing:read", "landing:write"), 2 * PART + 1
    with vault:
        upload = vault.objects.uploads.begin(permit, "landing", "a", part_bytes=PART)
        with pytest.raises(Conflict) as caught:
            put_large(vault.objects, permit, "landing", "a", io.BytesIO(bytes(real)), said, {}, {}, resume=True)
        assert caught.value.code == "apps.source_changed"
        assert vault.objects.list(permit, "landing") == []
        assert [one.id for one in vault.objects.uploads.list(permit, "landing")] == [upload.id]


@pytest.mark.parametrize("tags", [{}, {"a": "new"}])
def test_a_resumed_upload_has_the_tags_that_are_asked_for(
    vault: Vault, permit_for: PermitFor, tags: dict[str, str]
) -> None:
    permit, data = permit_for("landing:read", "landing:write"), os.urandom(PART + 5)
    with vault:
        uploads = vault.objects.uploads
        begun = uploads.begin(permit, "landing", "a", tags={"patient": "old"}, part_bytes=PART)
        uploads.put(permit, "landing", begun.id, 1, data[:PART])
        told, resumed = put_large(
            vault.objects, permit, "landing", "a", io.BytesIO(data), len(data), tags, {}, resume=True
        )
        assert (told.tags, resumed) == (tags, 1)
        assert vault.objects.stat(permit, "landing", "a").tags == tags
        assert vault.objects.get(permit, "landing", "a") == data
