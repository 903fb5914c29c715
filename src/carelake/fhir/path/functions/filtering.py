"""Filters, projections, order, trees and aggregates (https://hl7.org/fhirpath/N1/#filtering-and-projection)."""

from __future__ import annotations

from collections import deque
from functools import cmp_to_key
from typing import Any

from carelake.fhir.path.context import MAX_COMPUTED, MAX_ITEMS, Env
from carelake.fhir.path.equality import Seen, order
from carelake.fhir.path.errors import singleton_error, type_error
from carelake.fhir.path.navigation import child_nodes
from carelake.fhir.path.registry import Applied, Made, function, maker
from carelake.fhir.path.syntax import Key
from carelake.fhir.path.values import Items, kind_of, one, system, truth

__all__: list[str] = []

# A value that `repeat` computes counts for so many, since nothing in the data bounds them.
_COMPUTED = MAX_ITEMS // MAX_COMPUTED


@maker("where", 1)
def _where(made: Made) -> Applied:
    criteria, at = made.arguments[0], made.at

    def where(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer, found = env.index, []
        try:
            for n, item in enumerate(items):
                env.index = n
                answer = criteria([item], env)
                if answer and (answer[0] is True or truth(answer, at, "where()")):
                    found.append(item)
        finally:
            env.index = outer
        return found

    return where


@maker("select", 1)
def _select(made: Made) -> Applied:
    projection, at = made.arguments[0], made.at

    def select(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer = env.index
        found: Items = []
        try:
            for n, item in enumerate(items):
                env.index = n
                found += projection([item], env)
        finally:
            env.index = outer
        env.spend(len(found), at)
        return found

    return select


@maker("repeat", 1)
def _repeat(made: Made) -> Applied:
    projection, at = made.arguments[0], made.at

    def repeat(items: Items, focus: Items, env: Env) -> Items:
        queue, seen = deque(items), Seen()
        found: Items = []
        while queue:
            for item in projection([queue.popleft()], env):
                env.spend(1 if item.__class__ is tuple else _COMPUTED, at)
                if seen.add(item):
                    found.append(item)
                    queue.append(item)
        return found

    return repeat


@maker("repeatAll", 1)
def _repeat_all(made: Made) -> Applied:
    projection, at = made.arguments[0], made.at

    def repeat_all(items: Items, focus: Items, env: Env) -> Items:
        queue = deque(items)
        found: Items = []
        while queue:
            more = projection([queue.popleft()], env)
            env.spend(len(more) * (1 if more and more[0].__class__ is tuple else _COMPUTED), at)
            found += more
            queue.extend(more)
        return found

    return repeat_all


@maker("iif", 2, 3)
def _iif(made: Made) -> Applied:
    at = made.at
    criterion, then = made.arguments[:2]
    otherwise = made.arguments[2] if len(made.arguments) > 2 else None

    def iif(items: Items, focus: Items, env: Env) -> Items:
        if len(items) > 1:
            raise singleton_error(at, "iif()", len(items))
        condition = criterion(items, env)
        if env.strict and condition and system(condition[0]).__class__ is not bool:
            raise type_error(at, "iif()", kind_of(condition[0]), "a Boolean")
        if truth(condition, at, "iif()"):
            return then(items, env)
        return [] if otherwise is None else otherwise(items, env)

    return iif


@maker("aggregate", 1, 2)
def _aggregate(made: Made) -> Applied:
    aggregator, at = made.arguments[0], made.at
    init = made.arguments[1] if len(made.arguments) > 1 else None

    def aggregate(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer_index, outer_total = env.index, env.total
        try:
            total: Items = [] if init is None else init(focus, env)
            for n, item in enumerate(items):
                env.index, env.total = n, total
                total = aggregator([item], env)
        finally:
            env.index, env.total = outer_index, outer_total
        return total

    return aggregate


@maker("sort", 0, 20)
def _sort(made: Made) -> Applied:
    at, ways = made.at, [part.way if isinstance(part, Key) else "" for part in made.parts] or [""]
    selectors = made.arguments or (lambda focus, env: focus,)

    def sort(items: Items, focus: Items, env: Env) -> Items:
        env.spend(len(items), at)
        outer, env.index = env.index, None
        try:
            rows: list[tuple[list[Any], Any]] = [
                ([one(select([item], env), at, "sort()") for select in selectors], item) for item in items
            ]
        finally:
            env.index = outer
        if len(rows) > 1:

            def before(one_row: tuple[list[Any], Any], other: tuple[list[Any], Any]) -> int:
                return _ranked(one_row[0], other[0], ways, at)

            rows.sort(key=cmp_to_key(before))
        return [item for _, item in rows]

    return sort


def _ranked(left: list[Any], right: list[Any], ways: list[str], at: int) -> int:
    """The order of two rows of keys; nothing is lower than something, with either sign."""
    for a, b, way in zip(left, right, ways, strict=True):
        if a is None or b is None:
            found: int | None = (a is not None) - (b is not None)
            if way == "-":
                way = ""
        elif a.__class__ is bool and b.__class__ is bool:
            found = a - b
        else:
            found = order(a, b, at, "sort()")
        if found:
            return -found if way else found
    return 0


@function("children")
def _children(items: Items, env: Env, at: int) -> Items:
    found = [child for item in items for child in child_nodes(item)]
    env.spend(len(found), at)
    return found


@function("descendants")
def _descendants(items: Items, env: Env, at: int) -> Items:
    if items is not env.start:
        return _below(items, env, at)
    # Constraints ask for those of %resource again and again.
    if env.below is None:
        env.below = _below(items, env, at)
    return env.below


def _below(items: Items, env: Env, at: int) -> Items:
    queue = deque(items)
    found: Items = []
    while queue:
        inner = child_nodes(queue.popleft())
        env.spend(len(inner), at)
        found += inner
        queue.extend(inner)
    return found
