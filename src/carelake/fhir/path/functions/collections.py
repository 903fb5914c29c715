"""Existence, subsets and combinations (https://hl7.org/fhirpath/N1/#existence, #subsetting, #combining)."""

from __future__ import annotations

from collections.abc import Callable

from carelake.fhir.path.context import Env
from carelake.fhir.path.equality import distinct, key
from carelake.fhir.path.errors import singleton_error, type_error
from carelake.fhir.path.registry import Applied, Made, eager, function, maker
from carelake.fhir.path.values import Items, integer_of, kind_of, system, truth

__all__: list[str] = []


@function("empty")
def _empty(items: Items, env: Env, at: int) -> Items:
    return [not items]


@function("count")
def _count(items: Items, env: Env, at: int) -> Items:
    return [len(items)]


@function("not")
def _not(items: Items, env: Env, at: int) -> Items:
    value = truth(items, at, "not()")
    return [] if value is None else [not value]


@maker("exists", 0, 1)
def _exists(made: Made) -> Applied:
    if not made.arguments:
        return lambda items, focus, env: [bool(items)]
    criteria, at = made.arguments[0], made.at

    def exists(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer = env.index
        try:
            for n, item in enumerate(items):
                env.index = n
                if truth(criteria([item], env), at, "exists()"):
                    return [True]
        finally:
            env.index = outer
        return [False]

    return exists


@maker("all", 1)
def _all(made: Made) -> Applied:
    criteria, at = made.arguments[0], made.at

    def every(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer = env.index
        try:
            for n, item in enumerate(items):
                env.index = n
                if not truth(criteria([item], env), at, "all()"):
                    return [False]
        finally:
            env.index = outer
        return [True]

    return every


def _booleans(name: str, answer: Callable[[list[bool]], bool]) -> None:
    @function(name)
    def work(items: Items, env: Env, at: int) -> Items:
        values = [system(item) for item in items]
        for value in values:
            if value.__class__ is not bool:
                raise type_error(at, f"{name}()", kind_of(value), "Booleans only")
        return [answer(values)]


_booleans("allTrue", all)
_booleans("anyTrue", any)
_booleans("allFalse", lambda values: not any(values))
_booleans("anyFalse", lambda values: not all(values))


@eager("subsetOf", 1)
def _subset_of(items: Items, env: Env, at: int, other: Items) -> Items:
    return [{key(item) for item in items} <= {key(item) for item in other}]


@eager("supersetOf", 1)
def _superset_of(items: Items, env: Env, at: int, other: Items) -> Items:
    return [{key(item) for item in items} >= {key(item) for item in other}]


@function("distinct")
def _distinct(items: Items, env: Env, at: int) -> Items:
    return distinct(items)


@function("isDistinct")
def _is_distinct(items: Items, env: Env, at: int) -> Items:
    return [len({key(item) for item in items}) == len(items)]


# --- subsets ---


@function("single")
def _single(items: Items, env: Env, at: int) -> Items:
    if len(items) > 1:
        raise singleton_error(at, "single()", len(items))
    return items


@function("first")
def _first(items: Items, env: Env, at: int) -> Items:
    return items[:1]


@function("last")
def _last(items: Items, env: Env, at: int) -> Items:
    return items[-1:]


@function("tail")
def _tail(items: Items, env: Env, at: int) -> Items:
    return items[1:]


@eager("skip", 1)
def _skip(items: Items, env: Env, at: int, number: Items) -> Items:
    count = integer_of(number, at, "skip()")
    return [] if count is None else items[max(0, count) :]


@eager("take", 1)
def _take(items: Items, env: Env, at: int, number: Items) -> Items:
    count = integer_of(number, at, "take()")
    return [] if count is None else items[: max(0, count)]


@eager("intersect", 1)
def _intersect(items: Items, env: Env, at: int, other: Items) -> Items:
    wanted = {key(item) for item in other}
    return distinct(item for item in items if key(item) in wanted)


@eager("exclude", 1)
def _exclude(items: Items, env: Env, at: int, other: Items) -> Items:
    unwanted = {key(item) for item in other}
    return [item for item in items if key(item) not in unwanted]


# --- combinations ---


@eager("union", 1)
def _union(items: Items, env: Env, at: int, other: Items) -> Items:
    return distinct(items + other)


@eager("combine", 1, 2)
def _combine(items: Items, env: Env, at: int, other: Items, preserve: Items | None = None) -> Items:
    env.spend(len(items) + len(other), at)
    return items + other


@maker("coalesce", 1, 50)
def _coalesce(made: Made) -> Applied:
    def coalesce(items: Items, focus: Items, env: Env) -> Items:
        for argument in made.arguments:
            found = argument(items, env)
            if found:
                return found
        return []

    return coalesce
