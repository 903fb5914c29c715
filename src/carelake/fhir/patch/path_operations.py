"""FHIRPath Patch: operations in a Parameters resource (https://hl7.org/fhir/R4/fhirpatch.html)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.patch.bounds import MAX_BYTES, MAX_OPERATIONS, MAX_SECONDS, Budget, TimedEnv, copied, patch_error
from carelake.fhir.patch.places import Collection, Place, collection, places
from carelake.fhir.patch.slots import Entry, Slot
from carelake.fhir.patch.values import value_entry
from carelake.fhir.path.context import Env
from carelake.fhir.path.model import node

__all__ = ["fhirpath_patch"]

_DATA = (AttributeError, TypeError, ValueError, KeyError, ArithmeticError)
"""On these the data is not of the shape that its type says: an object for a text and the like."""
_INTEGERS = ("valueInteger", "valueUnsignedInt", "valuePositiveInt")
_PARTS = frozenset({"type", "path", "name", "value", "index", "source", "destination"})


def fhirpath_patch(
    resource: dict[str, Any],
    parameters: Mapping[str, Any],
    *,
    most: int = MAX_BYTES,
    seconds: float = MAX_SECONDS,
) -> dict[str, Any]:
    """A new resource, patched; all operations or none.

    Args:
        parameters: a Parameters resource, each parameter an ``operation``.
        most: bytes of JSON that the patch may add, and that may come out.
        seconds: that its paths may take together.

    Raises:
        Invalid: ``fhir.patch`` for what is no patch; ``fhir.patch_path``, ``fhir.patch_value`` and
            ``fhir.patch_limit`` for what cannot be done. ``facts["operation"]`` is its number from 0.
    """
    listed = parameters.get("parameter", []) if parameters.get("resourceType") == "Parameters" else None
    if not isinstance(listed, list):
        raise Invalid("fhir.patch", "A FHIRPath Patch is a Parameters resource whose parameters are operations.")
    if len(listed) > MAX_OPERATIONS:
        raise patch_error("limit", MAX_OPERATIONS, f"a patch has at most {MAX_OPERATIONS}. Send the resource (PUT).")
    patched: dict[str, Any] = copied(resource)
    budget = Budget(most)
    env = TimedEnv([node(patched)], seconds)  # one for all, since its limits are for all
    for number, parameter in enumerate(listed):
        operation = _operation(parameter, number)
        try:
            _KINDS[operation.kind](_Work(patched, operation, env, budget))
        except Invalid as error:
            raise _numbered(error, number) from None
        except RecursionError:
            raise patch_error("limit", number, "its path or the data are nested too deeply.") from None
        except _DATA:
            raise patch_error("path", number, "its path leads into data that is not valid FHIR.") from None
    budget.settle(patched, len(listed))
    return patched


@dataclass(frozen=True, slots=True)
class _Operation:
    """One operation as it was sent."""

    number: int
    kind: str
    path: str
    parts: Mapping[str, dict[str, Any]]

    def wrong(self, message: str, reason: str = "") -> Invalid:
        return patch_error(reason, self.number, message)

    def text(self, name: str, *keys: str) -> str:
        part = self.parts.get(name, {})
        told = [part[key] for key in keys if isinstance(part.get(key), str)]
        if len(told) != 1:
            raise self.wrong(f"{self.kind} has a {name}, as {keys[0]}.")
        return str(told[0])

    def number_of(self, name: str) -> int:
        part = self.parts.get(name, {})
        told = [part[key] for key in _INTEGERS if type(part.get(key)) is int]
        if len(told) != 1:
            raise self.wrong(f"{self.kind} has a {name}, as valueInteger, counted from 0.")
        return int(told[0])


def _operation(parameter: Any, number: int) -> _Operation:
    if not isinstance(parameter, dict) or parameter.get("name") != "operation":
        raise patch_error("", number, "each parameter is named operation.")
    listed = parameter.get("part")
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise patch_error("", number, "it has parts: type, path and what its type takes.")
    names = [one.get("name") for one in listed]
    if not all(isinstance(name, str) and name in _PARTS for name in names) or len(set(names)) < len(names):
        raise patch_error("", number, f"its parts are {', '.join(sorted(_PARTS))}, each at most once.")
    read = _Operation(number, "operation", "", {str(one["name"]): one for one in listed})
    kind = read.text("type", "valueCode", "valueString")
    if kind not in _KINDS:
        raise patch_error("", number, f"its type is one of {', '.join(_KINDS)}.")
    return _Operation(number, kind, read.text("path", "valueString"), read.parts)


@dataclass(frozen=True, slots=True)
class _Work:
    """One operation on a resource, changed in place."""

    resource: dict[str, Any]
    told: _Operation
    env: Env
    budget: Budget

    def add(self) -> None:
        """Append to the element ``name`` of the one place that the path leads to."""
        self._takes("name", "value")
        place, name = self._one(), self.told.text("name", "valueString")
        field = place.field(name)
        if field is None or name == "resourceType":
            raise self.told.wrong(f"{place.type.path} has no element of that name.", "path")
        slot = Slot(place.object(), field)
        there = slot.read()
        if there and not field.many:
            raise self.told.wrong(f"{field.name} is there already and does not repeat; replace it.", "path")
        slot.write([*there, self._value(slot)])

    def insert(self) -> None:
        """Put in at ``index`` of the list that the path names."""
        self._takes("value", "index")
        slot = self._list().slot
        there, index = slot.read(), self.told.number_of("index")
        self._within(index, len(there) + 1)
        slot.write([*there[:index], self._value(slot), *there[index:]])

    def delete(self) -> None:
        """Take out what is there; where nothing is, nothing is to do."""
        self._takes()
        found = places(self.resource, self.told.path, self.env)
        if len(found) > 1:
            raise self._several(len(found))
        for place in found:
            self._inside(place).remove()

    def replace(self) -> None:
        """Put another value in the one place that the path leads to."""
        self._takes("value")
        place = self._inside(self._one())
        assert place.slot is not None
        place.put(self._value(place.slot))

    def move(self) -> None:
        """From ``source`` to ``destination``, both places of the list before and after."""
        self._takes("source", "destination")
        slot = self._list().slot
        there, source, target = slot.read(), self.told.number_of("source"), self.told.number_of("destination")
        self._within(source, len(there))
        self._within(target, len(there))
        there.insert(target, there.pop(source))
        slot.write(there)

    def _one(self) -> Place:
        found = places(self.resource, self.told.path, self.env)
        if not found:
            raise self.told.wrong("nothing is at its path; what is missing on the way is not made.", "path")
        if len(found) > 1:
            raise self._several(len(found))
        return found[0]

    def _several(self, count: int) -> Invalid:
        return self.told.wrong(f"its path leads to {count}; narrow it to one, as in Patient.name[0].", "path")

    def _inside(self, place: Place) -> Place:
        if place.slot is None:
            raise self.told.wrong("the whole resource is not patched away; use PUT or DELETE.", "path")
        return place

    def _list(self) -> Collection:
        found = collection(self.resource, self.told.path, self.env)
        if found is None or not found.slot.field.many:
            raise self.told.wrong("its path must name one list, as Patient.identifier does.", "path")
        return found

    def _within(self, index: int, end: int) -> None:
        if not 0 <= index < end:
            raise self.told.wrong("there is no such place in the list; places count from 0.", "path")

    def _value(self, slot: Slot) -> Entry:
        part = self.told.parts.get("value")
        if part is None:
            raise self.told.wrong(f"{self.told.kind} has a value.")
        made = value_entry({key: one for key, one in part.items() if key not in ("name", "id")}, slot.field)
        value, extra = self.budget.take(self.told.number, [made.value, made.extra])
        return Entry(value, extra, made.key, made.type)

    def _takes(self, *names: str) -> None:
        if not self.told.parts.keys() <= {"type", "path", *names}:
            said = ", ".join(("type", "path", *names))
            raise self.told.wrong(f"{self.told.kind} takes {said} and nothing else.")


_KINDS: dict[str, Callable[[_Work], None]] = {
    "add": _Work.add,
    "insert": _Work.insert,
    "delete": _Work.delete,
    "replace": _Work.replace,
    "move": _Work.move,
}


def _numbered(error: Invalid, number: int) -> Invalid:
    """The error as one of this operation."""
    if "operation" in error.facts:
        return error
    reason = "value" if error.code == "fhir.patch_value" else "limit" if error.code.endswith("limit") else "path"
    return patch_error(reason, number, error.message)
