"""View results as nouns: which statement over which snapshot gave how many rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake.flat import View, view
from carelake.vault.workspace import Vault

__all__ = ["note"]


def note(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    snapshot: Noun,
    tables: Mapping[str, pa.Table],
    rows: Mapping[str, int] | None = None,
    find: Callable[[str], View] = view,
) -> tuple[Noun, ...]:
    """Write down the views that were run over a snapshot; needs the grant ``rows:write``.

    The rows themselves are not kept: the snapshot and the statement, which name the result, give them again.

    Args:
        rows: how many each view has, where ``tables`` has a part of them.
        find: a view by its name, by default a flat view.
    """
    counts = {name: len(table) for name, table in tables.items()} | dict(rows or {})
    made = tuple(_noun(permit, snapshot, find(name), table, counts[name]) for name, table in sorted(tables.items()))
    with vault.database.transaction(permit) as tx:
        for each in made:
            nouns.write(tx, each)
        permit.log.wrote(*(each.ref for each in made))
    return made


def _noun(permit: Permit, snapshot: Noun, run: View, table: pa.Table, rows: int) -> Noun:
    statement = hashlib.sha256(run.sql.encode()).hexdigest()
    named = ref("view", canonical.dump({"snapshot": snapshot.ref, "view": run.name, "statement": statement}))
    body = {"view": run.name, "statement": statement, "rows": rows, "columns": table.column_names}
    return Noun(named, permit.account, "run", permit.act, (snapshot.ref,), body)
