"""The SQL database of a workspace: SQLAlchemy Core over SQLite under SQLCipher, or PostgreSQL (`vault.sql`).

One connection per thread at a time, from a pool. Write transactions are served one after another: they queue at
their beginning instead of failing half-way, and their order is the order of their commits. A reading is one
consistent snapshot.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from threading import get_ident
from typing import Any, NamedTuple, TypeVar

import sqlalchemy
from sqlalchemy import event

from carelake import __version__
from carelake.core.clock import Clock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid, Unavailable
from carelake.core.permit import Permit, check
from carelake.vault.formats import FORMAT, SCHEMA, check_format, check_not_newer, check_schema
from carelake.vault.groups import Groups, Page, Work
from carelake.vault.making import make_tables
from carelake.vault.sql.driver import FIRST, READ_ONLY, WRITE, Asked, Driver

__all__ = [
    "Database",
    "Scope",
    "Told",
    "bounded",
    "bulk",
    "metadata",
    "rows_of",
    "schema_version",
    "scope_of",
    "vault_workspace",
]

Answer = TypeVar("Answer")

metadata = sqlalchemy.MetaData()
"""Every room's ``tables.py`` hangs its tables here; `Database.create` makes them."""

_epoch = sqlalchemy.Table(
    "vault_epoch",
    metadata,
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("epoch", sqlalchemy.Integer, nullable=False),
    comment="Counts erasures of keys: a cached key is good for the epoch it was read in only.",
)

vault_workspace = sqlalchemy.Table(
    "vault_workspace",
    metadata,
    sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
    sqlalchemy.Column("workspace", sqlalchemy.String(96), nullable=False),
    sqlalchemy.Column("format", sqlalchemy.Integer, nullable=False),
    sqlalchemy.Column("version", sqlalchemy.String(32), nullable=False),
    comment="One row: whose rows these are, their format, and the carelake that wrote the format.",
)

schema_version = sqlalchemy.Table(
    "schema_version",
    metadata,
    sqlalchemy.Column("version_num", sqlalchemy.String(32), primary_key=True),
)
"""Alembic's own: one row, the newest migration."""

_log = logging.getLogger(__name__)
_EPOCH = "SELECT epoch FROM vault_epoch"
_SCOPE = "carelake.scope"
_DRIVER = "carelake.driver"


@dataclass(slots=True)
class Scope:
    """What one open transaction or snapshot carries along.

    Attributes:
        epoch: the erasure epoch that it sees; None once it has erased a key itself.
        fresh: patient keys made or read in a transaction; nobody else's until it has committed (`sealing`).
        generation: changes when keys that were given out are void: a savepoint undone, a key erased, the end.
        shared: every reading of its thread takes part in it: it began after all of them were asked for (`together`).
        memo: small things that were read in a snapshot, for who asks again in it; never in a write transaction.
        ending: nothing is read in it any more.
        expected: types and ids of resources that those who share a snapshot will read, so that the first of them can
            look up all of them.
        after: called after a successful commit, in order. One that fails is logged by its type: committed is
            committed, so whatever must happen has a row that the next open goes by.
        undo: called after a rollback, in order, likewise.
        late: rows that are written before the commit by the functions they are kept under, None where all is written
            at once; see `write_late`.
        clock, moment: what `now` is told by.
    """

    connection: sqlalchemy.Connection
    writing: bool
    epoch: int | None
    thread: int = field(default_factory=get_ident)
    fresh: dict[tuple[str, str], Any] = field(default_factory=dict)
    generation: int = 0
    closed: bool = False
    shared: bool = False
    ending: bool = False
    memo: dict[Any, Any] = field(default_factory=dict)
    expected: frozenset[Any] = frozenset()
    after: list[Callable[[], None]] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)
    late: dict[Callable[[sqlalchemy.Connection, list[Any]], None], list[Any]] | None = None
    clock: Clock | None = None
    moment: datetime | None = None

    def now(self) -> datetime:
        """One moment for all that is asked in it: what holds for a time is not over half-way."""
        if self.moment is None:
            assert self.clock is not None  # `Database` gives it
            self.moment = self.clock.now()
        return self.moment

    def drop_fresh(self) -> None:
        """Void the keys that this scope made or read so far."""
        self.fresh.clear()
        self.generation += 1

    def gather(self) -> None:
        """From here on keep what can be written late."""
        self.late = {}

    def keep(self, write: Callable[[sqlalchemy.Connection, list[Any]], None], row: Any) -> None:
        """Write a row, in a group with those of others once all is done; one that is undone is not written."""
        if self.late is None:
            write(self.connection, [row])
        else:
            rows = self.late.setdefault(write, [])
            rows.append(row)
            self.undo.append(lambda: rows.remove(row))

    def write_late(self) -> None:
        """Write what was kept."""
        kept, self.late = self.late or {}, None
        for write, rows in kept.items():
            if rows:
                write(self.connection, rows)


class Told(NamedTuple):
    """What a database says of itself.

    Attributes:
        schema: its newest migration.
    """

    workspace: str
    format: int
    version: str
    schema: str


_open_scopes: ContextVar[tuple[tuple[int, Scope], ...]] = ContextVar("carelake_vault_scopes", default=())


def scope_of(connection: sqlalchemy.Connection) -> Scope:
    """The scope of a connection that `Database` gave out; `Invalid` ``vault.connection`` for any other."""
    scope = connection.info.get(_SCOPE)
    if not isinstance(scope, Scope):
        raise Invalid("vault.connection", "Not in a transaction of the vault; use Database.transaction or reading.")
    return scope


def bulk(connection: sqlalchemy.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run one statement for many rows, past SQLAlchemy's per-row work.

    Args:
        sql: with ``?`` placeholders, whatever the database; a plain ``INSERT INTO t (...) VALUES (?, ...)`` is the
            quickest on each.
    """
    if rows:
        driver: Driver = connection.info[_DRIVER]
        driver.many(connection, sql, rows)


@contextmanager
def bounded(connection: sqlalchemy.Connection, seconds: float) -> Iterator[None]:
    """End what reads too long inside the block, on PostgreSQL each statement of its own.

    Raises:
        Unavailable: ``vault.too_long``.
    """
    driver: Driver = connection.info[_DRIVER]
    with driver.bounded(connection, seconds):
        yield


def rows_of(connection: sqlalchemy.Connection, sql: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
    """What one statement gives, past SQLAlchemy's work for it: for the few that every request makes.

    Args:
        sql: with ``?`` placeholders, whatever the database.
    """
    driver: Driver = connection.info[_DRIVER]
    return driver.rows(connection, sql, parameters)


class Database:
    """The one database of an open workspace."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._clock = clock
        self._driver = driver
        self._engine = _engine(driver)
        self._readers = _engine(driver) if driver.readers_apart else self._engine
        _forget_in_children(self._engine)
        _forget_in_children(self._readers)
        self._groups = Groups(lambda: self._scope(writing=True))

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._driver.dialect

    @contextmanager
    def transaction(self, permit: Permit) -> Iterator[sqlalchemy.Connection]:
        """A write transaction; on a clean exit the permit's acts are flushed on it, then it commits.

        Raises:
            Refused: the permit has no grant ``rows:write``.
            Conflict: ``vault.nested``, when this thread is in a write transaction already.
            Unavailable: ``vault.busy`` after 30 s behind another writer; ``vault.disk_full``.
            Corrupt: ``vault.database``.
            Unavailable: ``vault.database_down``: PostgreSQL went away; the write is there whole or not at all.
        """
        check(permit, "rows:write", now=self._clock.now())
        with self.writing(permit) as connection:
            yield connection

    def grouped(self, permit: Permit, work: Callable[[sqlalchemy.Connection], Answer]) -> Answer:
        """What a small write answers, done in a transaction with those of others that wait now; see `vault.groups`.

        ``work`` is called once, perhaps by another thread, and undone alone when it fails; the permit's acts are
        flushed with it. Errors are its own, and those of `transaction`.
        """
        return self._groups.run(self.work(permit, work))

    def work(
        self,
        permit: Permit,
        alone: Callable[[sqlalchemy.Connection], Answer],
        page: Page | None = None,
        item: Any = None,
    ) -> Work[Answer]:
        """A small write for `grouped_all`.

        Args:
            alone: as the work of `grouped`; with a page it is called only where that does not do it.
            page: does several at once, given their items; see `groups.Page`.

        Raises:
            Refused: the permit has no grant ``rows:write``. Conflict: ``vault.nested``.
        """
        check(permit, "rows:write", now=self._clock.now())
        if self._mine(writing=True):
            raise _nested()
        return Work(alone, permit.log.flush, page, item)

    def grouped_all(self, works: Sequence[Work[Any]]) -> list[Any]:
        """As `grouped`, for several whose threads would only wait: what each answers, or its error."""
        return self._groups.run_all(works)

    def reading(self, permit: Permit) -> AbstractContextManager[sqlalchemy.Connection]:
        """One consistent snapshot; inside a transaction or reading of this thread, that one's connection.

        Raises:
            Refused: the permit has no grant ``rows:read``.
        """
        check(permit, "rows:read", now=self._clock.now())
        return self.snapshot(share=True)

    @contextmanager
    def ledger(self, *, keys: bool = True) -> Iterator[sqlalchemy.Connection]:
        """A write transaction without a permit, for `audit`, `events` and `access` alone (an architecture test).

        Args:
            keys: whether patients' keys may be needed in it.
        """
        with self._scope(writing=True, epoch=keys) as scope:
            yield scope.connection

    def ledger_at_once(self, sql: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        """As `ledger`, for one statement that writes and is a transaction of its own: one answer is waited for.

        It does not wait for its turn among writers, but for rows that one of them holds: so it must be right
        wherever it falls between their transactions.

        Args:
            sql: as of `rows_of`.
        """
        if self._mine(writing=True):
            raise _nested()
        outer = self._mine(writing=False)
        if outer is not None and outer.ending:
            outer.closed = True
            return self._driver.alone(outer.connection, sql, parameters, ends=True)
        with self._engine.connect() as connection:
            return self._driver.alone(connection, sql, parameters)

    def ledger_reading(self) -> AbstractContextManager[sqlalchemy.Connection]:
        """One consistent snapshot without a permit, for audit, events and access alone; no writer waits for it."""
        return self.snapshot()

    def ledger_rows(self, sql: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        """As `ledger_reading`, for one statement alone: the server is asked once, and not for beginning and end, too.

        Args:
            sql: as of `rows_of`.
        """
        with self._readers.connect() as connection:
            return self._driver.rows(connection, sql, parameters)

    @contextmanager
    def together(
        self, expected: Iterable[Any] = (), first: Sequence[str] = (), then: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """All readings of this thread inside the block, whoever's they are, see one snapshot that begins now.

        For requests that were waiting already: each still shows its own permit to read anything. Inside of another
        such block it is that one's snapshot.

        Args:
            expected: what they will ask for; see `Scope`.
            first: statements that every one of them would make; what they give is in the snapshot's memo.
            then: called when the block has ended well. The first `ledger_at_once` in it ends the snapshot, too, where
                that is one answer less to wait for.
        """
        outer = self._mine(writing=False)
        within: AbstractContextManager[Scope | None] = nullcontext()
        if outer is None or not outer.shared:
            within = self._scope(writing=False, first=first)
        with within as scope:
            if scope is not None:
                scope.shared, scope.expected = True, frozenset(expected)
            yield
            if scope is not None and then is not None and self._driver.ends_with:
                scope.ending = True
                then()
                return
        if then is not None:
            then()

    def damage(self, permit: Permit) -> str:
        """What is wrong with the stored pages, in a sentence, or "": a query itself looks at those that it needs.

        Raises:
            Refused: the permit has no grant ``vault:verify``.
        """
        check(permit, "vault:verify", now=self._clock.now())
        return self.damaged()

    def create(self, workspace: str) -> None:
        """Make all tables of `metadata` for a new workspace.

        Raises:
            Conflict: ``vault.exists``: the database holds a workspace already.
        """
        with self._scope(writing=True, epoch=False) as scope:
            tx = scope.connection
            if sqlalchemy.inspect(tx).has_table(_epoch.name):
                raise Conflict("vault.exists", "The database holds a workspace already; name an empty one.")
            make_tables(tx, metadata)
            tx.execute(sqlalchemy.insert(_epoch).values(id=1, epoch=0))
            tx.execute(sqlalchemy.insert(schema_version).values(version_num=SCHEMA))
            said = {"workspace": workspace, "format": FORMAT, "version": __version__}
            tx.execute(sqlalchemy.insert(vault_workspace).values(id=1, **said))

    def check_workspace(self, workspace: str, *, upgrading: bool = False) -> None:
        """Let pass the database of that workspace, in the format and with the schema of this version.

        Args:
            workspace: as `Settings.copy_name` tells the copy.
            upgrading: let older ones pass too.

        Raises:
            Conflict: ``vault.upgrade_needed``. Unsupported: ``vault.format``, a later version wrote it.
            Corrupt: ``vault.workspace_mismatch``, it is another workspace's.
        """
        found = self.told()
        if found.workspace not in ("", workspace):
            raise Corrupt(
                "vault.workspace_mismatch",
                f"The database is not that of workspace {workspace}; look at [database] url, or restore a backup.",
            )
        (check_not_newer if upgrading else check_format)(found.format, found.version)
        if not upgrading or found.schema > SCHEMA:
            check_schema(found.schema, found.version)

    def become(self, workspace: str) -> None:
        """From here on these are the rows of another copy of the workspace; for a restore."""
        with self._scope(writing=True) as scope:
            scope.connection.execute(sqlalchemy.update(vault_workspace).values(workspace=workspace))

    def told(self) -> Told:
        """What the database says of itself; format 1 said nothing."""
        with self.snapshot() as connection:
            inspected = sqlalchemy.inspect(connection)
            schema = (
                connection.scalar(sqlalchemy.select(schema_version))
                if inspected.has_table(schema_version.name)
                else None
            )
            if not inspected.has_table(vault_workspace.name):
                return Told("", 1, "", schema or "")
            row = connection.execute(sqlalchemy.select(vault_workspace)).one()
            return Told(row.workspace, row.format, row.version, schema or "")

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
        self._readers.dispose()
        self._engine.dispose()

    # -- inside the room ------------------------------------------------------------------------------------------

    def damaged(self) -> str:
        """As `damage`, for modules of the vault."""
        with self.snapshot() as connection:
            found = self._driver.damage(connection)
        if found:
            # Read while another process moved pages from the WAL, perhaps; nobody does while we hold the lock.
            with self._scope(writing=True) as scope:
                found = self._driver.damage(scope.connection)
        return found

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

    def snapshot(self, *, share: bool = False) -> AbstractContextManager[sqlalchemy.Connection]:
        """As `reading`, for modules of the vault that have checked another grant.

        Args:
            share: use this thread's open snapshot too, not only its open write transaction. Without, the newest
                state is seen: a caller that reads at length must find the objects that it wrote meanwhile.
        """
        outer = self._mine(writing=True) or self._mine(writing=False)
        if outer and (outer.writing or outer.shared or share):
            return nullcontext(outer.connection)
        return self._snapshot()

    @contextmanager
    def _snapshot(self) -> Iterator[sqlalchemy.Connection]:
        with self._scope(writing=False) as scope:
            yield scope.connection

    def _mine(self, *, writing: bool) -> Scope | None:
        here = get_ident()
        for owner, scope in _open_scopes.get():
            if owner == id(self) and scope.thread == here and scope.writing == writing and not scope.closed:
                return scope
        return None

    @contextmanager
    def _scope(self, *, writing: bool, epoch: bool = True, first: Sequence[str] = ()) -> Iterator[Scope]:
        if writing and self._mine(writing=True):
            raise _nested()
        scope = None
        try:
            with self._begun(writing=writing, epoch=epoch, first=first) as (connection, seen, told):
                scope = Scope(connection, writing, seen if epoch else None, memo=told, clock=self._clock)
                with _entered(id(self), scope):
                    yield scope
        except BaseException as error:
            if scope is not None:
                self._settle(scope, error)
                _call_all(scope.undo)
            raise
        _call_all(scope.after)

    def _settle(self, scope: Scope, error: BaseException) -> None:
        """Let a commit whose answer was lost come to its end, so that those who undo can see whether it happened."""
        if scope.writing and isinstance(error, Unavailable) and self._driver.unreachable(error):
            # The server may still be at it; it lets the next writer begin when it is done.
            with suppress(CarelakeError), self._begun(writing=True, epoch=False):
                pass

    @contextmanager
    def _begun(
        self, *, writing: bool, epoch: bool, first: Sequence[str] = ()
    ) -> Iterator[tuple[sqlalchemy.Connection, int, dict[Any, Any]]]:
        """A connection in a transaction that commits on a clean exit; the epoch of erasures; what ``first`` gave."""
        engine = self._engine if writing else self._readers
        with self._driver.turn() if writing else nullcontext(), ExitStack() as stack:
            try:
                connection = stack.enter_context(engine.connect())
                begun = self._begin(connection, first, writing=writing, epoch=epoch)
            except Unavailable as error:
                if not self._driver.unreachable(error):
                    raise
                # A pooled connection of a server that was restarted since; nothing was done on it yet.
                stack.close()
                connection = stack.enter_context(engine.connect())
                begun = self._begin(connection, first, writing=writing, epoch=epoch)
            transaction, seen, told = begun
            with transaction:
                yield connection, seen, told

    @staticmethod
    def _begin(
        connection: sqlalchemy.Connection, first: Sequence[str], *, writing: bool, epoch: bool
    ) -> tuple[sqlalchemy.RootTransaction, int, dict[Any, Any]]:
        connection.execution_options(**{WRITE: writing})
        # The first read pins the snapshot here rather than at the caller's first query.
        asked = (*([_EPOCH] if epoch else ()), *first)
        connection.info[FIRST] = asked
        transaction = connection.begin()
        found = connection.info.pop(FIRST)
        if not isinstance(found, Asked):
            found = [rows_of(connection, sql) for sql in asked]
        told = dict(zip(asked, found, strict=True))
        seen = told.pop(_EPOCH, ())
        return transaction, seen[0][0] if seen else 0, told


def _nested() -> Conflict:
    return Conflict(
        "vault.nested",
        "This thread is in a write transaction already and would wait for itself; pass its connection on.",
    )


def _call_all(calls: Sequence[Callable[[], None]]) -> None:
    """Call each; a fault of one neither keeps the others from being called nor makes of a commit a failure.

    What is to follow a commit is found and done at the next open where it did not: the row that asks for it is there.
    """
    with ExitStack() as stack:  # calls the rest even when one is interrupted
        for call in reversed(calls):
            stack.callback(_call, call)


def _call(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception as error:  # its text can hold anything
        _log.warning("Work after a transaction failed (%s); the next open makes up for it.", type(error).__name__)


@contextmanager
def _entered(owner: int, scope: Scope) -> Iterator[None]:
    info = scope.connection.info  # asked of a connection that was lost meanwhile, it would raise
    info[_SCOPE] = scope
    _open_scopes.set((*_still_open(), (owner, scope)))
    try:
        yield
    finally:
        # A generator may be closed by another thread than it was started in, which leaves the entry in the first
        # one's context: so an entry that is closed counts for nothing, wherever it lies.
        scope.closed = True
        scope.generation += 1
        _open_scopes.set(_still_open())
        info.pop(_SCOPE, None)


def _still_open() -> tuple[tuple[int, Scope], ...]:
    return tuple(entry for entry in _open_scopes.get() if not entry[1].closed)


def _engine(driver: Driver) -> sqlalchemy.Engine:
    engine = driver.engine()

    def handle_error(context: sqlalchemy.engine.ExceptionContext) -> None:
        ours = driver.translate(context.original_exception, reads_only=_reads_only(context.connection))
        if ours is not None:
            raise ours from None

    def know(connection: Any, record: Any) -> None:
        record.info[_DRIVER] = driver

    event.listen(engine, "connect", know)
    event.listen(engine, "begin", driver.begin)
    event.listen(engine, "handle_error", handle_error)
    event.listen(engine, "rollback_savepoint", _drop_fresh)
    return engine


def _drop_fresh(connection: sqlalchemy.Connection, name: str, context: None) -> None:
    # A key made since the savepoint is gone now; nothing may be sealed under it any more.
    scope = connection.info.get(_SCOPE)
    if isinstance(scope, Scope):
        scope.drop_fresh()


def _reads_only(connection: sqlalchemy.Connection | None) -> bool:
    return connection is not None and not connection.invalidated and bool(connection.info.get(READ_ONLY))


def _forget_in_children(engine: sqlalchemy.Engine) -> None:
    # Connections must not cross a fork; the child starts with an empty pool.
    known = weakref.ref(engine)

    def in_child() -> None:
        _open_scopes.set(())
        alive = known()
        if alive is not None:
            alive.dispose(close=False)

    os.register_at_fork(after_in_child=in_child)
