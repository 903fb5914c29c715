"""An expression as parts: a Pratt parser over `lexer.tokens` (https://hl7.org/fhirpath/N1/#operator-precedence)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from carelake.fhir.path.errors import limit_error, syntax_error
from carelake.fhir.path.lexer import Token, tokens, unescape
from carelake.fhir.path.quantity import CALENDAR, Quantity
from carelake.fhir.path.syntax import (
    Binary,
    Call,
    External,
    Indexer,
    Key,
    Literal,
    Member,
    Negative,
    Part,
    Special,
    TypeName,
    TypeTest,
    Union,
)
from carelake.fhir.path.temporal import parse_date, parse_datetime, parse_time
from carelake.fhir.path.values import Long

__all__ = ["MAX_HEIGHT", "parse"]

MAX_HEIGHT = 150
"""How deeply parts may be nested; the deepest of the R4 definitions has 27."""

_POWER = {
    "implies": 1,
    "or": 2,
    "xor": 2,
    "and": 3,
    "in": 4,
    "contains": 4,
    "=": 5,
    "~": 5,
    "!=": 5,
    "!~": 5,
    "<": 6,
    "<=": 6,
    ">": 6,
    ">=": 6,
    "|": 7,
    "is": 8,
    "as": 8,
    "+": 9,
    "-": 9,
    "&": 9,
    "*": 10,
    "/": 10,
    "div": 10,
    "mod": 10,
}
_UNARY = 11
_WORDS = frozenset(word for word in _POWER if word.isalpha())
# Words of operators that the grammar lets stand as names too (ValueSet.expansion.contains).
_NAMES_TOO = frozenset({"as", "contains", "in", "is"})
_TYPE_CALLS = frozenset({"is", "as", "ofType"})


def parse(text: str) -> Part:
    """The expression's outermost part.

    Raises:
        Invalid: ``fhirpath.syntax``, ``fhirpath.limit``.
    """
    reader = _Reader(tokens(text))
    part = reader.expression(0)
    if reader.now.kind != "end":
        raise reader.wrong("the end of the expression, or an operator")
    return part


class _Reader:
    def __init__(self, found: list[Token]) -> None:
        self._found = found
        self._next = 0
        self._depth = 0
        self.now = found[0]

    def wrong(self, expected: str) -> Exception:
        return syntax_error(self.now.at, f"expected {expected}.")

    def _take(self) -> Token:
        token = self.now
        self._next += 1
        self.now = self._found[min(self._next, len(self._found) - 1)]
        return token

    def _is(self, sign: str) -> bool:
        return self.now.text == sign and self.now.kind == "sign"

    def _expect(self, sign: str) -> Token:
        if not self._is(sign):
            raise self.wrong(f"'{sign}'")
        return self._take()

    def _height(self, *inner: Part | None) -> int:
        height = 1 + max((part.height for part in inner if part is not None), default=0)
        if height > MAX_HEIGHT:
            raise limit_error(self.now.at, f"it is nested more than {MAX_HEIGHT} deep. Simplify it.")
        return height

    # --- operators ---

    def expression(self, power: int) -> Part:
        self._depth += 1
        if self._depth > MAX_HEIGHT:
            raise limit_error(self.now.at, f"it is nested more than {MAX_HEIGHT} deep. Simplify it.")
        left = self._operand()
        while True:
            token = self.now
            binds = _POWER.get(token.text, 0) if token.kind == "sign" or token.text in _WORDS else 0
            if token.kind not in ("sign", "name") or binds <= power:
                break
            left = self._operator(left, binds)
        self._depth -= 1
        return left

    def _operator(self, left: Part, binds: int) -> Part:
        token = self._take()
        if token.text in ("is", "as"):
            name = self._type_name()
            return TypeTest(token.at, self._height(left), token.text, left, name)
        right = self.expression(binds)
        if token.text != "|":
            return Binary(token.at, self._height(left, right), token.text, left, right)
        parts = (*left.parts, right) if isinstance(left, Union) else (left, right)
        return Union(left.at if isinstance(left, Union) else token.at, self._height(*parts), parts)

    def _operand(self) -> Part:
        if self.now.text in ("+", "-") and self.now.kind == "sign":
            token = self._take()
            operand = self.expression(_UNARY)
            return Negative(token.at, self._height(operand), token.text, operand)
        part = self._term()
        while True:
            if self._is("."):
                self._take()
                part = self._invocation(part)
            elif self._is("["):
                at = self._take().at
                index = self.expression(0)
                self._expect("]")
                part = Indexer(at, self._height(part, index), part, index)
            else:
                return part

    # --- terms ---

    def _term(self) -> Part:
        token = self.now
        if token.kind == "sign":
            return self._bracketed()
        if token.kind in ("name", "delimited", "special"):
            if token.kind == "name" and token.text in ("true", "false"):
                self._take()
                return Literal(token.at, 1, (token.text == "true",))
            return self._invocation(None)
        return self._literal()

    def _bracketed(self) -> Part:
        if self._is("("):
            self._take()
            inner = self.expression(0)
            self._expect(")")
            # A union in brackets is a collection of its own, not a part of the chain around it.
            return inner
        if self._is("{"):
            at = self._take().at
            self._expect("}")
            return Literal(at, 1, ())
        if self._is("%"):
            at = self._take().at
            if self.now.kind not in ("name", "delimited", "string"):
                raise self.wrong("the name of a variable")
            token = self._take()
            return External(at, 1, token.text if token.kind == "name" else unescape(token.text))
        raise self.wrong("a value, a name or a bracket")

    def _literal(self) -> Part:
        token = self._take()
        match token.kind:
            case "string":
                return Literal(token.at, 1, (unescape(token.text),))
            case "number":
                return Literal(token.at, 1, (self._number(token),))
            case "long":
                return Literal(token.at, 1, (_long(token),))
            case "date" | "datetime" | "time":
                return Literal(token.at, 1, (_moment(token),))
        self.now = token
        raise self.wrong("a value")

    def _number(self, token: Token) -> Any:
        unit = ""
        calendar = False
        if self.now.kind == "string":
            unit = unescape(self._take().text)
        elif self.now.kind == "name" and self.now.text in CALENDAR:
            unit = self._take().text
            calendar = True
        if unit or calendar:
            return Quantity(Decimal(token.text), unit, calendar)
        if "." in token.text:
            return Decimal(token.text)
        number = int(token.text) if len(token.text) < 20 else 2**31
        if number >= 2**31:
            raise syntax_error(token.at, "expected an integer below 2147483648; write a decimal, or L for a long.")
        return number

    def _invocation(self, source: Part | None) -> Part:
        token = self.now
        if token.kind == "special":
            self._take()
            special = Special(token.at, self._height(source), token.text[1:])
            # `a.$this` is a: the focus does not change along a path.
            return special if source is None else Call(token.at, self._height(source), source, "$", (special,))
        name = self._identifier(source is not None)
        if self._is("("):
            return self._call(source, name, token.at)
        return Member(token.at, self._height(source), source, name)

    def _identifier(self, after_dot: bool) -> str:
        token = self.now
        if token.kind == "delimited":
            return unescape(self._take().text)
        if token.kind == "name" and (after_dot or token.text not in _WORDS or token.text in _NAMES_TOO):
            return self._take().text
        raise self.wrong("a name")

    def _call(self, source: Part | None, name: str, at: int) -> Part:
        self._expect("(")
        if name in _TYPE_CALLS:
            type_name = self._type_name()
            self._expect(")")
            return TypeTest(at, self._height(source), name, source, type_name)
        arguments: list[Part] = []
        while not self._is(")"):
            if arguments:
                self._expect(",")
            arguments.append(self._key() if name == "sort" else self.expression(0))
        self._expect(")")
        return Call(at, self._height(source, *arguments), source, name, tuple(arguments))

    def _key(self) -> Part:
        by = self.expression(0)
        way = ""
        if self.now.kind == "name" and self.now.text in ("asc", "desc"):
            way = self._take().text.removeprefix("asc")
        elif isinstance(by, Negative) and by.sign == "-":
            by, way = by.operand, "-"
        return Key(by.at, self._height(by), by, way)

    def _type_name(self) -> TypeName:
        at = self.now.at
        names = [self._identifier(True)]
        while self._is("."):
            self._take()
            names.append(self._identifier(True))
        if len(names) > 1 and names[0] in ("FHIR", "System"):
            return TypeName(at, names[0], ".".join(names[1:]))
        return TypeName(at, "", ".".join(names))


def _long(token: Token) -> Long:
    digits = token.text[:-1]
    if len(digits) > 19 or int(digits) >= 2**63:
        raise syntax_error(token.at, "expected a long integer below 9223372036854775808.")
    return Long(int(digits))


def _moment(token: Token) -> Any:
    text = token.text[1:]
    if token.kind == "date":
        value = parse_date(text)
    elif token.kind == "time":
        value = parse_time(text[1:])
    else:
        value = parse_datetime(text.removesuffix("T"))
    if value is None:
        raise syntax_error(token.at, "expected a date or time that exists.")
    return value
