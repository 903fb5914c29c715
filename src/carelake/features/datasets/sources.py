"""What a recipe's SELECTs read: the flat views of a snapshot, and nothing else.

A statement is checked as a user's is (`lake.statements`) and runs in a database that has those views alone. It runs
on one thread, and a group's rows are put in one order before they are joined: so sums of doubles, ties and with them
the hashes of a replay are the same each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.features.datasets.design import Design, Group, Recipe
from carelake.features.datasets.shelf import names, view
from carelake.lake import query
from carelake.lake.engines.engine import connect
from carelake.lake.flat import project, run_view
from carelake.lake.schema import column_of
from carelake.lake.seeing.relations import check_rows, flat
from carelake.lake.seeing.seen import Whose
from carelake.lake.statements import bounded, statement
from carelake.vault.workspace import Vault

__all__ = ["Reader", "events_of", "group_of", "needed", "reader", "reader_again", "select", "selects"]

_KEYS = ("subject_id", "event_time", "write_time", "is_deleted")
Reader = Callable[[Iterable[str], Whose], dict[str, pa.Table]]
"""Flat views by name: rows of these patients, or of all with None."""
_LATEST = "SELECT max(seq) AS seq FROM versions GROUP BY id"


def selects(design: Design) -> dict[str, str]:
    """The design's SELECTs by what they give."""
    said = {
        "target": design.target,
        "outcome": design.outcome,
        "competing": design.competing,
        "observation": design.observation,
        **{f"exclusion.{one.name}": one.sql for one in design.exclusions},
    }
    return {name: text for name, text in said.items() if text}


def needed(recipe: Recipe, *, known: Iterable[str] = ()) -> list[str]:
    """The views that a recipe's SELECTs read.

    Args:
        known: further relations that there are.

    Raises:
        Invalid: ``datasets.relation``; ``lake.sql``, see `statement.read`.
    """
    texts = [*(selects(recipe.design).values() if recipe.design else ()), *(g.sql for g in recipe.groups if g.sql)]
    found = {one for text in texts for one in statement.read(text).relations}
    there = {*names(), *known}
    for one in sorted(found):
        if one.schema or one.name not in there:
            raise Invalid(
                "datasets.relation",
                f"A SELECT of the recipe reads what is not there; there are {', '.join(names())}.",
            )
    return sorted(one.name for one in found)


def reader(permit: Permit, vault: Vault, snapshot: Noun) -> Reader:
    """Reads flat views of a snapshot."""
    check_rows(permit)
    return lambda wanted, whose: {name: flat(permit, vault, snapshot, view(name), whose) for name in sorted(wanted)}


def reader_again(permit: Permit, vault: Vault, newest: Noun, seq: int) -> Reader:
    """Reads them as they were at a position of the feed, from the versions that are in the lake still.

    For a snapshot that is gone since somebody was erased: what is left of it is in the newest, version by version.
    """
    return lambda wanted, whose: {name: _again(permit, vault, newest, seq, name, whose) for name in sorted(wanted)}


def _again(permit: Permit, vault: Vault, newest: Noun, seq: int, name: str, whose: Whose) -> pa.Table:
    wanted = view(name)
    columns = {"id", "seq", "deleted", *(column_of(field) for field in wanted.record.fields)}
    found = query.versions(permit, vault, newest, wanted.resource, columns=sorted(columns), patient=whose)
    if found is None:
        return wanted.empty
    found = found.filter(pc.field("seq") <= seq)
    with connect(vault.settings.lake) as connection:
        connection.register("versions", found.select(["id", "seq"]))
        last = connection.sql(_LATEST).to_arrow_table().column("seq")
    live = found.filter(pc.and_(pc.is_in(found.column("seq"), last), pc.invert(found.column("deleted"))))
    return run_view(wanted, project(live, wanted), limits=vault.settings.lake)


def select(text: str, tables: Mapping[str, pa.Table], limits: LakeSettings, place: str) -> pa.Table:
    """The rows of one SELECT over these tables.

    Raises:
        Invalid: ``lake.sql``, ``datasets.select``.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    said = statement.read(text)
    alone = msgspec.structs.replace(limits, threads=1)
    with connect(alone) as connection:
        for one in said.relations:
            connection.register(one.name, tables[one.name])
        try:
            return bounded.select(connection, text, alone)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            kind = type(error).__name__.removesuffix("Exception").lower()
            raise Invalid("datasets.select", f"DuckDB refused the SELECT of {place} ({kind} error).") from None


def events_of(design: Design, tables: Mapping[str, pa.Table], limits: LakeSettings) -> dict[str, pa.Table]:
    """What the design's SELECTs give."""
    return {name: select(text, tables, limits, name) for name, text in selects(design).items()}


def group_of(group: Group, found: pa.Table) -> pa.Table:
    """A group's rows as `asof.join` takes them, in one order, with the features that are wanted.

    Raises:
        Invalid: ``datasets.columns``.
    """
    for name in ("subject_id", "event_time", *group.features):
        if name not in found.column_names:
            raise Invalid("datasets.columns", f"The group {group.name} lacks the column {name}.")
    if "write_time" not in found.column_names:
        found = found.append_column("write_time", found.column("event_time"))
    if "is_deleted" not in found.column_names:
        found = found.append_column("is_deleted", pa.array([False] * len(found), pa.bool_()))
    features = group.features or tuple(name for name in found.column_names if name not in _KEYS)
    if not features:
        raise Invalid("datasets.columns", f"The group {group.name} has no features.")
    kept = found.select([*_KEYS, *features])
    if group.group:
        return kept  # a feature group's rows are in the order of writing, which decides between those of one time
    order: Any = [(name, "ascending") for name in kept.column_names if _sortable(kept.schema.field(name).type)]
    return kept.sort_by(order)


def _sortable(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_dictionary(kind))
