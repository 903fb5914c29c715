"""Size budgets of the source: files and functions that fit on a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from statistics import median, quantiles
from typing import Any

FILE_MEDIAN, FILE_P90, FILE_MAX = 150, 400, 800
FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_LONG, FUNCTION_LONG_SHARE = 8, 35, 50, 0.04


def _p90(numbers: Sequence[int]) -> float:
    return quantiles(numbers, n=10)[-1]


def _functions(sources: Sequence[Any]) -> Iterator[tuple[str, int]]:
    """(where, lines of the body without its docstring)"""
    for source in sources:
        for node in source.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node, clean=False) else node.body
                last = node.end_lineno or node.lineno
                yield f"{source.name}:{node.lineno} {node.name}", last - body[0].lineno + 1 if body else 0


def test_files_are_short(sources: Sequence[Any]) -> None:
    lines = {source.name: source.text.count("\n") for source in sources if not source.name.endswith("__init__.py")}
    assert not {name: count for name, count in lines.items() if count > FILE_MAX}
    assert median(lines.values()) <= FILE_MEDIAN
    assert _p90(list(lines.values())) <= FILE_P90, sorted(lines.items(), key=lambda item: item[1])[-10:]


def test_functions_are_short(sources: Sequence[Any]) -> None:
    sizes = dict(_functions(sources))
    longest = sorted(sizes.items(), key=lambda item: item[1])[-20:]
    long = [count for count in sizes.values() if count > FUNCTION_LONG]
    assert median(sizes.values()) <= FUNCTION_MEDIAN
    assert _p90(list(sizes.values())) <= FUNCTION_P90, longest
    assert len(long) <= FUNCTION_LONG_SHARE * len(sizes), longest
