"""The SQL database of a workspace: SQLAlchemy Core over SQLite under SQLCipher.

One connection per thread at a time, from a pool; write transactions start with ``BEGIN IMMEDIATE``, so that two
writers queue instead of failing half-way; a reading is one consistent snapshot. Nothing is ever written in the
clear: pages, WAL and rollback data are encrypted, temporary tables and sorts stay in memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.pool import QueuePool
from sqlcipher3 import dbapi2

from carelake.core.clock import Clock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid, Unavailable
from carelake.core.permit import Permit, check

__all__ = ["Database", "Scope", "bulk", "metadata", "scope_of"]

metadata = sqlalchemy.MetaData()
"""Every room's ``tables.py`` hangs its tables here; `Database.create_all` makes them."""

_epoch = sqlalchemy.Table(
    "vault_epoch",
    metadata,
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("epoch", sqlalchemy.Integer, nullable=False),
    comment="Counts erasures of keys: a cached key is good for the epoch it was read in only.",
)

_BUSY_SECONDS = 30.0
_SCOPE = "carelake.scope"
_WRITE = "carelake_write"
_READ_ONLY = "carelake.read_only"


@dataclass(slots=True)
class Scope:
    """What one open transaction or snapshot carries along.

    Attributes:
        epoch: the erasure epoch that it sees; None once it has erased a key itself.
        fresh: patient keys made or read in a transaction; nobody else's until it has committed (`sealing`).
        generation: changes when keys that were given out are void: a savepoint undone, a key erased, the end.
        after: called after a successful commit, in order.
        undo: called after a rollback, in order.
    """

    connection: sqlalchemy.Connection
    writing: bool
    epoch: int | None
    thread: int = field(default_factory=get_ident)
    fresh: dict[tuple[str, str], Any] = field(default_factory=dict)
    generation: int = 0
    closed: bool = False
    after: list[Callable[[], None]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)

    def drop_fresh(self) -> None:
        """Void the keys that this scope made or read so far."""
        self.fresh.clear()
        self.generation += 1


_open_scopes: ContextVar[tuple[tuple[int, Scope], ...]] = ContextVar("carelake_vault_scopes", default=())


def scope_of(connection: sqlalchemy.Connection) -> Scope:
    """The scope of a connection that `Database` gave out; `Invalid` ``vault.connection`` for any other."""
    scope = connection.info.get(_SCOPE)
    if not isinstance(scope, Scope):
        raise Invalid("vault.connection", "Not in a transaction of the vault; use Database.transaction or reading.")
    return scope


def bulk(connection: sqlalchemy.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """``executemany`` with ``?`` placeholders, past SQLAlchemy's per-row work."""
    if rows:
        connection.exec_driver_sql(sql, list(rows))


class Database:
    """The one database of an open workspace."""

    def __init__(self, path: Path, key: bytes, clock: Clock) -> None:
        if not path.exists():
            raise Unavailable(
                "vault.database_missing", "The database of the workspace is missing; restore it from a backup."
            )
        self._clock = clock
        self._engine = _engine(path, key)
        _forget_in_children(self._engine)

    @staticmethod
    def make(path: Path) -> None:
        """Make an empty file for a new database. SQLite would make it with the umask's mode."""
        # Only ever with O_EXCL: closing a descriptor of an open database would drop SQLite's locks on it (POSIX).
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    @contextmanager
    def transaction(self, permit: Permit) -> Iterator[sqlalchemy.Connection]:
        """A write transaction; on a clean exit the permit's acts are flushed on it, then it commits.

        Raises:
            Refused: the permit has no grant ``rows:write``.
            Conflict: ``vault.nested``, when this thread is in a write transaction already.
            Unavailable: ``vault.busy`` after 30 s behind another writer; ``vault.disk_full``.
            Corrupt: ``vault.database``.
        """
        check(permit, "rows:write", now=self._clock.now())
        with self.writing(permit) as connection:
            yield connection

    @contextmanager
    def reading(self, permit: Permit) -> Iterator[sqlalchemy.Connection]:
        """One consistent snapshot; inside a transaction or reading of this thread, that one's connection.

        Raises:
            Refused: the permit has no grant ``rows:read``.
        """
        check(permit, "rows:read", now=self._clock.now())
        with self.snapshot(share=True) as connection:
            yield connection

    @contextmanager
    def ledger(self) -> Iterator[sqlalchemy.Connection]:
        """A write transaction without a permit, for `audit`, `events` and `access` alone (an architecture test)."""
        with self._scope(writing=True) as scope:
            yield scope.connection

    @contextmanager
    def ledger_reading(self) -> Iterator[sqlalchemy.Connection]:
        """One consistent snapshot without a permit, for audit, events and access alone; no writer waits for it."""
        with self.snapshot() as connection:
            yield connection

    def damage(self, permit: Permit) -> str:
        """What is wrong with the pages of the file, in a sentence, or "": SQLite itself looks at those that it needs.

        Raises:
            Refused: the permit has no grant ``vault:verify``.
        """
        check(permit, "vault:verify", now=self._clock.now())
        with self.snapshot() as connection:
            found = _damaged(connection)
        if found:
            # Read while another process moved pages from the WAL, perhaps; nobody does while we hold the lock.
            with self._scope(writing=True) as scope:
                found = _damaged(scope.connection)
        return f"{len(found)} of its pages fail their authentication. Restore a backup." if found else ""

    def create_all(self) -> None:
        """Make the tables of `metadata` that are not there yet."""
        with self._scope(writing=True, epoch=False) as scope:
            metadata.create_all(scope.connection)
            scope.connection.exec_driver_sql("INSERT OR IGNORE INTO vault_epoch (id, epoch) VALUES (1, 0)")

    def engine_for(self, permit: Permit) -> sqlalchemy.Engine:
        """The engine itself, for a library that runs its own transactions (pyiceberg's catalog, decision D11).

        Its transactions are deferred and not noticed by `transaction`: do not use it inside one. Needs ``rows:read``
        and ``rows:write``.
        """
        check(permit, "rows:read", now=self._clock.now())
        check(permit, "rows:write", now=self._clock.now())
        return self._engine

    def close(self) -> None:
        """Close all connections; the last one of all processes folds the WAL into the database."""
        self._engine.dispose()

    # -- inside the room ------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, permit: Permit, *, join: bool = False) -> Iterator[sqlalchemy.Connection]:
        """As `transaction`, for modules of the vault that have checked another grant.

        Args:
            join: take part in this thread's open write transaction, if there is one; that one commits.
        """
        if join and (outer := self._mine(writing=True)):
            yield outer.connection
            return
        with self._scope(writing=True) as scope:
            yield scope.connection
            permit.log.flush(scope.connection)

    @contextmanager
    def snapshot(self, *, share: bool = False) -> Iterator[sqlalchemy.Connection]:
        """As `reading`, for modules of the vault that have checked another grant.

        Args:
            share: use this thread's open snapshot too, not only its open write transaction. Without, the newest
                state is seen: a caller that reads at length must find the objects that it wrote meanwhile.
        """
        outer = self._mine(writing=True)
        if outer is None and share:
            outer = self._mine(writing=False)
        if outer:
            yield outer.connection
            return
        with self._scope(writing=False) as scope:
            yield scope.connection

    def _mine(self, *, writing: bool) -> Scope | None:
        here = get_ident()
        for owner, scope in _open_scopes.get():
            if owner == id(self) and scope.thread == here and scope.writing == writing and not scope.closed:
                return scope
        return None

    @contextmanager
    def _scope(self, *, writing: bool, epoch: bool = True) -> Iterator[Scope]:
        if writing and self._mine(writing=True):
            raise Conflict(
                "vault.nested",
                "This thread is in a write transaction already and would wait for itself; pass its connection on.",
            )
        scope = None
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(**{_WRITE: writing})
                with connection.begin():
                    # The first read pins the snapshot here rather than at the caller's first query.
                    seen = connection.exec_driver_sql("SELECT epoch FROM vault_epoch").scalar() if epoch else 0
                    scope = Scope(connection, writing, seen or 0)
                    with _entered(id(self), scope):
                        yield scope
        except BaseException:
            for call in scope.undo if scope else ():
                call()
            raise
        for call in scope.after:
            call()


@contextmanager
def _entered(owner: int, scope: Scope) -> Iterator[None]:
    scope.connection.info[_SCOPE] = scope
    _open_scopes.set((*_still_open(), (owner, scope)))
    try:
        yield
    finally:
        # A generator may be closed by another thread than it was started in, which leaves the entry in the first
        # one's context: so an entry that is closed counts for nothing, wherever it lies.
        scope.closed = True
        scope.generation += 1
        _open_scopes.set(_still_open())
        scope.connection.info.pop(_SCOPE, None)


def _still_open() -> tuple[tuple[int, Scope], ...]:
    return tuple(entry for entry in _open_scopes.get() if not entry[1].closed)


def _engine(path: Path, key: bytes) -> sqlalchemy.Engine:
    def connect() -> Any:
        return _connect(path, key)

    engine = sqlalchemy.create_engine(
        "sqlite://",
        module=dbapi2,
        creator=connect,
        poolclass=QueuePool,
        pool_size=16,
        max_overflow=-1,
        pool_use_lifo=True,
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _handle_error)
    event.listen(engine, "rollback_savepoint", _drop_fresh)
    return engine


def _damaged(connection: sqlalchemy.Connection) -> list[Any]:
    return list(connection.exec_driver_sql("PRAGMA cipher_integrity_check").all())


def _connect(path: Path, key: bytes) -> Any:
    connection = dbapi2.connect(
        str(path), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    try:
        for pragma in (
            "cipher_log_level = NONE",
            f"key = \"x'{key.hex()}'\"",
            "cipher_memory_security = OFF",
            "temp_store = MEMORY",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
            "cache_size = -32768",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
    except dbapi2.Error as error:
        connection.close()
        raise translate(error) or error from None
    return connection


def _begin(connection: sqlalchemy.Connection) -> None:
    write = connection.get_execution_options().get(_WRITE)
    read_only = write is False
    if connection.info.get(_READ_ONLY, False) != read_only:
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        connection.info[_READ_ONLY] = read_only
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _drop_fresh(connection: sqlalchemy.Connection, name: str, context: None) -> None:
    # A key made since the savepoint is gone now; nothing may be sealed under it any more.
    scope = connection.info.get(_SCOPE)
    if isinstance(scope, Scope):
        scope.drop_fresh()


def _handle_error(context: sqlalchemy.engine.ExceptionContext) -> None:
    ours = translate(context.original_exception)
    if ours is not None and ours.code == "vault.read_only" and not _reads_only(context.connection):
        # So SQLCipher answers each write after it has met a page that fails its authentication.
        ours = Corrupt("vault.database", "The database takes no writes: altered, or not writable. Restore a backup.")
    if ours is not None:
        raise ours from None


def _reads_only(connection: sqlalchemy.Connection | None) -> bool:
    return connection is not None and bool(connection.info.get(_READ_ONLY))


def translate(error: BaseException) -> CarelakeError | None:
    """Our error for a driver's, or None when it is not about the state of the database file."""
    text = str(error) if isinstance(error, dbapi2.Error) else ""
    if text.startswith(("database is locked", "database table is locked")):
        return Unavailable(
            "vault.busy", "The database was held by another writer for 30 s; try again when it is done."
        )
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
    if text.startswith("attempt to write a readonly"):
        return Invalid("vault.read_only", "A write was tried in a reading; use Database.transaction.")
    return None


def _forget_in_children(engine: sqlalchemy.Engine) -> None:
    # SQLite connections must not cross a fork; the child starts with an empty pool.
    known = weakref.ref(engine)

    def in_child() -> None:
        _open_scopes.set(())
        alive = known()
        if alive is not None:
            alive.dispose(close=False)

    os.register_at_fork(after_in_child=in_child)
