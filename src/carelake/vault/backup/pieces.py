"""The pieces of a backup: files named by the SHA-256 of what they hold, written once, whole or not at all.

    OUT/carelake-backup.json   format and workspace id
    OUT/lock                   held by the one who writes
    OUT/points/ID.json         signed envelopes of the points in time (`manifest`)
    OUT/pieces/ab/HEX          pieces, each sealed as it lay in the workspace, or sealed for the backup

This module and `copier` import nothing heavy: they also run as a small process of their own.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from carelake.core.errors import Conflict, Corrupt, Unavailable
from carelake.vault.disk import private_folder, sync_folder

__all__ = ["PIECE_MAX", "Pieces", "full_backup_disk", "locked"]

PIECE_MAX = 64 << 20
"""No piece is larger; a file that is larger is not one of ours."""


class Pieces:
    """The folder of pieces of one backup."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "pieces"
        self.new = 0
        self.new_bytes = 0
        self._fresh: set[Path] = set()
        self._counting = Lock()

    def path(self, name: str) -> Path:
        """Where a piece lies."""
        return self.folder / name[:2] / name

    def has(self, name: str, size: int) -> bool:
        """Is there a piece of that name and length? Its content is looked at by `get`, and so by every restore."""
        try:
            return self.path(name).stat().st_size == size
        except FileNotFoundError:
            return False

    def put(self, data: bytes | bytearray | memoryview) -> tuple[str, bool]:
        """Store a piece, unless it is there; answers its name, and whether it was new. Durable after `settle`."""
        name = hashlib.sha256(data).hexdigest()
        if self.has(name, len(data)):
            return name, False
        path = self.path(name)
        temporary = path.with_name(f"{secrets.token_hex(8)}.tmp")
        with full_backup_disk():
            private_folder(path.parent)
            try:
                _write_synced(temporary, data)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        self._fresh.add(path.parent)
        self.count(len(data), new=True)
        return name, True

    def count(self, size: int, *, new: bool) -> None:
        """Count a piece that is new, here or by a process that works for us."""
        if new:
            with self._counting:
                self.new += 1
                self.new_bytes += size

    def get(self, name: str) -> bytes:
        """A piece's bytes, compared with its name.

        Raises:
            Corrupt: ``vault.backup_piece``, naming the piece: missing, or not what was stored.
        """
        try:
            with self.path(name).open("rb") as file:
                data = file.read(PIECE_MAX + 1)
        except FileNotFoundError:
            raise _bad_piece(name, "is missing") from None
        except OSError as error:
            raise _bad_piece(name, f"cannot be read ({errno.errorcode.get(error.errno or 0, 'EIO')})") from None
        if hashlib.sha256(data).hexdigest() != name:
            raise _bad_piece(name, "was altered or cut")
        return data

    def settle(self) -> None:
        """Make the names of what was put durable."""
        with full_backup_disk():
            for folder in sorted(self._fresh):
                sync_folder(folder)
            if self._fresh:
                sync_folder(self.folder)
        self._fresh.clear()

    def all(self) -> Iterator[Path]:
        """Every file here: pieces, and what killed writers left."""
        if self.folder.is_dir():
            for folder in sorted(self.folder.iterdir()):
                yield from folder.iterdir()

    def sweep(self) -> None:
        """Remove what killed writers left unfinished. Only with the lock held."""
        for path in self.all():
            if path.suffix == ".tmp":
                path.unlink(missing_ok=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Be the only one who writes to this backup.

    Raises:
        Conflict: ``vault.backup_running``.
    """
    handle = os.open(out / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "vault.backup_running", "Another backup or prune works in this folder; try again when it is done."
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def full_backup_disk() -> Iterator[None]:
    """Turn "no space left" into `Unavailable` ``vault.backup_full``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                "vault.backup_full",
                "The disk that is written to is full; earlier points are whole. Free space and run the same again: "
                "it goes on from here.",
            ) from None
        raise


def _write_synced(path: Path, data: bytes | bytearray | memoryview) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _bad_piece(name: str, what: str) -> Corrupt:
    return Corrupt(
        "vault.backup_piece",
        f"The piece {name} of the backup {what}. Points that need it cannot be restored from this folder; "
        "use another copy of it, or another point.",
        piece=name,
    )
