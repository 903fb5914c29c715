"""One converter for each pair of search type and FHIR type: value in, index rows out.

`converter` makes it for one source, whose name its rows begin with. The table is the standard's (search.html, tables
under each parameter type); what it has no line for is not indexed. A token or reference that is there without a code
or target leaves a row of empty texts, so that ``:missing`` sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.search.links import REFERENCES, TOKENS, Visit, code
from carelake.fhir.search.values import (
    MAX_STRING,
    NUMBER_MAX,
    OPEN_HIGH,
    OPEN_LOW,
    date_range,
    normalise,
    number_point,
    sounds,
)

__all__ = ["EXPANDED", "Visit", "converter", "converts", "sounding"]

CURRENCIES = "urn:iso:std:iso:4217"

EXPANDED = {
    "HumanName": ("family", "given", "prefix", "suffix", "text"),
    "Address": ("line", "city", "district", "state", "postalCode", "country", "text"),
}
"""Types whose string parameters look into each of these elements, which are sources of their own."""


def _string(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if len(value) > MAX_STRING:
            value = value[:MAX_STRING]
        rows.strings.append((name, normalise(value), value))

    return visit


def sounding(name: str) -> Visit:
    """The sounds of a text's words."""

    def visit(value: Any, rows: IndexValues) -> None:
        rows.words += [(name, sound) for sound in sounds(value[:MAX_STRING])]

    return visit


def _date(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        low, high = date_range(value)
        rows.dates.append((name, low, high))

    return visit


def _period_range(value: Any) -> tuple[int, int]:
    start, end = value.get("start"), value.get("end")
    return (
        OPEN_LOW if start is None else date_range(start)[0],
        OPEN_HIGH if end is None else date_range(end)[1],
    )


def _period(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if "start" in value or "end" in value:
            rows.dates.append((name, *_period_range(value)))

    return visit


def _timing(name: str) -> Visit:
    """Only the outer limits matter: of its events and of the bounds of its repetition."""

    def visit(value: Any, rows: IndexValues) -> None:
        ranges = [date_range(event) for event in value.get("event", ()) if event is not None]
        bounds = value.get("repeat", {}).get("boundsPeriod")
        if bounds is not None:
            ranges.append(_period_range(bounds))
        if ranges:
            rows.dates.append((name, min(r[0] for r in ranges), max(r[1] for r in ranges)))

    return visit


def _number(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        point = number_point(value)
        rows.quantities.append((name, point, point, "", ""))

    return visit


def _amount(name: str, low: float, high: float, unit: Any, rows: IndexValues) -> None:
    """The row of a quantity by its code, and one by its unit where people write another text for it."""
    told, shown, system = unit.get("code"), unit.get("unit", ""), unit.get("system", "")
    if shown.__class__ is not str or system.__class__ is not str:
        raise TypeError("not a text")
    if told is not None:
        if told.__class__ is not str:
            raise TypeError("not a text")
        rows.quantities.append((name, low, high, system, told))
        if not shown or shown == told:
            return
    rows.quantities.append((name, low, high, "", shown))


def _quantity(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        number = value.get("value")
        if number is None:
            return
        point = number_point(number)
        comparator = value.get("comparator")
        low, high = (point, point) if comparator is None else _open(point, comparator)
        _amount(name, low, high, value, rows)

    return visit


def _open(point: float, comparator: str) -> tuple[float, float]:
    """All that ``<`` or ``>=`` allows; without ``=`` the point itself is outside."""
    if comparator[0] == "<":
        return -NUMBER_MAX, point if comparator == "<=" else math.nextafter(point, -NUMBER_MAX)
    return point if comparator == ">=" else math.nextafter(point, NUMBER_MAX), NUMBER_MAX


def _money(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if "value" in value:
            currency = value.get("currency", "")
            if currency.__class__ is not str:
                raise TypeError("not a text")
            point = number_point(value["value"])
            rows.quantities.append((name, point, point, CURRENCIES if currency else "", currency))

    return visit


def _range(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        below, above = value.get("low", {}), value.get("high", {})
        if "value" not in below and "value" not in above:
            return
        low = number_point(below["value"]) if "value" in below else -NUMBER_MAX
        high = number_point(above["value"]) if "value" in above else NUMBER_MAX
        _amount(name, low, high, below if "code" in below or "unit" in below else above, rows)

    return visit


def _number_range(name: str) -> Visit:
    """A Range under a number: its limits without their unit."""
    inner = _range(name)

    def visit(value: Any, rows: IndexValues) -> None:
        before = len(rows.quantities)
        inner(value, rows)
        if len(rows.quantities) > before:
            _, low, high, _, _ = rows.quantities[before]
            rows.quantities[before:] = [(name, low, high, "", "")]

    return visit


def _uri(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        if value.__class__ is not str:
            raise TypeError("not a text")
        rows.uris.append((name, value))

    return visit


def _canonical_uri(name: str) -> Visit:
    """A canonical with a version is found with and without it."""

    def visit(value: Any, rows: IndexValues) -> None:
        rows.uris.append((name, value))
        if "|" in value:
            rows.uris.append((name, value.partition("|")[0]))

    return visit


def _position(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        latitude, longitude = value.get("latitude"), value.get("longitude")
        if latitude is not None and longitude is not None:
            rows.positions.append((name, float(latitude), float(longitude)))

    return visit


_TEXTS = ("string", "markdown", "uri", "url", "canonical", "oid", "uuid", "id", "code")
_NUMBERS = ("decimal", "integer", "positiveInt", "unsignedInt")
_QUANTITIES = ("Quantity", "Age", "Count", "Distance", "Duration")

_MAKERS: dict[tuple[str, str], Callable[[str], Visit]] = {
    ("date", "Period"): _period,
    ("date", "Timing"): _timing,
    ("number", "Range"): _number_range,
    ("quantity", "Range"): _range,
    ("quantity", "Money"): _money,
    ("near", "Location.position"): _position,
    **{("token", kind): make for kind, make in TOKENS.items()},
    **{("reference", kind): make for kind, make in REFERENCES.items()},
    **{("token", kind): code for kind in _TEXTS},
    **{("string", kind): _string for kind in _TEXTS},
    **{("date", kind): _date for kind in ("date", "dateTime", "instant")},
    **{("number", kind): _number for kind in _NUMBERS},
    **{("quantity", kind): _quantity for kind in _QUANTITIES},
    **{("uri", kind): _uri for kind in ("uri", "url", "oid", "uuid")},
    ("uri", "canonical"): _canonical_uri,
}


def converts(search_type: str, kind: str) -> bool:
    """Whether a value of this FHIR type has rows under a parameter of that type."""
    return (search_type, kind) in _MAKERS


def converter(search_type: str, kind: str, name: str, system: str = "") -> Visit | None:
    """The converter of a source's values of one FHIR type; None where there are no rows for them.

    Args:
        name: first member of each row.
        system: code system of plain codes.
    """
    make = _MAKERS.get((search_type, kind))
    if make is None:
        return None
    return code(name, system) if make is code else make(name)
