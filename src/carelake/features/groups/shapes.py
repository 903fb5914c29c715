"""What the service models demand of a request: types, bounds, patterns and enumerations (``aws.json``).

botocore's own client checks less than the service does; this checks all that the model says. Messages name the
member and the bound, never the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
import regex  # type: ignore[import-untyped]

from carelake.core.errors import Invalid

__all__ = ["check", "invalid"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "timestamp": (datetime, str, int, float),
    "list": (list, tuple),
    "structure": (Mapping,),
}


def invalid(message: str) -> Invalid:
    """``features.validation``, which AWS calls ValidationError."""
    return Invalid("features.validation", message)


@cache
def _model() -> dict[str, Any]:
    text = files("carelake.features.groups").joinpath("aws.json").read_bytes()
    told: dict[str, Any] = msgspec.json.decode(text)
    return told


@cache
def _pattern(text: str) -> regex.Pattern[str]:
    # The models' patterns are Java's, which spells what is beyond the basic plane as surrogates.
    return regex.compile(text.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"))


def check(operation: str, request: Mapping[str, Any]) -> None:
    """Let pass a request in the operation's shape; members that are None are as absent.

    Raises:
        Invalid: ``features.validation``, naming the member.
    """
    model = _model()
    _shape(model["shapes"], model["operations"][operation], request, operation)


def _shape(shapes: Mapping[str, Any], name: str, value: Any, place: str) -> None:
    shape = shapes[name]
    kind = shape["type"]
    _typed(kind, value, place)
    if kind == "structure":
        _structure(shapes, shape, value, place)
    elif kind == "list":
        _bounds(shape, len(value), place, "members")
        for number, one in enumerate(value):
            _shape(shapes, shape["member"], one, f"{place}[{number}]")
    elif kind == "string":
        _string(shape, value, place)
    elif kind in ("integer", "long"):
        _bounds(shape, value, place, "")


def _typed(kind: str, value: Any, place: str) -> None:
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise invalid(f"{place} is not a {kind}.")


def _structure(shapes: Mapping[str, Any], shape: Mapping[str, Any], value: Mapping[str, Any], place: str) -> None:
    members: Mapping[str, str] = shape.get("members", {})
    missing = [one for one in shape.get("required", ()) if value.get(one) is None]
    if missing:
        raise invalid(f"{place} lacks {', '.join(missing)}.")
    if unknown := [str(one) for one in value if one not in members]:
        raise invalid(f"{place} has {len(unknown)} members that it does not know; it knows {', '.join(members)}.")
    for one, inner in value.items():
        if inner is not None:
            _shape(shapes, members[one], inner, f"{place}.{one}")


def _string(shape: Mapping[str, Any], value: str, place: str) -> None:
    _bounds(shape, len(value), place, "characters")
    if "\0" in value:  # which PostgreSQL keeps in no text
        raise invalid(f"{place} has a NUL.")
    if (allowed := shape.get("enum")) and value not in allowed:
        raise invalid(f"{place} is none of {', '.join(allowed)}.")
    pattern = shape.get("pattern")
    if pattern and pattern != ".*" and not _pattern(pattern).fullmatch(value):
        raise invalid(f"{place} does not match {pattern}.")


def _bounds(shape: Mapping[str, Any], size: int, place: str, unit: str) -> None:
    low, high = shape.get("min", 0), shape.get("max", math.inf)
    if not low <= size <= high:
        said = f"{low} to {high}" if high != math.inf else f"at least {low}"
        raise invalid(f"{place} has {size} {unit}; it may have {said}." if unit else f"{place} is not {said}.")
