"""A view in plain Python with the FHIRPath evaluator, as the specification's processing algorithm has it.

The reference for the engines: slow (thousands of resources a second), and right wherever the evaluator is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import product
from typing import Any

from carelake.core.errors import CarelakeError, Invalid
from carelake.fhir.path.compiler import closure
from carelake.fhir.path.context import Env, Services
from carelake.fhir.path.model import node
from carelake.fhir.path.values import Item, Items, system, unwrap
from carelake.lake.views.definition import Column, Definition, Path, Select
from carelake.lake.views.errors import cardinality_error, depth_error, evaluation_error, path_error, type_error
from carelake.lake.views.numbers import plain_number

__all__ = ["evaluate"]

Row = dict[str, Any]
MAX_DEPTH = 100
_SERVICES = Services()


def evaluate(definition: Definition, resources: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """The rows of a view over resources as parsed JSON, in their order; other types are passed over.

    Raises:
        Invalid: ``lake.view_cardinality``, ``lake.view_type``, ``lake.view_path``.
    """
    where = [_compiled(path) for path in definition.where]
    rows = _select(definition.root)
    for resource in resources:
        if resource.get("resourceType") != definition.resource:
            continue
        scope = _Scope(node(dict(resource)), 0)
        scope = _Scope(scope.focus, 0, scope.focus)
        if all(_holds(test, scope, path.at) for test, path in zip(where, definition.where, strict=True)):
            yield from rows(scope)


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where a part is evaluated: its focus, ``%rowIndex``, and the resource."""

    focus: Item
    index: int
    resource: Item = None


_Read = Callable[[_Scope], Items]
_Rows = Callable[[_Scope], list[Row]]


def _compiled(path: Path) -> _Read:
    """The expression, ready to be evaluated; what is wrong with it is told as an error of the view."""
    try:
        run = closure(path.part)
    except CarelakeError as error:
        raise evaluation_error(path.at, error) from None

    def read(scope: _Scope) -> Items:
        given = {"rowIndex": scope.index, "resource": scope.resource, "rootResource": scope.resource}
        try:
            return run([scope.focus], _Env([scope.focus], given, _SERVICES))
        except Invalid as error:
            if error.code == "fhirpath.singleton":
                raise cardinality_error(path.at) from None
            raise evaluation_error(path.at, error) from None
        except (AttributeError, TypeError, ValueError, KeyError, ArithmeticError, RecursionError):
            raise path_error(path.at, "the data is not of the shape that its type says.") from None

    return read


class _Env(Env):
    """An evaluation whose variables are items already, with their types."""

    __slots__ = ()

    def variable(self, name: str, at: int) -> Items:
        if name in ("resource", "rootResource"):
            return [self._given[name]]
        return super().variable(name, at)


def _holds(test: _Read, scope: _Scope, at: str) -> bool:
    found = [system(item) for item in test(scope)]
    if len(found) > 1:
        raise cardinality_error(at)
    if found and found[0].__class__ is not bool:
        raise type_error(at, "expected true or false.")
    return bool(found and found[0])


def _select(select: Select) -> _Rows:
    """All rows of a selection structure for a focus (`Process` of the specification)."""
    parts = [
        *(_column(column) for column in select.columns),
        *(_select(inner) for inner in select.selects),
        *([_union([_select(inner) for inner in select.unions])] if select.unions else []),
    ]
    if select.repeat:
        return partial(_each, partial(_repeated, [_compiled(path) for path in select.repeat], select.at), parts, None)
    if select.each is None:
        return partial(_each, lambda scope: None, parts, None)
    nothing = _nothing(select) if select.or_null else None
    return partial(_each, _compiled(select.each), parts, nothing)


def _each(
    foci: Callable[[_Scope], Items | None], parts: list[_Rows], nothing: Row | None, scope: _Scope
) -> list[Row]:
    found = foci(scope)
    if found is None:
        return _crossed(parts, scope)
    if not found and nothing is not None:
        return [dict(nothing)]
    return [row for n, item in enumerate(found) for row in _crossed(parts, _Scope(item, n, scope.resource))]


def _crossed(parts: list[_Rows], scope: _Scope) -> list[Row]:
    made: list[Row] = []
    for combined in product(*[part(scope) for part in parts]):
        row: Row = {}
        for part in combined:
            row.update(part)
        made.append(row)
    return made


def _union(branches: list[_Rows]) -> _Rows:
    return lambda scope: [row for branch in branches for row in branch(scope)]


def _nothing(select: Select) -> Row:
    """The row of ``forEachOrNull`` over nothing."""
    return {column.name: _none(column) for column in select.named()}


def _none(column: Column) -> Any:
    if column.path.text.strip() != "%rowIndex":
        return None
    return [0] if column.collection else 0


def _repeated(paths: list[_Read], at: str, scope: _Scope) -> Items:
    """Everything that the paths reach again and again, depth first, parents before children."""
    found: Items = []

    def traverse(item: Item, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise depth_error(f"{at}.repeat", MAX_DEPTH)
        for path in paths:
            for inner in path(_Scope(item, scope.index, scope.resource)):
                found.append(inner)
                traverse(inner, depth + 1)

    traverse(scope.focus, 0)
    return found


def _column(column: Column) -> _Rows:
    read = _compiled(column.path)

    def bind(scope: _Scope) -> list[Row]:
        values = [_value(item) for item in read(scope)]
        values = [value for value in values if value is not None]
        if column.collection:
            return [{column.name: values}]
        if len(values) > 1:
            raise cardinality_error(column.path.at)
        return [{column.name: values[0] if values else None}]

    return bind


def _value(item: Item) -> Any:
    """A result as JSON: a primitive that has extensions only is nothing."""
    if item.__class__ is tuple and item[0] is None:
        return None
    return _plain(unwrap(item))


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal | float):
        return plain_number(value)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value
