"""Reading a snapshot of the lake: current resources, flat views, and read-only SQL over both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import duckdb
import msgspec
import pyarrow as pa
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.errors import Invalid, NotFound, Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake import bounded
from carelake.lake.current import INTERNAL, Rows, rows_of
from carelake.lake.engine import connect
from carelake.lake.flat import View, names, project, run_view, view
from carelake.lake.schema import KEYS, column_of
from carelake.lake.sync import position
from carelake.store.scopes import owner_of
from carelake.vault.workspace import Vault

__all__ = ["DELETIONS", "current", "deletions", "snapshot_of", "sql", "versions", "views"]

_MAX_SQL = 100_000
_WORD = re.compile(r"\w+")
_ABOUT_COLUMNS = frozenset({"describe", "summarize", "show", "pivot", "unpivot"})
DELETIONS = pa.schema(
    [
        pa.field("type", pa.string()),
        *(KEYS.field(name) for name in ("id", "version", "last_updated", "patient", "seq")),
    ]
)
"""Columns of `deletions`."""


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
    patient: str | None = None,
) -> pa.Table | None:
    """The current, not deleted resources of a type as of a snapshot, or None where the lake has none of the type.

    Args:
        columns: top-level columns (`schema.table_schema`); all by default, ``id`` always.
        patient: only those in this patient's compartment.
    """
    patient = _compartment(permit, patient)
    found = _rows(permit, vault, snapshot, resource_type)
    return None if found is None else found.current(None if columns is None else {*columns, "id"}, patient)


def versions(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    resource_type: str,
    *,
    columns: Sequence[str] | None = None,
    patient: str | None = None,
) -> pa.Table | None:
    """All versions of a type up to a snapshot, deletions too; otherwise as `current`."""
    patient = _compartment(permit, patient)
    found = _rows(permit, vault, snapshot, resource_type)
    return None if found is None else found.versions(columns, patient)


def deletions(permit: Permit, vault: Vault, snapshot: Noun, after: int = 0) -> pa.Table:
    """The deletes feed: type, id, version, last_updated, patient and seq of each deletion beyond a seq, in order."""
    if _compartment(permit, None) is not None:
        raise Refused("lake.scope", "The deletes feed is of the whole account; the permit is scoped to one patient.")
    parts = []
    for name in sorted(snapshot.body["tables"]):
        if (found := _rows(permit, vault, snapshot, name)) is not None:
            told = found.deleted(after)
            parts.append(told.add_column(0, "type", pa.array([name] * len(told), pa.string())))
    return pa.concat_tables(parts).sort_by("seq") if parts else DELETIONS.empty_table()


def _rows(permit: Permit, vault: Vault, snapshot: Noun, resource_type: str) -> Rows | None:
    told = snapshot.body["tables"].get(resource_type)
    return rows_of(permit, vault, resource_type, int(told["snapshot"])) if told and told["snapshot"] else None


def _compartment(permit: Permit, patient: str | None) -> str | None:
    """The patient that both the scope and the question allow; an unknown scope denies (decision D10)."""
    scoped = owner_of(permit)
    if scoped is not None and patient not in (None, scoped):
        raise Refused("lake.scope", "The permit is scoped to another patient's compartment.")
    return scoped or patient


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
    made: dict[str, pa.Table] = {}
    for each in wanted:
        resources = _resources(permit, vault, snapshot, each, patient)
        made[each.name] = run_view(each, resources, limits=vault.settings.lake)
    return made


def _resources(permit: Permit, vault: Vault, snapshot: Noun, wanted: View, patient: str | None) -> pa.Table:
    columns = [column_of(name) for name in wanted.record.fields]
    found = current(permit, vault, snapshot, wanted.resource, columns=columns, patient=patient)
    return wanted.reads.empty_table() if found is None else project(found, wanted)


def sql(permit: Permit, vault: Vault, snapshot: Noun, text: str) -> pa.Table:
    """The rows of one SELECT over the flat views and the tables of a snapshot; it can read and change nothing else.

    A table is named as its resource type (current rows), or ``TYPE_history`` (all versions); ``deletions`` is the
    deletes feed.

    Raises:
        Invalid: ``lake.sql``, when it is not one SELECT or DuckDB refuses it; the text is not repeated.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    if len(text) > _MAX_SQL:
        raise Invalid("lake.sql", "The statement is too long.")
    with connect(vault.settings.lake) as connection, _refusals():
        statements = connection.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise Invalid("lake.sql", "Expected one SELECT over the views; nothing else is run here.")
        if mentioned := _mentioned(text):
            for name, view_rows in views(permit, vault, snapshot, mentioned).items():
                connection.register(name, view_rows)
        asked = _tables(permit, vault, snapshot, text)
        for name, table in asked.items():
            connection.register(name, table.schema.empty_table())
        with bounded.in_time(connection, vault.settings.lake):
            needed = _needed(connection, text) if asked else None
        for name, table in asked.items():
            connection.unregister(name)
            connection.register(name, table.read(_of(table.schema, needed)))
        return bounded.select(connection, text, vault.settings.lake)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        kind = type(error).__name__.removesuffix("Exception").lower()
        raise Invalid("lake.sql", f"DuckDB refused the statement ({kind} error).") from None


def _mentioned(text: str) -> list[str]:
    """The views that the text may read: reading the others would be work for nothing."""
    low = text.lower()
    return [name for name in names() if name in low]


def _of(schema: pa.Schema, needed: frozenset[str] | None) -> frozenset[str] | None:
    return None if needed is None else frozenset(name for name in schema.names if name.lower() in needed)


class _Asked(NamedTuple):
    """A table that a statement names.

    Attributes:
        read: its rows with the columns that are given, or all.
    """

    schema: pa.Schema
    read: Callable[[frozenset[str] | None], pa.Table]


def _tables(permit: Permit, vault: Vault, snapshot: Noun, text: str) -> dict[str, _Asked]:
    words = _words(text)
    patient = _compartment(permit, None)
    found: dict[str, _Asked] = {}
    for name in snapshot.body["tables"]:
        if not words & {name.lower(), f"{name.lower()}_history"}:
            continue
        rows = _rows(permit, vault, snapshot, name)
        if rows is None:
            continue
        whole = rows.files.arrow
        shown = pa.schema([field for field in whole if field.name not in INTERNAL])
        found[name] = _Asked(shown, partial(rows.current, patient=patient))
        found[f"{name}_history"] = _Asked(whole, partial(rows.versions, patient=patient))
    if "deletions" in words:
        found["deletions"] = _Asked(DELETIONS, lambda _: deletions(permit, vault, snapshot))
    return {name: one for name, one in found.items() if name.lower() in words}


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _needed(connection: duckdb.DuckDBPyConnection, text: str) -> frozenset[str] | None:
    """Names, in small letters, of the columns that a statement reads; None for all.

    As its plan over empty tables tells them, and each that the text names: a superset does no harm, and
    ``EXCLUDE (id)`` wants one that it does not read.
    """
    words = _words(text)
    if words & _ABOUT_COLUMNS:
        return None
    found: set[str] = set()
    waiting = msgspec.json.decode(connection.execute(f"EXPLAIN (FORMAT json) {text}").fetchall()[0][1])
    while waiting:
        node = waiting.pop()
        if node.get("name", "").strip() == "EMPTY_RESULT":
            return None  # it has no rows, and does not tell the columns that it would have
        said = node.get("extra_info", {}).get("Projections", ())
        found.update(one.partition(".")[0] for one in ([said] if isinstance(said, str) else said))
        waiting += node.get("children", ())
    return frozenset({name.lower() for name in found} | words)
