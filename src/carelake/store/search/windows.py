"""Dates from and to: on an element that is there once, both are about one and the same row.

Together they are one range of the index; apart, each would be half of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from carelake.fhir.definitions import element
from carelake.fhir.query import Condition, DateValue, Query
from carelake.fhir.search import SearchParameter, Use

__all__ = ["of_class", "windows"]

_T = TypeVar("_T")

_Window = tuple[tuple[Use, ...], list[DateValue]]


def windows(query: Query) -> tuple[list[_Window], list[Condition]]:
    """The dates that a resource's one row must meet, by parameter, and the conditions that are left."""
    found: dict[str, _Window] = {}
    others: list[Condition] = []
    for one in query.conditions:
        dates = of_class(one.values, DateValue)
        if len(dates) == 1 and isinstance(one.param, SearchParameter) and _once(query.type, one.param.uses):
            found.setdefault(one.code, (one.param.uses, []))[1].append(dates[0])
        else:
            others.append(one)
    return list(found.values()), others


def _once(name: str, uses: tuple[Use, ...]) -> bool:
    """Whether a resource has one row at the most; of a Timing all events are one."""
    if len(uses) != 1 or len(uses[0].source.steps) != 1 or uses[0].source.expression:
        return False
    item = element(name).get(uses[0].source.steps[0].name)
    return item is not None and item.max == "1"


def of_class(values: Sequence[Any], kind: type[_T]) -> list[_T]:
    """Those of a condition's values that are of a class."""
    return [value for value in values if isinstance(value, kind)]
