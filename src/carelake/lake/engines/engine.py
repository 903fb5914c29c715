"""DuckDB in process: never a byte on disk in the clear, never a file or an address read (decision D8).

Planning one of the views takes DuckDB tens of milliseconds, running it over one patient's rows a few. So a statement
over few rows is prepared once, in a database of its own that is kept for the next time; one over many rows reads the
Arrow tables where they are. The text, and so the answer, is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache

import duckdb
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings

__all__ = ["Parameter", "connect", "run"]

_FEW_ROWS = 20_000
_STATEMENTS = 64
_IDLE = 4

Parameter = int | datetime


def _open(limits: LakeSettings, threads: int) -> duckdb.DuckDBPyConnection:
    """An empty in-memory database: no spill, no files, no extensions, no names from the caller's variables."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "temp_directory": "",
            "memory_limit": limits.memory_limit,
            "threads": threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # A progress bar would go to stdout, in the middle of an answer, as soon as a query takes two seconds.
    connection.sql("SET enable_progress_bar = false")
    connection.sql("SET enable_external_access = false; SET lock_configuration = true")
    return connection


@contextmanager
def connect(limits: LakeSettings | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that nobody used before and nobody will after.

    Raises:
        Unavailable: ``lake.memory``, when a query inside the block needs more than ``lake.memory_limit``.
    """
    limits = limits or LakeSettings()
    connection = _open(limits, limits.threads)
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
            "lake.memory", f"The query needs more than {limit} of memory; raise lake.memory_limit or ask for less."
        ) from None


def run(
    sql: str,
    tables: Mapping[str, pa.Table],
    parameters: Mapping[str, Parameter] | None = None,
    *,
    constants: Mapping[str, pa.Table] | None = None,
    setup: str = "",
    limits: LakeSettings | None = None,
) -> pa.Table:
    """The rows of one of our own statements over named Arrow tables.

    Args:
        parameters: values of ``$name`` in the statement, which casts each to its type.
        constants: tables that are the same at every call with this statement, for example code lists.
        setup: statements to run before, for example macros.

    Raises:
        Unavailable: ``lake.memory``.
    """
    limits = limits or LakeSettings()
    said = parameters or {}
    if sum(len(table) for table in tables.values()) <= _FEW_ROWS:
        columns = tuple((name, tuple(table.schema.names)) for name, table in sorted(tables.items()))
        return _statement(sql, setup, limits, columns).run(tables, said, constants or {})
    with connect(limits) as connection:
        if setup:
            connection.sql(setup)
        for name, table in {**tables, **(constants or {})}.items():
            connection.register(name, table)
        return connection.sql(sql, params=dict(said)).to_arrow_table()


class _Statement:
    """A statement over few rows, prepared in databases that are kept: one for each caller at the same time."""

    def __init__(self, sql: str, setup: str, limits: LakeSettings) -> None:
        self._sql = sql
        self._setup = setup
        self._limits = limits
        self._idle: deque[duckdb.DuckDBPyConnection] = deque(maxlen=_IDLE)

    def run(
        self, tables: Mapping[str, pa.Table], parameters: Mapping[str, Parameter], constants: Mapping[str, pa.Table]
    ) -> pa.Table:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._prepare(tables, constants)
        try:
            with _named(self._limits):
                filled = self._fill(connection, tables)
                made = connection.sql(f"EXECUTE kept{_literals(parameters)}").to_arrow_table()
                if filled:
                    connection.sql("; ".join(f'DELETE FROM "{name}"' for name in filled))
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return made

    def _prepare(
        self, tables: Mapping[str, pa.Table], constants: Mapping[str, pa.Table]
    ) -> duckdb.DuckDBPyConnection:
        connection = _open(self._limits, 1)
        for name, table in {**tables, **constants}.items():
            connection.register("coming", table.slice(0, 0))
            connection.sql(f'CREATE TABLE "{name}" AS SELECT * FROM coming')
            connection.unregister("coming")
        self._fill(connection, constants)
        if self._setup:
            connection.sql(self._setup)
        connection.sql(f"PREPARE kept AS {self._sql}")
        return connection

    @staticmethod
    def _fill(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> list[str]:
        """Names of the tables that have rows now."""
        filled = [name for name, table in tables.items() if len(table)]
        for name in filled:
            connection.register("coming", tables[name])
            connection.sql(f'INSERT INTO "{name}" SELECT * FROM coming')
            connection.unregister("coming")
        return filled


@lru_cache(maxsize=_STATEMENTS)
def _statement(
    sql: str, setup: str, limits: LakeSettings, columns: tuple[tuple[str, tuple[str, ...]], ...]
) -> _Statement:
    return _Statement(sql, setup, limits)


def _literals(parameters: Mapping[str, Parameter]) -> str:
    """The arguments of EXECUTE: whole numbers and moments only, so that no text can end a literal."""
    if not parameters:
        return ""
    said = (
        f"\"{name}\" := TIMESTAMP '{value.isoformat(sep=' ')}'"
        if isinstance(value, datetime)
        else f'"{name}" := {value:d}'
        for name, value in parameters.items()
    )
    return f"({', '.join(said)})"
