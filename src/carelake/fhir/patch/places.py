"""Where the path of an operation leads: not to copies of values, but to their places in the resource.

A path walks down names; what narrows on the way (``where``, ``first``, an index and so on) is evaluated by
`carelake.fhir.path` on the elements that were reached. Whatever leaves the resource or computes values is refused
(https://hl7.org/fhir/R4/fhirpatch.html).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from carelake.fhir.patch.slots import Entry, Slot
from carelake.fhir.path.compiler import closure
from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import argument_error, name_error, type_error
from carelake.fhir.path.model import Field, Type, type_named
from carelake.fhir.path.parser import parse
from carelake.fhir.path.syntax import Call, Indexer, Literal, Member, Part, Special, TypeTest

__all__ = ["Collection", "Place", "collection", "places"]

_NARROWS = frozenset({"where", "first", "last", "tail", "skip", "take", "single", "ofType", "as"})
_PRIMITIVE = "Element"  # what a primitive's own elements are defined by: id and extension


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    """An element, and where it is.

    Attributes:
        slot: the element that it is an entry of; None for the resource itself.
        index: which of them.
        above: the place that holds it.
    """

    value: Any
    extra: Any
    type: Type
    slot: Slot | None = None
    index: int = 0
    above: Place | None = None

    def field(self, name: str) -> Field | None:
        """The element of that name, or of that JSON name, that may stand here."""
        kind = type_named(_PRIMITIVE) if self.type.primitive else self.type
        found = kind.fields.get(name)
        if found is not None:
            return found
        known = kind.keys.get(name)
        return known[0] if known is not None else None

    def object(self) -> dict[str, Any]:
        """The JSON object that holds its elements; for a primitive the one beside it, made where there is none."""
        if not self.type.primitive:
            if not isinstance(self.value, dict):
                raise type_error(0, "The path", "data that is not valid FHIR", "a valid resource")
            return self.value
        if isinstance(self.extra, dict):
            return self.extra
        assert self.slot is not None
        beside: dict[str, Any] = {}
        entries = self.slot.read()
        entries[self.index] = entries[self.index]._replace(extra=beside)
        self.slot.write(entries)
        return beside

    def remove(self) -> None:
        """Take it out, and what then is empty above it: FHIR knows no empty elements."""
        assert self.slot is not None
        entries = self.slot.read()
        del entries[self.index]
        self.slot.write(entries)
        above = self.above
        if self.slot.owner or above is None or above.slot is None:
            return
        if not above.type.primitive or above.value is None:
            above.remove()
        else:
            above.put(Entry(above.value, None, "", above.type))

    def put(self, entry: Entry) -> None:
        """Another entry in its place; with key "" under the name it has."""
        assert self.slot is not None
        entries = self.slot.read()
        entries[self.index] = entry if entry.key else entry._replace(key=entries[self.index].key)
        self.slot.write(entries)


@dataclass(frozen=True, slots=True)
class Collection:
    """The element that a path names, of the one place that holds it, whether anything is there or not."""

    above: Place
    slot: Slot


def places(resource: dict[str, Any], text: str, env: Env) -> list[Place]:
    """The places that a path leads to.

    Raises:
        Invalid: ``fhirpath.*``.
    """
    return _Walk(resource, env).places(parse(text))


def collection(resource: dict[str, Any], text: str, env: Env) -> Collection | None:
    """What a path that ends in a name leads to; None where there is not one place that holds it.

    Raises:
        Invalid: ``fhirpath.*``; ``fhirpath.argument`` where the path ends in something else than a name.
    """
    walk, part = _Walk(resource, env), parse(text)
    if not isinstance(part, Member):
        raise argument_error(part.at, "the path must end in the name of a list, as Patient.identifier does.")
    above = walk.places(part.source) if part.source is not None else [walk.root]
    if len(above) != 1 or (part.source is None and walk.starts(part)):
        return None
    field = walk.field(above[0], part)
    return Collection(above[0], Slot(above[0].object(), field))


class _Walk:
    """One path on its way down a resource."""

    def __init__(self, resource: dict[str, Any], env: Env) -> None:
        self.root = Place(resource, None, type_named(str(resource.get("resourceType", ""))))
        self._env = env

    def places(self, part: Part) -> list[Place]:
        match part:
            case Member():
                return self._member(part)
            case Indexer():
                return self._narrowed(part, part.source, replace(part, source=_this(part)))
            case TypeTest(word="as" | "ofType") if part.operand is not None:
                return self._narrowed(part, part.operand, replace(part, operand=_this(part)))
            case Call(name="extension") if part.source is not None and len(part.arguments) == 1:
                return self._extension(part, part.source)
            case Call() if part.source is not None and part.name in _NARROWS:
                return self._narrowed(part, part.source, replace(part, source=_this(part)))
            case Special(name="this"):
                return [self.root]
        raise argument_error(
            part.at,
            "a patch's path names elements and narrows them by an index, where(), first(), last(), tail(), skip(), "
            "take(), single(), ofType() or extension(); it computes nothing and leaves the resource nowhere.",
        )

    def starts(self, part: Member) -> bool:
        """Whether the name that a path starts with is the type of the resource."""
        return part.name[:1].isupper() and part.name in self.root.type.names

    def field(self, place: Place, part: Member) -> Field:
        found = place.field(part.name)
        if found is None:
            raise name_error(part.at, f"{place.type.path or 'the data'} has no such element.")
        return found

    def _member(self, part: Member) -> list[Place]:
        if part.source is None:
            return [self.root] if self.starts(part) else self._below(self.root, part)
        return [one for place in self.places(part.source) for one in self._below(place, part)]

    def _below(self, place: Place, part: Member) -> list[Place]:
        field = self.field(place, part)
        owner = place.extra if place.type.primitive else place.value
        if not isinstance(owner, dict):
            return []
        slot = Slot(owner, field)
        entries = slot.read()
        self._env.spend(len(entries) + 1, part.at)
        return [
            Place(one.value, one.extra, _actual(one), slot, index, place)
            for index, one in enumerate(entries)
            if one.value is not None or one.extra is not None
        ]

    def _narrowed(self, part: Part, source: Part, step: Part) -> list[Place]:
        """Those of the source's places that a step keeps, told by the identity of the items that it was handed."""
        reached = self.places(source)
        items = [(one.value, one.type, one.extra) for one in reached]
        of_item = {id(item): one for item, one in zip(items, reached, strict=True)}
        self._env.spend(len(items), part.at)
        kept = closure(step)(items, self._env)
        found = [of_item.get(id(item)) for item in kept]
        if None in found:
            raise argument_error(part.at, "this step of the path makes values; a patch's path only narrows elements.")
        return [one for one in found if one is not None]

    def _extension(self, part: Call, source: Part) -> list[Place]:
        below = self._below_all(source, part)
        wanted = part.arguments[0]
        if not isinstance(wanted, Literal) or len(wanted.items) != 1 or not isinstance(wanted.items[0], str):
            raise argument_error(part.at, "extension() takes the url as a text.")
        return [one for one in below if isinstance(one.value, dict) and one.value.get("url") == wanted.items[0]]

    def _below_all(self, source: Part, part: Call) -> list[Place]:
        named = Member(part.at, part.height, None, "extension")
        return [one for place in self.places(source) for one in self._below(place, named)]


def _this(part: Part) -> Special:
    return Special(part.at, 1, "this")


def _actual(entry: Entry) -> Type:
    """The type of an entry: what a resource says of itself, where any may stand."""
    if entry.type.resolves and isinstance(entry.value, dict):
        return type_named(str(entry.value.get("resourceType", "")))
    return entry.type
