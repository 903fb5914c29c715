"""The few moves on a file system that must survive a power cut: private folders and atomic, synced files."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carelake.core.errors import Unavailable

__all__ = [
    "ABANDONED_SECONDS",
    "copy_durably",
    "full_disk",
    "private_folder",
    "publish",
    "sync_folder",
    "write_atomic",
]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
ABANDONED_SECONDS = 60.0
"""A small file is written in far less: what is older was left by a process that was killed."""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it, that only the owner may enter; leave existing ones as they are."""
    if folder.is_dir():
        return
    private_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    sync_folder(folder.parent)


def publish(temporary: Path, final: Path) -> None:
    """Give a synced file its name, durably."""
    os.replace(temporary, final)
    sync_folder(final.parent)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file, perhaps to another disk, synced; ``target`` is there whole or not at all."""
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(6)}.tmp")  # another process may copy it too
    try:
        with source.open("rb") as old, os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())
        publish(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes, *, new: bool = False) -> None:
    """Write a small file whole or not at all, mode 0600, synced.

    Args:
        new: refuse, with `FileExistsError`, to replace a file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    handle = os.open(temporary, _NEW, 0o600)
    try:
        with full_disk(), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            now = os.fstat(file.fileno()).st_mtime
        _sweep(path, before=now - ABANDONED_SECONDS)
        if new:
            os.link(temporary, path)
            sync_folder(path.parent)
        else:
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(path: Path, *, before: float) -> None:
    """Remove what killed processes left of earlier writes of this file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if left.stat().st_mtime < before:
                left.unlink()


@contextmanager
def full_disk() -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into `Unavailable` ``vault.disk_full``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                "vault.disk_full", "The disk of the workspace is full; nothing was kept. Free space and try again."
            ) from None
        raise
