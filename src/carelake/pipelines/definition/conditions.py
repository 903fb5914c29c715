"""Conditions of a Condition step: checked when a definition is read, and decided when the step is reached.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-condition
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from carelake.core.errors import Invalid
from carelake.pipelines.definition.places import Place
from carelake.pipelines.definition.references import Reference, Scope, references, resolve

__all__ = ["check", "holds"]

_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
}
_KEYS = {
    **dict.fromkeys(("Equals", *_ORDERED), ("LeftValue", "RightValue")),
    "In": ("QueryValue", "Values"),
    "Not": ("Condition",),
    "Or": ("Conditions",),
}
_DEEP = 16


def check(place: Place, deep: int = 0) -> Iterator[tuple[Place, Reference]]:
    """Check one condition; answers the references in it."""
    kind = place["Type"].value
    if kind not in _KEYS or deep > _DEEP:
        raise place["Type"].wrong(f"one of {', '.join(_KEYS)}")
    place.keys(frozenset({"Type", *_KEYS[kind]}))
    for name in _KEYS[kind]:
        if name not in place.mapping():
            raise place.wrong(f"a value for {name}")
    if kind == "Not":
        yield from check(place["Condition"], deep + 1)
    elif kind == "Or":
        for one in place["Conditions"].items():
            yield from check(one, deep + 1)
    else:
        for name in _KEYS[kind]:
            yield from references(place[name])


def holds(condition: Mapping[str, Any], scope: Scope) -> bool:
    """Whether a condition holds.

    Raises:
        Invalid: ``pipelines.condition``: the values cannot be compared; what `resolve` raises.
    """
    kind = condition["Type"]
    if kind == "Not":
        return not holds(condition["Condition"], scope)
    if kind == "Or":
        return any(holds(one, scope) for one in condition["Conditions"])
    if kind == "In":
        sought = resolve(condition["QueryValue"], scope)
        return any(_same(sought, resolve(one, scope)) for one in condition["Values"])
    left, right = (resolve(condition[name], scope) for name in ("LeftValue", "RightValue"))
    if kind == "Equals":
        return _same(left, right)
    if _kind(left) != _kind(right) or _kind(left) not in ("number", "text"):
        raise Invalid(
            "pipelines.condition", f"{kind} compares two numbers or two texts; one side is neither, or another."
        )
    return _ORDERED[kind](left, right)


def _same(one: Any, other: Any) -> bool:
    # Python's True equals 1; a pipeline's does not.
    return _kind(one) == _kind(other) and bool(one == other)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else type(value).__name__
