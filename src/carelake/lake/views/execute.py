"""Running a view: the same rows whichever engine does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from carelake.core.errors import Unsupported
from carelake.lake.views import oracle
from carelake.lake.views.definition import read

__all__ = ["Engine", "run"]

Engine = Literal["duckdb", "spark", "oracle"]


def run(
    view: Mapping[str, Any], resources: Iterable[Mapping[str, Any]], *, engine: Engine = "duckdb"
) -> list[dict[str, Any]]:
    """The rows of a ViewDefinition over resources in memory.

    Args:
        view: the ViewDefinition, parsed.
        resources: of any types, parsed; `canonical.load` keeps the digits of decimals, which boundaries need.
        engine: ``oracle`` is the FHIRPath evaluator in plain Python.

    Returns:
        For each row the columns in their order: str, bool, int, float; a list where ``collection`` is true; a dict for
        a column of a complex type; None for nothing.

    Raises:
        Invalid: ``lake.view_definition``, ``lake.view_path``, ``lake.view_type``, ``lake.view_cardinality``.
        Unsupported: ``lake.view_sql``, for what only the oracle can do; ``lake.view_engine``.
    """
    definition = read(view)
    if engine == "oracle":
        return list(oracle.evaluate(definition, resources))
    raise Unsupported("lake.view_engine", "There is no such engine; expected duckdb, spark or oracle.")
