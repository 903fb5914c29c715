"""A disk that fills up at one write point after the other: a small tmpfs, its free space walked down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
MIB = 1 << 20
SIZE = 48 * MIB

COMMANDS: dict[str, tuple[str, ...]] = {
    "ingest": ("ingest", "{folder}/patients.ndjson"),
    "put": ("object", "put", "landing/new", "{folder}/big"),
    "seal": ("status",),
    "rotate": ("key", "rotate", "production/landing"),
    "backup": ("backup", "{folder}/kept"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, small."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk until so many bytes are free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    stat = os.statvfs(disk)
    need = stat.f_bavail * stat.f_frsize - free
    with filler.open("wb") as file:
        if need > 0:
            os.posix_fallocate(file.fileno(), 0, need)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_full_disk(prey: Any, disk: Path, tmp_path: Path, name: str) -> None:
    home = prey.mine.copy(disk / "copy")
    for folder in ("tmp", "out", "home"):
        (home.folder / folder).mkdir(exist_ok=True)
    (home.folder / "big").write_bytes(os.urandom(600_000))
    source = home.folder / "patients.ndjson"
    source.write_text("".join(json.dumps({"resourceType": "Patient", "id": f"n{n}"}) + "\n" for n in range(200)))
    command = [word.format(folder=home.folder) for word in COMMANDS[name]]
    full = 0
    for kilobytes in (0, 40, 100, 220, 400, 700):
        leave(disk, kilobytes << 10)
        # Its output goes to another disk: what it says when it fails is part of what is tried.
        done = home.fork([home.program, *command, "--json"], said=tmp_path).wait(120)
        assert "Traceback" not in done.err
        assert done.code in (0, 7), (kilobytes, done.code, done.err)
        if done.code:
            full += 1
            said = done.err.strip().splitlines()[-1]
            assert any(word in said for word in ("vault.disk_full", "vault.disk", "vault.backup_full")), said
    (disk / "filler").unlink()
    assert full, "the disk was never full"
    done = home.run(*command, "--json")
    assert done.code == 0, done.err
    told = home.json("audit", "verify")
    assert told["intact"] is True, told["problems"][:3]
    assert told["unfinished"] == 0
    out = disk / "got"
    home.json("object", "get", "landing/b", out)
    assert out.read_bytes() == (prey.mine.folder / "b").read_bytes()
    shutil.rmtree(home.folder)
