"""Index values of what FHIRPath expressions find, for parameters that are no plain paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.core.errors import CarelakeError
from carelake.core.records import IndexValues
from carelake.fhir import path
from carelake.fhir.definitions import is_resource
from carelake.fhir.path import Services
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.temporal import Temporal
from carelake.fhir.references import target
from carelake.fhir.search.converters import EXPANDED, Visit, converter
from carelake.fhir.search.links import told_type

__all__ = ["finder", "general_visit", "typed"]

Finder = Callable[[Any, Any], list[tuple[str, Any]]]


def _stub(text: str) -> Any:
    """What ``resolve()`` gives here: nothing is read, the reference's text tells the type."""
    found = target(text)
    if found is None:
        return None
    kind, key, url = found
    kind = kind or told_type(url)
    return {"resourceType": kind, "id": key} if is_resource(kind) else None


_SERVICES = Services(resolver=_stub)


def typed(item: Any) -> tuple[str, Any]:
    """FHIR type and plain value of an item of FHIRPath; ("", None) for what has none."""
    match item:
        case (value, kind, _):
            if value is None:
                return "", None
            name = str(kind.path or kind.name)
            return ("Resource" if is_resource(name) else name), value
        case bool():
            return "boolean", item
        case str():
            return "string", item
        case int():
            return "integer", item
        case Temporal():
            return "dateTime", item.text
        case Quantity():
            return "Quantity", {"value": item.value, "unit": item.unit}
    return "decimal", item


def finder(expression: str, kind: str) -> Finder:
    """A function of (focus, resource) to the typed values there; none where the expression fails on the data."""
    compiled = path.compile(expression)

    def find(focus: Any, resource: Any) -> list[tuple[str, Any]]:
        told = {"resource": resource, "rootResource": resource}
        try:
            return [typed(item) for item in compiled.items(focus, kind, told, _SERVICES, False, True)]
        except CarelakeError:
            return []

    return find


def general_visit(name: str, search_type: str, expression: str, kind: str) -> Visit:
    """The visit of a resource that adds the rows of a FHIRPath expression.

    Args:
        kind: type of the focus.
    """
    find = finder(expression, kind)
    emit = emitter(name, search_type)

    def visit(value: Any, rows: IndexValues) -> None:
        for found, item in find(value, value):
            emit(found, item, rows)

    return visit


def emitter(name: str, search_type: str) -> Callable[[str, Any, IndexValues], None]:
    """A function that adds the rows of a value of any FHIR type; nothing where the search type has no use for it."""
    known: dict[str, Visit | None] = {}

    def emit(kind: str, value: Any, rows: IndexValues) -> None:
        if search_type == "string" and kind in EXPANDED:
            for part in EXPANDED[kind]:
                texts = value.get(part, ())
                for text in [texts] if texts.__class__ is str else texts:
                    if text is not None:
                        emit("string", text, rows)
            return
        if kind not in known:
            known[kind] = converter(search_type, kind, name)
        convert = known[kind]
        if convert is not None:
            convert(value, rows)

    return emit
