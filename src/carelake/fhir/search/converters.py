"""One converter for each pair of search type and FHIR type: value in, index rows out.

A converter gets a value, the codes of the parameters that index it, and the rows to add to. The table `CONVERTERS` is
the standard's (search.html, tables under each parameter type); what it has no line for is not indexed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.references import target
from carelake.fhir.search.values import (
    MAX_STRING,
    NUMBER_MAX,
    OPEN_HIGH,
    OPEN_LOW,
    date_range,
    normalise,
    number_range,
)

__all__ = ["CONVERTERS", "Converter", "code_of", "reference_of"]

Converter = Callable[[Any, tuple[str, ...], IndexValues], None]

CURRENCIES = "urn:iso:std:iso:4217"


def _coding(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    code = value.get("code")
    if code is not None:
        system = value.get("system", "")
        for param in codes:
            rows.tokens.append((param, system, code))


def _concept(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    for coding in value.get("coding", ()):
        _coding(coding, codes, rows)


def _valued(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    """Identifier and ContactPoint: both are a value in a system."""
    text = value.get("value")
    if text is not None:
        for param in codes:
            rows.tokens.append((param, value.get("system", ""), text))


def _boolean(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    for param in codes:
        rows.tokens.append((param, "", "true" if value else "false"))


def code_of(system: str) -> Converter:
    """The converter of a plain code, whose system is the one of its value set, or ""."""

    def code(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
        for param in codes:
            rows.tokens.append((param, system, value))

    return code


def _string(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    value = value[:MAX_STRING]
    folded = normalise(value)
    for param in codes:
        rows.strings.append((param, folded, value))


def _parts(*names: str) -> Converter:
    """HumanName and Address: each part is a string of its own."""

    def parts(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
        for name in names:
            part = value.get(name)
            if part.__class__ is str:
                _string(part, codes, rows)
            elif part is not None:
                for text in part:
                    if text is not None:
                        _string(text, codes, rows)

    return parts


def _date(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    low, high = date_range(value)
    for param in codes:
        rows.dates.append((param, low, high))


def _period_range(value: Any) -> tuple[int, int]:
    start, end = value.get("start"), value.get("end")
    return (
        OPEN_LOW if start is None else date_range(start)[0],
        OPEN_HIGH if end is None else date_range(end)[1],
    )


def _period(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    if "start" in value or "end" in value:
        low, high = _period_range(value)
        for param in codes:
            rows.dates.append((param, low, high))


def _timing(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    """Only the outer limits matter: of its events and of the bounds of its repetition."""
    ranges = [date_range(event) for event in value.get("event", ()) if event is not None]
    bounds = value.get("repeat", {}).get("boundsPeriod")
    if bounds is not None:
        ranges.append(_period_range(bounds))
    if ranges:
        low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
        for param in codes:
            rows.dates.append((param, low, high))


def _number(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    low, high = number_range(value)
    for param in codes:
        rows.quantities.append((param, low, high, "", ""))


def _quantity(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    number = value.get("value")
    if number is None:
        return
    low, high = number_range(number)
    comparator = value.get("comparator")
    if comparator is not None:
        low, high = (-NUMBER_MAX, high) if comparator[0] == "<" else (low, NUMBER_MAX)
    code = value.get("code")
    system, unit = ("", value.get("unit", "")) if code is None else (value.get("system", ""), code)
    for param in codes:
        rows.quantities.append((param, low, high, system, unit))


def _money(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    if "value" in value:
        currency = value.get("currency", "")
        low, high = number_range(value["value"])
        for param in codes:
            rows.quantities.append((param, low, high, CURRENCIES if currency else "", currency))


def _range(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    below, above = value.get("low", {}), value.get("high", {})
    if "value" not in below and "value" not in above:
        return
    low = number_range(below["value"])[0] if "value" in below else -NUMBER_MAX
    high = number_range(above["value"])[1] if "value" in above else NUMBER_MAX
    unit = below if "code" in below or "unit" in below else above
    system, code = (unit.get("system", ""), unit["code"]) if "code" in unit else ("", unit.get("unit", ""))
    for param in codes:
        rows.quantities.append((param, low, high, system, code))


def _uri(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    for param in codes:
        rows.uris.append((param, value))


def _canonical(value: Any, codes: tuple[str, ...], rows: IndexValues) -> None:
    """A canonical or uri under a parameter of type reference: its url, without type and id."""
    for param in codes:
        rows.references.append((param, "", "", value))


def reference_of(everyone: tuple[str, ...], of_type: dict[str, tuple[str, ...]]) -> Converter:
    """The converter of references.

    Args:
        everyone: parameters that take any target.
        of_type: target type to the parameters that take it, those of ``everyone`` included (``resolve() is T``).
    """

    def reference(value: Any, _: tuple[str, ...], rows: IndexValues) -> None:
        text = value.get("reference")
        found = None if text is None else target(text)
        if found is None:
            return
        kind, key, url = found
        told = kind or value.get("type") or _tail_type(url)
        for param in of_type.get(told, everyone):
            rows.references.append((param, kind, key, url))

    return reference


def _tail_type(url: str) -> str:
    """``Patient`` of ``https://other.example/fhir/Patient/1``: nothing is resolved, the url's form must do."""
    parts = url.partition("/_history/")[0].rsplit("/", 2)
    return parts[1] if len(parts) == 3 else ""


_TEXTS = ("string", "markdown", "uri", "url", "canonical", "oid", "uuid", "id", "code")
_NUMBERS = ("decimal", "integer", "positiveInt", "unsignedInt")
_QUANTITIES = ("Quantity", "Age", "Count", "Distance", "Duration")

CONVERTERS: dict[tuple[str, str], Converter] = {
    ("token", "Coding"): _coding,
    ("token", "CodeableConcept"): _concept,
    ("token", "Identifier"): _valued,
    ("token", "ContactPoint"): _valued,
    ("token", "boolean"): _boolean,
    ("string", "HumanName"): _parts("family", "given", "prefix", "suffix", "text"),
    ("string", "Address"): _parts("line", "city", "district", "state", "postalCode", "country", "text"),
    ("date", "Period"): _period,
    ("date", "Timing"): _timing,
    ("number", "Range"): _range,
    ("quantity", "Range"): _range,
    ("quantity", "Money"): _money,
    ("reference", "canonical"): _canonical,
    ("reference", "uri"): _canonical,
    **{("token", kind): code_of("") for kind in _TEXTS},
    **{("string", kind): _string for kind in _TEXTS},
    **{("date", kind): _date for kind in ("date", "dateTime", "instant")},
    **{("number", kind): _number for kind in _NUMBERS},
    **{("quantity", kind): _quantity for kind in _QUANTITIES},
    **{("uri", kind): _uri for kind in ("uri", "url", "canonical", "oid", "uuid")},
}
