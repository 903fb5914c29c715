"""Index values of a resource: the sources of its type compiled into one walk.

Paths of all sources become one tree (`carelake.fhir.search.tree`), so that an element of many sources is visited
once; the walk looks only at elements that are there.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, TypeVar

from carelake.core.errors import Invalid
from carelake.core.records import IndexValues
from carelake.fhir.definitions import element
from carelake.fhir.search.converters import Visit
from carelake.fhir.search.expression import Present
from carelake.fhir.search.general import general_visit
from carelake.fhir.search.narrative import content, narrative
from carelake.fhir.search.parts import member_of, parts_of_member, parts_visit
from carelake.fhir.search.registry import BASE, Registry
from carelake.fhir.search.sources import Source
from carelake.fhir.search.tree import every, walk

__all__ = ["MAX_ROWS", "extract"]

MAX_ROWS = 100_000

_Row = TypeVar("_Row")


def extract(
    resource: dict[str, Any], registry: Registry = BASE, only: Collection[str] | None = None, *, loose: bool = False
) -> IndexValues:
    """Index values of a valid resource, each row once but for `IndexValues.displays`.

    Args:
        only: names of the sources that are wanted (`Registry.sources`), rows for modifiers included; None for all.
        loose: the resource was not checked, so its shape may be wrong: sources that it breaks have no rows.

    Raises:
        Invalid: ``search.too_many_values``: more than `MAX_ROWS` rows of one kind; ``fhir.unknown_type``.
    """
    kind = resource["resourceType"]
    plan = registry.plans.get(kind) if only is None else None
    rows = IndexValues()
    try:
        (plan or _plan(registry, kind, only))(resource, rows)
        return _distinct(rows)
    except _MISSHAPEN:
        if not loose:
            raise
    return _loosely(resource, registry, kind, only)


_MISSHAPEN = (AttributeError, TypeError, ValueError, KeyError, ArithmeticError)


def _loosely(resource: dict[str, Any], registry: Registry, kind: str, only: Collection[str] | None) -> IndexValues:
    """Each source by itself, so that one which fails takes no other with it."""
    rows = IndexValues()
    for name in registry.sources(kind):
        if only is None or name in only:
            with suppress(*_MISSHAPEN):
                one = extract(resource, registry, (name,))
                for field in one.__struct_fields__:
                    getattr(rows, field).extend(getattr(one, field))
    return rows


def _plan(registry: Registry, kind: str, only: Collection[str] | None) -> Visit:
    key = kind if only is None else (kind, frozenset(only))
    plan: Visit | None = registry.plans.get(key)
    if plan is None:
        plan = registry.plans[key] = _visit_all(registry, kind, only)
    return plan


def _distinct(rows: IndexValues) -> IndexValues:
    # One by one: a loop over the names of the fields costs more than the work.
    if len(rows.tokens) > 1:
        rows.tokens = _once(rows.tokens)
    if len(rows.references) > 1:
        rows.references = _once(rows.references)
    if len(rows.dates) > 1:
        rows.dates = _once(rows.dates)
    if len(rows.quantities) > 1:
        rows.quantities = _once(rows.quantities)
    if len(rows.strings) > 1:
        rows.strings = _once(rows.strings)
    if rows.uris or rows.words or rows.parts or rows.positions:
        rows.uris, rows.words = _once(rows.uris), _once(rows.words)
        rows.parts, rows.positions = _once(rows.parts), _once(rows.positions)
    return rows


def _once(rows: list[_Row]) -> list[_Row]:
    if len(rows) > MAX_ROWS:
        raise Invalid("search.too_many_values", f"The resource has more than {MAX_ROWS} values to index.")
    return list(dict.fromkeys(rows))


def _visit_all(registry: Registry, resource_type: str, only: Collection[str] | None) -> Visit:
    known = registry.sources(resource_type)
    plain: list[Source] = []
    visits: list[Visit] = []
    beside: dict[str, list[Visit]] = {}
    parts: dict[tuple[tuple[str, ...], bool], list[Source]] = {}
    for source in [source for name, source in known.items() if only is None or name in only]:
        if source.type == "part":
            parts.setdefault((source.items, source.own), []).append(source)
        elif source.kinds == ("Narrative",):
            beside.setdefault("text", []).append(narrative(source.name))
        elif source.kinds == ("Resource",) and source.type == "words":
            visits.append(content(source.name))
        elif source.expression:
            visits.append(general_visit(source.name, source.type, source.expression, resource_type))
        elif isinstance(source.steps[-1].test, Present):
            visits.append(_presence(source, resource_type))
        else:
            plain.append(source)
    for together in parts.values():
        name = member_of(together, resource_type)
        if name:
            beside.setdefault(name, []).append(parts_of_member(together, resource_type, name))
        else:
            visits.append(parts_visit(together, resource_type))
    return every([walk(resource_type, plain, beside), *visits])


def _presence(source: Source, resource_type: str) -> Visit:
    keys = tuple(element(resource_type)[source.steps[-1].name].keys)

    def visit(value: Any, rows: IndexValues) -> None:
        present = any(value.get(key, False) is not False for key in keys)
        rows.tokens.append((source.name, "", "true" if present else "false"))

    return visit
