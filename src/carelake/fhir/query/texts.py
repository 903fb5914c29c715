"""The texts of search values, read into typed values (https://hl7.org/fhir/R4/search.html#escaping)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from carelake.fhir.path.ucum import unit
from carelake.fhir.query.values import (
    CompositeValue,
    DateValue,
    NearValue,
    NumberValue,
    ReferenceValue,
    Simple,
    StringValue,
    TokenValue,
    UriValue,
    WordsValue,
)
from carelake.fhir.query.words import alternatives
from carelake.fhir.references import target
from carelake.fhir.search.values import MAX_STRING, date_range, normalise, number_range, sounds

__all__ = [
    "NEAR_KM",
    "escape",
    "is_id",
    "read_composite",
    "read_concept",
    "read_near",
    "read_of_type",
    "read_reference",
    "read_sounds",
    "read_value",
    "read_words",
    "split",
]

NEAR_KM = 50.0
"""What ``near`` means without a distance; the standard leaves it to the server."""


_PREFIXED = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.+)", re.DOTALL).fullmatch
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII).fullmatch
_SIGN = re.compile(r"[\\,|$]")
_ESCAPED = re.compile(r"\\([,|$\\])")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:").match
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch


def split(text: str, sign: str) -> list[str]:
    r"""Split at a sign that is not escaped; the escapes stay (``\,`` ``\|`` ``\$`` ``\\``)."""
    if "\\" not in text:
        return text.split(sign)
    parts: list[str] = []
    start = at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 1  # what follows is no sign
        elif text[at] == sign:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def escape(text: str) -> str:
    """The text as a value: what `split` splits at is escaped."""
    return _SIGN.sub(r"\\\g<0>", text)


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def is_id(text: str) -> bool:
    """Whether it can be the id of a resource."""
    return _ID(text) is not None


def read_value(kind: str, text: str) -> Simple:
    """Read one value of a search parameter of type ``kind``.

    Raises:
        ValueError: the text is no such value; its message says what was expected.
    """
    if not text:
        raise ValueError("a value that is not empty")
    return _READERS[kind](text)


def read_composite(kinds: Sequence[str], text: str) -> CompositeValue:
    """Read ``8480-6$gt140``: a value of each type of ``kinds``, with ``$`` between.

    Raises:
        ValueError: as `read_value`.
    """
    texts = split(text, "$")
    if len(texts) != len(kinds):
        raise ValueError(f"{len(kinds)} values with $ between")
    return CompositeValue(tuple(read_value(kind, one) for kind, one in zip(kinds, texts, strict=True)))


def read_concept(text: str) -> TokenValue:
    """Read ``system|code`` of ``:above`` and ``:below``: hierarchies are those of code systems.

    Raises:
        ValueError: one of the two is missing.
    """
    found = _token(text)
    if not found.system or not found.code:
        raise ValueError("system|code, since a code is above or below others in its system")
    return found


def read_of_type(text: str) -> TokenValue:
    """Read ``system|code|value`` of ``:of-type`` as the token ``code|value`` in the type's system.

    Raises:
        ValueError: it has not three parts, or an empty one after the first.
    """
    parts = [_plain(part) for part in split(text, "|")]
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise ValueError("system|code|value: the identifier's type, and its value")
    return TokenValue(parts[0] or None, f"{parts[1]}|{parts[2]}")


def read_near(text: str) -> NearValue:
    """Read ``latitude|longitude|distance|unit``; without distance, `NEAR_KM` kilometres are meant.

    Raises:
        ValueError: it is none, or the unit is no UCUM unit of length.
    """
    parts = text.split("|")
    numbers = [_finite(part) for part in parts[:3] if part]
    if not 2 <= len(parts) <= 4 or len(numbers) < 2 or not (parts[0] and parts[1]):
        raise ValueError("latitude|longitude|distance|unit, as in 42.25|-83.69|11.2|km")
    metres = _metres(parts[3] if len(parts) == 4 and parts[3] else "km")
    kilometres = numbers[2] * metres / 1000 if len(numbers) == 3 else NEAR_KM
    if abs(numbers[0]) > 90 or abs(numbers[1]) > 180 or not 0 <= kilometres < math.inf:
        raise ValueError("degrees of latitude and longitude, and a distance that is not negative")
    return NearValue(numbers[0], numbers[1], kilometres)


def _finite(text: str) -> float:
    number = float(text) if _NUMBER(text) else math.nan
    if not math.isfinite(number):
        raise ValueError("a number such as 5.4")
    return number


def _metres(code: str) -> float:
    found, metre = unit(code), unit("m")
    if found is None or metre is None or found.dimension != metre.dimension or found.special:
        raise ValueError("a UCUM unit of length, such as km, m or [mi_i]")
    return float(found.factor)


def read_words(text: str) -> tuple[WordsValue, ...]:
    """Read ``(bone OR liver) metastases``: words must all occur, unless OR is between them.

    The answer's members are alternatives, at most `MAX_VALUES`.

    Raises:
        ValueError: there is no word, or parentheses do not close.
    """
    return tuple(WordsValue(words) for words in alternatives(text))


def read_sounds(text: str) -> WordsValue:
    """Read a name of which a phonetic parameter compares the sounds; all of its words must sound so.

    Raises:
        ValueError: it has no word.
    """
    found = sounds(_plain(text)[:MAX_STRING])
    if not found:
        raise ValueError("a name of letters or digits")
    return WordsValue(tuple(found))


def _token(text: str) -> TokenValue:
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


def _id(text: str) -> TokenValue:
    if _ID(text) is None:
        raise ValueError("an id: 1 to 64 letters, digits, - and .")
    return TokenValue(None, text)


def _string(text: str) -> StringValue:
    plain = _plain(text)[:MAX_STRING]
    return StringValue(plain, normalise(plain))


def _prefix(text: str) -> tuple[str, str]:
    found = _PREFIXED(text)
    if found is None:
        raise ValueError("a value after the prefix")
    return found[1] or "eq", found[2]


def _date(text: str) -> DateValue:
    prefix, rest = _prefix(text)
    try:
        low, high = date_range(rest.replace(" ", "+"))  # a "+" in a query is a blank once it is decoded
    except (ValueError, OverflowError):
        raise ValueError("a date such as 2024, 2024-05, 2024-05-31 or 2024-05-31T08:00:00Z") from None
    if prefix == "ap":  # servers may choose: as much to both sides as the text is precise
        low, high = low - (high - low), high + (high - low)
    return DateValue(prefix, low, high)


def _number(text: str) -> NumberValue:
    prefix, rest = _prefix(text)
    number = _finite(rest)
    low, high = number_range(rest)
    if prefix == "ap":
        low, high = number - abs(number) / 10, number + abs(number) / 10
    return NumberValue(prefix, number, low, high)


def _quantity(text: str) -> NumberValue:
    parts = [_plain(part) for part in split(text, "|")]
    if len(parts) not in (1, 3):
        raise ValueError("number, number|system|code or number||unit")
    plain = _number(parts[0])
    if len(parts) == 1:
        return plain
    return NumberValue(plain.prefix, plain.number, plain.low, plain.high, parts[1] or None, parts[2] or None)


def read_reference(text: str, target_type: str = "", base: str = "") -> ReferenceValue:
    """Read an id, ``Type/id`` or a url.

    Args:
        target_type: the type where the text says none.
        base: this server's own address; what is below it is a relative reference.

    Raises:
        ValueError: it is none of these, or of another type.
    """
    if not text:
        raise ValueError("a value that is not empty")
    plain = _plain(text)
    if _ID(plain) is not None:
        return ReferenceValue(target_type, plain, "")
    if base and plain.startswith(f"{base}/"):
        plain = plain[len(base) + 1 :]
    found = target(plain)
    if found is None:
        raise ValueError("an id, Type/id or a url")
    kind, key, url = found
    if not kind and not _SCHEME(url):
        raise ValueError("an id of 1 to 64 letters, digits, - and ., Type/id or a url")
    if kind and target_type and kind != target_type:
        raise ValueError(f"a reference to a {target_type}")
    return ReferenceValue(kind, key, url)


def _uri(text: str) -> UriValue:
    return UriValue(_plain(text))


_READERS: dict[str, Callable[[str], Simple]] = {
    "token": _token,
    "id": _id,
    "list": _id,
    "reference": read_reference,
    "string": _string,
    "date": _date,
    "number": _number,
    "quantity": _quantity,
    "uri": _uri,
}
