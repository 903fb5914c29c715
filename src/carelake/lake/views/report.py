"""The official suite run by ourselves, in the format of its report (``test_report.json``).

One entry for each file of the suite: ``{"tests": [{"name": title, "result": {"passed": bool, "reason": text}}]}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from carelake.core.errors import CarelakeError
from carelake.lake.views.execute import Engine, run

__all__ = ["passes", "report"]


def report(suite: Mapping[str, Mapping[str, Any]], engine: Engine) -> dict[str, Any]:
    """The report of a suite, by file name.

    Args:
        suite: parsed files of the suite by name, each with ``resources`` and ``tests``.
    """
    return {
        name: {"tests": [_case(case, file["resources"], engine) for case in file["tests"]]}
        for name, file in suite.items()
    }


def _case(case: Mapping[str, Any], resources: Iterable[Mapping[str, Any]], engine: Engine) -> dict[str, Any]:
    wrong = passes(case, resources, engine)
    return {"name": case["title"], "result": {"passed": not wrong, **({"reason": wrong} if wrong else {})}}


def passes(case: Mapping[str, Any], resources: Iterable[Mapping[str, Any]], engine: Engine) -> str:
    """What is wrong with our answer to a case, or "". Rows may be in any order."""
    wants_error = bool(case.get("expectError"))
    try:
        found = run(case["view"], resources, engine=engine)
    except CarelakeError as error:
        return "" if wants_error else error.message
    if wants_error:
        return "expected an error"
    if len(found) != len(case["expect"]):
        return f"expected {len(case['expect'])} rows, got {len(found)}"
    left = list(found)
    for row in case["expect"]:
        place = next((place for place, one in enumerate(left) if _same(one, row)), None)
        if place is None:
            return "expected other rows"
        del left[place]
    columns = case.get("expectColumns")
    if columns is not None and any(list(row) != columns for row in found):
        return "expected another order of columns"
    return ""


def _same(found: Any, expected: Any) -> bool:
    """Whether two values of JSON are the same; ``true`` is not 1."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[name], expected[name]) for name in found)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    return bool(found == expected)
