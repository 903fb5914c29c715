"""A user's statement that runs: its rows come batch by batch, it has bounds, and another thread can end it.

It goes through `query.prepared`, so it sees what the permit sees. Values are bound as parameters (``?``, ``$1`` or
``$name``); none of them becomes text. What DuckDB hands over is outside of its own memory limit, so no more than a
batch of it is held here, and its bytes are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from threading import Event, Thread
from time import monotonic
from typing import Any
from uuid import UUID

import duckdb
import pyarrow as pa

from carelake.core.errors import CarelakeError, Conflict, Invalid, Unavailable
from carelake.core.nouns import Noun
from carelake.core.permit import Permit, check
from carelake.lake.query import prepared
from carelake.lake.statements.bounded import told
from carelake.vault.workspace import Vault

__all__ = ["BATCH_ROWS", "Answer", "Parameters", "Stop", "running"]

BATCH_ROWS = 8192
Parameters = Sequence[Any] | Mapping[str, Any]

_MOST_PARAMETERS = 1000
_LONGEST = 1_000_000
_DEEPEST = 3
_AGAIN_SECONDS = 0.1
_LOOK_SECONDS = 0.25
_PLAIN = (bool, int, float, Decimal, date, datetime, time, timedelta, UUID)


class Stop:
    """Ends one statement from another thread, wherever it stands: while it is planned, run or read."""

    def __init__(self, gone: Callable[[], bool] | None = None) -> None:
        """Make one for one statement.

        Args:
            gone: asked a few times a second whether nobody waits for the rows any more.
        """
        self._gone = gone
        self._wake = Event()
        self._over = False
        self._reason: CarelakeError | None = None

    def cancel(self) -> None:
        """End it: whoever reads it gets ``lake.cancelled``."""
        self._end(Conflict("lake.cancelled", "The statement was cancelled; nothing more comes of it."))

    @property
    def asked(self) -> bool:
        """Whether it was to end before its time."""
        return self._reason is not None

    def check(self) -> None:
        """Raises: Conflict: ``lake.cancelled``. Unavailable: ``lake.too_long``."""
        if self._reason is not None:
            raise type(self._reason)(self._reason.code, self._reason.message)

    @contextmanager
    def watching(self, connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
        """Interrupt what the connection runs inside the block when its time is over, or it is cancelled."""
        watcher = Thread(target=self._watch, args=(connection, seconds), name="carelake-lake-stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            self._over = True
            self._wake.set()
            watcher.join()

    def _end(self, reason: CarelakeError) -> None:
        self._reason = self._reason or reason
        self._wake.set()

    def _watch(self, connection: duckdb.DuckDBPyConnection, seconds: float) -> None:
        until = monotonic() + seconds
        while not self._over:
            left = until - monotonic()
            if left <= 0:
                self._end(_too_long(seconds))
            elif self._gone is not None and self._gone():
                self.cancel()
            if self._reason is not None:
                # Between two batches there is nothing to interrupt: so again, until the block has ended.
                connection.interrupt()
                left = _AGAIN_SECONDS
            self._wake.wait(left if self._gone is None else min(left, _LOOK_SECONDS))
            self._wake.clear()


class Answer(Iterator[pa.RecordBatch]):
    """The rows of a statement, in its order; each batch is run for when it is asked for.

    Attributes:
        schema: names and types of the columns.
        rows, size: how many rows and bytes were handed over.
        more: whether there were more rows than were to be read.
    """

    def __init__(self, reader: pa.RecordBatchReader, stop: Stop, passed: Callable[[], None], most: _Most) -> None:
        self.schema: pa.Schema = reader.schema
        self.rows = self.size = 0
        self.more = False
        self._reader, self._stop, self._passed, self._most = reader, stop, passed, most

    def __next__(self) -> pa.RecordBatch:
        self._stop.check()
        self._passed()
        if self.more:
            raise StopIteration
        batch = _next(self._reader, self._stop)
        most = self._most
        if most.rows is not None and self.rows + batch.num_rows > most.rows:
            batch, self.more = batch.slice(0, most.rows - self.rows), True
            if not batch.num_rows:
                raise StopIteration
        self.rows += batch.num_rows
        # A null has no bytes of its own.
        self.size += max(batch.nbytes, batch.num_rows)
        if self.size > most.size:
            raise Unavailable(
                "lake.too_large",
                f"The result is larger than {most.size} bytes; ask for less, or raise lake.result_bytes.",
            )
        return batch


class _Most:
    """How much may be handed over."""

    def __init__(self, rows: int | None, size: int) -> None:
        if rows is not None and rows < 0:
            raise Invalid("lake.limit", "The limit of rows is less than none; expected 0 or more.")
        self.rows, self.size = rows, size


@contextmanager
def running(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    text: str,
    parameters: Parameters | None = None,
    *,
    limit: int | None = None,
    stop: Stop | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[Answer]:
    """One SELECT over a snapshot, see `query.sql`, whose rows are read inside the block.

    Args:
        parameters: values of ``?`` and ``$1`` in order, or of ``$name`` by name.
        limit: so many rows are read, and no more; by default all.
        stop: ends it from another thread.

    Raises:
        Invalid: ``lake.sql``, ``lake.parameter``, ``lake.limit``. Conflict: ``lake.cancelled``.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
        Refused: ``permit.expired``, when the permit's time is over before the rows are.
    """
    told_limits, stop = vault.settings.lake, stop or Stop()
    most = _Most(limit, told_limits.result_bytes)
    values = _checked(parameters)
    began = monotonic()

    def passed() -> None:
        check(permit, "lake:read", now=vault.clock.now())

    with prepared(permit, vault, snapshot, text, values) as connection:
        left = told_limits.seconds - (monotonic() - began)
        with stop.watching(connection, left):
            stop.check()
            yield Answer(_reader(connection, text, values, batch_rows, stop), stop, passed, most)


def _reader(
    connection: duckdb.DuckDBPyConnection, text: str, values: Parameters | None, batch_rows: int, stop: Stop
) -> pa.RecordBatchReader:
    try:
        with told():
            return connection.sql(text, params=values).to_arrow_reader(batch_rows)
    except duckdb.InterruptException:
        stop.check()
        raise


def _next(reader: pa.RecordBatchReader, stop: Stop) -> pa.RecordBatch:
    try:
        with told():
            return reader.read_next_batch()
    except duckdb.InterruptException:
        stop.check()
        raise


def _too_long(seconds: float) -> Unavailable:
    return Unavailable(
        "lake.too_long", f"The query took longer than {seconds:g} seconds; ask for less, or raise lake.seconds."
    )


def _checked(parameters: Parameters | None) -> Parameters | None:
    """Plain values only: what a library could read otherwise (a table, a path) is none.

    Raises:
        Invalid: ``lake.parameter``.
    """
    if parameters is None or not len(parameters):
        return None
    named = isinstance(parameters, Mapping)
    if (not named and not isinstance(parameters, list | tuple)) or len(parameters) > _MOST_PARAMETERS:
        raise Invalid(
            "lake.parameter",
            f"Expected a list of values for ? and $1, or names with values for $name; at most {_MOST_PARAMETERS}.",
        )
    if isinstance(parameters, Mapping):
        if not all(isinstance(name, str) for name in parameters):
            raise Invalid("lake.parameter", "The name of a parameter is text, as it stands after the $.")
        return {name: _plain(value) for name, value in parameters.items()}
    return [_plain(value) for value in parameters]


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, str | bytes) and len(value) <= _LONGEST:
        return value
    if isinstance(value, list | tuple) and depth < _DEEPEST and len(value) <= _LONGEST:
        return [_plain(one, depth + 1) for one in value]
    raise Invalid(
        "lake.parameter",
        "The value of a parameter is text, bytes, a number, true or false, a date, a time, a UUID, null, or a list "
        "of these.",
    )
