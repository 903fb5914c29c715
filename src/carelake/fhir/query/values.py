"""The values of searches, as an index compares them (https://hl7.org/fhir/R4/search.html#prefix).

How a row ``[row.low, row.high)`` answers a date value with the bounds ``[low, high)``:

    eq  low <= row.low and row.high <= high      ne  not eq
    gt  row.high > high                          lt  row.low < low
    ge  gt or eq                                 le  lt or eq
    sa  row.low >= high                          eb  row.high <= low
    ap  row.low < high and low < row.high        (the bounds are widened already)

Numbers are points in rows (``low`` is ``high``), whatever their digits; only a Range, and a quantity with a
comparator, are wider. Values have the range of their digits for eq and ne; for the others the standard ignores it:

    eq  low <= row.low and row.high < high       ne  not eq
    gt  row.high > number                        lt  row.low < number
    ge  row.high >= number                       le  row.low <= number
    sa  row.low > number                         eb  row.high < number
    ap  row.low <= high and low <= row.high

The class of a condition's values, by type and modifier:

    token      TokenValue      text: StringValue    in, not-in: UriValue    of-type: TokenValue(system, "code|value")
    string     StringValue     date: DateValue      number, quantity: NumberValue      uri: UriValue
    reference  ReferenceValue  identifier: TokenValue
    composite  CompositeValue  near: NearValue      _text, _content, phonetic: WordsValue    _id, _list: TokenValue
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CompositeValue",
    "DateValue",
    "NearValue",
    "NumberValue",
    "ReferenceValue",
    "Simple",
    "StringValue",
    "TokenValue",
    "UriValue",
    "Value",
    "WordsValue",
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
    """``type`` "" for any type with this ``id``; or only ``url``, ``url|version`` for a version of a canonical."""

    type: str
    id: str
    url: str


@dataclass(frozen=True, slots=True)
class UriValue:
    """A uri, compared as it is; of ``:in`` and ``:not-in`` the canonical of a value set."""

    value: str


@dataclass(frozen=True, slots=True)
class CompositeValue:
    """One value for each component, in the parameter's order; all must hold at one place."""

    parts: tuple[TokenValue | StringValue | DateValue | NumberValue | ReferenceValue | UriValue, ...]


@dataclass(frozen=True, slots=True)
class NearValue:
    """Within so many kilometres of a point, in degrees of WGS84."""

    latitude: float
    longitude: float
    kilometres: float


@dataclass(frozen=True, slots=True)
class WordsValue:
    """Folded words that must all occur."""

    words: tuple[str, ...]


Value = (
    TokenValue
    | StringValue
    | DateValue
    | NumberValue
    | ReferenceValue
    | UriValue
    | CompositeValue
    | NearValue
    | WordsValue
)
Simple = TokenValue | StringValue | DateValue | NumberValue | ReferenceValue | UriValue
