"""Quantities in all units that convert into the one asked for (https://ucum.org/ucum).

Rows are as they were given. A value in UCUM is looked for in every unit of the same dimension that any row has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from carelake.fhir.path.ucum import unit
from carelake.fhir.query import NumberValue
from carelake.store.search import ranges
from carelake.store.search.building import Build, every
from carelake.store.search.nodes import Arm
from carelake.store.symbols import UNIT, Symbols

__all__ = ["UCUM", "Units"]

UCUM = "http://unitsofmeasure.org"

_SLACK = 1e-12

_Place = tuple[NumberValue, tuple[float, float, float], int | None, int | None]


class Units:
    """Reads quantities within one transaction."""

    def __init__(self, tx: Connection, symbols: Symbols) -> None:
        self._tx, self._symbols = tx, symbols
        self._found: dict[str, list[tuple[int, float]]] = {}

    def arms(self, param: int, value: NumberValue, term: Callable[[str], int]) -> list[Arm]:
        """Ranges of ``ix_quantity``."""
        return [ranges.quantity(param, *place) for place in self._places(value, term)]

    def parts(self, param: int, value: NumberValue, term: Callable[[str], int]) -> list[Arm]:
        """Ranges of ``ix_part``."""
        return [_part(param, place) for place in self._places(value, term)]

    def _places(self, value: NumberValue, term: Callable[[str], int]) -> Iterator[_Place]:
        """The value in each unit: its bounds there, and the symbols of system and unit."""
        bounds = (value.low, value.high, value.number)
        system = None if value.system is None else term(value.system)
        code = None if value.code is None else self._symbols.key(self._tx, UNIT, value.code)
        if system != -1 and code != -1:
            yield value, bounds, system, code
        if value.system != UCUM or value.code is None or system == -1:
            return
        for symbol, factor in self._others(value.code):
            yield value, _converted(value, factor), system, symbol

    def _others(self, code: str) -> list[tuple[int, float]]:
        """Symbols of other units of the dimension, with what a number is multiplied by; looked up once."""
        if code not in self._found:
            self._found[code] = list(self._converting(code))
        return self._found[code]

    def _converting(self, code: str) -> Iterator[tuple[int, float]]:
        own = unit(code)
        if own is None or own.special:
            return
        for text, symbol in sorted(self._symbols.everything(self._tx, UNIT).items()):
            other = unit(text) if text != code else None
            if other is not None and not other.special and other.dimension == own.dimension:
                yield symbol, float(own.factor / other.factor)


def _converted(value: NumberValue, factor: float) -> tuple[float, float, float]:
    """Low, high and number in another unit, with room for what floats lose, on the side that equal numbers are on."""
    low, high, number = (each * factor for each in (value.low, value.high, value.number))
    slack = abs(number) * _SLACK
    if value.prefix in ("gt", "sa", "le"):
        number += slack
    elif value.prefix in ("lt", "eb", "ge"):
        number -= slack
    return low - slack, high - slack, number


def _part(param: int, place: _Place) -> Arm:
    value, bounds, system, code = place
    test = ranges.number_test(value, *bounds)

    def where(build: Build, at: str) -> str:
        return every(
            (
                build.same(f"{at}.text", ""),
                test(build, at),
                "" if system is None else f"{at}.system = {build(system)}",
                "" if code is None else f"{at}.unit = {build(code)}",
            )
        )

    return Arm("ix_part", param, where, ("ix_part", param, value.prefix, *bounds, system, code))
