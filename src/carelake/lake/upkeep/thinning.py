"""Of the snapshots that a follower makes, one with each flush, those that nobody needs go soon.

A table's metadata names all its snapshots and is written with each commit, so thousands of them would make each flush
slow. What was newest within ``lake.seconds`` stays, since a statement takes no longer, and what was newest since the
oldest job began that still runs: it may read a snapshot of then. Beyond that the last one of each hour stays, and
whatever has a tag, was made from or is to be exported.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy import select, update

from carelake.audit.nouns import Nouns
from carelake.audit.readings import Acts
from carelake.audit.tables import noun
from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.lake.following.sync import position
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.upkeep.maintain import THINNED, needed, sources
from carelake.store.jobs import Jobs
from carelake.vault.workspace import Vault

__all__ = ["thin"]

_SYNC = "lake:sync"
"""Its jobs read no snapshot but the newest, and a follower's may take as long as the server runs."""
_HOUR = len("2026-11-22T10")
_AT_ONCE = 500


def thin(permit: Permit, vault: Vault, nouns: Nouns) -> int:
    """Let go of snapshots that a newer one of their hour took the place of; how many of tables.

    Args:
        permit: grants ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``.

    Raises:
        CommitFailedException: a sync or an erasure came in between; what is left goes with the next maintenance.
    """
    out = _thinned(permit, vault, nouns)
    if not out:
        return 0
    newest = position(permit, vault)[1]
    since = vault.clock.now() - timedelta(days=vault.settings.lake.keep_days)
    catalog = VaultCatalog(vault, permit)
    tables = [catalog.load_table(name) for name in catalog.list_tables()]
    with vault.database.reading(permit) as tx:  # after the tables: a sync that came before wrote its noun with them
        stays = {int(one) for one in needed(tx, nouns, permit.account, since, newest) if one}
    gone = 0
    for table in tables:
        current = table.metadata.current_snapshot_id
        there = {one.snapshot_id for one in table.snapshots()}
        if old := sorted((there & out | _before(table, out)) - {current} - stays):
            with table.transaction() as change:
                ExpireSnapshots(change).by_ids(old).commit()
            gone += len(old)
    return gone


def _before(table: Table, out: set[int]) -> set[int]:
    """Snapshots older than one that goes: those of merges, which no noun ever named, are among them."""
    numbers = {one.snapshot_id: one.sequence_number or 0 for one in table.snapshots()}
    edge = max((number for key, number in numbers.items() if key in out), default=0)
    return {key for key, number in numbers.items() if number < edge}


def _thinned(permit: Permit, vault: Vault, nouns: Nouns) -> set[int]:
    """Iceberg snapshots of the nouns that go."""
    now = vault.clock.now()
    earliest = iso(now - timedelta(seconds=vault.settings.access.job_seconds))
    mine = (noun.c.kind == "snapshot", noun.c.account == permit.account, noun.c.state != THINNED)
    listed = select(noun.c.ref, noun.c.at).where(*mine).order_by(noun.c.number)
    with vault.database.transaction(permit) as tx:
        edge = iso(now - timedelta(seconds=vault.settings.lake.seconds))
        edge = min(edge, Acts(tx).working_since(permit.account, earliest, but=_SYNC) or edge)
        # What an export reads was fixed when it was asked for, and it may wait for long.
        used = sources(tx, permit.account) | {
            str(one.get("snapshot")) for one in Jobs(vault).wanted(permit, tx, "views")
        }
        refs = [
            one.ref
            for one, after in pairwise(tx.execute(listed).all())
            if after.at <= edge and one.at[:_HOUR] == after.at[:_HOUR] and one.ref not in used
        ]
        found: set[str] = set()
        for start in range(0, len(refs), _AT_ONCE):
            some = refs[start : start + _AT_ONCE]
            tx.execute(update(noun).where(noun.c.ref.in_(some)).values(state=THINNED))
        for one in refs:
            body = nouns.get(tx, one).body
            found.update(told["snapshot"] for kind in ("tables", "views") for told in body.get(kind, {}).values())
    return {int(one) for one in found if one}
