"""`is`, `as` and `ofType` over System's types and R4's (https://hl7.org/fhirpath/N1/#types).

`is` takes subtypes. `as` and `ofType` take them for complex types and resources; a primitive must be of the very
type, as the official suite has it (``gender.as(string)`` of a code is empty).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.path.context import Closure, Env
from carelake.fhir.path.errors import name_error, singleton_error
from carelake.fhir.path.functions.references import referred
from carelake.fhir.path.model import SYSTEM_TYPES, is_type
from carelake.fhir.path.syntax import Call, Part, TypeName, TypeTest
from carelake.fhir.path.values import Item, Items, kind_of

__all__ = ["predicate", "type_test"]


def _is_system(name: str) -> Callable[[Item], bool]:
    if name == "Any":
        return lambda item: item.__class__ is not tuple
    return lambda item: item.__class__ is not tuple and kind_of(item) == name


def predicate(wanted: TypeName, exact: bool) -> Callable[[Item], bool]:
    """Whether an item is of a type; ``exact`` takes no subtypes of primitives.

    Raises:
        Invalid: ``fhirpath.name``: there is no such type.
    """
    name = wanted.name
    if wanted.space == "System" or (not wanted.space and name in SYSTEM_TYPES and not is_type(name)):
        return _is_system(name)
    if not is_type(name):
        raise name_error(wanted.at, "FHIR R4 and System have no such type. Mind capital letters.")

    def is_fhir(item: Item) -> bool:
        if item.__class__ is not tuple:
            # A quantity literal is a Quantity for who does not say which.
            return name == "Quantity" and not wanted.space and kind_of(item) == "Quantity"
        kind = item[1]
        return name == kind.path if exact and kind.primitive else name in kind.names

    return is_fhir


def type_test(part: TypeTest, source: Closure | None) -> Closure:
    """The closure of `is`, `as` or `ofType`."""
    test = predicate(part.type, part.word != "is")
    word, at = part.word, part.at

    def items_of(focus: Items, env: Env) -> Items:
        return focus if source is None else source(focus, env)

    if word == "ofType":
        return lambda focus, env: [item for item in items_of(focus, env) if test(item)]
    if word == "as":

        def cast(focus: Items, env: Env) -> Items:
            items = items_of(focus, env)
            if len(items) > 1 and not env.filters:
                raise singleton_error(at, "as", len(items))
            return [item for item in items if test(item)]

        return cast
    if _resolves(part.operand):
        return _resolved_is(part, source, test)

    def is_of(focus: Items, env: Env) -> Items:
        items = items_of(focus, env)
        if len(items) > 1:
            raise singleton_error(at, "is", len(items))
        return [test(items[0])] if items else []

    return is_of


def _resolves(operand: Part | None) -> bool:
    return isinstance(operand, Call) and operand.name == "resolve"


def _resolved_is(part: TypeTest, source: Closure | None, test: Callable[[Item], bool]) -> Closure:
    """`resolve() is Patient`: what the reference says of its target is enough where it is not at hand."""
    operand = part.operand
    assert isinstance(operand, Call)
    assert source is not None
    name, at = part.type.name, part.at
    resolve = source
    from carelake.fhir.path.compiler import closure

    references = None if operand.source is None else closure(operand.source)

    def is_of(focus: Items, env: Env) -> Items:
        items = focus if references is None else references(focus, env)
        if len(items) > 1:
            raise singleton_error(at, "is", len(items))
        found = resolve(focus, env)
        if found:
            return [test(found[0])]
        told: Any = referred(items[0]) if items else ""
        return [told == name or name in ("Resource", "DomainResource")] if told else []

    return is_of
