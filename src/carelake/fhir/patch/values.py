"""The value of an operation, in the Parameters that carry it, as the JSON of the element it is for.

A value is a ``value[x]``, a ``resource``, or for what Parameters cannot hold (``Patient.contact``) parts named for
its elements (https://hl7.org/fhir/R4/fhirpatch.html).
"""

from __future__ import annotations

from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.definitions import element
from carelake.fhir.patch.slots import Entry, Slot
from carelake.fhir.path.model import Field, Type, type_named

__all__ = ["value_entry"]

_MAX_DEPTH = 32
_NO_TEXTS = frozenset({"Boolean", "Decimal", "Integer"})
_DATES = frozenset({"date", "dateTime", "instant"})


def value_entry(part: dict[str, Any], field: Field, depth: int = 0) -> Entry:
    """What a parameter brings for an element.

    Args:
        field: the element; of a choice the value's own type chooses the name.

    Raises:
        Invalid: ``fhir.patch_value``: no value, more than one, or of a type that may not stand there.
    """
    types = field.choices or {field.key: field.type}
    given = [key for key in part if key.removeprefix("_").startswith("value")]
    stems = {key.removeprefix("_") for key in given}
    others = [key for key in ("resource", "part") if key in part]
    if len(stems) + len(others) != 1:
        raise _wrong("a value is one value[x], one resource, or parts.")
    if others == ["resource"]:
        return _resource(part["resource"], types)
    if others == ["part"]:
        return _parts(part["part"], types, depth)
    stem = stems.pop()
    told = _types().get(stem)
    if told is None:
        raise _wrong("Parameters have no such value[x].")
    exact = [(key, kind) for key, kind in types.items() if kind.path == told.path]
    fitting = [] if field.choices else [one for one in types.items() if _fits(told, one[1], part.get(stem))]
    for key, kind in exact or fitting:
        return Entry(part.get(stem), part.get("_" + stem), key, kind)
    raise _wrong(f"a {told.path} may not stand at {field.name}; expected {_listed(types)}.")


def _types() -> dict[str, Type]:
    return {key: type_named(kind) for key, kind in element("Parameters.parameter")["value"].keys.items()}


def _fits(told: Type, kind: Type, value: Any) -> bool:
    """Whether a value of one type may stand where another is expected.

    A text may stand for any primitive that is written as one: what it then says is for validation.
    """
    if told.primitive and kind.primitive:
        if isinstance(value, str) and kind.system not in _NO_TEXTS:
            both_dates = {told.path, kind.path} <= _DATES and told.path != "instant"
            return told.path in ("string", kind.path) or both_dates or _kin(told, kind) or kind.path == "xhtml"
        return _kin(told, kind)
    return not told.primitive and not kind.primitive and _kin(told, kind)


def _kin(told: Type, kind: Type) -> bool:
    return told.path in kind.names or kind.path in told.names


def _resource(resource: Any, types: dict[str, Type]) -> Entry:
    for key, kind in types.items():
        if kind.resolves and isinstance(resource, dict):
            return Entry(resource, None, key, kind)
    raise _wrong(f"a resource may not stand there; expected {_listed(types)}.")


def _parts(parts: Any, types: dict[str, Type], depth: int) -> Entry:
    if depth > _MAX_DEPTH:
        raise _wrong("parts are nested too deeply.")
    if len(types) != 1:
        raise _wrong(f"parts may not stand for a choice; expected {_listed(types)}.")
    key, kind = next(iter(types.items()))
    if kind.primitive or kind.resolves:
        raise _wrong(f"parts may not stand for {_listed(types)}.")
    if not isinstance(parts, list) or not all(isinstance(one, dict) for one in parts):
        raise _wrong("parts are a list of objects with name and value[x].")
    made: dict[str, Any] = {}
    for one in parts:
        name = one.get("name")
        found = kind.fields.get(name) if isinstance(name, str) else None
        if found is None:
            raise _wrong(f"a part is named for no element of {kind.path}.")
        slot = Slot(made, found)
        there = slot.read()
        if there and not found.many:
            raise _wrong(f"{kind.path}.{found.name} does not repeat.")
        slot.write([*there, value_entry(one, found, depth + 1)])
    return Entry(made, None, key, kind)


def _listed(types: dict[str, Type]) -> str:
    return " or ".join(sorted({kind.path for kind in types.values()})[:8])


def _wrong(message: str) -> Invalid:
    return Invalid("fhir.patch_value", message)
