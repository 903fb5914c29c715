"""Quantities in all units that convert into the one asked for (https://ucum.org/ucum).

Rows are as they were given. A value in UCUM is looked for in every unit of the same dimension that any row has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection

from carelake.fhir.path.ucum import unit
from carelake.fhir.query import NumberValue
from carelake.store.search import ranges
from carelake.store.search.nodes import Arm
from carelake.store.symbols import UNIT, Symbols

__all__ = ["UCUM", "Units"]

UCUM = "http://unitsofmeasure.org"

_SLACK = 1e-12
_FEW = 16

_Place = tuple[NumberValue, tuple[float, float, float], int | None, int | None]


class Units:
    """Reads quantities within one transaction."""

    def __init__(self, tx: Connection, symbols: Symbols) -> None:
        self._tx, self._symbols = tx, symbols
        self._found: dict[str, list[tuple[int, float]]] = {}
        self._asked = 0

    def arms(self, table: str, param: int, value: NumberValue, term: Callable[[str], int]) -> list[Arm]:
        """Ranges of ``ix_quantity``, or of ``ix_part``."""
        places = self._places(value, term)
        return [arm for place in places for arm in ranges.quantity(table, param, *place, split=self._few())]

    def _few(self) -> bool:
        """Whether a search has asked for few ranges so far: many are united into one, which no bound helps."""
        self._asked += 1
        return self._asked <= _FEW

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
