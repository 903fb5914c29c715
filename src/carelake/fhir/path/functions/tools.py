"""Utility functions: trace, variables, types, boundaries (https://hl7.org/fhirpath/N1/#utility-functions)."""

from __future__ import annotations

from decimal import Decimal

from carelake.fhir.path.boundaries import decimal_boundary, digits_after_point, temporal_boundary
from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import argument_error, type_error
from carelake.fhir.path.model import info_type, node, type_named
from carelake.fhir.path.operators import is_number
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.registry import Applied, Made, eager, function, maker
from carelake.fhir.path.temporal import Temporal
from carelake.fhir.path.values import Item, Items, integer_of, kind_of, one, string_of, unwrap

__all__: list[str] = []


@maker("trace", 1, 2)
def _trace(made: Made) -> Applied:
    at, name = made.at, made.arguments[0]
    projection = made.arguments[1] if len(made.arguments) > 1 else None

    def trace(items: Items, focus: Items, env: Env) -> Items:
        told = string_of(name(focus, env), at, "trace()")
        if told is None:
            raise argument_error(at, "trace() needs a name.")
        if env.services.trace is None:
            return items
        values = items
        if projection is not None:
            outer, values = env.index, []
            for n, item in enumerate(items):
                env.index = n
                values = values + projection([item], env)
            env.index = outer
        env.services.trace(told, [unwrap(value) for value in values])
        return items

    return trace


@maker("defineVariable", 1, 2)
def _define_variable(made: Made) -> Applied:
    at, name = made.at, made.arguments[0]
    value = made.arguments[1] if len(made.arguments) > 1 else None

    def define(items: Items, focus: Items, env: Env) -> Items:
        told = string_of(name(focus, env), at, "defineVariable()")
        if not told:
            raise argument_error(at, "defineVariable() needs a name.")
        env.define(told, items if value is None else value(items, env), at)
        return items

    return define


@function("type")
def _type(items: Items, env: Env, at: int) -> Items:
    return [({"namespace": space, "name": name}, info_type, None) for space, name in map(_named, items)]


def _named(item: Item) -> tuple[str, str]:
    if item.__class__ is tuple:
        return ("FHIR" if item[1].names else "System", item[1].name)
    return ("System", kind_of(item))


def _boundary(name: str, high: bool) -> None:
    @eager(name, 0, 1)
    def work(items: Items, env: Env, at: int, digits: Items | None = None) -> Items:
        value = one(_end_of(items, high), at, f"{name}()")
        wanted = None if digits is None else integer_of(digits, at, f"{name}()")
        if value is None or (digits is not None and wanted is None):
            return []
        found = _edge(value, wanted, high, at, name)
        return [] if found is None else [found]


def _end_of(items: Items, high: bool) -> Items:
    """A Period's boundary is that of its start or end, as SQL on FHIR has it."""
    if len(items) == 1 and items[0].__class__ is tuple and items[0][1].path == "Period":
        kind = type_named("dateTime")
        return [node(value, kind) for value in [items[0][0].get("end" if high else "start")] if value is not None]
    return items


def _edge(value: Item, wanted: int | None, high: bool, at: int, name: str) -> Item:
    if value.__class__ is Temporal:
        return temporal_boundary(value, wanted, high)
    if value.__class__ is Quantity:
        edge = decimal_boundary(value.value, wanted, high)
        return None if edge is None else value.with_value(edge)
    if is_number(value):
        return decimal_boundary(Decimal(value), wanted, high)
    raise type_error(at, f"{name}()", kind_of(value), "a Decimal, Quantity, Date, DateTime or Time")


_boundary("lowBoundary", False)
_boundary("highBoundary", True)


@function("precision")
def _precision(items: Items, env: Env, at: int) -> Items:
    value = one(items, at, "precision()")
    if value is None:
        return []
    if value.__class__ is Temporal:
        return [value.digits]
    if is_number(value):
        return [digits_after_point(Decimal(value))]
    raise type_error(at, "precision()", kind_of(value), "a Decimal, Date, DateTime or Time")
