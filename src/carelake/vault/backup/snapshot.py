"""A standstill of the live SQLite database, for as long as it takes to copy its file, while writers go on.

How (https://www.sqlite.org/wal.html, and "Write-Ahead Log Readers" in walformat.html): while the write lock is held
for a moment, what the WAL holds is moved into the file, and a reading is begun. Then one of two is so until that
reading ends:

- all of the WAL is in the file. The reading holds read lock 0, and no one may move pages into the file: its bytes
  stand still;
- another reading that is older keeps a part of the WAL from being moved. Then pages may be moved into the file, but
  only such as the first ``wal_bytes`` of the WAL hold, and that part of the WAL is not written again. A copy of the
  file and of that part is the database at this moment, however the file changed meanwhile: SQLite plays the WAL back
  when it opens the copy (`fold`).

Which one it is, SQLite says; the lock itself is looked at before and after the copy (`Frozen.check`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import sqlalchemy

from carelake.core.errors import Corrupt, Unavailable
from carelake.core.permit import Permit
from carelake.vault.database import Database

__all__ = ["Frozen", "fold", "frozen"]

_WAL_HEADER, _FRAME_HEADER = 32, 24
_PATIENCE_SECONDS = 30.0
_WRITE = "carelake_write"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A database that stands still.

    Attributes:
        path: of the file; not to be opened in this process.
        wal_bytes: how much of ``path-wal`` belongs to it; 0 when the file is whole.
        connection: reads the same state.
        stalled: seconds for which writers had to wait.
    """

    path: Path
    wal_bytes: int
    connection: sqlalchemy.Connection
    stalled: float

    def stamp(self) -> tuple[int, int]:
        """Changes when the file is written to (its size and time of change)."""
        found = os.stat(self.path)
        return found.st_size, found.st_mtime_ns

    def check(self, before: tuple[int, int]) -> None:
        """See that the file was not written to since ``before``; `Corrupt` ``vault.backup_moved`` if it was."""
        if not self.wal_bytes and self.stamp() != before:
            raise Corrupt(
                "vault.backup_moved",
                "The database file changed while it was copied, which nothing of carelake does; nothing was kept. "
                "See what else writes to the workspace's folder.",
            )


@contextmanager
def frozen(permit: Permit, database: Database, path: Path) -> Iterator[Frozen]:
    """Let the database stand still for this process; others go on.

    Raises:
        Unavailable: ``vault.backup_busy``, when the write lock or the WAL were not to be had.
    """
    engine = database.engine_for(permit)
    mover = engine.raw_connection()
    try:
        _move(mover)  # most of it, while nobody waits
        with ExitStack() as stack:
            with engine.connect() as lock:
                lock.execution_options(**{_WRITE: True})
                with lock.begin():
                    began = monotonic()
                    frames, moved = _move(mover)
                    connection = stack.enter_context(database.snapshot())
            stalled = monotonic() - began
            page = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            wal = 0 if frames == moved else _WAL_HEADER + frames * (_FRAME_HEADER + int(page))
            yield Frozen(path, wal, connection, stalled)
    finally:
        mover.close()


def fold(database: Database) -> None:
    """Move all of a restored copy's WAL into its file, over pages that were copied while they changed."""
    mover = database._engine.raw_connection()
    try:
        busy, *_ = mover.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # type: ignore[union-attr]
    finally:
        mover.close()
    if busy:
        raise Unavailable("vault.backup_busy", "The restored copy is open elsewhere; close that, and run it again.")


def _move(connection: Any) -> tuple[int, int]:
    """Move from the WAL what can be moved; answers how many frames there are, and how many are in the file."""
    give_up = monotonic() + _PATIENCE_SECONDS
    while True:
        busy, frames, moved = connection.driver_connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and frames >= 0:
            return frames, moved
        if monotonic() > give_up:
            raise Unavailable(
                "vault.backup_busy", "The database could not be brought to a standstill for 30 s; try again."
            )
        sleep(0.002)
