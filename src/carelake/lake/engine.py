"""DuckDB in process: never a byte on disk in the clear, never a file or an address read (decision D8)."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings

__all__ = ["connect", "fresh", "run"]

_IDLE = 4
_idle: dict[LakeSettings, deque[duckdb.DuckDBPyConnection]] = defaultdict(lambda: deque(maxlen=_IDLE))


def _open(limits: LakeSettings) -> duckdb.DuckDBPyConnection:
    """An empty in-memory database: no spill, no files, no extensions, no names from the caller's variables."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "temp_directory": "",
            "memory_limit": limits.memory_limit,
            "threads": limits.threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    connection.sql("SET enable_external_access = false; SET lock_configuration = true")
    return connection


@contextmanager
def connect(limits: LakeSettings | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for our own statements. It may be used again, so leave nothing in it but temporary macros.

    Raises:
        Unavailable: ``lake.memory``, when a query inside the block needs more than ``lake.memory_limit``.
    """
    limits = limits or LakeSettings()
    try:
        connection = _idle[limits].pop()
    except IndexError:
        connection = _open(limits)
    try:
        with _named(limits):
            yield connection
    except BaseException:
        connection.close()
        raise
    _idle[limits].append(connection)


@contextmanager
def fresh(limits: LakeSettings | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for a statement that somebody else wrote: nobody used it before and nobody will after.

    Raises:
        Unavailable: as `connect`.
    """
    limits = limits or LakeSettings()
    connection = _open(limits)
    try:
        with _named(limits):
            yield connection
    finally:
        connection.close()


@contextmanager
def _named(limits: LakeSettings) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException:
        limit = limits.memory_limit
        raise Unavailable(
            "lake.memory",
            f"The query needs more than {limit} of memory; raise lake.memory_limit or narrow the query.",
        ) from None


def run(
    sql: str,
    tables: Mapping[str, pa.Table],
    parameters: Mapping[str, Any] | None = None,
    *,
    limits: LakeSettings | None = None,
) -> pa.Table:
    """The rows of one of our own statements over named Arrow tables."""
    with connect(limits) as connection:
        try:
            for name, table in tables.items():
                connection.register(name, table)
            return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()
        finally:
            for name in tables:
                connection.unregister(name)
