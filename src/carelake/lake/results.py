"""View results as nouns: which statement over which snapshot gave how many rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake.flat import view
from carelake.vault.workspace import Vault

__all__ = ["note"]


def note(
    permit: Permit, vault: Vault, nouns: Nouns, snapshot: Noun, tables: Mapping[str, pa.Table]
) -> tuple[Noun, ...]:
    """Write down the views that were run over a snapshot; needs the grant ``rows:write``.

    The rows themselves are not kept: the snapshot and the statement, which name the result, give them again.
    """
    made = tuple(_noun(permit, snapshot, name, table) for name, table in sorted(tables.items()))
    with vault.database.transaction(permit) as tx:
        for each in made:
            nouns.write(tx, each)
        permit.log.wrote(*(each.ref for each in made))
    return made


def _noun(permit: Permit, snapshot: Noun, name: str, table: pa.Table) -> Noun:
    statement = hashlib.sha256(view(name).sql.encode()).hexdigest()
    named = ref("view", canonical.dump({"snapshot": snapshot.ref, "view": name, "statement": statement}))
    body = {"view": name, "statement": statement, "rows": len(table), "columns": table.column_names}
    return Noun(named, permit.account, "run", permit.act, (snapshot.ref,), body)
