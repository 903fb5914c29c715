"""All tables of a new workspace, by statements whose text is worked out once for each kind of database."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.engine.mock import MockConnection

__all__ = ["make_tables"]

_known: dict[tuple[Any, ...], tuple[str, ...]] = {}


def make_tables(connection: sqlalchemy.Connection, metadata: sqlalchemy.MetaData) -> None:
    """Make all tables and their indexes, in a database that has none of them.

    As ``metadata.create_all``, which compiles each statement again for each workspace and looks for each table first:
    two thirds of the time in which a workspace is made.
    """
    dialect = connection.dialect
    kind = (dialect.name, dialect.server_version_info, *metadata.tables)
    if kind not in _known:
        _known[kind] = _statements(dialect, metadata)
    for statement in _known[kind]:
        connection.exec_driver_sql(statement)


def _statements(dialect: sqlalchemy.Dialect, metadata: sqlalchemy.MetaData) -> tuple[str, ...]:
    made: list[str] = []

    def note(statement: Any, *_: Any, **__: Any) -> None:
        made.append(str(statement.compile(dialect=dialect)))

    metadata.create_all(MockConnection(dialect, note), checkfirst=False)
    return tuple(made)
