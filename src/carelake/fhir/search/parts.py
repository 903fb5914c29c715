"""Rows of composites on repeated elements: each component's values with the ordinal of their element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.definitions import element
from carelake.fhir.search.converters import Visit
from carelake.fhir.search.expression import Misfit, Step, read_part
from carelake.fhir.search.general import emitter, finder
from carelake.fhir.search.parameters import named_uses
from carelake.fhir.search.sources import Source
from carelake.fhir.search.tree import every, walk

__all__ = ["member_of", "parts_of_member", "parts_visit"]

Row = tuple[str, int, str, float, float, str, str]
_Fill = Callable[[Any, Any, IndexValues], None]


def member_of(sources: list[Source], resource_type: str) -> str:
    """JSON name of the element that part sources are over, if it is one of the resource itself and all they need."""
    if len(sources[0].items) > 1 or any(source.own for source in sources):
        return ""
    try:
        steps = read_part(sources[0].items[0]).steps
    except Misfit:
        return ""
    item = element(resource_type).get(steps[0].name) if len(steps) == 1 else None
    return "" if item is None or item.choice or steps != (Step(item.name),) else item.name


def parts_of_member(sources: list[Source], resource_type: str, name: str) -> Visit:
    """The visit of that element's value."""
    item = element(resource_type)[name]
    fill = every(_filling(source, item.content_ref or item.types[0]) for source in sources)
    names = {source.name for source in sources}

    def visit(value: Any, rows: IndexValues) -> None:
        for number, entry in enumerate(value if item.max == "*" else [value]):
            scratch = IndexValues()
            fill(entry, scratch)
            rows.parts += _rows(names, number, scratch)

    return visit


def _filling(source: Source, kind: str) -> Visit:
    fill = _fill(source, kind)
    return lambda value, rows: fill(value, None, rows)


def parts_visit(sources: list[Source], resource_type: str) -> Visit:
    """The visit of a resource for part sources over the same elements (`Source.items`), whatever they are."""
    items = [finder(expression, resource_type) for expression in sources[0].items]
    names = {source.name for source in sources}
    fills: dict[str, list[tuple[bool, _Fill]]] = {}

    def visit(resource: Any, rows: IndexValues) -> None:
        elements = [found for find in items for found in find(resource, resource)]
        for number, (kind, value) in enumerate(elements):
            if kind not in fills:
                fills[kind] = [(one.own, _fill(one, resource_type if one.own else kind)) for one in sources]
            scratch = IndexValues()
            for own, fill in fills[kind]:
                fill(resource if own else value, resource, scratch)
            rows.parts += _rows(names, number, scratch)

    return visit


def _fill(source: Source, kind: str) -> _Fill:
    """A function of (element, resource, rows) that adds a component's values under the name of its part."""
    try:
        uses = named_uses(kind, {"Resource", kind}, source.expression, source.inner)
    except Misfit:
        uses = []
    plain = [replace(use.source, name=source.name) for use in uses if not use.source.expression and not use.target]
    if plain and len(plain) == len(uses):
        walking = walk(kind, plain)
        return lambda value, resource, rows: walking(value, rows)
    find, emit = finder(source.expression, kind), emitter(source.name, source.inner)

    def fill(value: Any, resource: Any, rows: IndexValues) -> None:
        for found, inner in find(value, resource):
            emit(found, inner, rows)

    return fill


def _rows(names: set[str], item: int, values: IndexValues) -> list[Row]:
    """Part rows of an element's values; rows for modifiers have other names and are left out."""
    made: list[Row] = [(name, item, code, 0.0, 0.0, told, "") for name, told, code in values.tokens if name in names]
    for name, low, high, system, unit in values.quantities:
        made.append((name, item, "", low, high, system, unit))
    if values.strings:
        made += [(name, item, folded, 0.0, 0.0, "", "") for name, folded, _ in values.strings if name in names]
    if values.dates:
        made += [(name, item, "", float(low), float(high), "", "") for name, low, high in values.dates]
    if values.references:
        made += [(name, item, key or url, 0.0, 0.0, kind, "") for name, kind, key, url in values.references]
    if values.uris:
        made += [(name, item, value, 0.0, 0.0, "", "") for name, value in values.uris]
    return made
