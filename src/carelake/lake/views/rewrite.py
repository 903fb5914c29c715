"""Small changes to parsed expressions before they are run: constants as literals, and `join` of nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from carelake.fhir.path.syntax import (
    Binary,
    Call,
    External,
    Indexer,
    Key,
    Literal,
    Member,
    Negative,
    Part,
    TypeTest,
    Union,
)

__all__ = ["rewritten"]

_NONE: Mapping[str, tuple[Any, ...]] = {}


def rewritten(part: Part, constants: Mapping[str, tuple[Any, ...]] = _NONE) -> Part:
    """The expression with ``%name`` replaced by its literal.

    The views' suite has `join()` of an empty collection as an empty text, where FHIRPath has nothing; so a join is
    followed by `coalesce` with one.
    """

    def inner(each: Part) -> Part:
        return rewritten(each, constants)

    match part:
        case External(name=name) if name in constants:
            return Literal(part.at, part.height, constants[name])
        case Call(name="join"):
            joined = _call(part, inner)
            return Call(part.at, part.height + 1, None, "coalesce", (joined, Literal(part.at, 1, ("",))))
        case Call():
            return _call(part, inner)
        case Member(source=source) if source is not None:
            return replace(part, source=inner(source))
        case Indexer():
            return replace(part, source=inner(part.source), index=inner(part.index))
        case Negative():
            return replace(part, operand=inner(part.operand))
        case Binary():
            return replace(part, left=inner(part.left), right=inner(part.right))
        case Union(parts=parts):
            return replace(part, parts=tuple(inner(each) for each in parts))
        case TypeTest(operand=operand) if operand is not None:
            return replace(part, operand=inner(operand))
        case Key():
            return replace(part, by=inner(part.by))
    return part


def _call(part: Call, inner: Any) -> Call:
    source = None if part.source is None else inner(part.source)
    return replace(part, source=source, arguments=tuple(inner(each) for each in part.arguments))
