"""Running a view over the lake's tables as of a snapshot."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Refused
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.drivers.spark import reaches
from carelake.lake.query import current
from carelake.lake.views.definition import read
from carelake.lake.views.direct import over_tables
from carelake.lake.views.execute import deepening, engine_of, on_duckdb, on_spark
from carelake.lake.views.plan import Plan
from carelake.lake.views.tables import named, of_lake, read_columns, result_schema
from carelake.vault.workspace import Vault

__all__ = ["over"]

_WRITTEN = "last_updated"


def over(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    view: Mapping[str, Any],
    *,
    patient: str | Collection[str] | None = None,
    since: datetime | None = None,
    most: int | None = None,
    engine: str | None = None,
) -> pa.Table:
    """The rows of a ViewDefinition over the current resources of a snapshot, in any order.

    Args:
        patient: only rows of this patient's resources, or of these patients'.
        since: only of resources that were written after it.
        most: so many rows are enough.
        engine: ``duckdb`` or ``spark``; by default the setting ``lake.engine``.

    Returns:
        The view's columns under their names (`result_schema`); what has no fixed shape is its JSON as text.

    Raises:
        Invalid: as `execute.run`.
        Refused: ``lake.scope``: for `since`, where the permit does not show when resources were written.
        Unsupported: ``lake.view_sql``.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    definition = read(view)
    on = engine_of(engine, vault.settings.lake)
    if on == "spark" and patient is None and since is None and reaches(permit, vault):
        made = deepening(definition, lambda plan: over_tables(permit, vault, snapshot, plan))
        return made if most is None else made.slice(0, most)

    def resources(plan: Plan) -> pa.Table | None:
        columns = [*read_columns(plan), *([_WRITTEN] if since is not None else [])]
        found = current(permit, vault, snapshot, definition.resource, columns=columns, patient=patient)
        if found is None or since is None:
            return found
        if _WRITTEN not in found.column_names:
            raise Refused("lake.scope", "When a resource was written is not among what the permit shows.")
        return found.filter(pc.field(_WRITTEN) > since)

    return deepening(definition, lambda plan: _rows(vault, plan, resources(plan), most, on))


def _rows(vault: Vault, plan: Plan, table: pa.Table | None, most: int | None, on: str) -> pa.Table:
    if table is None:
        return result_schema(plan).empty_table()
    if on == "spark":
        found = named(plan, on_spark(plan, of_lake(plan, table), limits=vault.settings.lake))
        return found if most is None else found.slice(0, most)
    made = on_duckdb(plan, of_lake(plan, table), most=most, limits=vault.settings.lake)
    return named(plan, made)
