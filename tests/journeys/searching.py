"""Queries by which a resource must be found, or must not, made of what was extracted from it.

The index values say what a resource holds; here they are turned into the text that somebody would type, for each
parameter, modifier and prefix. What a row means is taken from the standard's pages and not from the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from carelake.core.records import IndexValues
from carelake.fhir.query import pointed_types
from carelake.fhir.search import extract
from carelake.fhir.search.registry import BASE, Registry

__all__ = ["Asked", "asked", "escaped"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = -62_135_596_800_000_000
_LAST = 253_402_300_800_000_000
_DAY = 86_400_000_000
_FEW = 2
"""Values of one parameter of one resource that are turned into queries."""


@dataclass(frozen=True)
class Asked:
    """A name and a value, and whether the resource is among the matches."""

    code: str
    name: str
    value: str
    found: bool = True

    @property
    def text(self) -> str:
        return f"{self.name}={quote(self.value, safe='')}"


def escaped(text: str) -> str:
    """As a part of a value. https://hl7.org/fhir/R4/search.html#escaping"""
    for sign in "\\$,|":
        text = text.replace(sign, "\\" + sign)
    return text


def asked(resource: dict[str, Any], registry: Registry = BASE) -> Iterator[Asked]:
    """For every parameter that the resource has values for."""
    whole = extract(resource, registry)
    for code, parameter in sorted(registry.parameters(resource["resourceType"]).items()):
        rows = IndexValues(*(list(getattr(whole, name)) for name in IndexValues.__struct_fields__))
        if parameter.phonetic:
            continue  # its rows are sounds, which nobody types
        if parameter.components:
            yield from _composite(code, parameter, rows)
            continue
        any_value = False
        if parameter.type == "reference":
            # What points to a type that the parameter has not (two examples do) is not to be asked for.
            allowed = {"", *pointed_types(parameter)}
            rows.references = [row for row in rows.references if row[1] in allowed]
        for use in parameter.uses:
            for one in _of_source(code, parameter, use, rows):
                any_value = any_value or one.found
                yield one
        if any_value and parameter.type not in ("special",):
            yield Asked(code, f"{code}:missing", "false")
            yield Asked(code, f"{code}:missing", "true", found=False)


def _of_source(code: str, parameter: Any, use: Any, rows: IndexValues) -> Iterator[Asked]:
    make = {
        "token": _tokens,
        "string": _strings,
        "date": _dates,
        "number": _numbers,
        "quantity": _quantities,
        "reference": _references,
        "uri": _uris,
        "near": _near,
        "words": _words,
    }[use.source.type]
    yield from make(code, use, rows)


def _few(rows: list[Any], use: Any, name: str | None = None) -> list[Any]:
    wanted = name or use.source.name
    return [row for row in rows if row[0] == wanted][:_FEW]


def _token(system: str, code: str) -> str:
    return f"{escaped(system)}|{escaped(code)}"


def _tokens(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, system, value in _few(rows.tokens, use):
        if value:
            yield Asked(code, code, _token(system, value))
            yield Asked(code, code, escaped(value))
            yield Asked(code, code, f"{_token(system, value)},no-such-code")
            yield Asked(code, f"{code}:not", _token(system, value), found=False)
            yield Asked(code, f"{code}:not", "no-such-code")
            yield Asked(code, code, _token("urn:no-such-system", value), found=False)
        if system:
            yield Asked(code, code, f"{escaped(system)}|")
    if use.source.text is not None:
        for _, _, given in _few(rows.strings, use, use.source.text.name):
            yield Asked(code, f"{code}:text", escaped(given))
    if use.source.of_type is not None:
        for _, system, value in _few(rows.tokens, use, use.source.of_type.name):
            kind, _, number = value.partition("|")
            yield Asked(code, f"{code}:of-type", f"{escaped(system)}|{escaped(kind)}|{escaped(number)}")
    for _, _, value, display in _few(rows.displays, use):
        if value and display:
            yield Asked(code, f"{code}:text", escaped(display))


def _strings(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, folded, given in _few(rows.strings, use):
        if not folded.strip():
            continue  # nothing but punctuation is left of it
        yield Asked(code, code, escaped(given))
        yield Asked(code, code, escaped(given.swapcase()))
        yield Asked(code, f"{code}:exact", escaped(given))
        yield Asked(code, f"{code}:contains", escaped(folded[len(folded) // 3 :].strip() or folded))
        yield Asked(code, code, escaped(given) + "zq no such text", found=False)


def _dates(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, low, high in _few(rows.dates, use):
        if low >= _FIRST + 800 * _DAY:
            before = _moment(low - 400 * _DAY)
            for prefix in ("ge", "gt", "sa", "ne"):
                yield Asked(code, code, f"{prefix}{before}")
        if high <= _LAST - 800 * _DAY:
            after = _moment(high + 400 * _DAY)
            for prefix in ("le", "lt", "eb", "ne"):
                yield Asked(code, code, f"{prefix}{after}")
        if low > _FIRST and high < _LAST:
            first, last = _EPOCH + timedelta(microseconds=low), _EPOCH + timedelta(microseconds=high - 1)
            if first.year == last.year:
                yield Asked(code, code, f"{first.year:04}")
                yield Asked(code, code, f"ap{first.year:04}")
            if (first.year, first.month) == (last.year, last.month):
                yield Asked(code, code, f"eq{first.year:04}-{first.month:02}")
            if first.date() == last.date():
                yield Asked(code, code, first.date().isoformat() + f",{first.year + 1}")


def _moment(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def _numbers(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, low, high, _, _ in _few(rows.quantities, use):
        for text in _around(low, high):
            yield Asked(code, code, text)


def _quantities(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, low, high, system, unit in _few(rows.quantities, use):
        for text in _around(low, high):
            yield Asked(code, code, text)
            if unit:
                yield Asked(code, code, f"{text}|{escaped(system)}|{escaped(unit)}")
                yield Asked(code, code, f"{text}||{escaped(unit)}")
                yield Asked(code, code, f"{text}|urn:no-such-system|{escaped(unit)}", found=False)


def _around(low: float, high: float) -> Iterator[str]:
    """Values with prefixes that a row of these bounds answers."""
    if abs(low) < 1e12:
        yield f"gt{_digits(low - 1 - abs(low) / 8)}"
        yield f"ge{_digits(low - 1 - abs(low) / 8)}"
    if abs(high) < 1e12:
        yield f"lt{_digits(high + 1 + abs(high) / 8)}"
        yield f"le{_digits(high + 1 + abs(high) / 8)}"
    if abs(low) < 1e6 and abs(high) < 1e6 and high - low > 1e-6:
        middle = (Decimal(repr(low)) + Decimal(repr(high))) / 2
        yield f"ap{_digits(float(middle))}"
        width = Decimal(repr(round(high - low, 9)))
        digits = -width.log10().to_integral_value() if width > 0 else Decimal(0)
        if width == Decimal(10) ** -digits:
            yield str(middle.quantize(Decimal(1).scaleb(-int(digits)))) if digits >= 0 else _digits(float(middle))


def _digits(number: float) -> str:
    return format(Decimal(repr(round(number, 9))), "f")


def _references(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    found = [row for row in rows.references if row[0] == use.source.name]
    for _, kind, key, url in [row for row in found if use.target in ("", row[1])][:_FEW]:
        if key:
            yield Asked(code, code, escaped(f"{kind}/{key}"))
            yield Asked(code, code, escaped(key))
            yield Asked(code, f"{code}:{kind}", escaped(key))
            yield Asked(code, code, escaped(f"{kind}/no-such-{key}"[:70]), found=False)
        elif url and not url.startswith("#"):
            yield Asked(code, code, escaped(url).replace("\\|", "|"))  # as url|version
    if use.source.identifier is not None and not use.target:
        for _, system, value in _few(rows.tokens, use, use.source.identifier.name):
            yield Asked(code, f"{code}:identifier", _token(system, value))


def _uris(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, value in _few(rows.uris, use):
        yield Asked(code, code, escaped(value))
        yield Asked(code, code, escaped(value + "/no-such-end"), found=False)
        if value.startswith("http") and value.count("/") > 3:
            yield Asked(code, f"{code}:below", escaped(value.rpartition("/")[0]))
            yield Asked(code, f"{code}:above", escaped(f"{value}/beneath"))


def _near(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, latitude, longitude in _few(rows.positions, use):
        yield Asked(code, code, f"{latitude}|{longitude}|1|km")
        if abs(latitude) < 80:
            yield Asked(code, code, f"{latitude + 5}|{longitude}|10|km", found=False)


def _words(code: str, use: Any, rows: IndexValues) -> Iterator[Asked]:
    for _, word in _few(rows.words, use):
        yield Asked(code, code, word)


# -- composites ----------------------------------------------------------------------------------------------------


def _composite(code: str, parameter: Any, rows: IndexValues) -> Iterator[Asked]:
    if parameter.root:
        texts = [_first(component.type, component.root, rows) for component in parameter.components]
        yield from _joined(code, texts)
    if parameter.parts:
        items = sorted({row[1] for row in rows.parts if row[0] == parameter.parts[0].name})
        for item in items[:_FEW]:
            texts = [
                next((_part(source, row) for row in rows.parts if row[0] == source.name and row[1] == item), "")
                for source in parameter.parts
            ]
            yield from _joined(code, texts)


def _joined(code: str, texts: list[str]) -> Iterator[Asked]:
    if all(texts):
        yield Asked(code, code, "$".join(texts))
        yield Asked(code, code, "$".join(["no-such-code", *texts[1:]]), found=False)


def _first(kind: str, uses: Any, rows: IndexValues) -> str:
    """The text of one component, from its first row."""
    for use in uses:
        for one in _of_source("", None, use, rows):
            plain = not one.name and one.found
            if plain and not (kind in ("number", "quantity") and one.value.startswith("ap")):
                return one.value
    return ""


def _part(source: Any, row: Any) -> str:
    _, _, text, low, high, system, unit = row
    match source.inner:
        case "token":
            return _token(system, text) if system else escaped(text)
        case "string":
            return escaped(unit or text)
        case "number" | "quantity":
            return next(_around(low, high), "")
        case "date":
            return f"ge{_moment(int(low) - 400 * _DAY)}" if low > _FIRST + 800 * _DAY else ""
        case "reference":
            return escaped(f"{system}/{text}" if system else text)
        case _:
            return escaped(text)
