"""Parameters of a pipeline: declared in its definition, given as texts when an execution starts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid
from carelake.pipelines.definition.places import Place

__all__ = ["Parameter", "as_text", "declared", "values"]

_TYPES = ("String", "Integer", "Boolean", "Float")
_NAME = r"[A-Za-z0-9_-]{1,256}"
_MOST = 200


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        default: None where a value must be given.
        enum: the values that it may have; empty for any.
    """

    name: str
    type: str
    default: Any = None
    enum: tuple[Any, ...] = ()


def declared(place: Place) -> tuple[Parameter, ...]:
    """The parameters of a definition."""
    found: dict[str, Parameter] = {}
    for one in place.items(_MOST):
        one.keys(frozenset({"Name", "Type", "DefaultValue", "EnumValues"}), frozenset({"Name", "Type"}))
        name = one["Name"].text(_NAME, "a name of letters, digits, dashes and underscores")
        one = Place(f"Parameter {name}", one.value)
        if name in found:
            raise one.wrong("a name that no other parameter has")
        found[name] = _declared(one, name)
    return tuple(found.values())


def _declared(one: Place, name: str) -> Parameter:
    kind = one["Type"].value
    if kind not in _TYPES:
        raise one["Type"].wrong(f"one of {', '.join(_TYPES)}")
    default = one["DefaultValue"].value
    enum = tuple(choice.value for choice in one["EnumValues"].items())
    for value in (*enum, *((default,) if default is not None else ())):
        if not _is(kind, value):
            raise one.wrong(f"default and enum values of type {kind}")
    if enum and default is not None and default not in enum:
        raise one["DefaultValue"].wrong("one of its EnumValues")
    return Parameter(name, kind, default, enum)


def _is(kind: str, value: Any) -> bool:
    if kind == "String":
        return isinstance(value, str) and len(value) <= 1024
    if kind == "Boolean":
        return isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind == "Float" and isinstance(value, float))


def values(parameters: Sequence[Parameter], given: Mapping[str, str]) -> dict[str, Any]:
    """The value of every parameter.

    Raises:
        Invalid: ``pipelines.parameter``: unknown, missing, of another type, or not one of its enum.
    """
    names = {one.name for one in parameters}
    if unknown := sorted(set(given) - names):
        raise _wrong(unknown[0][:64], f"is not declared; the pipeline has {', '.join(sorted(names)) or 'none'}")
    return {one.name: _value(one, given.get(one.name)) for one in parameters}


def _value(one: Parameter, text: str | None) -> Any:
    if text is None:
        if one.default is None:
            raise _wrong(one.name, "has no default, so a value must be given")
        return one.default
    value: Any = text
    if one.type == "Boolean":
        value = {"true": True, "false": False}.get(text.lower())
    elif one.type == "Integer":
        value = int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
    elif one.type == "Float":
        value = float(text) if re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,3})?", text) else None
    if value is None or value == math.inf or value == -math.inf or len(text) > 1024:
        raise _wrong(one.name, f"is of type {one.type}; expected such a value, of at most 1024 characters")
    if one.enum and value not in one.enum:
        raise _wrong(one.name, f"may be one of {', '.join(map(as_text, one.enum))}")
    return value


def as_text(value: Any) -> str:
    """A value as the API tells it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _wrong(name: str, reason: str) -> Invalid:
    return Invalid("pipelines.parameter", f"Parameter {name} {reason}.", parameter=name)
