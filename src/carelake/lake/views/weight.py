"""How much SQL a view is: a value that is used twice is written twice, so that a short path can make a lot.

A relation that is used twice is written once, and planned twice: engines put it in where its name stands. So unions
beside each other multiply.
"""

from __future__ import annotations

from functools import cache

from carelake.lake.views.duckdb import DuckDb
from carelake.lake.views.errors import sql_error
from carelake.lake.views.paths import parts_of
from carelake.lake.views.plan import Const, Expr, Extend, Op, Plan, Rel, Source, UnionAll, Unnest
from carelake.lake.views.spark import Spark
from carelake.lake.views.vals import Choice, Val

__all__ = ["MOST", "bounded", "light", "weight"]

MOST = 200_000
"""Parts of an expression, or of all of a view, each as often as it is written or planned."""
_LETTERS = 16


def bounded(found: Val | Choice, at: str) -> Val | Choice:
    """The same, if it is not too much to write.

    Raises:
        Unsupported: ``lake.view_sql``.
    """
    val = found.parent if isinstance(found, Choice) else found
    made = [expr for expr in (val.expr, val.guard, val.lexeme) if expr is not None]
    if sum(weight(expr) for expr in made) > MOST:
        raise sql_error(at, f"An expression that is more than {MOST:,} parts as SQL")
    return found


def light(plan: Plan) -> Plan:
    """The same, if all of it together is not too much.

    Raises:
        Unsupported: ``lake.view_sql``.
    """
    known: dict[int, int] = {}
    whole = sum(weight(output.expr) for output in plan.outputs) + _planned(plan.rel, known)
    if whole > MOST:
        raise sql_error("", f"A view that is more than {MOST:,} parts as SQL")
    return plan


def _planned(rel: Rel, known: dict[int, int]) -> int:
    """Parts of a relation, those that it is made from in the place of their names."""
    if id(rel) in known:
        return known[id(rel)]
    match rel:
        case Source(tests=tests):
            found = sum(map(weight, tests))
        case Extend(base=base, expr=expr):
            found = _planned(base, known) + weight(expr)
        case Unnest(base=base, source=source):
            # it is written twice where rows without elements stay or go by what is alive
            found = _planned(base, known) + weight(source) * (2 if rel.alive else 1)
        case UnionAll(branches=branches, tests=tests):
            found = sum(_planned(inner, known) + sum(map(weight, exprs)) for inner, exprs in branches)
            found += sum(weight(test) for test in tests if test is not None)
        case _:
            raise TypeError(rel)
    known[id(rel)] = 1 + found
    return 1 + found


def weight(expr: Expr) -> int:
    """Parts of an expression as a tree: what is shared counts each time; a long text counts for its length."""
    known: dict[int, int] = {}

    def of(one: object) -> int:
        made = known.get(id(one))
        if made is None:
            made = known[id(one)] = _own(one) + sum(
                times * of(part) for times, part in zip(_times(one), parts_of(one), strict=False)
            )
        return made

    return of(expr)


def _own(one: object) -> int:
    return 1 + len(one.value) // _LETTERS if isinstance(one, Const) and isinstance(one.value, str) else 1


def _times(one: object) -> tuple[int, ...]:
    """How often each part is written."""
    return _written(one.word, len(one.args)) if isinstance(one, Op) else (1, 1, 1)


@cache
def _written(word: str, arguments: int) -> tuple[int, ...]:
    """By the engine that writes it more often."""
    marks = [f"\0{n}\0" for n in range(arguments)]
    texts = [words[word](*marks) for words in (DuckDb.words, Spark.words)]
    return tuple(max(text.count(mark) for text in texts) for mark in marks)
