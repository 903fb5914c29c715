"""What a snapshot tells of tables: which Iceberg snapshot, how many rows, and up to which change they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from carelake.lake.iceberg.catalog import VIEW_TABLE, VaultCatalog

__all__ = ["SEQ", "parted", "seq_of", "told_all", "told_of"]

SEQ = "carelake.seq"
"""Property of an Iceberg snapshot: the last change that its table holds."""


def parted(told: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """What a snapshot's noun tells of tables: ``tables`` of resource types, and ``views`` that are kept, if any."""
    views = {name.removeprefix(VIEW_TABLE): one for name, one in told.items() if name.startswith(VIEW_TABLE)}
    tables = {name: one for name, one in told.items() if not name.startswith(VIEW_TABLE)}
    return {"tables": tables, "views": views} if views else {"tables": tables}


def seq_of(table: Table | None) -> int:
    """The last change that a table holds."""
    snapshot = table.current_snapshot() if table is not None else None
    said = snapshot.summary.additional_properties.get(SEQ) if snapshot and snapshot.summary else None
    return int(said or 0)


def told_all(catalog: VaultCatalog) -> dict[str, dict[str, dict[str, Any]]]:
    """The same of all tables that there are now."""
    found = {}
    for account, name in catalog.list_tables():
        with suppress(NoSuchTableError):  # a view's, dropped meanwhile
            found[name] = told_of(catalog.load_table((account, name)))
    return parted(found)


def told_of(table: Table) -> dict[str, Any]:
    """What a snapshot's noun tells of a table."""
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return {"snapshot": "", "rows": 0, "seq": 0}
    return {
        "snapshot": str(snapshot.snapshot_id),
        "rows": int(snapshot.summary.additional_properties.get("total-records", 0)),
        "seq": seq_of(table),
    }
