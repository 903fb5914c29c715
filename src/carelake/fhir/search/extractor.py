"""Index values of a resource: the search parameters of its type compiled into one walk.

Paths of all parameters become one tree, so that an element that ten parameters index is visited once; the walk looks
only at elements that are there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from carelake.core.errors import Invalid
from carelake.core.records import IndexValues
from carelake.fhir.definitions import Element, codes, element, is_primitive
from carelake.fhir.search.converters import CONVERTERS, Converter, code_of, reference_of
from carelake.fhir.search.expression import Equals, Present, Refers, Step
from carelake.fhir.search.registry import SearchParameter, parameters

__all__ = ["MAX_ROWS", "extract"]

MAX_ROWS = 100_000

Visit = Callable[[Any, IndexValues], None]


def extract(resource: dict[str, Any]) -> IndexValues:
    """Index values of a valid resource, each row once.

    Raises:
        Invalid: ``search.too_many_values``: more than `MAX_ROWS` rows; ``fhir.unknown_type``.
    """
    rows = IndexValues([], [], [], [], [], [])
    _compiled(resource["resourceType"])(resource, rows)
    rows.tokens = _once(rows.tokens)
    rows.strings = _once(rows.strings)
    rows.dates = _once(rows.dates)
    rows.quantities = _once(rows.quantities)
    rows.references = _once(rows.references)
    rows.uris = _once(rows.uris)
    return rows


def _once(rows: list[Any]) -> list[Any]:
    if len(rows) < 2:
        return rows
    if len(rows) > MAX_ROWS:
        raise Invalid("search.too_many_values", f"The resource has more than {MAX_ROWS} values to index.")
    return list(dict.fromkeys(rows))


class _Node:
    """A place in the tree: what it emits, and where the paths go on."""

    def __init__(self, kind: str, item: Element | None = None) -> None:
        self.kind = kind
        self.item = item
        self.emits: list[tuple[SearchParameter, Refers | None]] = []
        self.members: dict[str, _Node] = {}
        self.branches: dict[Equals, _Node] = {}
        self.present: list[tuple[str, tuple[str, ...]]] = []

    def grow(self, steps: tuple[Step, ...], parameter: SearchParameter) -> None:
        """Add a path below this place."""
        step, rest = steps[0], steps[1:]
        item = element(self.kind)[step.name]
        if isinstance(step.test, Present):
            self.present.append((parameter.code, tuple(item.keys)))
            return
        for key, kind in item.keys.items():
            if step.type and item.choice and kind != step.type:
                continue
            if rest and (is_primitive(kind) or rest[0].name not in element(kind)):
                continue
            node = self.members.setdefault(key, _Node(kind, item))
            node.end(step, rest, parameter)

    def end(self, step: Step, rest: tuple[Step, ...], parameter: SearchParameter) -> None:
        """Take the step's test, then go on or emit."""
        if isinstance(step.test, Equals):
            branch = self.branches.setdefault(step.test, _Node(self.kind, self.item))
            branch.end(Step(step.name), rest, parameter)
        elif rest:
            self.grow(rest, parameter)
        else:
            self.emits.append((parameter, step.test if isinstance(step.test, Refers) else None))


@cache
def _compiled(resource_type: str) -> Visit:
    root = _Node(resource_type)
    for parameter in parameters(resource_type).values():
        for path in parameter.paths:
            root.grow(path.steps, parameter)
    visits = [_visit(root), *(_presence(code, keys) for code, keys in root.present)]
    return visits[0] if len(visits) == 1 else _all(visits)


def _visit(node: _Node) -> Visit:
    visits = [_emit(convert, params) for convert, params in _converters(node)]
    visits += [_where(test, _visit(branch)) for test, branch in node.branches.items()]
    members = {key: _member(child) for key, child in node.members.items()}
    members = {key: visit for key, visit in members.items() if visit is not _nothing}
    if members:
        visits.append(_members(members))
    if not visits:
        return _nothing
    return visits[0] if len(visits) == 1 else _all(visits)


def _nothing(value: Any, rows: IndexValues) -> None:
    """No parameter has a use for this type, for example a SampledData under a quantity."""


def _member(child: _Node) -> Visit:
    visit = _visit(child)
    many = child.item is not None and child.item.max == "*"
    return _each(visit) if many and visit is not _nothing else visit


def _members(members: dict[str, Visit]) -> Visit:
    visit_of = members.get

    def visit(value: Any, rows: IndexValues) -> None:
        for key, inner in value.items():
            found = visit_of(key)
            if found is not None:
                found(inner, rows)

    return visit


def _each(one: Visit) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        for entry in value:
            if entry is not None:  # a null keeps the place of a value that has extensions only
                one(entry, rows)

    return visit


def _all(visits: list[Visit]) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        for one in visits:
            one(value, rows)

    return visit


def _where(test: Equals, then: Visit) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if value.get(test.name) == test.value:
            then(value, rows)

    return visit


def _emit(convert: Converter, params: tuple[str, ...]) -> Visit:
    return lambda value, rows: convert(value, params, rows)


def _presence(code: str, keys: tuple[str, ...]) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        present = any(value.get(key, False) is not False for key in keys)
        rows.tokens.append((code, "", "true" if present else "false"))

    return visit


def _converters(node: _Node) -> list[tuple[Converter, tuple[str, ...]]]:
    """The converters of a place, one for each search type, with the parameters they serve."""
    found: list[tuple[Converter, tuple[str, ...]]] = []
    for kind in dict.fromkeys(parameter.type for parameter, _ in node.emits):
        emits = [(parameter.code, test) for parameter, test in node.emits if parameter.type == kind]
        plain = tuple(dict.fromkeys(code for code, test in emits if test is None))
        convert = CONVERTERS.get((kind, node.kind))
        if kind == "reference" and node.kind == "Reference":
            tested = {test.type for _, test in emits if test is not None}
            convert = reference_of(plain, {t: _taking(t, emits) for t in tested})
        elif kind == "token" and node.item is not None and node.item.codes:
            convert = code_of(codes(node.item.codes).system)
        if convert is not None:
            found.append((convert, plain))
    return found


def _taking(target_type: str, emits: list[tuple[str, Refers | None]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(code for code, test in emits if test is None or test.type == target_type))
