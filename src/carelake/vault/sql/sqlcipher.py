"""SQLite under SQLCipher: one file beside the objects, every page encrypted and authenticated.

Write transactions start with ``BEGIN IMMEDIATE``, so that two writers queue instead of failing half-way. Nothing is
ever written in the clear: pages, WAL and rollback data are encrypted, temporary tables and sorts stay in memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import sqlalchemy
from sqlalchemy.pool import QueuePool
from sqlcipher3 import dbapi2

from carelake.core.errors import CarelakeError, Corrupt, Invalid, Unavailable
from carelake.vault.sql.driver import READ_ONLY, WRITE, too_long
from carelake.vault.sql.turns import Turns

__all__ = ["Sqlcipher"]

_BUSY_SECONDS = 30.0

_BULK = 1000
"""Rows of one statement that make bulk work, of which a connection gets room once and for all."""

_LOOK_AGAIN = 0.0002
"""Seconds between tries to begin to write while another process does."""

_LOOK = 100_000
"""Steps of SQLite's machine between looks at the clock: some milliseconds."""

_ROOMY = "carelake.roomy"
_ROOM = ("cache_size = -131072", "wal_autocheckpoint = 20000")
"""128 MiB of pages, so that trees with random keys are not read and decrypted again for each page of rows; and 80 MiB
between checkpoints, so that a page which many transactions touch is copied once (12 % of an import's time)."""


class Sqlcipher:
    """The embedded default."""

    dialect = "sqlite"
    readers_apart = True  # at each change of `query_only` SQLite throws away all statements it has prepared
    ends_with = False  # the log begins anew only where no snapshot is open, when it is full

    def __init__(self, path: Path, key: bytes, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        """Take the file at ``path``.

        Raises:
            Unavailable: ``vault.database_missing``.
        """
        if not path.exists():
            raise _missing()
        self._path = path
        self._key = key
        self._busy_seconds = busy_seconds
        self._turn = Turns()
        _anew_in_children(self)

    @staticmethod
    def make(path: Path) -> None:
        """Make an empty file for a new database. SQLite would make it with the umask's mode."""
        # Only ever with O_EXCL: closing a descriptor of an open database would drop SQLite's locks on it (POSIX).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def engine(self) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(
            "sqlite://",
            module=dbapi2,
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=16,
            max_overflow=-1,
            pool_use_lifo=True,
            hide_parameters=True,
        )

    def _connect(self) -> Any:
        connection = dbapi2.connect(
            str(self._path),
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            for pragma in (
                "cipher_log_level = NONE",
                f"key = \"x'{self._key.hex()}'\"",
                "cipher_memory_security = OFF",
                "temp_store = MEMORY",
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                "secure_delete = ON",
                "cache_size = -32768",
                "wal_autocheckpoint = 4000",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
        except dbapi2.Error as error:
            connection.close()
            raise _translated(error) or error from None
        return connection

    @contextmanager
    def turn(self) -> Iterator[None]:
        # SQLite's own waiting is by sleeps that grow to 100 ms and knows no order: with many threads some starve.
        turn = self._turn
        if not turn.acquire(self._busy_seconds):
            raise _busy()
        try:
            yield
        finally:
            turn.release()

    def begin(self, connection: sqlalchemy.Connection) -> None:
        write = connection.get_execution_options().get(WRITE)
        read_only = write is False
        driver: Any = connection.connection.driver_connection
        # Past SQLAlchemy, which would spend more on these than SQLite does.
        try:
            if connection.info.get(READ_ONLY, False) != read_only:
                driver.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}").close()
                connection.info[READ_ONLY] = read_only
            if write:
                self._begin_immediate(driver)
            else:
                driver.execute("BEGIN").close()
        except dbapi2.Error as error:
            raise self.translate(error, reads_only=read_only) or error from None

    def anew(self) -> None:
        """In a child: whoever had the turn in the parent does not end it here."""
        self._turn = Turns()

    def _begin_immediate(self, driver: Any) -> None:
        """Wait for another process by short sleeps: it writes for a millisecond, mostly."""
        end = monotonic() + self._busy_seconds
        driver.execute("PRAGMA busy_timeout = 0").close()
        try:
            while True:
                try:
                    driver.execute("BEGIN IMMEDIATE").close()
                    return
                except dbapi2.OperationalError as error:
                    if not str(error).startswith("database is locked") or monotonic() > end:
                        raise
                sleep(_LOOK_AGAIN)
        finally:
            driver.execute(f"PRAGMA busy_timeout = {round(self._busy_seconds * 1000)}").close()

    def translate(self, error: BaseException, *, reads_only: bool) -> BaseException | None:
        ours = _translated(error)
        if ours is not None and ours.code == "vault.read_only" and not reads_only:
            # So SQLCipher answers each write after it has met a page that fails its authentication.
            return Corrupt(
                "vault.database", "The database takes no writes: altered, or not writable. Restore a backup."
            )
        return ours

    def many(self, connection: sqlalchemy.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if len(rows) >= _BULK and _ROOMY not in connection.info:
            for pragma in _ROOM:
                connection.exec_driver_sql(f"PRAGMA {pragma}")
            connection.info[_ROOMY] = True
        driver: Any = connection.connection.driver_connection
        try:
            driver.executemany(sql, rows).close()  # past SQLAlchemy: a single write has ten of these
        except dbapi2.IntegrityError as error:
            raise sqlalchemy.exc.IntegrityError(sql, None, error) from None
        except dbapi2.Error as error:
            raise self.translate(error, reads_only=bool(connection.info.get(READ_ONLY))) or error from None

    def rows(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any]
    ) -> Sequence[tuple[Any, ...]]:
        driver: Any = connection.connection.driver_connection
        try:
            found: list[tuple[Any, ...]] = driver.execute(sql, parameters).fetchall()
        except dbapi2.IntegrityError as error:
            raise sqlalchemy.exc.IntegrityError(None, None, error) from None
        except dbapi2.Error as error:
            reads_only = bool(connection.info.get(READ_ONLY))
            raise self.translate(error, reads_only=reads_only) or error from None
        return found

    def alone(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any], *, ends: bool = False
    ) -> Sequence[tuple[Any, ...]]:
        with self.turn(), connection.execution_options(**{WRITE: True}).begin():
            return self.rows(connection, sql, parameters)

    @contextmanager
    def bounded(self, connection: sqlalchemy.Connection, seconds: float) -> Iterator[None]:
        driver: Any = connection.connection.driver_connection
        end = monotonic() + seconds
        driver.set_progress_handler(lambda: monotonic() > end, _LOOK)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)

    def damage(self, connection: sqlalchemy.Connection) -> str:
        found = len(connection.exec_driver_sql("PRAGMA cipher_integrity_check").all())
        return f"{found} of its pages fail their authentication. Restore a backup." if found else ""

    def unreachable(self, error: CarelakeError) -> bool:
        return False


def _translated(error: BaseException) -> CarelakeError | None:
    """Our error for a driver's, or None when it is not about the state of the database file."""
    text = str(error) if isinstance(error, dbapi2.Error) else ""
    if text.startswith(("database is locked", "database table is locked")):
        return _busy()
    if text.startswith(("file is not a database", "database disk image is malformed")):
        return Corrupt(
            "vault.database",
            "The database fails its integrity check: altered, or under another key. Restore a backup.",
        )
    if text.startswith("database or disk is full"):
        return Unavailable("vault.disk_full", "The disk of the workspace is full; nothing was kept. Free space.")
    if text.startswith("disk I/O error"):
        return Unavailable("vault.disk", "The disk of the workspace failed a read or a write; look after the disk.")
    if text.startswith("unable to open database"):
        return Unavailable("vault.database_missing", "The database file cannot be opened; restore it from a backup.")
    if text.startswith("interrupted"):
        return too_long()
    if text.startswith("attempt to write a readonly"):
        return Invalid("vault.read_only", "A write was tried in a reading; use Database.transaction.")
    return None


def _anew_in_children(driver: Sqlcipher) -> None:
    known = weakref.ref(driver)

    def in_child() -> None:
        alive = known()
        if alive is not None:
            alive.anew()

    os.register_at_fork(after_in_child=in_child)


def _busy() -> Unavailable:
    return Unavailable("vault.busy", "The database was held by another writer for 30 s; try again when it is done.")


def _missing() -> Unavailable:
    return Unavailable(
        "vault.database_missing", "The database of the workspace is missing; restore it from a backup."
    )
