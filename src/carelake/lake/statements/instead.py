"""A database in which one statement is run in the place of another one, and nothing else."""

from __future__ import annotations

from typing import Any

import duckdb

from carelake.core.errors import Invalid

__all__ = ["Instead"]


class Instead:
    """What `query.prepared` gives for a statement that may only be run as it was rewritten.

    It has those methods of a DuckDB connection by which a statement is run and ended.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, text: str, rewritten: str) -> None:
        self._connection = connection
        self._text = text
        self._rewritten = rewritten

    def sql(self, query: str, *, params: Any = None) -> duckdb.DuckDBPyRelation:
        """As DuckDB's, of the one statement."""
        return self._connection.sql(self._only(query), params=params)

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """As DuckDB's, of the one statement."""
        return self._connection.execute(self._only(query), parameters)

    def interrupt(self) -> None:
        """End what runs."""
        self._connection.interrupt()

    def _only(self, query: str) -> str:
        if query != self._text:
            raise Invalid("lake.sql", "Another statement was prepared here than the one to be run.")
        return self._rewritten
