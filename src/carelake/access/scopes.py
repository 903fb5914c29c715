"""SMART scopes, versions 1 and 2, read strictly (https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html).

A scope only narrows what policy allows. What cannot be read exactly as the standard writes it gives nothing: a scope
is never taken for a wider one, and a condition of it is never left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import parse_qsl, quote

from carelake.core.errors import Invalid
from carelake.fhir.definitions import is_resource
from carelake.fhir.query import Query, parse

__all__ = ["CONTEXT", "LETTERS", "Scope", "Scopes", "canonical_query", "common", "read_query", "read_scopes"]

LETTERS = "cruds"
"""Create, read, update, delete, search: in this order, each at most once."""
CONTEXT = frozenset(
    {
        "fhirUser",
        "launch",
        "launch/encounter",
        "launch/patient",
        "offline_access",
        "online_access",
        "openid",
        "profile",
    }
)
"""Scopes of identity and context: they open no resource."""

_MOST = 200
_LONGEST = 8192
_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749 section 3.3."""
_RESOURCE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.([a-z]{1,5}|\*)(?:\?(.+))?")
_ORDERED = re.compile(r"c?r?u?d?s?")
_VERSION_1 = {"read": "rs", "write": "cud", "*": LETTERS}
_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9_-]{0,63}")
_CONDITIONS = frozenset({"date", "id", "reference", "token", "uri"})
"""Kinds of search parameters that a scope may have: each finds by index rows alone, and none reaches other types."""
_NEVER = frozenset({"_content", "_filter", "_has", "_list", "_query", "_text"})
_PLAIN = "/:|.-_~"


@dataclass(frozen=True, slots=True)
class Scope:
    """One resource scope.

    Attributes:
        level: ``patient``, ``user`` or ``system``.
        type: a FHIR type, or ``*``.
        letters: some of `LETTERS`, in its order.
        query: conditions, ``name=value&name=value`` in one canonical form, "" for none.
        said: as it was written.
    """

    level: str
    type: str
    letters: str
    query: str = ""
    said: str = ""

    @property
    def text(self) -> str:
        """In the form of version 2."""
        return f"{self.level}/{self.type}.{self.letters}{'?' + self.query if self.query else ''}"


@dataclass(frozen=True, slots=True)
class Scopes:
    """What a list of scopes says.

    Attributes:
        resources: what opens resources.
        context: those of identity and context.
        unknown: what was not understood, which opens nothing.
    """

    resources: tuple[Scope, ...] = ()
    context: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read_scopes(text: str) -> Scopes:
    """Read a space-delimited list.

    Raises:
        Invalid: ``access.scope``: it is no list of scopes (RFC 6749 section 3.3), or too long.
    """
    said = [one for one in text.split(" ") if one]
    if len(text) > _LONGEST or len(said) > _MOST or not all(map(_TOKEN.fullmatch, said)):
        raise Invalid("access.scope", f"Scopes are at most {_MOST} words of visible ASCII, one space between two.")
    resources: list[Scope] = []
    context: list[str] = []
    unknown: list[str] = []
    for one in dict.fromkeys(said):
        if one in CONTEXT:
            context.append(one)
        elif (scope := _read(one)) is not None:
            resources.append(scope)
        else:
            unknown.append(one)
    return Scopes(tuple(resources), tuple(context), tuple(unknown))


def _read(said: str) -> Scope | None:
    found = _RESOURCE.fullmatch(said)
    if found is None:
        return None
    level, kind, access, query = found.groups()
    letters = _VERSION_1.get(access)
    if letters is not None and query is not None:
        return None  # version 1 knows no conditions
    letters = letters or (access if _ORDERED.fullmatch(access) else None)
    if letters is None or (kind != "*" and not is_resource(kind)):
        return None
    if query is None:
        return Scope(level, kind, letters, "", said)
    try:
        return Scope(level, kind, letters, canonical_query(kind, query), said)
    except Invalid:
        return None


def canonical_query(kind: str, text: str) -> str:
    """Conditions in the one form that they are compared and sealed in.

    Raises:
        Invalid: ``access.scope``; as `carelake.fhir.query.parse`.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=10, errors="strict")
    except ValueError:
        pairs = []
    named = all(_NAME.fullmatch(name) and name not in _NEVER and value for name, value in pairs)
    if not pairs or kind == "*" or not named:
        raise _no_condition()
    query = parse(kind, pairs)
    if len(query.conditions) != len(pairs) or any(one.type not in _CONDITIONS for one in query.conditions):
        raise _no_condition()
    told = dict.fromkeys(f"{name}={quote(value, safe=_PLAIN)}" for name, value in pairs)
    return "&".join(sorted(told))


def _no_condition() -> Invalid:
    return Invalid(
        "access.scope",
        "Conditions of a scope are name=value of tokens, references, dates, uris or _id, no modifiers.",
    )


@lru_cache(1024)
def read_query(kind: str, query: str) -> Query:
    """The search of a scope's conditions, in their canonical form."""
    return parse(kind, parse_qsl(query, strict_parsing=True))


def common(asked: Iterable[Scope], given: Iterable[Scope]) -> tuple[Scope, ...]:
    """What is both asked for and given; the level is that of what is asked for, which must be given too."""
    bounds = tuple(given)
    found = (_both(one, bound) for one in asked for bound in bounds)
    return _least(one for one in found if one is not None)


def _both(one: Scope, other: Scope) -> Scope | None:
    letters = "".join(letter for letter in LETTERS if letter in one.letters and letter in other.letters)
    if one.level != other.level or not letters or ("*" not in (one.type, other.type) and one.type != other.type):
        return None
    kind = other.type if one.type == "*" else one.type
    queries = [query for query in (one.query, other.query) if query]
    query = "&".join(sorted({pair for each in queries for pair in each.split("&")}))
    same = (kind, letters, query) == (one.type, one.letters, one.query)
    return one if same else Scope(one.level, kind, letters, query)


def _least(found: Iterable[Scope]) -> tuple[Scope, ...]:
    """Without those that another one covers as it is."""
    each = list(dict.fromkeys(replace(one, said=one.said or one.text) for one in found))
    return tuple(one for one in each if not any(other is not one and _covers(other, one) for other in each))


def _covers(wide: Scope, one: Scope) -> bool:
    if wide.level != one.level or (wide.type, wide.letters, wide.query) == (one.type, one.letters, one.query):
        return False
    return wide.type in ("*", one.type) and set(one.letters) <= set(wide.letters) and wide.query in ("", one.query)
