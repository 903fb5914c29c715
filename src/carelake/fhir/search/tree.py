"""Sources of a type compiled into one walk: a tree of their paths, then closures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.definitions import Element, codes, element, is_primitive
from carelake.fhir.search.converters import EXPANDED, Visit, converter, sounding
from carelake.fhir.search.expression import Equals, Step
from carelake.fhir.search.sources import Source

__all__ = ["every", "walk"]


_NONE: Mapping[str, list[Visit]] = {}


def walk(kind: str, sources: Iterable[Source], beside: Mapping[str, list[Visit]] = _NONE) -> Visit:
    """The visit of a value of a type that adds the rows of plain paths (`Source.steps`).

    Args:
        beside: further visits of the values of elements by JSON name, of lists as they are.
    """
    root = _Node(kind)
    for source in sources:
        root.grow(source.steps, source)
    return _visit(root, beside)


def every(visits: Iterable[Visit]) -> Visit:
    """One visit that makes all of them."""
    wanted = [visit for visit in visits if visit is not _nothing]
    if len(wanted) < 2:
        return wanted[0] if wanted else _nothing

    def visit(value: Any, rows: IndexValues) -> None:
        for one in wanted:
            one(value, rows)

    return visit


class _Node:
    """A place in the tree: what it emits, and where the paths go on."""

    def __init__(self, kind: str, item: Element | None = None) -> None:
        self.kind = kind
        self.item = item
        self.emits: list[Source] = []
        self.members: dict[str, _Node] = {}
        self.branches: dict[Equals, _Node] = {}

    def grow(self, steps: tuple[Step, ...], source: Source) -> None:
        """Add a path below this place."""
        step, rest = steps[0], steps[1:]
        item = element(self.kind)[step.name]
        for key, kind in item.keys.items():
            if item.choice and (kind != step.type if step.type else not rest and kind not in source.kinds):
                continue
            if rest and (is_primitive(kind) or kind == "Resource" or rest[0].name not in element(kind)):
                continue
            node = self.members.setdefault(key, _Node(kind, item))
            if isinstance(step.test, Equals):
                node = node.branches.setdefault(step.test, _Node(kind, item))
            if rest:
                node.grow(rest, source)
            else:
                node.emits.append(source)


def _visit(node: _Node, beside: Mapping[str, list[Visit]] = _NONE) -> Visit:
    visits = [visit for source in node.emits if (visit := _emitted(node, source)) is not None]
    visits += [_where(test, _visit(branch)) for test, branch in node.branches.items()]
    members = {key: _member(child) for key, child in node.members.items()}
    for key, more in beside.items():
        members[key] = every([*([members[key]] if key in members else []), *more])
    members = {key: visit for key, visit in members.items() if visit is not _nothing}
    if members:
        visits.append(_members(members))
    return every(visits)


def _emitted(node: _Node, source: Source) -> Visit | None:
    if source.phonetic:
        return _sounding(source.name, node.kind)
    system = codes(node.item.codes).system if node.item is not None and node.item.codes else ""
    return converter(source.type, node.kind, source.name, system)


def _sounding(name: str, kind: str) -> Visit:
    one = sounding(name)
    keys = EXPANDED.get(kind)
    if keys is None:
        return one
    return _members({key: _each(one) if kind == "HumanName" and key in _MANY else one for key in keys})


_MANY = frozenset({"given", "prefix", "suffix"})


def _nothing(value: Any, rows: IndexValues) -> None:
    """No source has a use for this type, for example a SampledData under a quantity."""


def _member(child: _Node) -> Visit:
    visit = _visit(child)
    many = child.item is not None and child.item.max == "*"
    return _each(visit) if many and visit is not _nothing else visit


_FEW = 3


def _members(members: dict[str, Visit]) -> Visit:
    if len(members) > _FEW:
        return _looked_up(members)
    pairs = tuple(members.items())
    if len(pairs) > 1:

        def visit_few(value: Any, rows: IndexValues) -> None:
            for key, inner in pairs:
                found = value.get(key)
                if found is not None:
                    inner(found, rows)

        return visit_few
    ((only, then),) = pairs

    def visit_one(value: Any, rows: IndexValues) -> None:
        found = value.get(only)
        if found is not None:
            then(found, rows)

    return visit_one


def _looked_up(members: dict[str, Visit]) -> Visit:
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


def _where(test: Equals, then: Visit) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if value.get(test.name) == test.value:
            then(value, rows)

    return visit
