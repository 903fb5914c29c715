"""The folder that an export is written to: files in the clear for the owner alone, each there whole or not at all.

``.carelake-export`` names the job while there is one, and goes last; ``manifest.json`` is there when all files are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.vault.disk import full_disk, private_folder, publish, sync_folder, write_atomic

__all__ = ["MANIFEST", "Folder", "FolderSink"]

MANIFEST = "manifest.json"
_MARK = ".carelake-export"


class _Draft(NamedTuple):
    file: BinaryIO
    temporary: Path
    final: Path


@dataclass(frozen=True)
class FolderSink:
    """Files of a folder."""

    folder: Path

    def write(self, permit: Permit, job: str, name: str, blocks: Iterator[bytes]) -> _Draft:
        temporary = self.folder / f".{name}.part"
        # Always the same name: what a killed run left goes. One that lies there may be for others to read.
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        draft = _Draft(os.fdopen(handle, "wb"), temporary, self.folder / name)
        try:
            with full_disk():
                draft.file.writelines(blocks)
                draft.file.flush()
                os.fsync(handle)
        except BaseException:
            self.discard(draft)
            raise
        return draft

    def commit(self, draft: _Draft) -> int:
        size = os.fstat(draft.file.fileno()).st_size
        draft.file.close()
        publish(draft.temporary, draft.final)
        return size

    def discard(self, draft: _Draft) -> None:
        draft.file.close()
        draft.temporary.unlink(missing_ok=True)

    def name(self, job: str, name: str) -> str:
        return name


class Folder:
    """A folder that is new, empty, or of an export that was broken off."""

    def __init__(self, path: Path) -> None:
        """Raises: Invalid: ``apps.no_such_path``. Conflict: ``apps.not_empty``."""
        self.path = path
        try:
            private_folder(path)
            there = [one.name for one in path.iterdir()]
        except OSError:
            raise Invalid("apps.no_such_path", "The folder cannot be made or read; check the path given.") from None
        if there and _MARK not in there:
            raise Conflict("apps.not_empty", "The folder is not empty; an export is written to a new or empty one.")

    def job(self) -> tuple[str, str]:
        """Id of the job that is under way and digest of what it was asked for; "" and "" for none."""
        try:
            told = msgspec.json.decode((self.path / _MARK).read_bytes(), type=dict[str, str])
            return told["job"], told["asked"]
        except (FileNotFoundError, KeyError, msgspec.DecodeError):
            return "", ""

    def mark(self, job: str, asked: str) -> None:
        """Note the job."""
        write_atomic(self.path / _MARK, msgspec.json.encode({"job": job, "asked": asked}))

    def clear(self) -> None:
        """Remove the files of an export that cannot be gone on with."""
        for one in (*self.path.glob("*.ndjson"), *self.path.glob(".*.part"), *self.path.glob(MANIFEST)):
            one.unlink(missing_ok=True)

    def has(self, name: str, size: int) -> bool:
        """Whether a file is there with that size."""
        with suppress(OSError):
            return (self.path / name).lstat().st_size == size
        return False

    def write(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest: every file is there."""
        write_atomic(self.path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")

    def written(self) -> dict[str, Any] | None:
        """The manifest, where it is there."""
        with suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self.path / MANIFEST).read_bytes(), type=dict[str, Any])
        return None

    def size(self, manifest: Mapping[str, Any]) -> int:
        """Bytes of all files."""
        listed = (one for role in ("output", "deleted", "error") for one in manifest[role])
        return sum((self.path / one["url"]).lstat().st_size for one in listed)

    def finish(self) -> None:
        """The export is at its end."""
        (self.path / _MARK).unlink(missing_ok=True)
        sync_folder(self.path)
