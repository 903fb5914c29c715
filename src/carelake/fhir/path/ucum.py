"""UCUM units: code to dimension and factor (https://ucum.org/ucum, version 2.1, table in `ucum_table`).

Covered: all prefixes and base units, and the units of `ucum_table.UNITS` with products, quotients, exponents,
brackets and annotations. Units on scales that are not ratios (``Cel``, ``[pH]``, ``B``) are known as special: they
are valid, and compare with themselves only, as FHIRPath asks. Arbitrary units (``[iU]``) are dimensions of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from carelake.fhir.path.ucum_table import ARBITRARY, BASES, PREFIXES, SPECIAL, UNITS

__all__ = ["Unit", "divide", "multiply", "unit"]

_MAX_CODE = 200
_MAX_EXPONENT = 30
_METRIC = frozenset(code for code, (metric, _, _) in UNITS.items() if metric) | {*BASES, "[iU]"}


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit measured.

    Attributes:
        powers: base unit to its exponent, none zero.
        atoms: the symbols it was written with and their exponents, for the text of products.
    """

    factor: Fraction
    powers: tuple[tuple[str, int], ...]
    special: bool
    atoms: tuple[tuple[str, int], ...]

    @property
    def dimension(self) -> str:
        """Equal for units that convert into each other: ``L-3M1``; "" for a pure number."""
        return "".join(f"{base}{power}" for base, power in self.powers)


class _Wrong(Exception):
    """The code is not UCUM, or beyond the table."""


def _merge(
    left: tuple[tuple[str, int], ...], right: tuple[tuple[str, int], ...], times: int
) -> tuple[tuple[str, int], ...]:
    sums = dict(left)
    for name, power in right:
        sums[name] = sums.get(name, 0) + power * times
    return tuple(sorted((name, power) for name, power in sums.items() if power))


_ONE = Unit(Fraction(1), (), False, ())


def _power(measured: Unit, exponent: int) -> Unit:
    if abs(exponent) > _MAX_EXPONENT or (measured.special and exponent != 1):
        raise _Wrong
    if exponent == 1:
        return measured
    return Unit(
        measured.factor**exponent,
        tuple((base, power * exponent) for base, power in measured.powers if exponent),
        measured.special,
        tuple((atom, power * exponent) for atom, power in measured.atoms if exponent),
    )


def _times(left: Unit, right: Unit, sign: int) -> Unit:
    if (left.special and right is not _ONE) or (right.special and left is not _ONE):
        raise _Wrong
    factor = left.factor * right.factor if sign > 0 else left.factor / right.factor
    special = left.special or right.special
    return Unit(factor, _merge(left.powers, right.powers, sign), special, _merge_atoms(left.atoms, right.atoms, sign))


def _merge_atoms(
    left: tuple[tuple[str, int], ...], right: tuple[tuple[str, int], ...], times: int
) -> tuple[tuple[str, int], ...]:
    sums = dict(left)  # in the order written
    for name, power in right:
        sums[name] = sums.get(name, 0) + power * times
    return tuple((name, power) for name, power in sums.items() if power)


class _Reader:
    """Recursive descent over ``term = component (("." | "/") component)*``."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._at = 0

    def whole(self) -> Unit:
        measured = self._term(0)
        if self._at != len(self._code):
            raise _Wrong
        return measured

    def _peek(self) -> str:
        return self._code[self._at : self._at + 1]

    def _term(self, depth: int) -> Unit:
        if depth > 10:
            raise _Wrong
        sign = 1
        if self._peek() == "/":
            self._at += 1
            sign = -1
        measured = _times(_ONE, self._component(depth), sign)
        while self._peek() in (".", "/") and self._peek():
            sign = -1 if self._peek() == "/" else 1
            self._at += 1
            measured = _times(measured, self._component(depth), sign)
        return measured

    def _component(self, depth: int) -> Unit:
        if self._peek() == "(":
            self._at += 1
            inner = self._term(depth + 1)
            if self._peek() != ")":
                raise _Wrong
            self._at += 1
            return _power(inner, self._exponent())
        measured = _ONE
        text = self._symbol()
        if text:
            measured = _symbol(text)
        if self._peek() == "{":
            end = self._code.find("}", self._at)
            if end < 0:
                raise _Wrong
            self._at = end + 1
        elif not text:
            raise _Wrong
        return measured

    def _exponent(self) -> int:
        match = re.compile(r"[+-]?\d{1,2}").match(self._code, self._at)
        if match is None:
            return 1
        self._at = match.end()
        return int(match[0])

    def _symbol(self) -> str:
        start = self._at
        depth = 0
        while self._at < len(self._code):
            sign = self._code[self._at]
            depth += (sign == "[") - (sign == "]")
            if depth == 0 and sign in "./(){}":
                break
            self._at += 1
        return self._code[start : self._at]


_FACTOR = re.compile(r"[1-9]\d{0,30}")
_TAIL = re.compile(r"(.*?)([+-]?\d{1,2})")


def _symbol(text: str) -> Unit:
    """An atom with prefix and exponent: ``mm2``, ``10*3``, ``m[H2O]``."""
    found = _atom(text)
    if found is not None:
        return found
    if _FACTOR.fullmatch(text):
        return Unit(Fraction(int(text)), (), False, ((text, 1),) if text != "1" else ())
    match = _TAIL.fullmatch(text)
    if match is None:
        raise _Wrong
    measured = _atom(match[1])
    if measured is None:
        raise _Wrong
    return _power(measured, int(match[2]))


def _atom(text: str) -> Unit | None:
    plain = _plain(text)
    if plain is not None:
        return Unit(plain.factor, plain.powers, plain.special, ((text, 1),))
    for prefix, factor in PREFIXES.items():
        rest = text[len(prefix) :]
        if text.startswith(prefix) and rest in _METRIC:
            measured = _plain(rest)
            if measured is not None:
                return Unit(measured.factor * factor, measured.powers, measured.special, ((text, 1),))
    return None


@lru_cache(1024)
def _plain(symbol: str) -> Unit | None:
    if symbol in BASES:
        return Unit(Fraction(1), ((BASES[symbol], 1),), False, ())
    if symbol in UNITS:
        _, value, code = UNITS[symbol]
        measured = _Reader(code).whole()
        return Unit(Fraction(value) * measured.factor, measured.powers, False, ())
    if symbol in ARBITRARY:
        return Unit(Fraction(1), ((symbol, 1),), False, ())
    if symbol in SPECIAL:
        return Unit(Fraction(1), (), True, ())
    return None


@lru_cache(2048)
def unit(code: str) -> Unit | None:
    """The unit of a UCUM code; None where it is not UCUM or not in the table."""
    if not code or len(code) > _MAX_CODE or not code.isascii():
        return None
    try:
        return _Reader(code).whole()
    except (_Wrong, ZeroDivisionError):
        return None


def _write(atoms: tuple[tuple[str, int], ...]) -> str:
    over = [(name, power) for name, power in atoms if power > 0]
    under = [(name, -power) for name, power in atoms if power < 0]
    text = ".".join(name if power == 1 else f"{name}{power}" for name, power in over)
    for name, power in under:
        text += f"/{name}" if power == 1 else f"/{name}{power}"
    return text or "1"


def multiply(left: str, right: str) -> str | None:
    """The code of a product of units, ``m`` by ``m`` is ``m2``; None where one is not known or special."""
    return _together(left, right, 1)


def divide(left: str, right: str) -> str | None:
    """The code of a quotient of units, ``m`` by ``s`` is ``m/s``."""
    return _together(left, right, -1)


def _together(left: str, right: str, sign: int) -> str | None:
    one, other = unit(left), unit(right)
    if one is None or other is None:
        return None
    try:
        return _write(_times(one, other, sign).atoms)
    except _Wrong:
        return None
