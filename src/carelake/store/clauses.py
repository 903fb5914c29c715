"""Conditions of a search as selects over the index tables: each gives the ``seq`` of versions that meet it.

Every select is over one parameter symbol, which belongs to one account and one type, and binds all values.
Semantics of prefixes: `carelake.fhir.query_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Select, Table, and_, false, not_, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from carelake.fhir.query import (
    Condition,
    DateValue,
    NumberValue,
    ReferenceValue,
    StringValue,
    TokenValue,
    UriValue,
)
from carelake.store.tables import HEAD, ix_date, ix_quantity, ix_reference, ix_string, ix_token, ix_uri

__all__ = ["SORT_COLUMNS", "Term", "matching", "table_of"]

Term = Callable[[str], int]
"""Symbol of a code system, unit or type; -1 where there is none."""

_TABLES = {
    "token": ix_token,
    "string": ix_string,
    "date": ix_date,
    "number": ix_quantity,
    "quantity": ix_quantity,
    "reference": ix_reference,
    "uri": ix_uri,
}

SORT_COLUMNS = {"token": "code", "string": "value", "date": "low", "number": "low", "quantity": "low"}
"""What each type is sorted by."""

_LAST = chr(0x10FFFF)


class _Head(FunctionElement[bool]):
    """What the head of a text is too, so that PostgreSQL finds it by its index; nothing on SQLite."""

    type = Boolean()
    inherit_cache = True
    name = "head"


class _Holds(FunctionElement[bool]):
    """Whether a text holds another one."""

    type = Boolean()
    inherit_cache = True
    name = "holds"


@compiles(_Head)
def _no_head(element: _Head, compiler: Any, **kwargs: Any) -> str:
    return "1"


@compiles(_Head, "postgresql")
def _head_between(element: _Head, compiler: Any, **kwargs: Any) -> str:
    column, low, high = (compiler.process(clause, **kwargs) for clause in element.clauses)
    return f"left({column}, {HEAD}) BETWEEN {low} AND {high}"


@compiles(_Holds)
def _instr(element: _Holds, compiler: Any, **kwargs: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kwargs)}) > 0"


@compiles(_Holds, "postgresql")
def _strpos(element: _Holds, compiler: Any, **kwargs: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kwargs)}) > 0"


def _equal(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    head = text[:HEAD]
    return and_(column == text, _Head(column, head, head))


def table_of(kind: str) -> Table:
    """The index table of a parameter type."""
    return _TABLES[kind]


def matching(condition: Condition, param: int, term: Term) -> Select[Any]:
    """Versions with a value that meets one of the condition's alternatives; modifiers ``not`` and ``missing`` aside.

    Args:
        param: symbol of the parameter.
    """
    table = _TABLES[condition.type]
    tests = [_test(condition, value, term) for value in condition.values]
    return select(table.c.seq).where(table.c.param == param, or_(*tests) if tests else false())


def _test(condition: Condition, value: Any, term: Term) -> ColumnElement[bool]:
    match value:
        case TokenValue():
            return _token(value, term)
        case StringValue():
            return _string(value, condition.modifier)
        case DateValue():
            return _date(value)
        case NumberValue():
            return _quantity(value, term)
        case ReferenceValue():
            return _reference(value, term)
        case UriValue():
            return _equal(ix_uri.c.value, value.value)
    raise TypeError(f"no clause for {type(value).__name__}")


def _token(value: TokenValue, term: Term) -> ColumnElement[bool]:
    tests = []
    if value.code is not None:
        tests.append(_equal(ix_token.c.code, value.code))
    if value.system is not None:
        tests.append(ix_token.c.system == term(value.system))
    return and_(*tests)


def _string(value: StringValue, modifier: str) -> ColumnElement[bool]:
    column = ix_string.c.value
    if modifier == "exact":
        return and_(_equal(column, value.folded), ix_string.c.given == value.text)
    if not value.folded:
        # Only signs that the index folds away: nothing can start with them, and nothing is not everything.
        return false()
    if modifier == "contains":
        return _Holds(column, value.folded)
    head = _Head(column, value.folded[:HEAD], value.folded[:HEAD] + _LAST)
    return and_(column >= value.folded, column < value.folded + _LAST, head)


def _date(value: DateValue) -> ColumnElement[bool]:
    row, low, high = ix_date.c, value.low, value.high
    inside = and_(row.low >= low, row.low <= high, row.high <= high)
    return {
        "eq": inside,
        "ne": not_(inside),
        "gt": row.high > high,
        "lt": row.low < low,
        "ge": or_(row.high > high, inside),
        "le": or_(row.low < low, inside),
        "sa": row.low >= high,
        "eb": row.high <= low,
        "ap": and_(row.low < high, row.high > low),
    }[value.prefix]


def _quantity(value: NumberValue, term: Term) -> ColumnElement[bool]:
    row = ix_quantity.c
    middle = (row.low + row.high) / 2
    inside = and_(row.low >= value.low, row.low <= value.high, row.high <= value.high)
    test = {
        "eq": inside,
        "ne": not_(inside),
        "gt": middle > value.number,
        "sa": middle > value.number,
        "lt": middle < value.number,
        "eb": middle < value.number,
        "ge": or_(middle > value.number, inside),
        "le": or_(middle < value.number, inside),
        "ap": and_(row.low < value.high, row.high > value.low),
    }[value.prefix]
    if value.system is not None:
        test = and_(test, row.system == term(value.system))
    if value.code is not None:
        test = and_(test, row.code == term(value.code))
    return test


def _reference(value: ReferenceValue, term: Term) -> ColumnElement[bool]:
    row = ix_reference.c
    if value.url:
        return and_(_equal(row.target, value.url), row.type == 0)
    if value.type:
        return and_(_equal(row.target, value.id), row.type == term(value.type))
    return and_(_equal(row.target, value.id), row.type != 0)
