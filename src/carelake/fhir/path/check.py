"""Strict mode: what can be told wrong before any data is seen (https://hl7.org/fhirpath/N1/#type-safety-and-strict-evaluation).

The types that a path may give are followed through members, casts and the functions that keep them; where they are
not known, nothing is said. Asking for a place in a collection without order (`children`, `descendants`) is wrong too.
"""

from __future__ import annotations

from carelake.fhir.path.errors import name_error, type_error
from carelake.fhir.path.model import UNTYPED, Type, is_type, type_named
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
    Special,
    TypeTest,
    Union,
    children,
)

__all__ = ["check"]

_Types = frozenset[str] | None
"""Paths of the types that there may be; None for anything."""

_SAME_WORDS = """
where first last tail skip take single distinct trace exclude intersect defineVariable checkModifiers sort
repeat
"""
_SAME = frozenset(_SAME_WORDS.split())
_ORDERED = frozenset({"first", "last", "tail", "skip", "take"})
_UNORDERED = frozenset({"children", "descendants"})
_EACH = frozenset({"where", "select", "all", "exists", "repeat", "repeatAll", "sort", "aggregate"})


def check(part: Part, kind: Type) -> None:
    """Go through an expression that starts from a type.

    Raises:
        Invalid: ``fhirpath.name`` for elements that no type there has, ``fhirpath.type`` for places without order.
    """
    _types(part, None if kind is UNTYPED else frozenset({kind.path}))


def _types(part: Part, focus: _Types) -> _Types:
    match part:
        case Member():
            return _member(part, focus)
        case Call():
            return _call(part, focus)
        case TypeTest():
            return _tested(part, focus)
        case Indexer(source=source, index=index):
            _no_place_without_order(source, part.at)
            _types(index, focus)
            return _types(source, focus)
        case Union(parts=parts):
            found = [_types(inner, focus) for inner in parts]
            return None if None in found else frozenset().union(*(types for types in found if types is not None))
        case Special(name=name):
            return focus if name == "this" else None
        case Binary() | Negative() | Key():
            for inner in children(part):
                _types(inner, focus)
        case Literal() | External():
            pass
    return None


def _member(part: Member, focus: _Types) -> _Types:
    if part.source is None:
        if focus is None:
            return None
        if any(part.name in type_named(path).names for path in focus):
            return focus
        if part.name[:1].isupper() and is_type(part.name):
            raise name_error(part.at, "the path starts with another type than that of the data.")
    source = focus if part.source is None else _types(part.source, focus)
    return None if source is None else _element(part, source)


def _element(part: Member, source: frozenset[str]) -> _Types:
    found: set[str] = set()
    for path in source:
        kind = type_named(path)
        if kind is UNTYPED or kind.resolves:
            return None
        field = kind.fields.get(part.name)
        if field is not None:
            found |= {kind.path for kind in (field.choices or {"": field.type}).values()}
        elif kind.primitive and part.name == "value":
            return None
    if not found:
        raise name_error(part.at, f"{' and '.join(sorted(source))} has no such element.")
    return frozenset(found)


def _call(part: Call, focus: _Types) -> _Types:
    source = focus if part.source is None else _types(part.source, focus)
    if part.name in _ORDERED and part.source is not None:
        _no_place_without_order(part.source, part.at)
    inner_focus = source if part.name in _EACH or part.name in ("iif", "defineVariable", "coalesce") else focus
    inner = [_types(argument, inner_focus) for argument in part.arguments if not _is_url(part)]
    if part.name == "select":
        return inner[0]
    if part.name == "extension":
        return frozenset({"Extension"})
    return source if part.name in _SAME and part.name != "repeat" else None


def _is_url(part: Call) -> bool:
    return part.name in ("extension", "getReferenceKey")


def _no_place_without_order(source: Part, at: int) -> None:
    if isinstance(source, Call) and source.name in _UNORDERED:
        raise type_error(at, "A place in a collection", "a collection without order", "one with an order")


def _tested(part: TypeTest, focus: _Types) -> _Types:
    source = focus if part.operand is None else _types(part.operand, focus)
    if part.word == "is" or part.type.space == "System" or not is_type(part.type.name):
        return None
    wanted = type_named(part.type.name)
    if source is not None and not any(_related(type_named(path), wanted) for path in source):
        raise type_error(part.type.at, part.word, " or ".join(sorted(source)), "a type that it may be")
    return frozenset({wanted.path})


def _related(kind: Type, wanted: Type) -> bool:
    return kind is UNTYPED or kind.resolves or wanted.path in kind.names or kind.path in wanted.names
