"""Whether a JSON value is a valid value of a primitive type (FHIR R4, datatypes.html#primitive).

One predicate for each type, written for speed: texts that are plainly good are passed without a regular expression.
A ``xhtml`` is checked for its outer element only.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from carelake.core.canonical import Lexeme
from carelake.fhir.definitions import primitive

__all__ = ["Predicate", "coded", "json_kind", "predicates"]

Predicate = Callable[[Any], bool]

MAX_TEXT = 1024 * 1024  # "strings SHALL NOT exceed 1MB"; counted in characters
_INTEGER_MAX = 2**31 - 1

# Code points below 32 other than tab, line feed and carriage return are forbidden in strings.
_TEXT = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f]+").fullmatch
_URI = re.compile(r"[^\s\x00-\x1f]+").fullmatch
_CODE = re.compile(r"[^\s\x00-\x1f]+(\s[^\s\x00-\x1f]+)*").fullmatch
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch
_DIV = re.compile(r"\s*<div(?:\s[^>]*)?>").match


def _regex(name: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(primitive(name).regex, re.ASCII).fullmatch


def _string(value: Any) -> bool:
    if value.__class__ is not str or len(value) > MAX_TEXT:
        return False
    return (value.isprintable() and value != "") or _TEXT(value) is not None


def _uri(value: Any) -> bool:
    if value.__class__ is not str:
        return False
    if value.isascii() and value.isprintable():
        return " " not in value and value != ""
    return _URI(value) is not None


def _code(value: Any) -> bool:
    if value.__class__ is not str:
        return False
    if value.isascii() and value.isprintable() and " " not in value:
        return value != ""
    return _CODE(value) is not None


def _id(value: Any) -> bool:
    return value.__class__ is str and _ID(value) is not None


def _boolean(value: Any) -> bool:
    return value is True or value is False


def _integer(value: Any) -> bool:
    return value.__class__ is int and -_INTEGER_MAX - 1 <= value <= _INTEGER_MAX


def _unsigned(value: Any) -> bool:
    return value.__class__ is int and 0 <= value <= _INTEGER_MAX


def _positive(value: Any) -> bool:
    return value.__class__ is int and 0 < value <= _INTEGER_MAX


def _decimal(value: Any) -> bool:
    kind = value.__class__
    if kind is Decimal or kind is Lexeme:
        return bool(value.is_finite())
    # A float never comes from `core.canonical.load`, only from a resource that carelake itself has computed.
    return kind is int or (kind is float and value - value == 0)


def _base64(value: Any) -> bool:
    if value.__class__ is not str or not value or not value.isascii():
        return False
    try:
        binascii.a2b_base64("".join(value.split()), strict_mode=True)
    except binascii.Error:
        return False
    return True


def _xhtml(value: Any) -> bool:
    if value.__class__ is not str:
        return False
    opened, text = _DIV(value), value.rstrip()
    return opened is not None and text.endswith("</div>") and text[opened.end() : -len("</div>")].strip() != ""


def _real_date(text: str) -> bool:
    """Whether a text of the right form is a day of the calendar (the form allows 30 February)."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _dated(name: str) -> Predicate:
    matches = _regex(name)

    @lru_cache(maxsize=1 << 14)
    def good(value: str) -> bool:
        return matches(value) is not None and (len(value) < len("YYYY-MM-DD") or _real_date(value[:10]))

    # Only short texts are cached: the cache's memory is bounded, and no good date but a contrived one is longer.
    return lambda value: value.__class__ is str and (good(value) if len(value) < 40 else good.__wrapped__(value))


def _formed(name: str) -> Predicate:
    matches = _regex(name)
    return lambda value: value.__class__ is str and matches(value) is not None


def coded(codes: tuple[str, ...]) -> Predicate:
    """The predicate of a code that must be one of a list."""
    listed = frozenset(codes)
    return lambda value: value.__class__ is str and value in listed


@cache
def predicates() -> Mapping[str, Predicate]:
    """Type name to the predicate of its values."""
    plain: dict[str, Predicate] = {
        "base64Binary": _base64,
        "boolean": _boolean,
        "canonical": _uri,
        "code": _code,
        "decimal": _decimal,
        "id": _id,
        "integer": _integer,
        "markdown": _string,
        "positiveInt": _positive,
        "string": _string,
        "unsignedInt": _unsigned,
        "uri": _uri,
        "url": _uri,
        "xhtml": _xhtml,
    }
    dated = {name: _dated(name) for name in ("date", "dateTime", "instant")}
    return plain | dated | {name: _formed(name) for name in ("oid", "time", "uuid")}


def json_kind(name: str) -> str:
    """The JSON kind of a primitive type's value: ``boolean``, ``number`` or ``string``."""
    if name == "boolean":
        return name
    return "number" if name in ("decimal", "integer", "positiveInt", "unsignedInt") else "string"
