"""Parts to closures: the whole language, for any data. `fast` has a quicker way for what is simple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.path import functions as _functions  # noqa: F401 - fills the registry
from carelake.fhir.path import operators
from carelake.fhir.path.context import Closure, Env
from carelake.fhir.path.equality import distinct
from carelake.fhir.path.errors import argument_error, name_error, type_error
from carelake.fhir.path.navigation import leading, member
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.registry import FUNCTIONS, Made
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
    TypeTest,
    Union,
    children,
)
from carelake.fhir.path.typetests import type_test
from carelake.fhir.path.values import Items, integer_of, kind_of, one

__all__ = ["closure"]


def closure(part: Part) -> Closure:
    """The closure of a part.

    Raises:
        Invalid: ``fhirpath.name`` for unknown functions and types, ``fhirpath.argument`` for their number.
    """
    return _COMPILERS[type(part)](part)


def _literal(part: Literal) -> Closure:
    items = list(part.items)
    return lambda focus, env: items


def _member(part: Member) -> Closure:
    if part.source is None:
        return leading(part.name, part.at)
    step = member(part.name, part.at)
    source = closure(part.source)
    return lambda focus, env: step(source(focus, env), env)


def _special(part: Special) -> Closure:
    at = part.at
    if part.name == "this":
        return lambda focus, env: focus
    if part.name == "index":
        return lambda focus, env: [] if env.index is None else [env.index]

    def total(focus: Items, env: Env) -> Items:
        if env.total is None:
            raise name_error(at, "$total is there inside of aggregate() only.")
        return env.total

    return total


def _external(part: External) -> Closure:
    name, at = part.name, part.at
    return lambda focus, env: env.variable(name, at)


def _indexer(part: Indexer) -> Closure:
    source, index, at = closure(part.source), _scoped(part.index), part.at

    def indexed(focus: Items, env: Env) -> Items:
        items = source(focus, env)
        number = integer_of(index(focus, env), at, "An index")
        return [] if number is None or number < 0 else items[number : number + 1]

    return indexed


def _negative(part: Negative) -> Closure:
    operand, at, sign = closure(part.operand), part.at, part.sign

    def signed(focus: Items, env: Env) -> Items:
        value = one(operand(focus, env), at, f"The sign {sign}")
        if value is None:
            return []
        if value.__class__ is Quantity:
            return [value.with_value(-value.value) if sign == "-" else value]
        if not operators.is_number(value):
            raise type_error(at, f"The sign {sign}", kind_of(value), "a number or a Quantity")
        return operators.bounded(operators.negative(value)) if sign == "-" else [value]

    if isinstance(part.operand, Literal):
        items = signed([], Env([], {}, operators.NO_SERVICES))
        return lambda focus, env: items
    return signed


def _binary(part: Binary) -> Closure:
    left, right = _scoped(part.left), _scoped(part.right)
    return operators.OPERATORS[part.sign](left, right, part.at)


def _union(part: Union) -> Closure:
    parts, at = [_scoped(inner) for inner in part.parts], part.at

    def union(focus: Items, env: Env) -> Items:
        items: Items = []
        for inner in parts:
            items += inner(focus, env)
        if len(items) < 2:
            return items
        env.spend(len(items), at)
        return distinct(items)

    return union


def _type_test(part: TypeTest) -> Closure:
    source = None if part.operand is None else closure(part.operand)
    return type_test(part, source)


def _key(part: Key) -> Closure:
    return closure(part.by)


def _call(part: Call) -> Closure:
    if part.name == "$":
        assert part.source is not None
        return _then(closure(part.source), closure(part.arguments[0]))
    found = FUNCTIONS.get(part.name)
    if found is None:
        raise name_error(part.at, "there is no such function. Mind capital letters; docs/fhirpath.md lists them.")
    least, most, make = found
    if not least <= len(part.arguments) <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise argument_error(part.at, f"{part.name}() got {len(part.arguments)} arguments; expected {wanted}.")
    arguments = tuple(_scoped(argument) for argument in part.arguments)
    made = make(Made(part.name, part.at, arguments, part.arguments))
    if part.source is None:
        return lambda focus, env: made(focus, focus, env)
    source = closure(part.source)
    return lambda focus, env: made(source(focus, env), focus, env)


def _then(first: Closure, second: Closure) -> Closure:
    return lambda focus, env: second(first(focus, env), env)


def _defines(part: Part) -> bool:
    stack = [part]
    while stack:
        inner = stack.pop()
        if isinstance(inner, Call) and inner.name == "defineVariable":
            return True
        stack.extend(children(inner))
    return False


def _scoped(part: Part) -> Closure:
    """An operand or argument: variables that it defines end with it."""
    inner = closure(part)
    if not _defines(part):
        return inner

    def scoped(focus: Items, env: Env) -> Items:
        before = env.own
        try:
            return inner(focus, env)
        finally:
            env.own = before

    return scoped


_COMPILERS: dict[type[Part], Callable[[Any], Closure]] = {
    Literal: _literal,
    Member: _member,
    Call: _call,
    Special: _special,
    External: _external,
    Indexer: _indexer,
    Negative: _negative,
    Binary: _binary,
    Union: _union,
    TypeTest: _type_test,
    Key: _key,
}
