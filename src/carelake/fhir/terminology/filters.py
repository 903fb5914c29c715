"""Filters of value sets: which codes of a system meet them (https://hl7.org/fhir/R4/valueset.html#filters)."""

from __future__ import annotations

from collections.abc import Callable

from carelake.fhir.terminology.hierarchy import Hierarchy
from carelake.fhir.terminology.lexicon import Concept, Lexicon
from carelake.fhir.terminology.model import Filter

__all__ = ["filtered"]

_CODES = ("concept", "code")
_EDGES = {"parent": False, "child": True}


def filtered(tree: Hierarchy, told: Filter, lexicon: Callable[[], Lexicon | None]) -> set[str] | None:
    """The codes that meet a filter, None where it is of a kind that is not offered: ``regex`` is one.

    Raises:
        KeyError: a code that it starts from is not in the system.
    """
    if told.property in _CODES:
        return _by_code(tree, told)
    if told.property in _EDGES and told.op == "=":
        return set(tree.next(told.value, up=_EDGES[told.property]))
    return _by_property(tree, told, lexicon())


def _by_code(tree: Hierarchy, told: Filter) -> set[str] | None:
    codes = tree.system.codes
    match told.op:
        case "is-a":
            return set(tree.below(told.value))
        case "descendent-of":
            return set(tree.below(told.value)) - {told.value}
        case "is-not-a":
            return set(codes).difference(tree.below(told.value))
        case "generalizes":
            return set(tree.above(told.value))
        case "=":
            return {told.value}
        case "in" | "not-in":
            return _listed(told.value) if told.op == "in" else set(codes) - _listed(told.value)
    return None


def _by_property(tree: Hierarchy, told: Filter, words: Lexicon | None) -> set[str] | None:
    if words is None:
        return None
    wanted = _listed(told.value) if told.op in ("in", "not-in") else {told.value}
    match told.op:
        case "=" | "in":
            return _where(tree, words, lambda held: bool(held & wanted), told.property)
        case "not-in":
            return _where(tree, words, lambda held: not held & wanted, told.property)
        case "exists":
            return _where(tree, words, lambda held: bool(held) == (told.value == "true"), told.property)
    return None


def _where(tree: Hierarchy, words: Lexicon, holds: Callable[[set[str]], bool], name: str) -> set[str]:
    pairs = zip(tree.system.codes, words.concepts, strict=True)
    return {code for code, concept in pairs if holds(_values(concept, name))}


def _values(concept: Concept, name: str) -> set[str]:
    return {_text(one.value) for one in concept.properties if one.code == name}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.get("code", "")) if isinstance(value, dict) else str(value)


def _listed(value: str) -> set[str]:
    return {code.strip() for code in value.split(",")}
