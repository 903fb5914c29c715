"""The flat views: one SQL file each, run over lake tables and over resources in memory alike.

Offline and online are one code: what a view reads is cut to the same Arrow type wherever it comes from, and the
same statement runs over it. `views.toml` declares what each reads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import pyarrow as pa

from carelake.core import canonical
from carelake.core.errors import NotFound
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import run
from carelake.lake.moments import TIME_MACROS
from carelake.lake.rows import conform, elements_sql, typed
from carelake.lake.schema import Record, arrow_type, column_of, selected

__all__ = ["View", "flatten", "names", "project", "reads", "run_view", "view"]


@dataclass(frozen=True, eq=False)
class View:
    """A flat view: its SQL and what that reads."""

    name: str
    resource: str
    record: Record
    sql: str

    @cached_property
    def elements(self) -> pa.StructType:
        """The elements that it reads, under their FHIR names."""
        return arrow_type(self.record)

    @cached_property
    def reads(self) -> pa.Schema:
        """The relation ``resources``: id and the elements."""
        return pa.schema([pa.field("id", pa.string()), *self.elements])

    @cached_property
    def parsing(self) -> str:
        """The statement that reads the elements from JSON."""
        return elements_sql(self.record)

    @cached_property
    def empty(self) -> pa.Table:
        """The view of nothing."""
        return run(self.sql, {"resources": self.reads.empty_table()}, setup=macros())


@cache
def _views() -> Mapping[str, View]:
    folder = files("carelake.lake").joinpath("flat_views")
    declared = tomllib.loads(folder.joinpath("views.toml").read_text("utf-8"))
    return {
        name: View(
            name,
            said["resource"],
            selected(said["resource"], said["elements"]),
            folder.joinpath(f"{name}.sql").read_text("utf-8"),
        )
        for name, said in declared.items()
    }


@cache
def macros() -> str:
    """The SQL words that the views share."""
    return TIME_MACROS + files("carelake.lake").joinpath("flat_views", "macros.sql").read_text("utf-8")


def names() -> tuple[str, ...]:
    """The views there are."""
    return tuple(_views())


def reads() -> frozenset[str]:
    """The resource types that the views read."""
    return frozenset(each.resource for each in _views().values())


def view(name: str) -> View:
    """The view of that name.

    Raises:
        NotFound: ``lake.no_such_view``.
    """
    found = _views().get(name)
    if found is None:
        raise NotFound("lake.no_such_view", f"There is no such view; there are {', '.join(names())}.")
    return found


def project(table: pa.Table, wanted: View) -> pa.Table:
    """A lake table's rows as the relation that a view reads."""
    have = set(table.column_names)
    columns = [
        conform(table.column(column), field.type) if (column := _stored(field.name)) in have else _nulls(table, field)
        for field in wanted.reads
    ]
    return pa.table(columns, schema=wanted.reads)


def _stored(name: str) -> str:
    return name if name == "id" else column_of(name)


def _nulls(table: pa.Table, field: pa.Field) -> pa.Array:
    return pa.nulls(len(table), field.type)


def run_view(wanted: View, resources: pa.Table, *, limits: LakeSettings | None = None) -> pa.Table:
    """The view's rows over its relation ``resources``."""
    return run(wanted.sql, {"resources": resources}, setup=macros(), limits=limits)


def flatten(
    resources: Iterable[Mapping[str, Any]], only: Sequence[str] | None = None, *, limits: LakeSettings | None = None
) -> Mapping[str, pa.Table]:
    """The views over resources in memory: what `query.views` gives for the same resources in the lake.

    Args:
        resources: parsed by `canonical.load`; those that no view reads are passed over.
        only: names of views; all by default.
    """
    wanted = [view(name) for name in (only or names())]
    bodies: dict[str, list[tuple[str, str]]] = {each.resource: [] for each in wanted}
    for resource in resources:
        if (kind := resource["resourceType"]) in bodies:
            bodies[kind].append((resource["id"], canonical.dump(resource).decode()))
    return {each.name: _flat(each, bodies[each.resource], limits) for each in wanted}


def _flat(wanted: View, bodies: list[tuple[str, str]], limits: LakeSettings | None) -> pa.Table:
    return run_view(wanted, _parsed(wanted, bodies, limits), limits=limits) if bodies else wanted.empty


def _parsed(wanted: View, bodies: list[tuple[str, str]], limits: LakeSettings | None) -> pa.Table:
    ids, texts = ([pair[at] for pair in bodies] for at in (0, 1))
    table = pa.table({"id": pa.array(ids, pa.string()), "body": pa.array(texts, pa.string())})
    elements = typed(wanted.record, run(wanted.parsing, {"bodies": table}, limits=limits), wanted.elements)
    return pa.table([table.column("id"), *elements.columns], schema=wanted.reads)
