"""The parts of a parsed expression. ``at`` is the character they start at, ``height`` how deeply they are nested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "Binary",
    "Call",
    "External",
    "Indexer",
    "Key",
    "Literal",
    "Member",
    "Negative",
    "Part",
    "Special",
    "TypeName",
    "TypeTest",
    "Union",
    "children",
]


@dataclass(frozen=True, slots=True)
class Part:
    """Any part of an expression."""

    at: int
    height: int


@dataclass(frozen=True, slots=True)
class Literal(Part):
    """A constant: the items of its collection (none for ``{}``)."""

    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Member(Part):
    """``source.name``; without a source it starts a path and may name the type of what it starts from."""

    source: Part | None
    name: str


@dataclass(frozen=True, slots=True)
class Call(Part):
    """``source.name(arguments)``; without a source the focus is the input."""

    source: Part | None
    name: str
    arguments: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Special(Part):
    """``$this``, ``$index`` or ``$total``."""

    name: str


@dataclass(frozen=True, slots=True)
class External(Part):
    """``%name``."""

    name: str


@dataclass(frozen=True, slots=True)
class Indexer(Part):
    """``source[index]``."""

    source: Part
    index: Part


@dataclass(frozen=True, slots=True)
class Negative(Part):
    """``-operand``, or ``+operand``."""

    sign: str
    operand: Part


@dataclass(frozen=True, slots=True)
class Binary(Part):
    """``left sign right``."""

    sign: str
    left: Part
    right: Part


@dataclass(frozen=True, slots=True)
class Union(Part):
    """``a | b | c`` as one part: chains of it are long in search parameters."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class TypeName:
    """``FHIR.Patient``: namespace or "", and name."""

    at: int
    space: str
    name: str


@dataclass(frozen=True, slots=True)
class TypeTest(Part):
    """``operand is type`` or ``operand as type``, and the functions of these names and ``ofType``."""

    word: str
    operand: Part | None
    type: TypeName


@dataclass(frozen=True, slots=True)
class Key(Part):
    """An argument of ``sort``: what to sort by, and how: "", "desc", or "-" for the value with the other sign."""

    by: Part
    way: str


def children(part: Part) -> tuple[Part, ...]:
    """The parts directly inside."""
    match part:
        case Member(source=source) if source is not None:
            return (source,)
        case Call(source=source, arguments=arguments):
            return arguments if source is None else (source, *arguments)
        case Indexer(source=source, index=index):
            return (source, index)
        case Negative(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Union(parts=parts):
            return parts
        case TypeTest(operand=operand) if operand is not None:
            return (operand,)
        case Key(by=by):
            return (by,)
    return ()
