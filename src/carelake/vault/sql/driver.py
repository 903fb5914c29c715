"""What a SQL database must do for `carelake.vault.database`, and how its transactions are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy

from carelake.core.errors import CarelakeError, Unavailable

__all__ = ["FIRST", "READ_ONLY", "WRITE", "Asked", "Driver", "too_long"]

WRITE = "carelake_write"
"""Execution option of a connection: True to write, False for a snapshot, absent for a library's own transaction."""

READ_ONLY = "carelake.read_only"
"""Key of a connection's ``info``: whether its transactions are snapshots at the moment."""


FIRST = "carelake.first"
"""Key of a connection's ``info``: statements to be asked first thing in the transaction that begins. A driver that
asks them together with its beginning leaves there what each gave, as `Asked`."""


class Asked(list[Sequence[tuple[Any, ...]]]):
    """Rows of each of `FIRST`."""


class Driver(Protocol):
    """One kind of database. Its connections are in autocommit: `begin` starts every transaction."""

    dialect: str
    """SQLAlchemy's name of it: ``sqlite`` or ``postgresql``."""

    readers_apart: bool
    """Whether snapshots have connections of their own, since one that changes over is slow."""

    ends_with: bool
    """Whether a snapshot is ended by what follows it (`alone`) for less than by itself."""

    def engine(self) -> sqlalchemy.Engine:
        """A new engine with a pool; its address holds no secret."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Surrounds a write transaction, where writers of this process have to wait for each other in order.

        Raises:
            Unavailable: ``vault.busy``.
        """
        ...

    def begin(self, connection: sqlalchemy.Connection) -> None:
        """Start the kind of transaction that the execution option `WRITE` says.

        A write transaction waits here until it is the only one, so that the order of writers is the order of their
        commits; a snapshot sees one state and cannot write.
        """
        ...

    def translate(self, error: BaseException, *, reads_only: bool) -> BaseException | None:
        """What to raise instead of a driver's error; None when it may stand as it is.

        Args:
            reads_only: the transaction is a snapshot.
        """
        ...

    def many(self, connection: sqlalchemy.Connection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run one statement with ``?`` placeholders for many rows."""
        ...

    def bounded(self, connection: sqlalchemy.Connection, seconds: float) -> AbstractContextManager[None]:
        """End reading statements inside the block that take longer: ``Unavailable`` ``vault.too_long``."""
        ...

    def rows(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any]
    ) -> Sequence[tuple[Any, ...]]:
        """What one statement with ``?`` placeholders gives."""
        ...

    def alone(
        self, connection: sqlalchemy.Connection, sql: str, parameters: Sequence[Any], *, ends: bool = False
    ) -> Sequence[tuple[Any, ...]]:
        """As `rows`, of a statement that writes and is a transaction of its own: it is durable when this returns.

        It waits for rows that another writer holds, and for no turn.

        Args:
            ends: the snapshot that the connection is in ends first.
        """
        ...

    def damage(self, connection: sqlalchemy.Connection) -> str:
        """What is wrong with the stored pages, in a sentence, or ""."""
        ...

    def unreachable(self, error: CarelakeError) -> bool:
        """Whether trying again with a new connection may help, when nothing was done yet."""
        ...


def too_long() -> Unavailable:
    """Of a statement that `Driver.bounded` has ended."""
    return Unavailable(
        "vault.too_long", "The database took longer than it may for one question (search.seconds); ask for less."
    )
