"""Blobs as files: ``FOLDER/<account>/<zone>/<2 hex>/<32 hex>``, one folder for each storage class.

A file is written under a temporary name, synced, renamed and its folder synced; so it is there whole or not at all.
What is set aside lies in ``.aside`` of its folder, under its day, so that it can be found again and grows old.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from carelake.core.errors import Corrupt
from carelake.vault.blobs import HEADER_BYTES, Blob, Blobs, Found, Guard
from carelake.vault.disk import copy_durably, full_disk, private_folder, publish, sync_folder
from carelake.vault.places import ACCOUNTS

__all__ = ["FileSink", "FileSource", "LocalBlobs"]

_ASIDE = ".aside"
_TEMPORARY = ".tmp"


class FileSink:
    """A sink into an open, empty file. Given a temporary and a final path, `finish` also names it."""

    def __init__(self, handle: int, paths: tuple[Path, Path] | None = None) -> None:
        self._handle = handle
        self._paths = paths
        os.lseek(handle, HEADER_BYTES, os.SEEK_SET)

    def append(self, data: memoryview) -> None:
        """See `blobs.Sink`."""
        with full_disk():
            while data:
                data = data[os.write(self._handle, data) :]

    def finish(self, head: bytes) -> None:
        """See `blobs.Sink`."""
        with full_disk():
            os.pwrite(self._handle, head, 0)
            os.fsync(self._handle)
            if self._paths is not None:
                self._close()
                publish(*self._paths)
                self._paths = None

    def discard(self) -> None:
        """See `blobs.Sink`."""
        if self._paths is not None:
            self._close()
            for path in self._paths:  # the final one too: its folder may have failed to sync
                path.unlink(missing_ok=True)
            self._paths = None

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class FileSource:
    """An open file."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self.size = os.fstat(handle).st_size

    def read_at(self, start: int, out: memoryview) -> int:
        """See `blobs.Source`."""
        got = 0
        while got < len(out):
            read = os.preadv(self._handle, [out[got:]], start + got)
            if not read:
                break
            got += read
        return got

    def close(self) -> None:
        """See `blobs.Source`."""
        os.close(self._handle)


class LocalBlobs(Blobs):
    """See `blobs.Blobs`. Folders of the colder classes are made when they are first needed."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Take a folder for each storage class; they may lie on different disks."""
        self._folders = dict(folders)

    def path(self, blob: Blob) -> Path:
        """Where a blob's file is, or would be."""
        return self._folders[blob.storage] / blob.path

    def create(self, blob: Blob, guard: Guard | None = None) -> FileSink:
        """See `blobs.Blobs`. Files are guarded by the rows alone: their owner can always remove them."""
        final = self.path(blob)
        temporary = final.with_name(final.name + _TEMPORARY)
        with full_disk():
            private_folder(final.parent)
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        return FileSink(handle, (temporary, final))

    def open(self, blob: Blob) -> FileSource:
        """See `blobs.Blobs`. A link in a file's place is not followed, and a pipe not waited for."""
        path = self.path(blob)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return FileSource(handle)
            os.close(handle)
        except FileNotFoundError:
            if self._take_back(blob):
                return self.open(blob)
        except OSError:
            pass
        raise Corrupt("vault.missing", "The bytes of an object are missing; restore them from a backup.")

    def move(self, blob: Blob, storage: str, guard: Guard | None = None) -> Blob | None:
        """See `blobs.Blobs`."""
        new = Blob(blob.account, blob.zone, blob.object, storage)
        with full_disk():
            private_folder(self.path(new).parent)
            try:
                copy_durably(self.path(blob), self.path(new))
            except FileNotFoundError:
                raise Corrupt(
                    "vault.missing", "The bytes of an object are missing; restore them from a backup."
                ) from None
        return blob

    def remove(self, blob: Blob) -> None:
        """See `blobs.Blobs`."""
        self.path(blob).unlink(missing_ok=True)
        for path in self._aside(blob):
            path.unlink(missing_ok=True)

    def abort(self, blob: Blob) -> None:
        """See `blobs.Blobs`. `walk` tells of a begun file by its temporary name."""
        self.path(blob).unlink(missing_ok=True)

    def protect(self, blob: Blob, guard: Guard) -> None:
        """Nothing: see `create`."""

    def set_aside(self, blob: Blob) -> None:
        """See `blobs.Blobs`."""
        path = self.path(blob)
        place = self._folders[blob.storage] / _ASIDE
        private_folder(place)
        with suppress(FileNotFoundError):
            # Its age counts from now: the file's own time is when it was written.
            os.utime(path)
            publish(path, place / blob.path.replace("/", "."))
            sync_folder(path.parent)

    def walk(self, now: datetime, under: str = "*/*") -> Iterator[Found]:
        """See `blobs.Blobs`."""
        for storage, folder in self._folders.items():
            for path in folder.glob(f"{under}/*/*"):
                if (told := _told(path, storage, now)) is not None:
                    yield told
            for path in (folder / _ASIDE).glob(under.replace("/", ".") + ".*"):
                account, zone, _, name = path.name.split(".", 3)
                yield Found(Blob(account, zone, name, storage), "aside", _age(path, now))

    def _aside(self, blob: Blob) -> Iterator[Path]:
        path = self._folders[blob.storage] / _ASIDE / blob.path.replace("/", ".")
        if path.exists():
            yield path

    def _take_back(self, blob: Blob) -> bool:
        for path in self._aside(blob):
            private_folder(self.path(blob).parent)
            publish(path, self.path(blob))
            return True
        return False


def _told(path: Path, storage: str, now: datetime) -> Found | None:
    account, zone, _, name = path.parts[-4:]
    if account not in ACCOUNTS:
        return None  # what was set aside, or another workspace's folder
    begun = name.endswith(_TEMPORARY)
    return Found(Blob(account, zone, name, storage), "upload" if begun else "blob", _age(path, now))


def _age(path: Path, now: datetime) -> float:
    try:
        return max(0.0, now.timestamp() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0
