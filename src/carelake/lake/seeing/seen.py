"""The rows of one type as a permit's sight shows them: filtered by patient, cut to columns, de-identified.

This is the one place between files of the lake and whoever asks: `relations.rows_in_sight` gives `Rows` as they are
to a permit for all of the account, and `Seen` to every other one. What a `Seen` tells depends on what is in sight
alone: the rows that are left are put in an order of their own, so that nothing is told by where they lay; and where
columns are cut there is the same schema whatever occurs in rows that nobody sees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from carelake.access.consents import Withheld
from carelake.core.errors import Refused
from carelake.deid import columns as deid
from carelake.deid.pseudonyms import Pseudonyms
from carelake.deid.rules import paths, rules
from carelake.lake.current import INTERNAL, NOBODY, Rows
from carelake.lake.rows import CODES, conform
from carelake.lake.schema import KEYS, Record, column_of, selected, table_schema
from carelake.lake.seeing.minimum import minimum
from carelake.lake.seeing.sight import Sight

__all__ = ["Seen", "Whose", "within"]

Whose = str | Collection[str] | None
"""Whose resources are asked for: one patient's, some patients', or everybody's."""

_AT_ONCE = 250_000
_ALWAYS = frozenset({"id", "version", "last_updated", "patient", *INTERNAL})
_UNNAMED = frozenset({"id", "version", "patient", "deleted"})
"""Key columns of the de-identified schema. A change number tells how much others wrote, a time of writing when."""

_CODED = frozenset({"code", "code_system"})
_BY = frozenset({"id", "patient", "version"})


def within(sight: Sight, patient: Whose) -> Whose:
    """The patients that both the sight and the question allow.

    Raises:
        Refused: ``lake.scope``.
    """
    scoped = sight.patient
    if scoped is None or patient is None:
        return scoped if scoped is not None else patient
    if scoped not in ((patient,) if isinstance(patient, str) else patient):
        raise Refused("lake.scope", "The permit is scoped to another patient's compartment.")
    return scoped


@dataclass(frozen=True)
class Seen:
    """The rows of one type in one snapshot, as a sight shows them; the methods are those of `current.Rows`.

    Attributes:
        rows: what there is, None where the lake has none of the type.
        withheld: whom consents withhold.
        names: pseudonyms, for a de-identified sight.
        year: the year of the snapshot.
    """

    kind: str
    sight: Sight
    rows: Rows | None
    withheld: Withheld = field(default_factory=Withheld)
    names: Pseudonyms | None = None
    year: int = 0

    @cached_property
    def whole(self) -> pa.Schema:
        """Columns of `versions`."""
        if self.names is not None:
            tree = rules().types[self.kind]
            keys = _UNNAMED | {"time"} | (_CODED if _is_coded(tree) else frozenset())
            return _shape(selected(self.kind, paths(tree)), keys)
        if self.sight.purpose:
            told = minimum(self.sight.purpose)[self.kind]
            return _shape(told.record, _ALWAYS | told.keys)
        assert self.rows is not None
        return self.rows.files.arrow

    @cached_property
    def shown(self) -> pa.Schema:
        """Columns of `current`."""
        return pa.schema([one for one in self.whole if one.name not in INTERNAL])

    def current(self, columns: Collection[str] | None = None, patient: Whose = None) -> pa.Table:
        """The resources that are there, one row each, by id."""
        read = None if self.rows is None else self.rows.current
        return self._made(read, self.shown, columns, patient)

    def versions(self, columns: Collection[str] | None = None, patient: Whose = None) -> pa.Table:
        """All versions, deletions too, by id and version."""
        read = None if self.rows is None else self.rows.versions
        return self._made(read, self.whole, columns, patient)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _made(
        self,
        read: Callable[[Collection[str] | None, Whose], pa.Table] | None,
        schema: pa.Schema,
        columns: Collection[str] | None,
        patient: Whose,
    ) -> pa.Table:
        # By id and version always, as what is left is ordered by them.
        wanted = pa.schema([one for one in schema if columns is None or one.name in {*columns, *_BY}])
        whose = within(self.sight, None if self.names is not None else patient)
        if read is None:
            found = wanted.empty_table()
        else:
            source = read(self._sources(wanted), whose)
            parts = [self._part(source.slice(at, _AT_ONCE), wanted) for at in range(0, len(source), _AT_ONCE)]
            found = pa.concat_tables(parts) if parts else wanted.empty_table()
        if self.names is not None and patient is not None:
            # Who asks of a patient here knows a pseudonym: an id would be an answer to whose it is.
            found = found.filter(_is_one_of(found.column("patient"), patient))
        found = found.sort_by([("id", "ascending"), ("version", "ascending")]).combine_chunks()
        return found.select([one.name for one in schema if columns is None or one.name in columns])

    def _sources(self, wanted: pa.Schema) -> set[str]:
        named = set(wanted.names)
        return named | _CODED if named & _CODED else named

    def _part(self, source: pa.Table, wanted: pa.Schema) -> pa.Table:
        if not self.withheld.nobody:
            source = source.filter(self._shows(source.column("patient")))
        if self.names is None:
            made: list[pa.Array | pa.ChunkedArray] = [_column(source, one) for one in wanted]
        else:
            masked = self._masked(source, wanted, self.names)
            made = [masked[one.name] for one in wanted]
        return pa.table(made, schema=wanted)

    def _shows(self, patients: pa.ChunkedArray) -> pa.ChunkedArray:
        told = self.withheld
        named = _is_one_of(patients, told.except_ids)
        shown = pc.invert(named) if told.default_shown else named
        return pc.if_else(pc.is_null(patients), pa.scalar(told.shows_unowned(self.kind)), shown)

    def _masked(self, source: pa.Table, wanted: pa.Schema, names: Pseudonyms) -> dict[str, pa.Array]:
        patients = _column(source, KEYS.field("patient"))
        days = names.shifts(patients)
        context = deid.Rows(names, days, self.year)
        made: dict[str, pa.Array] = {
            "id": names.named(self.kind, _column(source, KEYS.field("id"))),
            "patient": names.named("Patient", patients),
            "version": _column(source, KEYS.field("version")),
        }
        if "deleted" in wanted.names:
            made["deleted"] = _column(source, KEYS.field("deleted"))
        if "time" in wanted.names:
            made["time"] = context.moments(_column(source, KEYS.field("time")))
        if _CODED & set(wanted.names):
            told = deid.known_codings(*(_column(source, KEYS.field(name)) for name in ("code_system", "code")))
            made["code_system"], made["code"] = told
        for name, rule in rules().types[self.kind].items():
            if (column := column_of(name)) in wanted.names:
                value = _column(source, wanted.field(column))
                made[column] = deid.masked(value, rule, context, self.kind, name)
        return made


def _shape(record: Record, keys: Collection[str]) -> pa.Schema:
    return pa.schema([one for one in table_schema(record) if one.name not in KEYS.names or one.name in keys])


def _is_coded(tree: Mapping[str, object]) -> bool:
    return any(name in tree for name in CODES)


def _column(source: pa.Table, wanted: pa.Field) -> pa.Array:
    """A column in the type that is wanted; what the lake has none of is null."""
    if wanted.name not in source.column_names:
        return pa.nulls(len(source), wanted.type)
    return conform(source.column(wanted.name), wanted.type)


def _is_one_of(column: pa.ChunkedArray | pa.Array, ids: Whose) -> pa.ChunkedArray:
    if ids == NOBODY:
        return pc.is_null(column)
    named = [ids] if isinstance(ids, str) else sorted(ids or ())
    return pc.is_in(column, pa.array(named, pa.string()))
