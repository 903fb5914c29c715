"""The tables and views that a statement may name, and the one door to their rows.

The identified schema is ``main``, the other one ``deidentified``. Who may see the de-identified schema alone finds it
under names without a schema too, so that the same statement does for everybody. A relation that is not in sight is
not there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa
from sqlalchemy import select

from carelake.access.consents import Withheld, withheld
from carelake.audit.tables import noun
from carelake.core.clock import instant
from carelake.core.errors import Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.deid.pseudonyms import pseudonyms
from carelake.deid.rules import rules
from carelake.lake.current import INTERNAL, Rows, rows_of
from carelake.lake.flat import View, names, project, run_view, view
from carelake.lake.schema import KEYS, column_of
from carelake.lake.seeing.cells import coarse
from carelake.lake.seeing.minimum import minimum
from carelake.lake.seeing.seen import Seen, Whose, within
from carelake.lake.seeing.sight import Sight, sight_of
from carelake.lake.statements.statement import Relation
from carelake.vault.workspace import Vault

__all__ = [
    "DEIDENTIFIED",
    "DELETIONS",
    "Asked",
    "check_rows",
    "deletions_of",
    "find",
    "flat",
    "in_sight",
    "listed",
    "resources_of",
    "rows_in_sight",
]

DEIDENTIFIED = "deidentified"
_IDENTIFIED = ("", "main")

DELETIONS = pa.schema(
    [
        pa.field("type", pa.string()),
        *(KEYS.field(name) for name in ("id", "version", "last_updated", "patient", "seq")),
    ]
)
"""Columns of `deletions`."""


class Asked(NamedTuple):
    """A relation that a statement names.

    Attributes:
        read: its rows with the columns that are given, or all.
        base: whether leaving out columns spares work.
    """

    schema: pa.Schema
    read: Callable[[Collection[str] | None], pa.Table]
    base: bool = True


def rows_in_sight(
    permit: Permit, vault: Vault, snapshot: Noun, kind: str, *, sight: Sight | None = None
) -> Rows | Seen | None:
    """The rows of a type that a permit shows as of a snapshot; None where there is nothing of that type for it.

    Args:
        sight: narrower than the permit's; by default that.

    Raises:
        Refused: ``lake.scope``, for a scope that the lake has no predicate for.
    """
    sight = sight_of(permit) if sight is None else sight
    if _is_hidden(sight, kind):
        return None
    told = snapshot.body["tables"].get(kind)
    rows = rows_of(permit, vault, kind, int(told["snapshot"])) if told and told["snapshot"] else None
    if sight.whole:
        return rows
    hidden = Withheld()
    if sight.consented:
        with vault.database.reading(permit) as connection:
            hidden = withheld(permit, connection, kind)
    if hidden.nobody and replace(sight, consented=False).whole:
        return rows
    if sight.deidentified:
        named = pseudonyms(permit, vault.keyring)
        return Seen(kind, sight, rows, hidden, named, _year(permit, vault, snapshot))
    # Where columns are listed there is a table for each list; else there is what occurs.
    return Seen(kind, sight, rows, hidden) if sight.purpose or rows is not None else None


def in_sight(permit: Permit, vault: Vault, snapshot: Noun, kind: str) -> Rows | Seen | None:
    """As `rows_in_sight`, for who is given the rows themselves.

    Raises:
        Refused: as `check_rows` too.
    """
    check_rows(permit)
    return rows_in_sight(permit, vault, snapshot, kind)


def check_rows(permit: Permit) -> None:
    """Let pass who may be given rows.

    Raises:
        Refused: ``lake.cells``: for who may see aggregates alone.
    """
    if sight_of(permit).cells:
        raise Refused(
            "lake.cells", "This is for counts over enough patients only; ask in SQL, see docs/lake-access.md."
        )


def find(permit: Permit, vault: Vault, snapshot: Noun, wanted: Relation) -> Asked | None:
    """The relation of that name, None where there is none in sight."""
    sight = sight_of(permit)
    if wanted.schema not in (*_IDENTIFIED, DEIDENTIFIED):
        return None
    if wanted.schema == DEIDENTIFIED:
        if not (sight.both or sight.deidentified):
            return None
        sight = replace(sight, deidentified=True)
    elif wanted.schema and sight.deidentified:
        return None
    if wanted.name == "deletions":
        return Asked(DELETIONS, lambda _: deletions_of(permit, vault, snapshot)) if sight.whole else None
    found = _view(permit, vault, snapshot, sight, wanted.name) or _table(permit, vault, snapshot, sight, wanted.name)
    return coarse(found, vault.settings.lake.k) if found and sight.cells else found


def _view(permit: Permit, vault: Vault, snapshot: Noun, sight: Sight, name: str) -> Asked | None:
    if name not in names():
        return None
    found = view(name)
    if _is_hidden(sight, found.resource):
        return None
    schema = found.empty.schema
    return Asked(schema, lambda _: flat(permit, vault, snapshot, found, sight=sight), base=False)


def _is_hidden(sight: Sight, kind: str) -> bool:
    if sight.deidentified:
        return kind not in rules().types
    return bool(sight.purpose) and kind not in minimum(sight.purpose)


def _table(permit: Permit, vault: Vault, snapshot: Noun, sight: Sight, name: str) -> Asked | None:
    if sight.deidentified:
        kinds: Collection[str] = rules().types
    else:
        kinds = minimum(sight.purpose) if sight.purpose else snapshot.body["tables"]
    base = name.removesuffix("_history")
    kind = next((one for one in kinds if one.lower() == base), None)
    rows = None if kind is None else rows_in_sight(permit, vault, snapshot, kind, sight=sight)
    if rows is None:
        return None
    whole = rows.whole if isinstance(rows, Seen) else rows.files.arrow
    if base != name:
        return Asked(whole, lambda columns: rows.versions(columns, within(sight, None)))
    shown = pa.schema([one for one in whole if one.name not in INTERNAL])
    return Asked(shown, lambda columns: rows.current(columns, within(sight, None)))


def listed(permit: Permit, vault: Vault, snapshot: Noun) -> dict[str, int | None]:
    """The tables that a permit sees by name, with how many rows each has where it sees all of them."""
    sight = sight_of(permit)
    if sight.deidentified:
        return dict.fromkeys(sorted(rules().types))
    there = snapshot.body["tables"]
    if sight.purpose:
        return dict.fromkeys(sorted(minimum(sight.purpose)))
    return {name: told["rows"] if sight.whole else None for name, told in sorted(there.items())}


def flat(
    permit: Permit, vault: Vault, snapshot: Noun, wanted: View, patient: Whose = None, *, sight: Sight | None = None
) -> pa.Table:
    """The rows of a flat view over what is in sight; `sight` as in `rows_in_sight`."""
    resources = resources_of(permit, vault, snapshot, wanted, patient, sight=sight)
    return run_view(wanted, resources, limits=vault.settings.lake)


def resources_of(
    permit: Permit, vault: Vault, snapshot: Noun, wanted: View, patient: Whose = None, *, sight: Sight | None = None
) -> pa.Table:
    """What a flat view reads, of what is in sight."""
    columns = {"id", *(column_of(name) for name in wanted.record.fields)}
    rows = rows_in_sight(permit, vault, snapshot, wanted.resource, sight=sight)
    if rows is None:
        return wanted.reads.empty_table()
    return project(rows.current(columns, within(sight or sight_of(permit), patient)), wanted)


def deletions_of(permit: Permit, vault: Vault, snapshot: Noun, after: int = 0) -> pa.Table:
    """As `query.deletions`."""
    if not sight_of(permit).whole:
        raise Refused("lake.scope", "The deletes feed is of the whole account, and the permit shows less than that.")
    parts = []
    for name in sorted(snapshot.body["tables"]):
        if isinstance(found := rows_in_sight(permit, vault, snapshot, name), Rows):
            told = found.deleted(after)
            parts.append(told.add_column(0, "type", pa.array([name] * len(told), pa.string())))
    return pa.concat_tables(parts).sort_by("seq") if parts else DELETIONS.empty_table()


def _year(permit: Permit, vault: Vault, snapshot: Noun) -> int:
    """The year in which a snapshot was made: ages are counted by it, so that its rows stay the same."""
    with vault.database.reading(permit) as connection:
        said = connection.execute(select(noun.c.at).where(noun.c.ref == snapshot.ref)).scalar()
    return (instant(said) if said else vault.clock.now()).year
