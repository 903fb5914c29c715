"""Counts and digests of a database's tables, to compare a restored copy with what was backed up.

A digest is the sum, modulo 2**256, of the SHA-256 of each row: rows in any order give the same one, and no sorting is
needed. It finds errors of copying. Against tampering stand the pieces' hashes and the signature, not this sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection

import msgspec
import sqlalchemy
from sqlalchemy import func, select

from carelake.vault.backup.rows import tables_of

__all__ = ["count_rows", "digest_rows"]

_PAGE = 5000


def count_rows(connection: sqlalchemy.Connection) -> dict[str, int]:
    """Rows of every table that is there, by name."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables_of(connection)
    }


def digest_rows(
    connection: sqlalchemy.Connection, names: Collection[str], progress: Callable[[int], None] = lambda rows: None
) -> dict[str, tuple[int, str]]:
    """Rows and digest of these tables."""
    return {
        table.name: _digest(connection, table, progress) for table in tables_of(connection) if table.name in names
    }


def _digest(
    connection: sqlalchemy.Connection, table: sqlalchemy.Table, progress: Callable[[int], None]
) -> tuple[int, str]:
    total, rows = 0, 0
    encode = msgspec.msgpack.Encoder(decimal_format="string").encode
    found = connection.execution_options(yield_per=_PAGE).execute(select(*(column for column in table.c)))
    for page in found.partitions():
        for row in page:
            total += int.from_bytes(hashlib.sha256(encode(tuple(row))).digest(), "big")
        rows += len(page)
        progress(len(page))
    return rows, f"{total % (1 << 256):064x}"
