"""Questions to the lake from Python, as of PEP 249 (DB-API 2.0), and as Arrow, polars and pandas.

Each statement is one act of who asks. Rows are run for when they are fetched; nothing is written, so `commit` has
nothing to do. A connection and its cursors are for one thread at a time; `Cursor.cancel` is for any other.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from carelake.access.identity import Caller
from carelake.apps.asking import Question, rows_of, values_of
from carelake.apps.dbapi_types import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,
    mapped,
)
from carelake.apps.wiring import Workspace
from carelake.core.errors import CarelakeError, Unavailable
from carelake.lake.statements.cursor import Stop

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

Described = tuple[str, pa.DataType, None, None, None, None, bool]
Row = tuple[Any, ...]


class Connection:
    """A way to one workspace, for one caller."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, workspace: Workspace, caller: Caller, as_of: str | None, fresh: bool) -> None:
        self._workspace: Workspace | None = workspace
        self._caller = caller
        self._as_of, self._fresh = as_of, fresh
        self._cursors: list[Cursor] = []

    def cursor(self) -> Cursor:
        """A new cursor."""
        self._open()
        made = Cursor(self)
        self._cursors = [one for one in self._cursors if not one.closed] + [made]
        return made

    def execute(self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Cursor:
        """A new cursor that has run a statement; not in PEP 249, but in many modules."""
        return self.cursor().execute(operation, parameters)

    def commit(self) -> None:
        """Nothing is written, so there is nothing to do."""
        self._open()

    def rollback(self) -> None:
        """Raises: NotSupportedError: there are no transactions to undo."""
        self._open()
        raise NotSupportedError("Nothing is written here, so there is nothing to roll back.")

    def close(self) -> None:
        """Close it with its cursors, and seal what was done; a second time does nothing."""
        workspace, self._workspace = self._workspace, None
        if workspace is None:
            return
        with ExitStack() as stack:  # each of them, whatever becomes of the others
            stack.enter_context(mapped())
            stack.callback(workspace.close)
            for one in self._cursors:
                stack.callback(one.close)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def stream(
        self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None, stop: Stop
    ) -> Generator[pa.Schema | pa.RecordBatch, None, None]:
        """The schema and the batches of a statement, for cursors."""
        asked = Question(statement=operation, parameters=parameters, as_of=self._as_of, fresh=self._fresh)
        return rows_of(self._open(), self._caller, asked, stop)

    def _open(self) -> Workspace:
        if self._workspace is None:
            raise InterfaceError("The connection is closed; connect anew.")
        return self._workspace


class Cursor:
    """One statement after another, and the rows of the last.

    Attributes:
        arraysize: rows of `fetchmany`.
        description: of each column its name and type (a `pyarrow.DataType`), None before the first statement.
        rowcount: rows of the last statement, -1 until all of them were fetched.
        closed: whether it takes no more statements.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.description: list[Described] | None = None
        self.rowcount = -1
        self.closed = False
        self._stop = Stop()
        self._source: Generator[pa.Schema | pa.RecordBatch, None, None] | None = None
        self._schema: pa.Schema | None = None
        self._batch: pa.RecordBatch | None = None
        self._rows: Iterator[Row] = iter(())
        self._taken = self._count = 0

    # -- PEP 249 --------------------------------------------------------------------------------------------------

    def execute(self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Cursor:
        """Run one SELECT.

        Args:
            parameters: values of ``?`` and ``$1`` in order, or of ``$name`` by name.

        Raises:
            ProgrammingError, OperationalError: as the code says (docs/asking.md).
        """
        self._usable()
        if not isinstance(operation, str):
            raise ProgrammingError("A statement is text.")
        self._drop()
        self.description, self.rowcount, self._count = None, -1, 0
        self._stop = Stop()
        source = self.connection.stream(operation, parameters, self._stop)
        with mapped():
            self._schema = next(source)
        self._source = source
        self.description = [(one.name, one.type, None, None, None, None, one.nullable) for one in self._schema]
        return self

    def executemany(self, operation: str, seq_of_parameters: Sequence[Any]) -> None:
        """Raises: NotSupportedError: statements give rows, and the rows of several are none (PEP 249)."""
        self._usable()
        raise NotSupportedError("A statement that gives rows is run once; call execute for each of the parameters.")

    def fetchone(self) -> Row | None:
        """The next row, None after the last."""
        self._ready()
        return self._next()

    def fetchmany(self, size: int | None = None) -> list[Row]:
        """So many rows, `arraysize` by default; fewer at the end."""
        self._ready()
        most = self.arraysize if size is None else size
        if most < 0:
            raise ProgrammingError("The number of rows to fetch is less than none.")
        return list(islice(iter(self._next, None), most))

    def fetchall(self) -> list[Row]:
        """All rows that are left."""
        self._ready()
        return list(iter(self._next, None))

    def __iter__(self) -> Cursor:
        return self

    def __next__(self) -> Row:
        if (row := self.fetchone()) is None:
            raise StopIteration
        return row

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Does nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Does nothing, as PEP 249 allows."""

    def close(self) -> None:
        """End its statement; a second time does nothing."""
        self._drop()
        self.closed = True

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def cancel(self) -> None:
        """End the statement from another thread: whoever reads it gets an `OperationalError`, ``lake.cancelled``."""
        self._stop.cancel()

    # -- columns instead of rows -------------------------------------------------------------------------------------

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What is left, as record batches; each is run for when it is asked for."""
        self._ready()
        if self._batch is not None and self._taken < len(self._batch):
            rest = self._batch.slice(self._taken)
            self._batch, self._rows = None, iter(())
            self._count += len(rest)
            yield rest
        while (batch := self._pull()) is not None:
            self._count += len(batch)
            yield batch

    def arrow(self) -> pa.Table:
        """What is left, as one table."""
        return pa.Table.from_batches(self.batches(), self._schema)

    def polars(self) -> pl.DataFrame:
        """What is left, as a data frame of polars."""
        import polars as pl

        found = pl.from_arrow(self.arrow())
        return found if isinstance(found, pl.DataFrame) else found.to_frame()

    def pandas(self) -> Any:
        """What is left, as a data frame of pandas.

        Raises:
            OperationalError: ``apps.no_pandas``: it is not installed.
        """
        with mapped():
            if find_spec("pandas") is None:  # before anything is read
                raise Unavailable(
                    "apps.no_pandas", "pandas is not installed: `pip install pandas`, or take .polars() or .arrow()."
                )
        return self.arrow().to_pandas()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _usable(self) -> None:
        if self.closed:
            raise InterfaceError("The cursor is closed; take a new one.")
        self.connection.commit()

    def _ready(self) -> None:
        self._usable()
        if self.description is None:
            raise ProgrammingError("There are no rows before a statement was run.")

    def _next(self) -> Row | None:
        while True:
            for row in self._rows:
                self._taken += 1
                self._count += 1
                return row
            self._batch = self._pull()
            if self._batch is None:
                return None
            self._taken = 0
            self._rows = values_of(self._batch)

    def _pull(self) -> pa.RecordBatch | None:
        if self._source is None:
            return None
        try:
            with mapped():
                batch = next(self._source, None)
        except BaseException:
            # What was fetched is not all: the next fetch is an error too, and no end.
            self._source = self.description = None
            raise
        if batch is None:
            self._source, self.rowcount = None, self._count
        return batch

    def _drop(self) -> None:
        source, self._source = self._source, None
        self._batch, self._rows, self._taken = None, iter(()), 0
        if source is not None:
            with mapped():
                source.close()


def connect(
    workspace: str | Path,
    *,
    principal: str | None = None,
    purpose: str | None = None,
    account: str | None = None,
    as_of: str | None = None,
    fresh: bool = False,
) -> Connection:
    """Open a workspace for questions in SQL; ``carelake.connect`` is this.

    Args:
        workspace: its folder.
        principal: who asks; by default whoever the operating-system user is bound to.
        purpose: HL7 PurposeOfUse code; by default ``HOPERAT``.
        account: by default ``production``.
        as_of: a snapshot's ref, a tag, a day or an instant; by default each statement sees the newest snapshot.
        fresh: bring the lake up to the record before each statement.

    Raises:
        ProgrammingError: ``apps.no_workspace``. OperationalError: as the code says, for example to a stranger.
    """
    with mapped():
        opened = Workspace.open(Path(workspace).absolute(), os.environ)
        try:
            caller = _caller(opened, principal, purpose, account)
        except BaseException:
            opened.close()
            raise
        return Connection(opened, caller, as_of, fresh)


def _caller(workspace: Workspace, name: str | None, purpose: str | None, account: str | None) -> Caller:
    """Who asks; a stranger's attempt is put on the trail before it is refused."""
    try:
        return workspace.local(name, purpose, account)
    except CarelakeError as error:
        told = "production" if account is None else account
        workspace.gate.refuse(workspace.identity.nobody(), "door:python", "workspace", told, error)
        raise
