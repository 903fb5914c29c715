"""The lake follows the record's change feed, each change exactly once.

Changes are taken in order, gathered by type, and written in flushes (`feeding`). A flush is one transaction of the
workspace: the pointers of all its tables, the lake's position and the snapshot that names both move together or not
at all. Each table's last change is a property of its Iceberg snapshot too; a sync that was killed begins at the
position again, and leaves out what a table already has. Updates and deletions are rows like any other: a row tells
which one it replaced (``replaced_seq``), so `current` knows what is left without looking at all rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy import Connection, insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import Conflict, NotFound, Refused
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake import rows
from carelake.lake.engines.engine import connect
from carelake.lake.following.feeding import Batch, Feed, Flush, flushes
from carelake.lake.following.told import SEQ, parted, seq_of, told_all, told_of
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files, Written, name_of
from carelake.lake.iceberg.layout import (
    PROPERTIES,
    ROWS_OF_A_BUCKET,
    bucketed,
    bucketed_spec,
    buckets,
    lay,
    tray_spec,
)
from carelake.lake.iceberg.rewriting import is_old, relay
from carelake.lake.iceberg.zone import zone
from carelake.lake.schema import KEYS, Record, merge, of_arrow, table_schema
from carelake.lake.tables import lake_position, lake_table
from carelake.store.scopes import owner_of
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = [
    "SEQ",
    "Feed",
    "SyncReport",
    "Told",
    "moved",
    "parted",
    "position",
    "seq_of",
    "sync",
    "told_all",
    "told_of",
]

_BATCH_BYTES = 128 << 20
_BATCH_ROWS = 200_000
_CHUNK_BYTES = 24 << 20
_WORTH = 4_000
"""Rows of a type that are parsed together; what a flush has less of, it parses at its end."""


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


class Told:
    """What the tables of an account hold, looked at again where one has changed."""

    def __init__(self, catalog: VaultCatalog) -> None:
        self._catalog = catalog
        self._known: dict[str, tuple[str, dict[str, Any]]] = {}

    def now(self, table: Table) -> None:
        """This is what the table holds once its commit is swapped in."""
        self._known[str(table.name()[-1])] = (str(table.metadata_location), told_of(table))

    def tables(self, tx: Connection, account: str) -> dict[str, dict[str, Any]]:
        """By name; the names are those that stand in the transaction."""
        query = select(lake_table.c.name, lake_table.c.location).where(lake_table.c.account == account)
        there = {row.name: row.location for row in tx.execute(query.order_by(lake_table.c.name))}
        for name, location in there.items():
            if self._known.get(name, ("",))[0] != location:
                self._known[name] = (location, told_of(self._catalog.load_table((account, name))))
        return {name: self._known[name][1] for name in there}


@dataclass(slots=True)
class _Waiting:
    """Rows of one type that are to be written."""

    batch: Batch = field(default_factory=Batch)
    parsed: list[pa.Table] = field(default_factory=list)
    record: Record | None = None


class _Sync:
    def __init__(
        self, permit: Permit, vault: Vault, nouns: Nouns, connection: duckdb.DuckDBPyConnection, at: int
    ) -> None:
        with vault.database.reading(permit) as tx:
            epoch = scope_of(tx).epoch
        self.catalog = VaultCatalog(vault, permit, epoch=epoch)
        self.permit = permit
        self.vault = vault
        self.nouns = nouns
        self.connection = connection
        self.lock = threading.Lock()
        self.told = Told(self.catalog)
        self.appended: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.records: dict[str, Record] = {}
        self.waiting: dict[str, _Waiting] = {}
        self.put: list[str] = []
        self.staged: list[tuple[FileIO, Snapshot]] = []
        self.seq = self.held = self.count = 0
        self.at = at

    def take(self, made: Flush) -> None:
        """Parse what came, as far as it is worth it: a few rows of a type wait for more."""
        for name, batch in made.batches.items():
            waiting = self.waiting.setdefault(name, _Waiting())
            for part in batch.parts:
                waiting.batch.add(part)
            if waiting.batch.rows >= _WORTH:
                self._parse(name, waiting)
        self.held += made.held
        self.count += made.count
        self.seq = made.seq

    def flush(self, sources: Sequence[str]) -> str:
        """Write what was taken; the ref of the snapshot that it makes."""
        appended: dict[str, int] = {}
        for name in sorted(self.waiting):
            self._parse(name, self.waiting[name])
        try:
            with self.catalog.together():
                for name in sorted(self.waiting):
                    if count := self._append(name, self.waiting[name]):
                        appended[name] = count
                with self.lock, self.vault.database.transaction(self.permit) as tx:
                    self.catalog.swap(tx)
                    snapshot = self._note(tx, self.seq, sources)
        except CommitFailedException:
            self._take_back()
            raise _concurrent() from None
        self.put, self.staged = [], []
        for name, count in appended.items():
            self.appended[name] = self.appended.get(name, 0) + count
        self.waiting, self.held, self.count, self.at = {}, 0, 0, self.seq
        return snapshot

    def _parse(self, name: str, waiting: _Waiting) -> None:
        if name not in self.reached:
            self.reached[name] = self._laid_anew(name)
        changes = waiting.batch.table(self.reached[name])
        waiting.batch = Batch()
        if len(changes):
            waiting.record, made = rows.known(
                self.connection, name, waiting.record or self.records.get(name), changes
            )
            self.records[name] = waiting.record
            waiting.parsed.append(made)

    def _laid_anew(self, name: str) -> int:
        """The last change that a table holds; one from before tables had buckets gets them, in its own commit."""
        with self.lock:
            table = self._load(name)
            seq = seq_of(table)
            if table is not None and is_old(table):
                try:
                    relay(self.permit, self.vault, table, self.vault.settings.lake.buckets, {SEQ: str(seq)})
                except CommitFailedException:
                    raise _concurrent() from None
            if table is not None:
                self.records[name] = _record(name, table.metadata)
        return seq

    def _append(self, name: str, waiting: _Waiting) -> int:
        if waiting.record is None:
            return 0
        count = self.vault.settings.lake.buckets
        with self.lock:
            table = self._load(name) or self.catalog.create_table(
                (self.permit.account, name), table_schema(waiting.record), properties=PROPERTIES, buckets=count
            )
        if seq_of(table) != self.reached[name]:
            raise CommitFailedException("Another sync wrote the table since its rows were left out.")
        last = waiting.parsed[-1].column("seq")[-1].as_py()
        tx = table.transaction()
        lay(tx, count)
        if (whole := _grown(name, tx.table_metadata, waiting.record)) is not None:
            with tx.update_schema() as evolve:
                evolve.union_by_name(table_schema(whole))
        files = Files(self.vault, self.permit, tx.table_metadata)
        made = pa.concat_tables([files.shaped(part) for part in waiting.parsed]).combine_chunks()
        written = _encoded(files, tx.table_metadata, made, self.vault.settings.lake.threads)
        with self.lock:
            added = [files.put(one) for one in written]
            self.put += [one.file_path for one in added]
            change(tx, added, properties={SEQ: str(last)})
            if (snapshot := tx.table_metadata.current_snapshot()) is not None:
                self.staged.append((table.io, snapshot))
            made_of = tx.commit_transaction()
            self.put.append(str(made_of.metadata_location))
            self.told.now(made_of)
        self.reached[name] = last
        return len(made)

    def _take_back(self) -> None:
        """Remove what a refused flush put: rows of somebody who was erased meanwhile may be in it."""
        with self.lock:
            for io, snapshot in self.staged:
                with suppress(FileNotFoundError):  # Iceberg's own commit took it back, or an erasure swept it
                    made = [one for one in snapshot.manifests(io) if one.added_snapshot_id == snapshot.snapshot_id]
                    self.put += [snapshot.manifest_list, *(one.manifest_path for one in made)]
            for path in self.put:
                with suppress(NotFound):
                    zone(self.vault).remove(self.permit, name_of(path))
        self.put, self.staged = [], []

    def _load(self, name: str) -> Table | None:
        try:
            return self.catalog.load_table((self.permit.account, name))
        except NoSuchTableError:
            return None

    def _note(self, tx: Connection, seq: int, sources: Sequence[str]) -> str:
        """Write the snapshot noun and the position."""
        parts = parted(self.told.tables(tx, self.permit.account))
        tables = parts["tables"]
        # Iceberg's snapshot ids are random: the name rests on what they hold, so the same record gives the same name.
        content = {
            "workspace": self.vault.settings.workspace,
            "account": self.permit.account,
            "seq": seq,
            "tables": {name: told["rows"] for name, told in tables.items()},
        }
        name = ref("snapshot", canonical.dump(content))
        body = {"seq": seq, **parts}
        made_from = tuple(source for source in sources if source and source != name)
        self.nouns.write(tx, Noun(name, self.permit.account, "committed", self.permit.act, made_from, body))
        moved(tx, self.permit.account, seq, name, since=self.at)
        self.permit.log.wrote(name)
        return name


def _concurrent() -> Conflict:
    return Conflict(
        "lake.concurrent",
        "Another process synced the lake or erased somebody meanwhile; sync again to go on from there.",
    )


def _record(name: str, metadata: TableMetadata) -> Record:
    """The elements that a table has."""
    return of_arrow(name, schema_to_pyarrow(metadata.schema(), include_field_ids=False))


def _grown(name: str, metadata: TableMetadata, record: Record) -> Record | None:
    """The table's record with what is new in this one, or None where it has all of it."""
    known = _record(name, metadata)
    whole = merge(known, record)
    keyed = set(KEYS.names) <= set(metadata.schema().column_names)
    return None if whole == known and keyed else whole


def _encoded(files: Files, metadata: TableMetadata, made: Any, threads: int) -> list[Written]:
    """The rows as files: of the buckets where there are many, of the tray else."""
    spec = bucketed_spec(metadata)
    if len(made) < buckets(spec) * ROWS_OF_A_BUCKET:
        spec = tray_spec(metadata)
    with ThreadPoolExecutor(threads, "lake-files") as pool:
        return list(pool.map(lambda one: files.encode(one[1], spec, one[0]), bucketed(made, buckets(spec))))


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
    sources: Sequence[str] | None = None,
    batch_bytes: int = _BATCH_BYTES,
    progress: Callable[[int, int], None] = lambda done, of: None,
    stop: Callable[[], bool] = lambda: False,
) -> SyncReport:
    """Bring the lake of the permit's account up to the record's newest change.

    Args:
        permit: grants ``clinical:read``, ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``.
        sources: refs that the snapshot is made from beside the snapshot before it; by default the landings that came
            since.
        batch_bytes: JSON gathered before a flush; memory is a small multiple of it.
        progress: told after each step how many change numbers of how many are done.
        stop: asked after each step; once it says so, what was taken is written and that is all.

    Raises:
        Conflict: ``lake.concurrent``; nothing is lost or doubled, sync again.
        Unavailable: ``lake.memory``.
    """
    if owner_of(permit) is not None:
        raise Refused("lake.scope", "A permit scoped to one patient cannot sync the lake of the account.")
    began = vault.clock.now()
    start, before = position(permit, vault)
    newest = feed.last_seq(permit)
    if sources is None:
        with vault.database.reading(permit) as tx:
            sources = nouns.since(tx, "landing", permit.account, before)
    reached, snapshot = start, before
    with connect(vault.settings.lake) as connection:
        work = _Sync(permit, vault, nouns, connection, start)
        for made in flushes(permit, feed, start, min(batch_bytes, _CHUNK_BYTES), work.lock):
            work.take(made)
            progress(made.seq - start, max(newest, made.seq) - start)
            if work.held >= batch_bytes or work.count >= _BATCH_ROWS:
                snapshot, reached = work.flush((snapshot, *sources)), made.seq
            if stop():
                break
        if work.count:
            snapshot, reached = work.flush((snapshot, *sources)), work.seq
    permit.log.count(synced=sum(work.appended.values()))
    snapshot = _followed(permit, vault, nouns) or snapshot
    seconds = (vault.clock.now() - began).total_seconds()
    return SyncReport(newest - start, max(feed.last_seq(permit) - reached, 0), seconds, work.appended, snapshot)


def _followed(permit: Permit, vault: Vault, nouns: Nouns) -> str:
    """Materialised views are brought up to the tables; the snapshot of that, "" where there are none."""
    from carelake.lake.materialisation.materialising import follow

    return follow(permit, vault, nouns)


def moved(tx: Connection, account: str, seq: int, snapshot: str, *, since: int, of: str | None = None) -> None:
    """From here on the lake of an account is at this position.

    Args:
        since: the position that was read before (0: none). of: the snapshot that was read with it; any by default.

    Raises:
        CommitFailedException: another writer moved it since.
    """
    there = tx.execute(select(lake_position.c.seq).where(lake_position.c.account == account)).first()
    if there is None and not since and not of:
        tx.execute(insert(lake_position).values(account=account, seq=seq, snapshot=snapshot))
        return
    where = [lake_position.c.account == account, lake_position.c.seq == since]
    if of is not None:
        where.append(lake_position.c.snapshot == of)
    if tx.execute(update(lake_position).where(*where).values(seq=seq, snapshot=snapshot)).rowcount != 1:
        raise CommitFailedException("The lake's position was moved by another writer meanwhile.")
