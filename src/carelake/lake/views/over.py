"""Running a view over the lake's tables as of a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.query import current
from carelake.lake.schema import column_of
from carelake.lake.views.definition import Definition, read
from carelake.lake.views.execute import deepening, on_duckdb
from carelake.lake.views.plan import Plan
from carelake.lake.views.tables import named, of_lake, result_schema
from carelake.vault.workspace import Vault

__all__ = ["over"]


def over(
    permit: Permit, vault: Vault, snapshot: Noun, view: Mapping[str, Any], *, patient: str | None = None
) -> pa.Table:
    """The rows of a ViewDefinition over the current resources of a snapshot, in any order.

    Args:
        patient: only rows of this patient's resources.

    Returns:
        The view's columns under their names (`result_schema`); what has no fixed shape is its JSON as text.

    Raises:
        Invalid: as `execute.run`.
        Unsupported: ``lake.view_sql``.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    definition = read(view)
    return deepening(definition, lambda plan: _over(permit, vault, snapshot, definition, plan, patient))


def _over(
    permit: Permit, vault: Vault, snapshot: Noun, definition: Definition, plan: Plan, patient: str | None
) -> pa.Table:
    columns = [column_of(name) for name in plan.record.fields]
    table = current(permit, vault, snapshot, definition.resource, columns=columns, patient=patient)
    if table is None:
        return result_schema(plan).empty_table()
    return named(plan, on_duckdb(plan, of_lake(plan, table), limits=vault.settings.lake))
