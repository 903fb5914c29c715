"""Values in a definition: parameters, references, functions of them, and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Parameter",
    "all_of",
    "at_least",
    "at_most",
    "equals",
    "greater",
    "is_in",
    "is_not",
    "join",
    "json_get",
    "less",
    "one_of",
    "plain",
]


@dataclass(frozen=True)
class Parameter:
    """A parameter; where a value may stand, so may it."""

    name: str
    type: str = "String"
    default: Any = None
    enum: Sequence[Any] = ()

    def said(self) -> dict[str, Any]:
        """The reference to it."""
        return {"Get": f"Parameters.{self.name}"}

    def declared(self) -> dict[str, Any]:
        """Its declaration."""
        found: dict[str, Any] = {"Name": self.name, "Type": self.type}
        found |= {"DefaultValue": self.default} if self.default is not None else {}
        return found | ({"EnumValues": list(self.enum)} if self.enum else {})


def plain(value: Any) -> Any:
    """JSON with references where parameters stood."""
    if isinstance(value, Parameter):
        return value.said()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def join(on: str, *values: Any) -> dict[str, Any]:
    """``Std:Join``."""
    return {"Std:Join": {"On": on, "Values": plain(list(values))}}


def json_get(uri: Any, path: str) -> dict[str, Any]:
    """``Std:JsonGet`` of a file that a step left."""
    return {"Std:JsonGet": {"S3Uri": plain(uri), "Path": path}}


def equals(left: Any, right: Any) -> dict[str, Any]:
    """Whether both are the same."""
    return _two("Equals", left, right)


def greater(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is more."""
    return _two("GreaterThan", left, right)


def at_least(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is as much or more."""
    return _two("GreaterThanOrEqualTo", left, right)


def less(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is less."""
    return _two("LessThan", left, right)


def at_most(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is as much or less."""
    return _two("LessThanOrEqualTo", left, right)


def is_in(value: Any, values: Sequence[Any]) -> dict[str, Any]:
    """Whether it is one of these."""
    return {"Type": "In", "QueryValue": plain(value), "Values": plain(list(values))}


def is_not(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a condition does not hold."""
    return {"Type": "Not", "Condition": dict(condition)}


def one_of(*conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Whether any of these holds."""
    return {"Type": "Or", "Conditions": [dict(one) for one in conditions]}


def all_of(*conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All of these, as a Condition step takes them."""
    return [dict(one) for one in conditions]


def _two(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": plain(left), "RightValue": plain(right)}
