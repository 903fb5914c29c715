"""Typed values as ranges of the index tables. Semantics of prefixes: `carelake.fhir.query.values`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from carelake.fhir.query import DateValue, NumberValue, ReferenceValue, StringValue, TokenValue
from carelake.store.search.building import Build, every, some
from carelake.store.search.nodes import Arm

__all__ = [
    "TABLES",
    "codes",
    "date",
    "everything",
    "inside",
    "quantity",
    "reference",
    "string",
    "target",
    "token",
    "uri",
    "word",
]

Test = Callable[[Build, str], str]

TABLES = {
    "token": "ix_token",
    "string": "ix_string",
    "date": "ix_date",
    "number": "ix_quantity",
    "quantity": "ix_quantity",
    "reference": "ix_reference",
    "uri": "ix_uri",
    "near": "ix_position",
    "words": "ix_word",
    "part": "ix_part",
}
"""Where the rows of a source are, by its type."""


def everything(table: str, param: int) -> Arm:
    """All rows of a source."""
    return Arm(table, param, lambda build, at: "", (table, param))


def token(param: int, value: TokenValue, system: int | None) -> Arm:
    """A code, a code of a system, or a system.

    Args:
        system: symbol, None for any.
    """
    code = value.code
    key = ("ix_token", param, code, system)
    if code is None:
        return Arm("ix_token", param, lambda build, at: f"{at}.system = {build(system)}", key)
    if system is None:
        return Arm("ix_token", param, lambda build, at: build.same(f"{at}.code", code), key, gap="system")

    def both(build: Build, at: str) -> str:
        return f"{build.same(f'{at}.code', code)} AND {at}.system = {build(system)}"

    return Arm("ix_token", param, both, key, ordered=True)


def codes(param: int, system: int | None, listed: Iterable[str]) -> Arm:
    """Many codes of one system, or of any."""
    every_code = sorted(set(listed))

    def where(build: Build, at: str) -> str:
        test = build.texts(f"{at}.code", every_code)
        return test if system is None else f"{test} AND {at}.system = {build(system)}"

    return Arm("ix_token", param, where, ("ix_token", param, system, tuple(every_code)))


def string(param: int, value: StringValue, modifier: str) -> Arm | None:
    """Starts with, or is exactly; None where nothing can."""
    key = ("ix_string", param, modifier, value.text)
    if modifier == "exact":

        def exact(build: Build, at: str) -> str:
            return f"{build.same(f'{at}.value', value.folded)} AND {at}.given = {build(value.text)}"

        return Arm("ix_string", param, exact, key, ordered=True)
    if not value.folded:
        # Only signs that the index folds away: nothing can start with them, and nothing is not everything.
        return None
    return Arm("ix_string", param, lambda build, at: build.starts(f"{at}.value", value.folded), key)


def containing(param: int, values: Sequence[StringValue]) -> list[Arm]:
    """Texts that hold one of some texts: no index finds them, so all values are looked for in one reading."""
    folded = tuple(dict.fromkeys(value.folded for value in values if value.folded))

    def where(build: Build, at: str) -> str:
        return some([build.contains(f"{at}.value", text) for text in folded])

    return [Arm("ix_string", param, where, ("ix_string", param, "contains", folded))] if folded else []


def sound(param: int, text: str) -> Arm:
    """A word of that sound."""
    return Arm("ix_string", param, lambda build, at: build.same(f"{at}.value", text), ("ix_string", param, text))


def word(param: int, text: str) -> Arm:
    """A word of a text."""
    key = ("ix_word", param, text)
    return Arm("ix_word", param, lambda build, at: build.same(f"{at}.word", text), key, ordered=True)


def uri(param: int, text: str) -> Arm:
    """That very uri."""
    key = ("ix_uri", param, text)
    return Arm("ix_uri", param, lambda build, at: build.same(f"{at}.value", text), key, ordered=True)


def under(table: str, column: str, param: int, text: str) -> Arm:
    """Uris below a path."""
    return Arm(table, param, lambda build, at: build.starts(f"{at}.{column}", text), (table, param, "under", text))


def reference(param: int, value: ReferenceValue, kind: int | None) -> Arm:
    """A reference to a resource, or to a url.

    Args:
        kind: symbol of the type pointed to, None for any.
    """
    return target(param, value.url or value.id, kind)


def target(param: int, text: str, kind: int | None) -> Arm:
    """A reference to what has that id or url."""
    key = ("ix_reference", param, text, kind)
    if kind is None:
        return Arm("ix_reference", param, lambda build, at: build.same(f"{at}.target", text), key, gap="type")

    def both(build: Build, at: str) -> str:
        return f"{build.same(f'{at}.target', text)} AND {at}.type = {build(kind)}"

    return Arm("ix_reference", param, both, key, ordered=True)


def targets(param: int, ids: Iterable[str], kind: int) -> Arm:
    """References to one of many resources of a type."""
    listed = sorted(set(ids))

    def where(build: Build, at: str) -> str:
        return f"{build.among(f'{at}.target', listed)} AND {at}.type = {build(kind)}"

    return Arm("ix_reference", param, where, ("ix_reference", param, kind, tuple(listed)))


def inside(build: Build, at: str, low: Any, high: Any) -> str:
    """The row's range is within a range."""
    top = build(high)
    return f"{at}.low >= {build(low)} AND {at}.low <= {top} AND {at}.high <= {top}"


def date_test(value: DateValue) -> Callable[[Build, str], str]:
    """The tests of a row's range."""

    def where(build: Build, at: str) -> str:
        # What is not part of the text must not be bound.
        match value.prefix:
            case "eq":
                return inside(build, at, value.low, value.high)
            case "ne":
                return f"NOT ({inside(build, at, value.low, value.high)})"
            case "gt":
                return f"{at}.high > {build(value.high)}"
            case "lt":
                return f"{at}.low < {build(value.low)}"
            case "sa":
                return f"{at}.low >= {build(value.high)}"
            case "eb":
                return f"{at}.low < {build(value.low)} AND {at}.high <= {build(value.low)}"
        low, high = build(value.low), build(value.high)
        match value.prefix:
            case "ge":
                return f"{at}.high > {low} AND ({at}.high > {high} OR {at}.low >= {low})"
            case "le":
                return f"{at}.low < {high} AND ({at}.low < {low} OR {at}.high <= {high})"
        return f"{at}.low < {high} AND {at}.high > {low}"

    return where


def date(param: int, values: Sequence[DateValue], longest: int | None) -> Arm:
    """A date, dateTime or period that meets all of the values.

    Args:
        longest: microseconds that no row of the source is longer than: what reaches past a moment began no longer
            before it. None for any.
    """
    tests = [date_test(value) for value in values]
    ends = [
        value.high if value.prefix == "gt" else value.low for value in values if value.prefix in ("gt", "ge", "ap")
    ]

    def where(build: Build, at: str) -> str:
        begun = f"{at}.low > {build(max(ends) - longest)}" if ends and longest is not None else ""
        return every((begun, *(test(build, at) for test in tests)))

    told = tuple((value.prefix, value.low, value.high) for value in values)
    return Arm("ix_date", param, where, ("ix_date", param, told))


def _number_test(value: NumberValue, low: float, high: float, number: float) -> Test:
    """The tests of a row, whose low and high are the same unless it is a Range; the value's are in the row's unit."""

    def within(build: Build, at: str) -> str:
        top = build(high)
        return f"{at}.low >= {build(low)} AND {at}.low < {top} AND {at}.high < {top}"

    def where(build: Build, at: str) -> str:
        match value.prefix:
            case "eq":
                return within(build, at)
            case "ne":
                return f"NOT ({within(build, at)})"
            case "gt":
                return f"{at}.high > {build(number)}"
            case "lt":
                return f"{at}.low < {build(number)}"
            case "ge":
                return f"{at}.high >= {build(number)}"
            case "le":
                return f"{at}.low <= {build(number)}"
            case "sa":
                return f"{at}.low > {build(number)}"
            case "eb":
                return f"{at}.low < {build(number)} AND {at}.high < {build(number)}"
        return f"{at}.low <= {build(high)} AND {at}.high >= {build(low)}"

    return where


def _split(value: NumberValue, low: float, high: float, number: float) -> list[tuple[Test, bool]]:
    """As `_number_test`, in ranges that an index bounds, and whether each is of rows that reach over a width.

    What reaches past a number begins past it, or is one of the few rows that begin before it and end after it: those
    with a width have an index of their own. Nothing else bounds where such a row begins.
    """
    sign, bound = {"gt": (">", number), "ge": (">=", number), "ap": (">=", low)}.get(value.prefix, ("", 0.0))
    if not sign:
        return [(_number_test(value, low, high, number), False)]

    def past(build: Build, at: str) -> str:
        top = f"{at}.low <= {build(high)}" if value.prefix == "ap" else ""
        return every((f"{at}.low {sign} {build(bound)}", top))

    def across(build: Build, at: str) -> str:
        begun = f"{at}.low {'<=' if sign == '>' else '<'} {build(bound)}"
        return every((begun, f"{at}.high {sign} {build(bound)}", f"{at}.high > {at}.low"))

    return [(past, False), (across, True)]


def quantity(
    table: str,
    param: int,
    value: NumberValue,
    bounds: tuple[float, float, float],
    system: int | None,
    unit: int | None,
    *,
    split: bool = True,
) -> list[Arm]:
    """A number, or a quantity in one unit.

    Args:
        table: ``ix_quantity``, or ``ix_part`` for a component.
        bounds: low, high and number of the value, in that unit.
        system, unit: symbols, None for any.
        split: in ranges that an index bounds, which is two where one would do for tests.
    """
    column = "unit" if table == "ix_part" else "code"

    def arm(test: Test, wide: bool) -> Arm:
        def where(build: Build, at: str) -> str:
            return every(
                (
                    build.same(f"{at}.text", "") if table == "ix_part" else "",
                    test(build, at),
                    "" if system is None else f"{at}.system = {build(system)}",
                    "" if unit is None else f"{at}.{column} = {build(unit)}",
                )
            )

        key = (table, param, value.prefix, *bounds, system, unit, wide)
        return Arm(table, param, where, key, index=f"{table}_wide" if wide else "")

    tests = _split(value, *bounds) if split else [(_number_test(value, *bounds), False)]
    return [arm(test, wide) for test, wide in tests]


def pointing(param: int, kind: int) -> Arm:
    """All references to a type."""
    key = ("ix_reference", param, "type", kind)
    return Arm("ix_reference", param, lambda build, at: f"{at}.type = {build(kind)}", key)


def uris(param: int, text: str, modifier: str) -> list[Arm]:
    """A uri; with ``below`` those under it too, with ``above`` those that it is under."""
    found = [uri(param, one) for one in _above(text)] if modifier == "above" else [uri(param, text)]
    return [*found, under("ix_uri", "value", param, _folder(text))] if modifier == "below" else found


def canonicals(param: int, text: str, modifier: str) -> list[Arm]:
    """As `uris`, for references to urls."""
    found = [target(param, one, None) for one in (_above(text) if modifier == "above" else (text,))]
    return [*found, under("ix_reference", "target", param, _folder(text))] if modifier == "below" else found


def _folder(text: str) -> str:
    return text if text.endswith("/") else text + "/"


def _above(text: str) -> tuple[str, ...]:
    """``http://a/b/c`` and what it is under: ``http://a/b``, ``http://a``, with a slash at the end and without."""
    scheme, sign, rest = text.partition("://")
    steps = (rest if sign else text).rstrip("/").split("/")
    heads = [scheme + sign + "/".join(steps[:n]) if sign else "/".join(steps[:n]) for n in range(1, len(steps) + 1)]
    return tuple(dict.fromkeys([text, *heads, *(f"{head}/" for head in heads)]))


def part_text(param: int, text: str) -> Arm:
    """A component that is a text."""
    return Arm("ix_part", param, lambda build, at: build.same(f"{at}.text", text), ("ix_part", param, text))


def part_token(param: int, value: TokenValue, system: int | None) -> Arm:
    """A component that is a token."""

    def where(build: Build, at: str) -> str:
        code = "" if value.code is None else build.same(f"{at}.text", value.code)
        return every((code, "" if system is None else f"{at}.system = {build(system)}"))

    return Arm("ix_part", param, where, ("ix_part", param, value.code, system))


def part_reference(param: int, value: ReferenceValue, kind: int | None) -> Arm:
    """A component that is a reference."""
    return part_token(param, TokenValue(None, value.url or value.id), kind)


def part_string(param: int, value: StringValue) -> Arm:
    """A component that is a string."""
    key = ("ix_part", param, "starts", value.folded)
    return Arm("ix_part", param, lambda build, at: build.starts(f"{at}.text", value.folded), key)


def part_date(param: int, value: DateValue) -> Arm:
    """A component that is a date; its microseconds are floats."""
    test = date_test(DateValue(value.prefix, value.low, value.high))
    key = ("ix_part", param, value.prefix, value.low, value.high)
    return Arm("ix_part", param, lambda build, at: every((build.same(f"{at}.text", ""), test(build, at))), key)
