"""The SQLite database of a backup: the pages of its file, cut into pieces by a process of its own (`copier`)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from carelake.core.errors import CarelakeError, Unavailable
from carelake.vault.backup.copying import Run
from carelake.vault.backup.manifest import Entry, Stored
from carelake.vault.backup.snapshot import Frozen

__all__ = ["PIECE_BYTES", "cut_database"]

PIECE_BYTES = 256 << 10
"""64 pages. Smaller ones ship less of a change, larger ones make fewer files."""

_IN_A_LIST = 1024


def cut_database(run: Run, still: Frozen) -> Stored:
    """Ship what is new of the file, and of the part of its WAL that belongs to it."""
    before = still.stamp()
    entries = [_cut(run, still.path, before[0], 0)]
    if still.wal_bytes:
        entries.append(_cut(run, still.path.with_name("carelake.db-wal"), still.wal_bytes, still.wal_bytes))
    still.check(before)
    groups = [run.index.put([part]) for entry in entries for part in _parts(entry)]
    return Stored(groups, len(entries), sum(entry.size for entry in entries))


def _parts(entry: Entry) -> Iterator[Entry]:
    """A long list of pieces in parts, so that a change of some pages ships a part of the list only."""
    left, step = entry.size, 32 * _IN_A_LIST
    for at in range(0, max(1, len(entry.pieces)), step):
        size = min(left, PIECE_BYTES * _IN_A_LIST)
        yield Entry(entry.path, size, entry.mode, "", entry.pieces[at : at + step])
        left -= size


def _cut(run: Run, path: Path, size: int, end: int) -> Entry:
    """Have a file of the live database cut into pieces by a process of its own (`copier`)."""
    command = [sys.executable, "-P", "-m", "carelake.vault.backup.copier"]
    command += [str(path), str(run.out.absolute()), str(PIECE_BYTES), str(end)]
    names, total, last = bytearray(), 0, ""
    with subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                last = line.strip()
                if last.count(" ") == 2:
                    name, length, new = last.split()
                    run.pieces.count(int(length), new=new == "1")
                    names += bytes.fromhex(name)
                    total += int(length)
                    run.progress("database", total, size)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0 or last != "done":
        raise _failed(last)
    return Entry(path.name, total, 0o600, "", bytes(names))


def _failed(last: str) -> CarelakeError:
    if last == "error vault.backup_full":
        return Unavailable(
            "vault.backup_full",
            "The disk that is written to is full; earlier points are whole. Free space and run the same again: "
            "it goes on from here.",
        )
    return Unavailable(
        "vault.backup_copier",
        f"The process that copies the database ended early ({last[:80] or 'killed'}); run it again.",
    )
