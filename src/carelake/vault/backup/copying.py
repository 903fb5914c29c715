"""The objects of a backup: every blob that a snapshot's rows name, copied once, as sealed as it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import sqlalchemy
from sqlalchemy import select

from carelake.core.errors import Corrupt
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import Entry
from carelake.vault.backup.pieces import Pieces
from carelake.vault.blobs import Blob, Blobs
from carelake.vault.tables import object_part, object_version
from carelake.vault.workspace import Vault

__all__ = ["OBJECT_PIECE_BYTES", "Progress", "Run", "copied", "deleted", "named"]

OBJECT_PIECE_BYTES = 8 << 20
_AHEAD = 64

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(slots=True)
class Run:
    """One backup in progress.

    Attributes:
        known: entries of earlier points and of this one, by the blob's path.
        previous: the newest point before this one, "" for the first.
    """

    vault: Vault
    out: Path
    pieces: Pieces
    index: Index
    blobs: Blobs
    progress: Progress
    known: dict[str, Entry] = field(default_factory=dict)
    previous: str = ""


def named(connection: sqlalchemy.Connection) -> list[Blob]:
    """All blobs that rows name, in the order in which they were entered."""
    whole, part = object_version.c, object_part.c
    versions = select(whole.account, whole.zone, whole.object, whole.storage).where(
        ~whole.deleted, whole.form == "file"
    )
    parts = select(part.account, part.zone, part.object, part.storage).where(part.form == "file")
    found = [*connection.execute(versions.order_by(whole.seq)), *connection.execute(parts.order_by(part.object))]
    # Versions that were restored share their parts.
    return list(dict.fromkeys(Blob(*row) for row in found))


def copied(run: Run, blobs: list[Blob]) -> Iterator[tuple[Blob, Entry | None]]:
    """Entries of these blobs, copied where they are not in the backup yet; None for those that are not there."""
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(blobs), _AHEAD):
            batch = blobs[start : start + _AHEAD]
            for blob, entry in zip(batch, pool.map(lambda blob: _one(run, blob), batch), strict=True):
                if entry is not None:
                    run.known[blob.path] = entry
                yield blob, entry
            run.progress("objects", min(start + _AHEAD, len(blobs)), len(blobs))


def _one(run: Run, blob: Blob) -> Entry | None:
    known = run.known.get(blob.path)
    if known is not None and _all_there(run.pieces, known):
        # A blob is never changed; it can have been moved to another storage class.
        return msgspec.structs.replace(known, storage=blob.storage)
    try:
        source = run.blobs.open(blob)
    except Corrupt:
        return None
    try:
        names, at = bytearray(), 0
        buffer = memoryview(bytearray(min(OBJECT_PIECE_BYTES, max(1, source.size))))
        while got := source.read_at(at, buffer):
            names += bytes.fromhex(run.pieces.put(buffer[:got])[0])
            at += got
        return Entry(blob.path, at, 0o600, blob.storage, bytes(names))
    finally:
        source.close()


def _all_there(pieces: Pieces, entry: Entry) -> bool:
    left = entry.size
    for name in entry.names():
        if not pieces.has(name, min(left, OBJECT_PIECE_BYTES)):
            return False
        left -= OBJECT_PIECE_BYTES
    return True


def deleted(run: Run, missing: set[Blob]) -> bool:
    """Was one of them deleted or moved by now? If the rows still name all of them, their bytes are lost."""
    if not missing:
        return False
    # A connection of its own: this thread's snapshot is the older one.
    with run.vault.database.snapshot() as connection:
        return not missing <= set(named(connection))
