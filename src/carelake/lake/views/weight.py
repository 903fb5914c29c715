"""How much SQL an expression is: a value that is used twice is written twice, so that a short path can make a lot."""

from __future__ import annotations

from functools import cache

from carelake.lake.views.duckdb import DuckDb
from carelake.lake.views.errors import sql_error
from carelake.lake.views.paths import parts_of
from carelake.lake.views.plan import Const, Expr, Op
from carelake.lake.views.spark import Spark
from carelake.lake.views.vals import Choice, Val

__all__ = ["MOST", "bounded", "weight"]

MOST = 200_000
"""Parts of an expression, each as often as it is written."""
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
