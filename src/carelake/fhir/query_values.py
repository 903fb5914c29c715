"""The texts of search values, read into what an index compares (https://hl7.org/fhir/R4/search.html#prefix).

How a row ``[row.low, row.high)`` answers a date value with the bounds ``[low, high)``:

    eq  low <= row.low and row.high <= high      ne  not eq
    gt  row.high > high                          lt  row.low < low
    ge  gt or eq                                 le  lt or eq
    sa  row.low >= high                          eb  row.high <= low
    ap  row.low < high and low < row.high        (the bounds are widened already)

Numbers and quantities answer eq, ne and ap likewise. For the others the standard ignores how precise the numbers are:
gt, sa: the row's middle is greater than ``number``; lt, eb: less; ge: gt or eq; le: lt or eq.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from carelake.fhir.definitions import is_resource
from carelake.fhir.references import target
from carelake.fhir.search.values import MAX_STRING, date_range, normalise, number_range

__all__ = [
    "DateValue",
    "NumberValue",
    "ReferenceValue",
    "StringValue",
    "TokenValue",
    "UriValue",
    "Value",
    "read_value",
    "split",
]


@dataclass(frozen=True, slots=True)
class TokenValue:
    """``system`` None for any, "" for none; ``code`` None for any code of the system."""

    system: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class StringValue:
    """The text, and the text folded as index rows are; without modifier a row must start with it."""

    text: str
    folded: str


@dataclass(frozen=True, slots=True)
class DateValue:
    """Bounds in microseconds since 1970 UTC."""

    prefix: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class NumberValue:
    """A number or a quantity; ``system`` and ``code`` None for any (a plain number has none to compare)."""

    prefix: str
    number: float
    low: float
    high: float
    system: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class ReferenceValue:
    """``type`` "" for any type with this ``id``; or only ``url``."""

    type: str
    id: str
    url: str


@dataclass(frozen=True, slots=True)
class UriValue:
    """A uri, compared as it is."""

    value: str


Value = TokenValue | StringValue | DateValue | NumberValue | ReferenceValue | UriValue

_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.+)", re.DOTALL).fullmatch
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII).fullmatch
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch


def split(text: str, sign: str) -> list[str]:
    r"""Split at a sign that is not escaped; the escapes stay (``\,`` ``\|`` ``\$`` ``\\``)."""
    parts = [""]
    escaped = False
    for letter in text:
        if letter == sign and not escaped:
            parts.append("")
            continue
        parts[-1] += letter
        escaped = letter == "\\" and not escaped
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", text)


def read_value(kind: str, text: str, target_type: str = "") -> Value:
    """Read one value of a search parameter of type ``kind``.

    Args:
        target_type: for references, the type of the resource where a text says none.

    Raises:
        ValueError: the text is no such value; its message says what was expected.
    """
    if not text:
        raise ValueError("a value that is not empty")
    return _READERS[kind](text, target_type)


def _token(text: str, _: str) -> TokenValue:
    system, bar, code = (_plain(part) for part in _around_bar(text))
    if not bar:
        return TokenValue(None, system)
    if not system and not code:
        raise ValueError("code, system|code, |code or system|")
    return TokenValue(system, code or None)


def _around_bar(text: str) -> tuple[str, str, str]:
    parts = split(text, "|")
    if len(parts) == 1:
        return parts[0], "", ""
    return parts[0], "|", "|".join(parts[1:])


def _id(text: str, _: str) -> TokenValue:
    if _ID(text) is None:
        raise ValueError("an id: 1 to 64 letters, digits, - and .")
    return TokenValue(None, text)


def _string(text: str, _: str) -> StringValue:
    plain = _plain(text)[:MAX_STRING]
    return StringValue(plain, normalise(plain))


def _prefix(text: str) -> tuple[str, str]:
    found = _PREFIXED(text)
    if found is None:
        raise ValueError("a value after the prefix")
    return found[1] or "eq", found[2]


def _date(text: str, _: str) -> DateValue:
    prefix, rest = _prefix(text)
    try:
        low, high = date_range(rest)
    except (ValueError, OverflowError):
        raise ValueError("a date such as 2024, 2024-05, 2024-05-31 or 2024-05-31T08:00:00Z") from None
    if prefix == "ap":  # servers may choose: as much to both sides as the text is precise
        low, high = low - (high - low), high + (high - low)
    return DateValue(prefix, low, high)


def _number(text: str, _: str) -> NumberValue:
    prefix, rest = _prefix(text)
    number = float(rest) if _NUMBER(rest) else math.nan
    if not math.isfinite(number):
        raise ValueError("a number such as 5.4")
    low, high = number_range(rest)
    if prefix == "ap":
        low, high = number - abs(number) / 10, number + abs(number) / 10
    return NumberValue(prefix, number, low, high)


def _quantity(text: str, _: str) -> NumberValue:
    parts = [_plain(part) for part in split(text, "|")]
    if len(parts) not in (1, 3):
        raise ValueError("number, number|system|code or number||unit")
    plain = _number(parts[0], "")
    if len(parts) == 1:
        return plain
    return NumberValue(plain.prefix, plain.number, plain.low, plain.high, parts[1] or None, parts[2] or None)


def _reference(text: str, target_type: str) -> ReferenceValue:
    plain = _plain(text)
    if _ID(plain) is not None:
        return ReferenceValue(target_type, plain, "")
    found = target(plain)
    if found is None:
        raise ValueError("an id, Type/id or a url")
    kind, key, url = found
    if not kind and "/" in plain and is_resource(plain.split("/")[0]):
        raise ValueError("Type/id with an id of 1 to 64 letters, digits, - and .")
    if kind and target_type and kind != target_type:
        raise ValueError(f"a reference to a {target_type}")
    return ReferenceValue(kind, key, url)


def _uri(text: str, _: str) -> UriValue:
    return UriValue(_plain(text))


_READERS: dict[str, Callable[[str, str], Value]] = {
    "token": _token,
    "id": _id,
    "string": _string,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "reference": _reference,
    "uri": _uri,
}
