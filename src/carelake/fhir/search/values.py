"""How the text of a value becomes what an index compares (https://hl7.org/fhir/R4/search.html).

Dates are ranges ``[low, high)`` in microseconds since 1970 UTC, as wide as the text is precise; numbers are ranges as
wide as their digits are, in searches, and points in resources; strings are folded.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from jellyfish import metaphone

__all__ = [
    "MAX_STRING",
    "NUMBER_MAX",
    "OPEN_HIGH",
    "OPEN_LOW",
    "date_range",
    "normalise",
    "number_point",
    "number_range",
    "sounds",
    "words",
]

OPEN_LOW = -62_135_596_800_000_000
"""0001-01-01 in microseconds since 1970: the start of a period that has none."""
OPEN_HIGH = 253_402_300_800_000_000
"""10000-01-01: the end of a period that has none."""
MAX_STRING = 1000
"""Characters of a string that are indexed and compared; what comes after them is not searched."""
NUMBER_MAX = 1.7976931348623157e308
"""Stands for no upper bound; its negative for no lower one."""

_MAX_CACHED = 200  # the caches' memory is bounded: a text may have a megabyte
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
).fullmatch


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def date_range(text: str) -> tuple[int, int]:
    """The range of a date, dateTime or instant; without a zone it is in UTC.

    A fraction of a second is as wide as its last digit. Minutes without seconds are allowed, as searches may have.

    Raises:
        ValueError: the text is no date of FHIR.
    """
    return _date_range(text) if len(text) <= _MAX_CACHED else _date_range.__wrapped__(text)


@lru_cache(maxsize=1 << 14)
def _date_range(text: str) -> tuple[int, int]:
    found = _DATE(text)
    if found is None:
        raise ValueError("not a FHIR date")
    year, month, day, hour, _, second, fraction, zone = found.groups()
    if day is None or hour is None:
        return _days(int(year), month, day)
    leap = second == "60"  # leap seconds are written; Python's clock has none
    offset = "+00:00" if zone in (None, "Z") else zone
    low = _micros(datetime.fromisoformat(f"{text[:16]}:{'59' if leap else second or '00'}{offset}"))
    low += 1_000_000 if leap else 0
    if second is None:
        return low, low + 60_000_000
    if fraction is None:
        return low, low + 1_000_000
    low += int(fraction[:6].ljust(6, "0"))
    return low, low + 10 ** max(0, 6 - len(fraction))


def _days(year: int, month: str | None, day: str | None) -> tuple[int, int]:
    low = datetime(year, int(month or 1), int(day or 1), tzinfo=UTC)
    if day is not None:
        return _micros(low), _micros(low) + 86_400_000_000
    carry = 12 if month is None else 1
    index = low.year * 12 + low.month - 1 + carry
    if index // 12 > 9999:
        return _micros(low), OPEN_HIGH
    return _micros(low), _micros(datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC))


# "100" stands for [99.5, 100.5), and "1e2", by the standard's own example, for [95, 105).
_HALF = {exponent: Decimal(5).scaleb(exponent - (2 if exponent > 0 else 1)) for exponent in range(-24, 25)}


def number_range(value: Decimal | int | float | str) -> tuple[float, float]:
    """The range a number stands for, half a unit of its last digit to both sides.

    What is beyond a float is held at its edge (`NUMBER_MAX`).

    Raises:
        ValueError: the text is no finite number.
    """
    text = str(value)
    return _number_range(text) if len(text) <= _MAX_CACHED else _number_range.__wrapped__(text)


@lru_cache(maxsize=1 << 14)
def _number_range(text: str) -> tuple[float, float]:
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise ValueError("not a number") from None
    half = _HALF.get(exact.as_tuple().exponent)  # type: ignore[arg-type]  # a letter for NaN: not found
    if half is None or exact.adjusted() > 300:
        if not exact.is_finite():
            raise ValueError("not a number")
        edge = max(-NUMBER_MAX, min(float(exact), NUMBER_MAX))
        return edge, math.nextafter(edge, math.inf) if edge < NUMBER_MAX else edge
    low, high = float(exact - half), float(exact + half)
    # More digits than a float has: the range must not be empty.
    return low, high if high > low else math.nextafter(low, math.inf)


_APOSTROPHES = re.compile("['\u2018\u2019\u02bc`\u00b4]")
_NOT_WORD = re.compile(r"[\W_]+")
# Letters that Unicode does not decompose, as readers of other alphabets type them.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h", "ŧ": "t"}
)


def number_point(value: Decimal | int | float) -> float:
    """A number that a resource holds: searches compare it as it is, whatever its digits say of its precision.

    What is beyond a float is held at its edge.
    """
    try:
        point = float(value)
    except OverflowError:  # an integer of hundreds of digits
        point = math.inf if value > 0 else -math.inf
    return point if -NUMBER_MAX <= point <= NUMBER_MAX else max(-NUMBER_MAX, min(point, NUMBER_MAX))


def normalise(text: str) -> str:
    """Fold case, accents and punctuation: ``O'Brien-Núñez`` becomes ``obrien nunez``.

    Apostrophes vanish, other punctuation and white space become one space.
    """
    return _normalise(text) if len(text) <= _MAX_CACHED else _normalise.__wrapped__(text)


@lru_cache(maxsize=1 << 14)
def _normalise(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(c for c in text if not unicodedata.combining(c)).translate(_LETTERS)
    return _NOT_WORD.sub(" ", _APOSTROPHES.sub("", text.casefold())).strip()


_MAX_WORD = 100


def words(text: str) -> list[str]:
    """The folded words of a text, each once, cut at 100 characters: what ``_text`` and ``_content`` look for."""
    return list(dict.fromkeys(word[:_MAX_WORD] for word in normalise(text).split()))


def sounds(text: str) -> list[str]:
    """The sound (Metaphone) of each word of a text, each once; what has none, as digits, sounds as it is written."""
    return list(dict.fromkeys(metaphone(word) or word for word in words(text)))
