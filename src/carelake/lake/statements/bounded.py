"""A statement of a user's with an end: so many seconds, a result of so many bytes.

What DuckDB hands over is outside of its own memory limit, so it is taken in small batches and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import duckdb
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings

__all__ = ["in_time", "select", "told"]

_BATCH = 2048
_AGAIN_SECONDS = 0.1
_KIND = re.compile(r"(?P<kind>[A-Z][A-Za-z ]*) Error: ")
_NAMES = {"INTERRUPT": "Interrupt", "OutofMemory": "OutOfMemory"}


def select(
    connection: duckdb.DuckDBPyConnection,
    text: str,
    limits: LakeSettings,
    parameters: Mapping[str, Any] | None = None,
) -> pa.Table:
    """The rows of a SELECT, in its order.

    Raises:
        Unavailable: ``lake.too_large``, ``lake.too_long``.
        duckdb.Error: as DuckDB raises it.
    """
    with in_time(connection, limits):
        batches, held = [], 0
        found = connection.sql(text) if parameters is None else connection.sql(text, params=dict(parameters))
        reader = found.to_arrow_reader(_BATCH)
        for batch in reader:
            # A null has no bytes of its own.
            held += max(batch.nbytes, batch.num_rows)
            if held > limits.result_bytes:
                raise Unavailable(
                    "lake.too_large",
                    f"The result is larger than {limits.result_bytes} bytes; "
                    "ask for less, or raise lake.result_bytes.",
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, reader.schema)


@contextmanager
def in_time(connection: duckdb.DuckDBPyConnection, limits: LakeSettings) -> Iterator[None]:
    """Statements inside the block end after ``lake.seconds``, all together.

    Raises:
        Unavailable: ``lake.too_long``.
    """
    done, late = Event(), Event()

    def watch() -> None:
        if not done.wait(limits.seconds):
            late.set()
            # Between two statements there is nothing to interrupt: so again, until the block has ended.
            while not done.is_set():
                connection.interrupt()
                done.wait(_AGAIN_SECONDS)

    watcher = Thread(target=watch, name="carelake-lake-seconds", daemon=True)
    watcher.start()
    try:
        with told():
            yield
    except duckdb.InterruptException:
        if not late.is_set():
            raise
    finally:
        done.set()
        watcher.join()
    if late.is_set():
        raise Unavailable(
            "lake.too_long",
            f"The query took longer than {limits.seconds:g} seconds; ask for less, or raise lake.seconds.",
        )


@contextmanager
def told() -> Iterator[None]:
    """An error in the middle of a result comes as Arrow's: raise it as DuckDB's."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        message = str(error)
        raise _kind(message)(message) from None


def _kind(message: str) -> type[duckdb.Error]:
    found = _KIND.match(message)
    name = found["kind"].replace(" ", "") if found else ""
    kind = getattr(duckdb, f"{_NAMES.get(name, name)}Exception", None)
    return kind if isinstance(kind, type) and issubclass(kind, duckdb.Error) else duckdb.Error
