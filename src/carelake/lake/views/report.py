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
        if row not in left:
            return "expected other rows"
        left.remove(row)
    columns = case.get("expectColumns")
    if columns is not None and any(list(row) != columns for row in found):
        return "expected another order of columns"
    return ""
