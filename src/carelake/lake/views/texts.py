"""Functions on texts, numbers and moments."""

from __future__ import annotations

import re
from dataclasses import replace

from carelake.fhir.path.syntax import Call, Literal
from carelake.lake.views.calls import single_type
from carelake.lake.views.compiler import Compiler, Scope, Some, call
from carelake.lake.views.errors import path_error, sql_error
from carelake.lake.views.moments import boundary
from carelake.lake.views.paths import member, one
from carelake.lake.views.plan import BOOL, DECIMAL, INT, TEXT, Case, Const, Expr, Let, Null, Op, Ref
from carelake.lake.views.vals import Val, nothing, plain

__all__: list[str] = []

_NUMBERS = ("Integer", "Decimal")


def _input(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Val:
    """The input as one text."""
    found = one(compiler.names, single_type(source, scope), scope.at)
    if not found.absent and found.system != "String":
        raise path_error(scope.at, f"{part.name}() takes a text.", part.at)
    return found


def _of_text(name: str, word: str, system: str = "String") -> None:
    @call(name)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        return plain(Op(word, (_input(compiler, part, source, scope).expr,)), system)


_of_text("length", "length", "Integer")
_of_text("upper", "upper")
_of_text("lower", "lower")
_of_text("trim", "trim")


def _of_two(name: str, word: str, system: str) -> None:
    @call(name, 1)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        text = _input(compiler, part, source, scope)
        other = compiler.text(part.arguments[0], scope, f"{name}()")
        return plain(Op(word, (text.expr, other.expr)), system)


_of_two("indexOf", "index_of", "Integer")
_of_two("startsWith", "starts", "Boolean")
_of_two("endsWith", "ends", "Boolean")
_of_two("contains", "contains", "Boolean")


@call("substring", 1, 2)
def _substring(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text, start = _input(compiler, part, source, scope), compiler.single(part.arguments[0], scope)
    if start.absent or start.system != "Integer":
        return nothing() if start.absent else _wrong(scope, "substring() takes Integers.", part)
    held, begin = compiler.names.new("t"), compiler.names.new("b")
    inside = Op("and", (Op("ge", (Ref(begin), Const(0, INT))), Op("lt", (Ref(begin), Op("length", (Ref(held),))))))
    rest: Expr = Op("substr", (Ref(held), Ref(begin)))
    if len(part.arguments) > 1:
        count = compiler.single(part.arguments[1], scope)
        if not count.absent:
            rest = Op("left", (rest, Op("greatest", (count.expr, Const(0, INT)))))
    return plain(Let(held, text.expr, Let(begin, start.expr, Case(inside, rest, Null(TEXT)))), "String")


def _wrong(scope: Scope, message: str, part: Call) -> Some:
    raise path_error(scope.at, message, part.at)


@call("replace", 2)
def _replace(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text = _input(compiler, part, source, scope)
    old, new = (compiler.text(argument, scope, "replace()") for argument in part.arguments)
    if isinstance(old.expr, Const) and old.expr.value == "":
        raise sql_error(scope.at, "replace() of an empty text")
    return plain(Op("replace", (text.expr, old.expr, new.expr)), "String")


@call("join", 0, 1)
def _join(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = single_type(source, scope)
    if not found.absent and found.system != "String":
        raise path_error(scope.at, "join() takes texts.", part.at)
    between: Expr = Const("", TEXT)
    if part.arguments:
        told = compiler.text(part.arguments[0], scope, "join()")
        between = Op("coalesce", (told.expr, between))
    if not found.many:
        return plain(found.expr, "String")
    held = compiler.names.new("l")
    some = Op("gt", (Op("size", (Ref(held),)), Const(0, INT)))
    joined = Case(some, Op("join", (Ref(held), between)), Null(TEXT))
    return plain(Let(held, found.expr, joined), "String")


@call("split", 1)
def _split(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text, by = _input(compiler, part, source, scope), compiler.text(part.arguments[0], scope, "split()")
    return plain(Op("split", (text.expr, by.expr)), "String", many=True)


# --- regular expressions ---

_LOOKS = re.compile(r"\(\?[=!<>]|\\[1-9]|[*+?}]\+")


def _pattern(compiler: Compiler, part: Call, scope: Scope) -> str:
    argument = part.arguments[0]
    if not isinstance(argument, Literal) or not argument.items or not isinstance(argument.items[0], str):
        raise sql_error(scope.at, "A regular expression that is not a literal")
    pattern = argument.items[0]
    if _LOOKS.search(pattern):
        raise sql_error(scope.at, "A regular expression that looks around or back")
    try:
        re.compile(pattern)
    except re.error:
        raise path_error(scope.at, "the regular expression is not valid.", argument.at) from None
    return _same_everywhere(pattern, scope)


_PIECES = re.compile(r"\\.|\[|\]|\$|[^\\\[\]$]+", re.DOTALL)
_CLASSES = {
    "d": r"\p{Nd}",
    "w": r"\p{L}\p{M}\p{Nd}\p{Pc}",
    "s": r"\t-\r\x{20}\x{85}\p{Z}",
}
"""What the evaluator takes for a digit, a part of a word and a blank, in any script; engines take ASCII."""


def _same_everywhere(pattern: str, scope: Scope) -> str:
    """The pattern in words that all engines read alike."""
    made, inside, opened = [], False, False
    for found in _PIECES.finditer(pattern):
        piece, first = found[0], opened
        opened = False
        if piece == "[" and not inside:
            inside = opened = True
        elif piece == "[":
            piece = r"\["
        elif piece == "]" and inside and not first:
            inside = False
        elif piece == "]":
            piece = r"\]"
        elif piece[0] == "\\" and piece[1:].lower() in _CLASSES:
            piece = _class(piece[1:], inside, scope)
        elif inside and first and piece == "^":
            opened = True
        made.append(piece)
    return "".join(made)


def _class(letter: str, inside: bool, scope: Scope) -> str:
    parts = _CLASSES[letter.lower()]
    if letter.islower():
        return parts if inside else f"[{parts}]"
    if inside:
        raise sql_error(scope.at, "A regular expression with a negated class inside of another")
    return f"[^{parts}]"


@call("matches", 1)
def _matches(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text, pattern = _input(compiler, part, source, scope), _pattern(compiler, part, scope)
    return plain(Op("matches", (text.expr, Const(pattern, TEXT))), "Boolean")


@call("matchesFull", 1)
def _matches_full(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text, pattern = _input(compiler, part, source, scope), _pattern(compiler, part, scope)
    return plain(Op("matches", (text.expr, Const(f"^(?:{pattern})\\z", TEXT))), "Boolean")


@call("replaceMatches", 2)
def _replace_matches(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    text, pattern = _input(compiler, part, source, scope), _pattern(compiler, part, scope)
    new = part.arguments[1]
    if not isinstance(new, Literal) or not new.items or re.search(r"[$\\]", str(new.items[0])) or not pattern:
        raise sql_error(scope.at, "replaceMatches() with anything but a plain text")
    return plain(Op("replace_matches", (text.expr, Const(pattern, TEXT), Const(str(new.items[0]), TEXT))), "String")


# --- numbers ---


def _number(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Val:
    found = one(compiler.names, single_type(source, scope), scope.at)
    if not found.absent and found.system not in _NUMBERS:
        if found.system == "Quantity":
            raise sql_error(scope.at, f"{part.name}() of a Quantity")
        raise path_error(scope.at, f"{part.name}() takes a number.", part.at)
    return found


@call("abs")
def _abs(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = _number(compiler, part, source, scope)
    return plain(Op("abs", (found.expr,)), found.system)


def _rounded(name: str, word: str) -> None:
    @call(name)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        found = _number(compiler, part, source, scope)
        return found if found.system == "Integer" else plain(Op(word, (found.expr,)), "Integer")


_rounded("ceiling", "ceiling")
_rounded("floor", "floor")
_rounded("truncate", "truncate")


@call("round", 0, 1)
def _round(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found = _number(compiler, part, source, scope)
    places = part.arguments[0] if part.arguments else Literal(part.at, 1, (0,))
    if not isinstance(places, Literal) or not places.items or not isinstance(places.items[0], int):
        raise sql_error(scope.at, "round() to a number of places that is not a literal")
    return plain(Op("round", (found.expr, Const(places.items[0], INT))), "Decimal")


def _function_of(name: str, word: str) -> None:
    @call(name)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        return plain(Op(word, (_number(compiler, part, source, scope).expr,)), "Decimal")


_function_of("sqrt", "sqrt")
_function_of("exp", "exp")
_function_of("ln", "ln")


def _aggregate(name: str, word: str) -> None:
    @call(name)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        found = single_type(source, scope)
        texts = word in ("list_min", "list_max") and found.system == "String"
        if not found.absent and found.system not in _NUMBERS and not texts:
            raise sql_error(scope.at, f"{name}() of anything but numbers")
        system = "Decimal" if word == "list_avg" else found.system
        if not found.many:
            return plain(found.expr, system)
        whole = word + "_int" if word == "list_sum" and system == "Integer" else word
        return plain(Op(whole, (found.expr,)), system)


_aggregate("sum", "list_sum")
_aggregate("min", "list_min")
_aggregate("max", "list_max")
_aggregate("avg", "list_avg")


# --- conversions ---


def _converted(compiler: Compiler, part: Call, source: Some, scope: Scope) -> tuple[Val, str]:
    found = one(compiler.names, single_type(source, scope), scope.at)
    if found.complex:
        raise sql_error(scope.at, f"{part.name}() of an element that has parts")
    return found, found.system


@call("toString")
def _to_string(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found, system = _converted(compiler, part, source, scope)
    if system == "Decimal":
        if found.lexeme is None:
            raise sql_error(scope.at, "toString() of a computed Decimal")
        return plain(found.lexeme, "String")
    if system == "Boolean":
        texts = Case(found.expr, Const("true", TEXT), Const("false", TEXT))
        return plain(Case(Op("is_null", (found.expr,)), Null(TEXT), texts), "String")
    return plain(Op("to_text", (found.expr,)) if system == "Integer" else found.expr, "String")


@call("toInteger")
def _to_integer(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found, system = _converted(compiler, part, source, scope)
    if system == "Integer":
        return plain(found.expr, system)
    if system == "Boolean":
        return plain(Op("to_int", (found.expr,)), "Integer")
    if system != "String":
        return nothing(INT)
    held = compiler.names.new("t")
    good = Op("matches", (Ref(held), Const("^[+-]?[0-9]{1,10}$", TEXT)))
    return plain(Let(held, found.expr, Case(good, Op("to_int", (Ref(held),)), Null(INT))), "Integer")


@call("toDecimal")
def _to_decimal(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found, system = _converted(compiler, part, source, scope)
    if system in _NUMBERS:
        digits = found.lexeme if system == "Decimal" else Op("to_text", (found.expr,))
        return replace(plain(Op("to_decimal", (found.expr,)), "Decimal"), lexeme=digits)
    if system == "Boolean":
        return plain(Op("to_decimal", (Op("to_int", (found.expr,)),)), "Decimal")
    if system != "String":
        return nothing(DECIMAL)
    held = compiler.names.new("t")
    good = Op("matches", (Ref(held), Const(r"^[+-]?[0-9]{1,300}(\.[0-9]{1,300})?$", TEXT)))
    return plain(Let(held, found.expr, Case(good, Op("to_decimal", (Ref(held),)), Null(DECIMAL))), "Decimal")


@call("toBoolean")
def _to_boolean(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
    found, system = _converted(compiler, part, source, scope)
    if system == "Boolean":
        return plain(found.expr, system)
    if system != "String":
        raise sql_error(scope.at, "toBoolean() of anything but texts")
    held = compiler.names.new("t")
    lowered = Op("lower", (found.expr,))
    yes, no = (
        Op("matches", (Ref(held), Const(f"^({words})$", TEXT)))
        for words in (r"true|t|yes|y|1|1\.0", r"false|f|no|n|0|0\.0")
    )
    said = Case(yes, Const(True, BOOL), Case(no, Const(False, BOOL), Null(BOOL)))
    return plain(Let(held, lowered, said), "Boolean")


# --- boundaries ---


def _boundary(name: str, high: bool) -> None:
    @call(name, 0, 1)
    def work(compiler: Compiler, part: Call, source: Some, scope: Scope) -> Some:
        if part.arguments:
            raise sql_error(scope.at, f"{name}() to a precision")
        found = one(compiler.names, single_type(source, scope), scope.at)
        if found.absent:
            return found
        if found.complex and found.type.path == "Period":
            inner = member(compiler.names, found, "end" if high else "start", scope.at)
            assert isinstance(inner, Val)
            found = inner
        if found.system in ("Date", "DateTime", "Time"):
            return plain(boundary(compiler.names, found.expr, found.system, high), found.system)
        if found.system in _NUMBERS:
            if found.lexeme is None and found.system == "Decimal":
                raise sql_error(scope.at, f"{name}() of a Decimal whose digits are not at hand")
            digits = found.lexeme or Op("to_text", (found.expr,))
            return plain(Op("high_edge" if high else "low_edge", (digits,)), "Decimal")
        if found.system == "Quantity":
            raise sql_error(scope.at, f"{name}() of a Quantity (take its value)")
        raise path_error(scope.at, f"{name}() takes a number, a date or a time.", part.at)


_boundary("lowBoundary", False)
_boundary("highBoundary", True)
