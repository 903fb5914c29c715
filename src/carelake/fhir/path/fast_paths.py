"""The quick way's paths: members, casts, filters and unions over plain JSON (see `fast`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.path.equality import distinct
from carelake.fhir.path.getters import Nodes, Unusual, absent, any_choice, getter, single_only
from carelake.fhir.path.model import UNTYPED, Field, Type, is_type, type_named
from carelake.fhir.path.syntax import Call, Literal, Member, Part, Special, TypeTest, Union
from carelake.fhir.path.typetests import predicate

__all__ = ["NOTHING", "direct", "nodes_of"]


def nodes_of(part: Part, kind: Type) -> Nodes | None:
    """The elements that a part gives, starting from a type; None where it needs the general way."""
    match part:
        case Member():
            return _member(part, kind)
        case TypeTest(word="as" | "ofType"):
            return _cast(part, kind)
        case Call():
            return _filtered(part, kind)
        case Union():
            return _union(part, kind)
        case Special(name="this"):
            return Nodes(lambda value: [value], kind, True)
    return None


NOTHING = Nodes(lambda value: [], None, True)


def _member(part: Member, kind: Type) -> Nodes | None:
    if part.source is None:
        if part.name in kind.names:
            return Nodes(lambda value: [value], kind, True)
        if part.name[:1].isupper() and is_type(part.name):
            return NOTHING
        return _step(part.name, kind)
    before = nodes_of(part.source, kind)
    if before is None or before is NOTHING or before.kind is UNTYPED:
        return before
    if before.kind is None:
        return None
    after = _step(part.name, before.kind)
    return None if after is None else _joined(part.source, before, after)


def _step(name: str, kind: Type) -> Nodes | None:
    """The elements of that name of one element."""
    field = kind.fields.get(name)
    if field is None or kind.primitive:
        return None
    if field.choices is not None:
        return any_choice(field)
    inner = field.type
    if inner.resolves:
        return absent(field.key)
    return Nodes(getter(field.key, field.many, inner.primitive), inner, not field.many, not field.many)


def _joined(source: Part, before: Nodes, after: Nodes) -> Nodes:
    step, first = after.get, before.get
    if _is_start(source):
        return after

    def through_one(value: Any) -> list[Any]:
        found = first(value)
        return step(found[0]) if found else []

    def through_all(value: Any) -> list[Any]:
        found: list[Any] = []
        for inner in first(value):
            found += step(inner)
        return found

    if before.single:
        return Nodes(through_one, after.kind, after.single, after.fresh)
    return Nodes(through_all, after.kind, False)


def _is_start(part: Part) -> bool:
    """The type's name or ``$this``: what follows starts from the focus."""
    return isinstance(part, Special) or (isinstance(part, Member) and part.source is None and part.name[:1].isupper())


# --- casts ---


def _cast(part: TypeTest, kind: Type) -> Nodes | None:
    test = predicate(part.type, True)
    operand = part.operand
    if isinstance(operand, Member):
        chosen = _chosen(operand, kind, test)
        if chosen is not None:
            return chosen if part.word == "ofType" or chosen.single else single_only(chosen)
    before = None if operand is None else nodes_of(operand, kind)
    if before is NOTHING:
        return before
    if before is None or before.kind is None or before.kind is UNTYPED:
        return None
    kept = before if test((None, before.kind, None)) else None
    if kept is None:
        # A subtype may be there where the data say so; the general way finds out.
        return None
    return kept if part.word == "ofType" or kept.single else single_only(kept)


def _chosen(operand: Member, kind: Type, test: Callable[[Any], bool]) -> Nodes | None:
    """A choice cast to one of its types: one key to look at."""
    before = Nodes(lambda value: [value], kind, True)
    if operand.source is not None:
        found = nodes_of(operand.source, kind)
        if found is NOTHING:
            return found
        if found is None or found.kind is None or found.kind is UNTYPED:
            return None
        before = found
    assert before.kind is not None
    field = before.kind.fields.get(operand.name)
    if field is None or field.choices is None:
        return None
    keys = [(key, chosen) for key, chosen in field.choices.items() if test((None, chosen, None))]
    if len(keys) != 1:
        return None
    key, inner = keys[0]
    after = Nodes(getter(key, False, inner.primitive), inner, True)
    return after if operand.source is None else _joined(operand.source, before, after)


# --- filters and unions ---


def _filtered(part: Call, kind: Type) -> Nodes | None:
    if part.name not in ("where", "first", "extension", "trace"):
        return None
    before = Nodes(lambda value: [value], kind, True) if part.source is None else nodes_of(part.source, kind)
    if before is None or before is NOTHING or before.kind is UNTYPED:
        return before
    if part.name == "trace":
        return None
    if part.name == "first" and not part.arguments:
        return Nodes(lambda value: before.get(value)[:1], before.kind, True)
    if before.kind is None or len(part.arguments) != 1:
        return None
    return _where(part, before) if part.name == "where" else _extension(part, before)


def _where(part: Call, before: Nodes) -> Nodes | None:
    assert before.kind is not None
    from carelake.fhir.path.fast import truth_of

    test = truth_of(part.arguments[0], before.kind)
    if test is None:
        return None
    get = before.get
    return Nodes(lambda value: [inner for inner in get(value) if test(inner)], before.kind, before.single)


def _extension(part: Call, before: Nodes) -> Nodes | None:
    url = part.arguments[0]
    if (
        before.kind is None
        or before.kind.primitive
        or not isinstance(url, Literal)
        or "extension" not in before.kind.fields
    ):
        return None
    wanted = url.items[0] if len(url.items) == 1 else None
    if wanted.__class__ is not str:
        return None
    get = before.get

    def found(value: Any) -> list[Any]:
        return [
            one
            for inner in get(value)
            if "extension" in inner
            for one in inner["extension"]
            if one.get("url") == wanted
        ]

    return Nodes(found, type_named("Extension"), False)


def _union(part: Union, kind: Type) -> Nodes | None:
    parts = []
    for inner in part.parts:
        nodes = nodes_of(inner, kind)
        if nodes is None:
            return None
        if nodes.kind is UNTYPED:
            return None
        if nodes is not NOTHING:
            parts.append(nodes)
    if not parts:
        return NOTHING
    kinds = {nodes.kind for nodes in parts}
    typed = [(nodes.get, nodes.kind) for nodes in parts]

    def get(value: Any) -> list[Any]:
        found = [(inner, of, None) for step, of in typed for inner in step(value)]
        if len(found) > 1:
            if None in kinds:
                raise Unusual
            found = distinct(found)
        return [item[0] for item in found]

    return Nodes(get, parts[0].kind if len(kinds) == 1 else None, len(parts) == 1 and parts[0].single)


def direct(part: Part, kind: Type) -> Field | None:
    """The element that a part names right on the focus, unless it is a choice or a resource."""
    if not isinstance(part, Member) or not (part.source is None or _is_start(part.source)):
        return None
    if part.source is not None and nodes_of(part.source, kind) is NOTHING:
        return None
    field = kind.fields.get(part.name)
    usable = field is not None and field.choices is None and not field.type.resolves and not kind.primitive
    return field if usable else None
