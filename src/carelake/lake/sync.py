"""The lake follows the record's change feed, each change exactly once.

Changes are taken in order, gathered by type, and appended in flushes. The last change of a flush is written as a
property of the Iceberg snapshot that holds its rows, in one commit, so a table always knows how far it is. The
workspace's own position moves only after all tables of a flush; a sync that was killed begins there again and leaves
out what a table already has. Updates and deletions are rows like any other: the current one is the greatest ``seq``
of its id (`query`).

Not yet: buckets by patient and compaction, which large records want (decisions D4, D11); an erasure (`erase`)
rewrites the files that it finds somebody in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from sqlalchemy import Connection, delete, insert, select

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import Conflict, Refused
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake import rows
from carelake.lake.catalog import VaultCatalog
from carelake.lake.engine import connect
from carelake.lake.schema import merge, of_arrow, table_schema
from carelake.lake.tables import lake_position
from carelake.store.feed import Change
from carelake.store.scopes import owner_of
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["SEQ", "Feed", "SyncReport", "moved", "position", "seq_of", "sync", "told_of"]

SEQ = "carelake.seq"
"""Property of an Iceberg snapshot: the last change that its table holds."""
_BATCH_BYTES = 64 << 20
_BATCH_ROWS = 150_000
_PAGE = 5_000
_SENT_AS = {"body": pa.binary(), "last_updated": pa.string()}
_PROPERTIES = {
    "format-version": "2",
    "commit.retry.num-retries": "0",  # a retried append would add its rows a second time beside the other writer's
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{name}": "full" for name in ("id", "patient", "time", "seq", "last_updated")},
}


class Feed(Protocol):
    """The record's change feed: what `store.Resources` offers."""

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        """Changes with a number beyond ``after``, in order, at most ``limit``."""
        ...

    def last_seq(self, permit: Permit) -> int:
        """The number of the newest change; 0 for none."""
        ...


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did.

    Attributes:
        behind_before, behind_after: change numbers (of all accounts) between the record's newest change and the
            lake's position.
        tables: rows appended by type.
        snapshot_ref: the snapshot that reflects the position; "" while the record is empty.
    """

    behind_before: int
    behind_after: int
    seconds: float
    tables: Mapping[str, int]
    snapshot_ref: str


@dataclass(slots=True)
class _Batch:
    """Changes of one type, column by column."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in rows.CHANGES.names})

    def add(self, change: Change) -> int:
        body = None if change.deleted else change.body
        for name, value in (
            ("seq", change.seq),
            ("id", change.id),
            ("version", change.version),
            ("last_updated", change.last_updated),
            ("patient", change.owner or None),
            ("deleted", change.deleted),
            ("body", body),
        ):
            self.columns[name].append(value)
        return len(body) if body else 0

    def table(self, after: int) -> pa.Table:
        """As `rows.CHANGES`, without those that the table has already."""
        start = next((at for at, seq in enumerate(self.columns["seq"]) if seq > after), len(self.columns["seq"]))
        made = []
        for wanted in rows.CHANGES:
            values = self.columns[wanted.name][start:]
            made.append(pa.array(values, _SENT_AS.get(wanted.name, wanted.type)).cast(wanted.type))
        return pa.table(made, schema=rows.CHANGES)


class _Sync:
    def __init__(self, permit: Permit, vault: Vault, connection: duckdb.DuckDBPyConnection) -> None:
        with vault.database.reading(permit) as tx:
            epoch = scope_of(tx).epoch
        self.catalog = VaultCatalog(vault, permit, epoch=epoch)
        self.permit = permit
        self.connection = connection
        self.appended: dict[str, int] = {}

    def flush(self, batches: Mapping[str, _Batch]) -> None:
        for name in sorted(batches):
            try:
                self._append(name, batches[name])
            except CommitFailedException:
                raise Conflict(
                    "lake.concurrent",
                    "Another process synced the lake or erased somebody meanwhile; sync again to go on from there.",
                ) from None

    def _append(self, name: str, batch: _Batch) -> None:
        table = self._load(name)
        changes = batch.table(seq_of(table))
        if not len(changes):
            return
        record = rows.occurs(self.connection, name, changes)
        last = {SEQ: str(changes.column("seq")[-1].as_py())}
        if table is None:
            table = self.catalog.create_table(
                (self.permit.account, name), table_schema(record), properties=_PROPERTIES
            )
        known = of_arrow(name, schema_to_pyarrow(table.schema(), include_field_ids=False))
        whole = merge(known, record)
        with table.transaction() as tx:
            if whole != known:
                with tx.update_schema() as evolve:
                    evolve.union_by_name(table_schema(whole))
            tx.append(rows.rows(self.connection, whole, changes), snapshot_properties=last)
        self.appended[name] = self.appended.get(name, 0) + len(changes)

    def _load(self, name: str) -> Table | None:
        try:
            return self.catalog.load_table((self.permit.account, name))
        except NoSuchTableError:
            return None


def seq_of(table: Table | None) -> int:
    """The last change that a table holds."""
    snapshot = table.current_snapshot() if table is not None else None
    said = snapshot.summary.additional_properties.get(SEQ) if snapshot and snapshot.summary else None
    return int(said or 0)


def position(permit: Permit, vault: Vault) -> tuple[int, str]:
    """How far the lake has followed the record, and the snapshot of that; (0, "") before the first sync."""
    query = select(lake_position.c.seq, lake_position.c.snapshot).where(lake_position.c.account == permit.account)
    with vault.database.reading(permit) as connection:
        row = connection.execute(query).first()
    return (row.seq, row.snapshot) if row else (0, "")


def sync(
    permit: Permit,
    vault: Vault,
    feed: Feed,
    nouns: Nouns,
    *,
    sources: Sequence[str] = (),
    batch_bytes: int = _BATCH_BYTES,
) -> SyncReport:
    """Bring the lake of the permit's account up to the record's newest change.

    Args:
        permit: grants ``clinical:read``, ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``.
        sources: refs that the snapshot is made from beside the snapshot before it, for example landings.
        batch_bytes: JSON gathered before a flush; memory is a small multiple of it.

    Raises:
        Conflict: ``lake.concurrent``; nothing is lost or doubled, sync again.
        Unavailable: ``lake.memory``.
    """
    if owner_of(permit) is not None:
        raise Refused("lake.scope", "A permit scoped to one patient cannot sync the lake of the account.")
    began = vault.clock.now()
    start, before = position(permit, vault)
    newest = feed.last_seq(permit)
    reached, snapshot = start, before
    with connect(vault.settings.lake) as connection:
        work = _Sync(permit, vault, connection)
        for batches, seq in _gathered(_following(permit, feed, start), batch_bytes):
            work.flush(batches)
            reached = seq
            snapshot = _note(permit, vault, nouns, work.catalog, reached, (snapshot, *sources))
    permit.log.count(synced=sum(work.appended.values()))
    seconds = (vault.clock.now() - began).total_seconds()
    return SyncReport(newest - start, max(feed.last_seq(permit) - reached, 0), seconds, work.appended, snapshot)


def _following(permit: Permit, feed: Feed, after: int) -> Iterator[Change]:
    while page := feed.changes(permit, after, _PAGE):
        yield from page
        after = page[-1].seq


def _gathered(changes: Iterable[Change], limit: int) -> Iterator[tuple[dict[str, _Batch], int]]:
    batches: dict[str, _Batch] = {}
    held, count, seq = 0, 0, 0
    for change in changes:
        held += batches.setdefault(change.type, _Batch()).add(change)
        count += 1
        seq = change.seq
        if held >= limit or count >= _BATCH_ROWS:
            yield batches, seq
            batches, held, count = {}, 0, 0
    if count:
        yield batches, seq


def _note(permit: Permit, vault: Vault, nouns: Nouns, catalog: VaultCatalog, seq: int, sources: Sequence[str]) -> str:
    """Write the snapshot noun and the position, in one transaction."""
    tables = {name: told_of(catalog.load_table((account, name))) for account, name in catalog.list_tables()}
    # Iceberg's snapshot ids are random: the name rests on what they hold, so the same record gives the same name.
    content = {
        "workspace": vault.settings.workspace,
        "account": permit.account,
        "seq": seq,
        "tables": {name: told["rows"] for name, told in tables.items()},
    }
    name = ref("snapshot", canonical.dump(content))
    body = {"seq": seq, "tables": tables}
    with vault.database.transaction(permit) as tx:
        made_from = tuple(source for source in sources if source and source != name)
        nouns.write(tx, Noun(name, permit.account, "committed", permit.act, made_from, body))
        moved(tx, permit.account, seq, name)
        permit.log.wrote(name)
    return name


def moved(tx: Connection, account: str, seq: int, snapshot: str) -> None:
    """From here on the lake of an account is at this position."""
    tx.execute(delete(lake_position).where(lake_position.c.account == account))
    tx.execute(insert(lake_position).values(account=account, seq=seq, snapshot=snapshot))


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
