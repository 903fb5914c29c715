"""A database that is no file of ours (PostgreSQL): its tables as rows, sealed, out of one snapshot and into another.

Rows go in the order of their primary key, cut into pieces where a digest of the key says so: what is between two
changes is cut as before, and so is not shipped again. Only plain types are known. They are the same on both
databases, so a copy of PostgreSQL can be put back into a SQLCipher file, which a drill does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import delete, func, select

from carelake.core.errors import Conflict, Unsupported
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import Stored
from carelake.vault.database import Database, bulk, metadata

__all__ = ["load_rows", "make_ready", "ready", "ship_rows", "tables_of"]

_CUT, _MOST = 1024, 4096
"""A piece has about the first number of rows, and never more than the second."""

_MOST_BYTES = 4 << 20

_PAGE = 2000
_encode = msgspec.msgpack.Encoder().encode
_KINDS: dict[str, Callable[[int | None], Any]] = {
    "boolean": lambda length: sqlalchemy.Boolean(),
    "bytes": lambda length: sqlalchemy.LargeBinary(),
    "float": lambda length: sqlalchemy.Float(),
    "integer": lambda length: sqlalchemy.BigInteger(),
    "text": sqlalchemy.String,
}


class _Column(msgspec.Struct, frozen=True, array_like=True):
    name: str
    kind: str
    length: int | None
    key: bool
    nullable: bool


class _Part(msgspec.Struct, frozen=True, array_like=True):
    """Some rows of a table; ``columns`` stands in a table's first part only."""

    table: str
    columns: list[_Column]
    rows: list[Any]


def tables_of(connection: sqlalchemy.Connection) -> list[sqlalchemy.Table]:
    """All tables that are there, by name; also those of a library that are not in `metadata`."""
    there = sorted(sqlalchemy.inspect(connection).get_table_names())
    others = sqlalchemy.MetaData()
    return [
        metadata.tables[name] if name in metadata.tables else sqlalchemy.Table(name, others, autoload_with=connection)
        for name in there
    ]


def ship_rows(index: Index, connection: sqlalchemy.Connection, progress: Callable[[str, int, int], None]) -> Stored:
    """Seal all rows that the connection's snapshot sees. ``size`` of the answer counts rows."""
    tables = tables_of(connection)
    total = sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)
    groups, done = [], 0
    for table in tables:
        columns = [_column(column) for column in table.columns]
        for part in _parts(connection, table):
            groups.append(index.put(_Part(str(table.name), columns, part)))
            columns = []
            done += len(part)
            progress("rows", done, total)
    return Stored(groups, len(tables), done)


def _parts(connection: sqlalchemy.Connection, table: sqlalchemy.Table) -> Iterator[list[msgspec.Raw]]:
    """Encoded rows. At least one part, of an empty table an empty one."""
    keys = [number for number, column in enumerate(table.columns) if column.primary_key]
    query = select(*table.columns).order_by(*(table.primary_key.columns or table.columns))
    part: list[msgspec.Raw] = []
    first, size = True, 0
    for row in connection.execution_options(yield_per=_PAGE).execute(query):
        part.append(msgspec.Raw(_encode(tuple(row))))
        size += len(part[-1])
        mark = hashlib.sha256(_encode([row[number] for number in keys])).digest()
        if len(part) >= _MOST or size >= _MOST_BYTES or int.from_bytes(mark[:4], "big") % _CUT == 0:
            yield part
            part, first, size = [], False, 0
    if part or first:
        yield part


def make_ready(database: Database, workspace: str, mark: str) -> None:
    """Tables for `load_rows`, in a database that is empty or that the same restore left unfinished.

    Between this and `ready` the database is known as that restore's by its workspace, or by a table of its name.

    Args:
        workspace: as the copy is called; no other restore has it. mark: name of the table.

    Raises:
        Conflict: ``vault.exists``: the database holds another workspace.
    """
    try:
        database.create(workspace)
    except Conflict:
        with database.snapshot() as connection:
            ours = sqlalchemy.inspect(connection).has_table(mark)
        if not ours and database.told().workspace != workspace:
            raise
    with database.ledger() as connection:
        _mark(mark).create(connection, checkfirst=True)


def ready(database: Database, mark: str) -> None:
    """The rows are the copy's own now: the mark goes."""
    with database.ledger() as connection:
        _mark(mark).drop(connection, checkfirst=True)


def _mark(name: str) -> sqlalchemy.Table:
    return sqlalchemy.Table(name, sqlalchemy.MetaData(), sqlalchemy.Column("id", sqlalchemy.Integer))


def load_rows(
    database: Database, index: Index, groups: Sequence[str], progress: Callable[[str, int, int], None], total: int
) -> None:
    """Fill a database that `make_ready` let pass: all rows in one transaction, or none."""
    done, names = 0, list[str]()
    with database.ledger() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
        for name in groups:
            part: _Part = index.get(name, _Part)
            if part.columns and part.table not in metadata.tables:
                _make(connection, part)
            names = [column.name for column in part.columns] or names
            _insert(connection, part, names)
            done += len(part.rows)
            progress("rows", done, total)
        if database.dialect == "postgresql":
            _count_on(connection)


def _insert(connection: sqlalchemy.Connection, part: _Part, columns: Sequence[str]) -> None:
    told, marks = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    bulk(connection, f"INSERT INTO {part.table} ({told}) VALUES ({marks})", [tuple(row) for row in part.rows])


def _make(connection: sqlalchemy.Connection, part: _Part) -> None:
    columns = [
        sqlalchemy.Column(c.name, _KINDS[c.kind](c.length), primary_key=c.key, nullable=c.nullable)
        for c in part.columns
    ]
    table = sqlalchemy.Table(part.table, sqlalchemy.MetaData(), *columns)
    table.create(connection, checkfirst=True)
    connection.execute(delete(table))  # what an earlier run of the restore put there


def _count_on(connection: sqlalchemy.Connection) -> None:
    """Numbers that PostgreSQL gives out go on after the highest one."""
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar()
        highest = connection.execute(select(func.max(column))).scalar()
        if sequence and highest:
            connection.execute(select(func.setval(sequence, highest)))


def _column(column: sqlalchemy.Column[Any]) -> _Column:
    kind = column.type
    for name, known in (
        ("boolean", sqlalchemy.Boolean),
        ("bytes", sqlalchemy.LargeBinary),
        ("float", sqlalchemy.Float),
        ("integer", sqlalchemy.Integer),
        ("text", sqlalchemy.String),
    ):
        if isinstance(kind, known):
            length = getattr(kind, "length", None) if name == "text" else None
            return _Column(str(column.name), name, length, column.primary_key, bool(column.nullable))
    raise Unsupported(
        "vault.backup_column", f"The column {column.table.name}.{column.name} has a type that a backup does not know."
    )
