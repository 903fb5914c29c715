"""DuckDB in process: never a byte on disk in the clear, never a file or an address read (decision D8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings

__all__ = ["connect", "run"]


@contextmanager
def connect(limits: LakeSettings | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty in-memory database: no spill, no files, no extensions, no names from the caller's variables.

    Raises:
        Unavailable: ``lake.memory``, when a query inside the block needs more than ``lake.memory_limit``.
    """
    limits = limits or LakeSettings()
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
    try:
        connection.sql("SET enable_external_access = false; SET lock_configuration = true")
        yield connection
    except duckdb.OutOfMemoryException:
        raise Unavailable(
            "lake.memory",
            f"The query needs more than {limits.memory_limit} of memory; raise lake.memory_limit or narrow the query.",
        ) from None
    finally:
        connection.close()


def run(
    sql: str,
    tables: Mapping[str, pa.Table],
    parameters: Mapping[str, Any] | None = None,
    *,
    limits: LakeSettings | None = None,
) -> pa.Table:
    """The rows of one of our own statements over named Arrow tables."""
    with connect(limits) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.sql(sql, params=dict(parameters or {})).to_arrow_table()
