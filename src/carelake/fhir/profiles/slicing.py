"""Which slice a value belongs to (https://hl7.org/fhir/R4/profiling.html#discriminator)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from carelake.fhir.bindings import holds
from carelake.fhir.profiles.members import Member, members
from carelake.fhir.profiles.tree import Node

__all__ = ["Untold", "fits", "follows", "same"]

Known = Callable[[str], Node | None]
"""The root of a profile by its url; None where it is not loaded."""
Conforms = Callable[[Node, Member], bool]
"""Whether a value conforms to a profile."""

_STEP = re.compile(r"[A-Za-z]\w*(?:\([^)]*\))?")


class Untold(Exception):
    """What tells the slices apart lies in a resource that is referred to, or is not understood."""


def fits(
    slice_: Node,
    member: Member,
    discriminators: tuple[tuple[str, str], ...],
    known: Known,
    conforms: Conforms | None = None,
) -> bool:
    """Whether every discriminator says that the value is of the slice.

    Raises:
        Untold: it cannot be known from the value alone.
    """
    return all(_fits(slice_, member, kind, _steps(path), known, conforms) for kind, path in discriminators)


@cache
def _steps(path: str) -> tuple[str, ...]:
    steps = tuple(_STEP.findall(path.removeprefix("$this")))
    if ".".join(steps) != path.removeprefix("$this").lstrip("."):
        raise Untold
    if any("(" in step and not step.startswith("ofType(") for step in steps):
        raise Untold
    return steps


def _fits(
    slice_: Node, member: Member, kind: str, steps: tuple[str, ...], known: Known, conforms: Conforms | None
) -> bool:
    found = list(_at(member, steps)) if steps else [member]
    named = [step for step in steps if not step.startswith("ofType(")]
    if kind == "type":
        codes = _node(slice_, named, known).types
        return any(m.kind in codes for m in found)
    if kind == "exists":
        row = _node(slice_, named, known).row
        return bool(found) == (row.max != "0" and row.min > 0)
    if kind == "profile":
        roots = [known(url) for told in _node(slice_, named, known).row.type for url in told.profile]
        if conforms is None or not roots or None in roots:
            raise Untold
        return any(conforms(root, m) for root in roots if root is not None for m in found)
    return any(_equals(slice_, named, m, known) for m in found)


def _at(member: Member, steps: Sequence[str]) -> Iterator[Member]:
    for inner in members(member.owner, member.kind, steps[0], member.at):
        rest = steps[1:]
        if rest and rest[0].startswith("ofType("):
            if inner.kind != rest[0][len("ofType(") : -1]:
                continue
            rest = rest[1:]
        if rest:
            yield from _at(inner, rest)
        else:
            yield inner


def _node(node: Node, steps: list[str], known: Known) -> Node:
    """The element at a path below a slice, or the deepest one that is defined."""
    for step in steps:
        below = node.children.get(step) or _of_profile(node, step, known)
        if below is None:
            return node
        node = below
    return node


def _of_profile(node: Node, step: str, known: Known) -> Node | None:
    for kind in node.row.type:
        for url in kind.profile:
            root = known(url)
            if root is not None and step in root.children:
                return root.children[step]
    return None


def _equals(slice_: Node, steps: list[str], member: Member, known: Known) -> bool:
    """Whether what the slice demands at the path, by itself or from above, is what the value has there."""
    node, rest = slice_, steps
    while True:
        demand = _demand(node, rest)
        if demand is not None:
            return demand(member)
        if not rest:
            return False
        below = node.children.get(rest[0]) or _of_profile(node, rest[0], known)
        if below is None:
            # An extension that is told by its profile alone: its url is the profile's.
            urls = [url for kind in node.row.type for url in kind.profile]
            return rest == ["url"] and member.value in urls
        node, rest = below, rest[1:]


def _demand(node: Node, rest: list[str]) -> Callable[[Member], bool] | None:
    for told, test in ((node.row.is_, same), (node.row.like, follows)):
        if told is not msgspec.UNSET:
            wanted = list(_inside(told, rest))
            if wanted:
                return lambda member: any(test(member.value, one) for one in wanted)
    if not rest and node.codes is not None:
        codes = node.codes
        return lambda member: holds(member.value, member.kind, codes)
    return None


def _inside(value: Any, steps: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for one in value:
            yield from _inside(one, steps)
    elif not steps:
        yield value
    elif isinstance(value, dict) and steps[0] in value:
        yield from _inside(value[steps[0]], steps[1:])


def same(value: Any, wanted: Any) -> bool:
    """Whether a value is just what is fixed: the same elements, in lists the same order."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def follows(value: Any, pattern: Any) -> bool:
    """Whether a value holds at least the pattern (https://hl7.org/fhir/R4/elementdefinition.html, ``pattern[x]``)."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(k in value and follows(value[k], v) for k, v in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(follows(one, wanted) for one in value) for wanted in pattern)
    return same(value, pattern)
