"""Walk a resource along a profile, and say what is not as the profile has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from carelake.fhir.base_rules import target_type
from carelake.fhir.bindings import holds
from carelake.fhir.constraints import Context, broken
from carelake.fhir.definitions import is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.profiles.members import Member, inside, members
from carelake.fhir.profiles.registry import Registry
from carelake.fhir.profiles.slicing import Untold, fits, follows, same
from carelake.fhir.profiles.tree import Node, Slicing

__all__ = ["walk"]

_MAX_DEPTH = 100
_CONTAINED = re.compile(r"\.contained\[\d+\]$").search
Issues = Iterator[Issue]


def walk(resource: dict[str, Any], url: str, registry: Registry) -> Issues:
    """Issues of a resource against a profile.

    Raises:
        NotFound: ``fhir.profile``: it is not loaded.
    """
    profile = registry.profile(url)
    kind = str(resource["resourceType"])
    if kind != profile.type:
        yield Issue("error", "structure", kind, f"The profile is of {profile.type}, the resource is not.")
        return
    root = registry.root(url)
    assert root is not None
    yield from _Walk(registry, Context(resource)).value(root, Member(resource, None, kind, kind), _MAX_DEPTH)


@dataclass(frozen=True, slots=True)
class _Walk:
    registry: Registry
    context: Context

    def value(self, node: Node, member: Member, room: int) -> Issues:
        """One value against an element or slice, and all below it."""
        if is_resource(member.kind) and member.value is not self.context.resource:
            yield from self._inside(member).value(node, member, room)
            return
        yield from self._own(node, member)
        if room <= 0:
            return
        yield from self._profiles(node, member, room)
        for child in node.children.values():
            found = members(member.owner, member.kind, child.name, member.at)
            if not found and not child.demands:
                continue
            place = f"{member.at}.{child.name}"
            yield from _counted(child, found, place)
            for one in found:
                wrong = list(_typed(child, one))
                yield from wrong or self.value(child, one, room - 1)
            if child.slices:
                yield from self._sliced(child, found, place, room)

    def _inside(self, member: Member) -> _Walk:
        """The walk of a contained resource, or of an entry's, which is its own whole."""
        contained = _CONTAINED(member.at) is not None
        return replace(self, context=Context(member.value, self.context if contained else None))

    def _own(self, node: Node, member: Member) -> Issues:
        row, value = node.row, member.value
        if value is None:
            return
        if row.is_ is not msgspec.UNSET and not same(value, row.is_):
            yield Issue("error", "value", member.at, "The profile fixes this value, and it is another one.")
        if row.like is not msgspec.UNSET and not follows(value, row.like):
            yield Issue("error", "value", member.at, "The value does not hold what the profile's pattern demands.")
        if node.codes is not None and not holds(value, member.kind, node.codes):
            yield _not_bound(member.at, row.value_set)
        for rule in row.constraint:
            yield from broken(rule, value, member.kind, member.at, self.context)
        if member.kind == "Reference":
            yield from self._referred(row.type, value, member.at)

    def _referred(self, types: Sequence[Any], value: Any, at: str) -> Issues:
        wanted = {self.registry.type_of(url) for kind in types for url in kind.targets}
        found = target_type(value, self.context)
        if found and wanted and not wanted & {found, "Resource", ""}:
            yield Issue(
                "error", "structure", at, f"The profile wants a reference to {_or(wanted)}; it is to another type."
            )

    def _profiles(self, node: Node, member: Member, room: int) -> Issues:
        """The profiles of the value's type: it must follow one of them."""
        for kind in node.row.type:
            if kind.code != member.kind or not kind.profile:
                continue
            roots = [root for url in kind.profile if (root := self.registry.root(url)) is not None]
            tried = [list(self.value(root, member, room - 1)) for root in roots]
            if len(roots) == len(kind.profile) and all(map(_failed, tried)):
                yield from tried[0]
            elif not roots:
                said = "A profile that the value must follow is not loaded; that part was not checked."
                yield Issue("information", "not-supported", member.at, said)

    def _sliced(self, node: Node, found: list[Member], place: str, room: int) -> Issues:
        slicing = node.row.slicing
        if slicing is None or not slicing.discriminator:
            return
        try:
            numbers = [self._slice_of(node, slicing, member, room) for member in found]
        except Untold:
            said = "What tells its slices apart is not in the resource itself; they were not checked."
            yield Issue("information", "not-supported", place, said)
            return
        yield from _in_order(slicing, numbers, found)
        for number, slice_ in enumerate(node.slices):
            group = [member for member, told in zip(found, numbers, strict=True) if told == number]
            yield from _counted(slice_, group, f"{place}:{slice_.row.slice_name}")
            for member in group:
                yield from self.value(slice_, member, room - 1)

    def _slice_of(self, node: Node, slicing: Slicing, member: Member, room: int) -> int:
        """The number of the slice that a value is of, -1 for none."""

        def conforms(root: Node, inner: Member) -> bool:
            return not _failed(list(self.value(root, inner, room - 1)))

        for number, slice_ in enumerate(node.slices):
            if fits(slice_, member, slicing.discriminator, self.registry.root, conforms):
                return number
        return -1


def _in_order(slicing: Slicing, numbers: Sequence[int], found: Sequence[Member]) -> Issues:
    """What the rules of the slicing forbid: values of no slice (``closed``, ``openAtEnd``), slices out of order."""
    last = max((n for n, told in enumerate(numbers) if told >= 0), default=-1)
    highest = -1
    for n, (told, member) in enumerate(zip(numbers, found, strict=True)):
        if told < 0 and slicing.rules == "closed":
            yield Issue("error", "structure", member.at, "The value is of no slice, and they are closed.")
        elif told < 0 and slicing.rules == "openAtEnd" and n < last:
            yield Issue(
                "error", "structure", member.at, "The value is of no slice; it must stand after those that are."
            )
        elif slicing.ordered and 0 <= told < highest:
            yield Issue(
                "error", "structure", member.at, "The value is of a slice that must stand before the one above."
            )
        highest = max(highest, told)


def _failed(issues: list[Issue]) -> bool:
    return any(issue.severity == "error" for issue in issues)


def _counted(node: Node, found: list[Member], place: str) -> Issues:
    if len(found) < node.row.min:
        few = "is missing" if not found else f"has {len(found)} values"
        yield Issue("error", "required", place, f"The profile demands at least {node.row.min}; the element {few}.")
    if len(found) > node.most:
        yield Issue(
            "error", "structure", place, f"The profile allows at most {node.row.max}; the element has {len(found)}."
        )


def _typed(node: Node, member: Member) -> Issues:
    if not node.types or member.kind in node.types:
        return
    codes = {inside(member.value, code) for code in node.types}
    # What is defined in place has its path for a type here, and BackboneElement or Element in the profile.
    if "." not in member.kind and member.kind not in codes and not codes & {"BackboneElement", "Element"}:
        yield Issue("error", "structure", member.at, f"The profile allows the types {_or(codes)} here.")


def _not_bound(at: str, url: str) -> Issue:
    return Issue("error", "code-invalid", at, f"The code is not one of the value set {url}, which is required.")


def _or(names: set[str]) -> str:
    return " or ".join(sorted(name for name in names if name))
