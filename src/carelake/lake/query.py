"""Reading a snapshot of the lake: current resources, flat views, and read-only SQL over both."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import duckdb
import msgspec
import pyarrow as pa
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.engines.engine import connect
from carelake.lake.flat import names, view
from carelake.lake.following.sync import position
from carelake.lake.seeing.cells import counted
from carelake.lake.seeing.relations import (
    DEIDENTIFIED,
    DELETIONS,
    Asked,
    check_rows,
    deletions_of,
    find,
    flat,
    in_sight,
)
from carelake.lake.seeing.seen import Whose, within
from carelake.lake.seeing.sight import sight_of
from carelake.lake.statements import bounded, statement
from carelake.lake.statements.instead import Instead
from carelake.lake.statements.statement import Relation, not_there
from carelake.vault.workspace import Vault

__all__ = ["DELETIONS", "current", "deletions", "prepared", "snapshot_of", "sql", "versions", "views"]

_WORD = re.compile(r"\w+")
_ABOUT_COLUMNS = frozenset({"pivot", "unpivot"})


def snapshot_of(permit: Permit, vault: Vault, nouns: Nouns, ref: str | None = None) -> Noun:
    """The snapshot of that ref, by default the newest.

    Raises:
        NotFound: ``lake.no_snapshot``, before the first sync or for another account's.
    """
    with vault.database.reading(permit) as connection:
        found = _snapshot(connection, nouns, ref or position(permit, vault)[1])
    if found is None or found.account != permit.account or found.kind != "snapshot":
        raise NotFound("lake.no_snapshot", "There is no such snapshot of the lake; sync the lake first.")
    permit.log.read(found.ref)
    return found


def _snapshot(connection: Connection, nouns: Nouns, ref: str) -> Noun | None:
    try:
        return nouns.get(connection, ref) if ref else None
    except NotFound:
        return None


def current(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    resource_type: str,
    *,
    columns: Sequence[str] | None = None,
    patient: Whose = None,
) -> pa.Table | None:
    """The current, not deleted resources of a type as of a snapshot, or None where the lake has none of the type.

    Args:
        columns: top-level columns (`schema.table_schema`); all by default, ``id`` always.
        patient: only those in this patient's compartment, or in those of these patients.
    """
    found = in_sight(permit, vault, snapshot, resource_type)
    whose = within(sight_of(permit), patient)
    return None if found is None else found.current(None if columns is None else {*columns, "id"}, whose)


def versions(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    resource_type: str,
    *,
    columns: Sequence[str] | None = None,
    patient: Whose = None,
) -> pa.Table | None:
    """All versions of a type up to a snapshot, deletions too; otherwise as `current`."""
    found = in_sight(permit, vault, snapshot, resource_type)
    whose = within(sight_of(permit), patient)
    return None if found is None else found.versions(columns, whose)


def deletions(permit: Permit, vault: Vault, snapshot: Noun, after: int = 0) -> pa.Table:
    """The deletes feed: type, id, version, last_updated, patient and seq of each deletion beyond a seq, in order.

    Raises:
        Refused: ``lake.scope``, for a permit that shows less than the whole account.
    """
    return deletions_of(permit, vault, snapshot, after)


def views(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    only: Sequence[str] | None = None,
    *,
    patient: str | None = None,
) -> Mapping[str, pa.Table]:
    """The flat views of a snapshot, by name.

    Args:
        only: names of views; all by default.
        patient: only rows of this patient.

    Raises:
        NotFound: ``lake.no_such_view``.
    """
    wanted = [view(name) for name in (only or names())]
    check_rows(permit)
    return {each.name: flat(permit, vault, snapshot, each, patient) for each in wanted}


def sql(permit: Permit, vault: Vault, snapshot: Noun, text: str) -> pa.Table:
    """The rows of one SELECT over the flat views and the tables of a snapshot; it can read and change nothing else.

    A table is named as its resource type (current rows), or ``TYPE_history`` (all versions); ``deletions`` is the
    deletes feed.

    Raises:
        Invalid: ``lake.sql``, when it is not one SELECT or DuckDB refuses it; the text is not repeated.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    with prepared(permit, vault, snapshot, text) as connection:
        return bounded.select(connection, text, vault.settings.lake)


@contextmanager
def prepared(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    text: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    relations: Mapping[str, pa.Table] | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own in which that one SELECT may be run: it has what the statement reads and nothing else.

    Args:
        parameters: values that the statement will be run with, see `cursor.running`.
        relations: all that the statement may read, by name, in place of the lake's views and tables.

    Raises:
        Invalid: ``lake.sql``; also for what DuckDB refuses inside the block. Unavailable: ``lake.memory``.
    """
    said = statement.read(text)
    with connect(vault.settings.lake) as connection, _refusals():
        if relations is not None:
            _only(said, permit, relations)
            for name, table in relations.items():
                connection.register(name, table)
            yield connection
            return
        asked = {one: _found(permit, vault, snapshot, one) for one in said.relations}
        shown = counted(said, asked, vault.settings.lake.k) if sight_of(permit).cells else text
        _register(connection, {one: table.schema.empty_table() for one, table in asked.items()})
        # Before a row is read: a refusal takes as long whatever there is, and whatever of it may be seen.
        planned = bool(asked) if not sight_of(permit).whole else any(table.base for table in asked.values())
        with bounded.in_time(connection, vault.settings.lake):
            needed = _needed(connection, shown, parameters) if planned else None
        _register(connection, {one: table.read(_of(table, needed)) for one, table in asked.items()})
        yield connection if shown == text else cast(duckdb.DuckDBPyConnection, Instead(connection, text, shown))


def _found(permit: Permit, vault: Vault, snapshot: Noun, wanted: Relation) -> Asked:
    found = find(permit, vault, snapshot, wanted) or _saved(permit, vault, snapshot, wanted)
    if found is None:
        raise not_there()
    return found


def _only(said: statement.Statement, permit: Permit, given: Mapping[str, pa.Table]) -> None:
    """Let pass a statement that reads what it was given; who sees counts alone is given nothing."""
    known = {Relation("", name.lower()) for name in given}
    if sight_of(permit).cells or not said.relations <= known:
        raise not_there()


def _register(connection: duckdb.DuckDBPyConnection, tables: Mapping[Relation, pa.Table]) -> None:
    """Under their names; a second time in the place of what was there."""
    for one, table in tables.items():
        # A relation may be read by two names, and one of them is of a schema.
        name = f"{one.schema}/{one.name}" if one.schema else one.name
        connection.unregister(name)
        connection.register(name, table)
        if one.schema == DEIDENTIFIED:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {DEIDENTIFIED}")
            connection.execute(f'CREATE OR REPLACE VIEW {DEIDENTIFIED}."{one.name}" AS FROM "{name}"')
        elif one.schema:
            connection.execute(f'CREATE OR REPLACE VIEW "{one.name}" AS FROM "{name}"')


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        kind = type(error).__name__.removesuffix("Exception").lower()
        raise Invalid("lake.sql", f"DuckDB refused the statement ({kind} error).") from None


def _of(table: Asked, needed: frozenset[str] | None) -> frozenset[str] | None:
    return None if needed is None else frozenset(name for name in table.schema.names if name.lower() in needed)


def _saved(permit: Permit, vault: Vault, snapshot: Noun, wanted: Relation) -> Asked | None:
    """A saved view of that name: what is kept of it where that may be read, else computed."""
    from carelake.lake.materialisation import materialised  # which reads by this module
    from carelake.lake.views.saved import all_of

    if wanted.schema == DEIDENTIFIED or sight_of(permit).cells:
        return None

    def read(view: Any, columns: Collection[str] | None) -> pa.Table:
        return materialised.of_saved(permit, vault, snapshot, view, columns=columns).rows

    named = all_of(permit, vault, among={wanted.name})
    return next((Asked(materialised.schema(one), partial(read, one)) for one in named), None)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _needed(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: Sequence[Any] | Mapping[str, Any] | None
) -> frozenset[str] | None:
    """Names, in small letters, of the columns that a statement reads; None for all.

    As its plan over empty tables tells them, and each that the text names: a superset does no harm, and
    ``EXCLUDE (id)`` wants one that it does not read.
    """
    words = _words(text)
    if words & _ABOUT_COLUMNS:
        return None
    found: set[str] = set()
    waiting = msgspec.json.decode(connection.execute(f"EXPLAIN (FORMAT json) {text}", parameters).fetchall()[0][1])
    while waiting:
        node = waiting.pop()
        if node.get("name", "").strip() == "EMPTY_RESULT":
            return None  # it has no rows, and does not tell the columns that it would have
        said = node.get("extra_info", {}).get("Projections", ())
        found.update(one.partition(".")[0] for one in ([said] if isinstance(said, str) else said))
        waiting += node.get("children", ())
    return frozenset({name.lower() for name in found} | words)
