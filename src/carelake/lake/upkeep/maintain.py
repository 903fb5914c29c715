"""Upkeep of the tables: small files merged into their buckets, old snapshots and what nothing uses any more removed.

Each step is one commit of one table, so a kill at any point leaves readers what they had. A reader is not broken
either: what it reads is named by a snapshot, snapshots that somebody needs stay, and files outlive their snapshot by
a time of grace (settings ``lake.keep_days``, ``lake.grace_seconds``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy import select

from carelake.audit.nouns import Nouns
from carelake.audit.tables import noun, noun_from
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, NotFound
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake.following.sync import SEQ, moved, position, seq_of, told_all
from carelake.lake.iceberg.catalog import VIEW_TABLE, VaultCatalog
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files, name_of
from carelake.lake.iceberg.layout import ROWS_OF_A_BUCKET, bucketed, bucketed_spec, buckets, lay, tray_spec
from carelake.lake.iceberg.rewriting import is_old, relay
from carelake.lake.iceberg.zone import Entry, zone
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["THINNED", "Upkeep", "maintain", "needed", "nobodys", "sources", "tidy", "used"]

THINNED = "thinned"
"""State of a snapshot's noun whose tables are kept no longer, since a later one of the same hour is (`thinning`)."""

_EXPIRED = "carelake.expired"
"""Property of a table: when snapshots were last expired, so that their files can go after a time of grace."""
_STEP_BYTES = 64 << 20
"""Parquet that one step reads; in memory it is about ten times as much."""
_FULL_BYTES = 32 << 20
"""A file of a bucket that is as large is left as it is; a step takes two that are smaller."""
_SMALL_FILES = 4
"""So many small files of a bucket are merged."""
_TRAY_FILES = 32
"""So many files of a tray are merged beside a follower, which adds one with each of its flushes."""


@dataclass(slots=True)
class Upkeep:
    """What was done.

    Attributes:
        merged, made: files that went into others, and files that came of it.
        expired: snapshots. removed: files that nothing used.
        snapshot_ref: the snapshot that names the tables as they are now.
    """

    tables: int = 0
    merged: int = 0
    made: int = 0
    expired: int = 0
    removed: int = 0
    snapshot_ref: str = ""
    by_table: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            **{name: getattr(self, name) for name in ("tables", "merged", "made", "expired", "removed")},
            "snapshot": self.snapshot_ref,
            "by_table": self.by_table,
        }


def maintain(
    permit: Permit, vault: Vault, nouns: Nouns, progress: Callable[[int, int], None] = lambda done, of: None
) -> Upkeep:
    """Merge small files, expire what nobody needs, remove what nothing uses.

    Args:
        permit: grants ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``.

    Raises:
        Conflict: ``lake.concurrent``: a sync or an erasure came in between; run it again.
    """
    with vault.database.reading(permit) as tx:
        epoch = scope_of(tx).epoch
    work = _Work(permit, vault, VaultCatalog(vault, permit, epoch=epoch), nouns)
    names = [name for _, name in work.catalog.list_tables()]
    try:
        for number, name in enumerate(names, 1):
            with suppress(NoSuchTableError):  # a view's, dropped meanwhile
                work.table(name)
            progress(number, len(names))
        work.dropped()
        work.done.snapshot_ref = _note(permit, vault, nouns, work.catalog)
    except CommitFailedException:
        raise Conflict(
            "lake.concurrent", "Another process changed the lake meanwhile; run it again to go on from there."
        ) from None
    permit.log.count(lake_files_merged=work.done.merged, lake_files_removed=work.done.removed)
    return work.done


def tidy(permit: Permit, vault: Vault, nouns: Nouns, names: Iterable[str], most: int) -> int:
    """Of these tables merge what many small flushes left, in at most so many steps; how many it were.

    A table's snapshot with the merged files is named by the next flush. Files of a bucket go together with those of
    about their size, so that a row is written anew a few times only, however many flushes come.

    Raises:
        CommitFailedException: a sync or an erasure came in between.
    """
    with vault.database.reading(permit) as tx:
        epoch = scope_of(tx).epoch
    work = _Work(permit, vault, VaultCatalog(vault, permit, epoch=epoch), nouns)
    steps = 0
    for name in names:
        table = work.catalog.load_table((permit.account, name))
        while steps < most and (step := _scattered(table, vault.settings.lake.buckets))[0]:
            table = work._merge(table, *step)
            steps += 1
    return steps


class _Work:
    def __init__(self, permit: Permit, vault: Vault, catalog: VaultCatalog, nouns: Nouns) -> None:
        self.permit = permit
        self.vault = vault
        self.catalog = catalog
        self.nouns = nouns
        self.done = Upkeep()

    def table(self, name: str) -> None:
        """All of one table."""
        table = self.catalog.load_table((self.permit.account, name))
        if table.current_snapshot() is None:
            self._remove(table, name)  # what a sync that was killed left
            return
        if is_old(table):
            table = relay(self.permit, self.vault, table, self.vault.settings.lake.buckets, {SEQ: str(seq_of(table))})
        before = (self.done.merged, self.done.made, self.done.expired, self.done.removed)
        while (step := _mergeable(table, self.vault.settings.lake.buckets))[0]:
            table = self._merge(table, *step)
        self._remove(table, name)  # first: what is expired now must wait
        self._expire(table)
        after = (self.done.merged, self.done.made, self.done.expired, self.done.removed)
        self.done.tables += 1
        told = dict(zip(("merged", "made", "expired", "removed"), map(int.__sub__, after, before), strict=True))
        if any(told.values()):
            self.done.by_table[name] = told

    def dropped(self) -> None:
        """Files of views' tables that are no more, after a time of grace: somebody may read them still."""
        edge = self.vault.clock.now() - timedelta(seconds=self.vault.settings.lake.grace_seconds)
        for one in nobodys(self.permit, self.vault, self.catalog):
            if instant(one.created) < edge:
                with suppress(NotFound):
                    zone(self.vault).remove(self.permit, one.name)
                    self.done.removed += 1

    def _merge(self, table: Table, files: list[DataFile], to_buckets: bool) -> Table:
        """These files as one for each bucket that they have rows of, or as one in the tray."""
        tx = table.transaction()
        lay(tx, self.vault.settings.lake.buckets)
        metadata = tx.table_metadata
        data = Files(self.vault, self.permit, metadata)
        rows = pa.concat_tables([data.read(file) for file in files])
        spec = bucketed_spec(metadata) if to_buckets else tray_spec(metadata)
        made = [data.put(data.encode(part, spec, at)) for at, part in bucketed(rows, buckets(spec))]
        change(tx, made, files, properties={SEQ: str(seq_of(table))})
        merged = tx.commit_transaction()
        self.done.merged += len(files)
        self.done.made += len(made)
        return merged

    def _expire(self, table: Table) -> None:
        """Snapshots that nobody needs, unless some were expired so lately that their files are still there."""
        current = table.metadata.current_snapshot_id
        older = [one.snapshot_id for one in table.snapshots() if one.snapshot_id != current]
        if not older or not self._rested(table):
            return
        keep = self._kept()  # read after the table: a sync that came before it wrote its noun with it
        old = [one for one in older if str(one) not in keep]
        if not old:
            return
        tx = table.transaction()
        tx.set_properties({_EXPIRED: iso(self.vault.clock.now())})
        ExpireSnapshots(tx).by_ids(old).commit()
        tx.commit_transaction()
        self.done.expired += len(old)

    def _kept(self) -> set[str]:
        since = self.vault.clock.now() - timedelta(days=self.vault.settings.lake.keep_days)
        newest = position(self.permit, self.vault)[1]
        with self.vault.database.reading(self.permit) as tx:
            return needed(tx, self.nouns, self.permit.account, since, newest)

    def _rested(self, table: Table) -> bool:
        said = table.properties.get(_EXPIRED)
        grace = timedelta(seconds=self.vault.settings.lake.grace_seconds)
        return said is None or self.vault.clock.now() - instant(said) >= grace

    def _remove(self, table: Table, name: str) -> None:
        """Files that no snapshot uses and that are no writer's or reader's any more."""
        if not self._rested(table):
            return
        edge = self.vault.clock.now() - timedelta(seconds=self.vault.settings.lake.grace_seconds)
        # Listed before the table is read again: what comes meanwhile is in no list.
        there = zone(self.vault).list(self.permit, f"iceberg/{name}/")
        needed = used(self.catalog.load_table(table.name()))
        for one in there:
            if one.name not in needed and instant(one.created) < edge:
                with suppress(NotFound):
                    zone(self.vault).remove(self.permit, one.name)
                    self.done.removed += 1


def _mergeable(table: Table, count: int) -> tuple[list[DataFile], bool]:
    """Files that one step merges, and whether they go to buckets.

    First what lies in other buckets than the table has, or in a tray that is full; then small files of one place.
    """
    files = [task.file for task in table.scan().plan_files()]
    specs = table.metadata.specs()
    tray = [one for one in files if not buckets(specs[one.spec_id])]
    other = [one for one in files if buckets(specs[one.spec_id]) not in (0, count)]
    full = sum(one.record_count for one in tray) >= count * ROWS_OF_A_BUCKET
    if other or (tray and full):
        return _as_much([*other, *tray]), True
    places: dict[Any, list[DataFile]] = {}
    for one in files:
        if one.file_size_in_bytes < _FULL_BYTES:
            places.setdefault((one.spec_id, *one.partition), []).append(one)
    group = next((some for some in places.values() if len(some) >= _SMALL_FILES), [])
    some = _as_much(sorted(group, key=lambda one: one.file_size_in_bytes))
    if len(some) < 2:  # one alone would come out as it went in, again and again
        return [], False
    return some, bool(buckets(specs[group[0].spec_id]))


def _scattered(table: Table, count: int) -> tuple[list[DataFile], bool]:
    """As `_mergeable`, of a table that a follower writes."""
    specs = table.metadata.specs()
    if table.current_snapshot() is None or buckets(table.metadata.spec()) != count:
        return [], False
    files = [task.file for task in table.scan().plan_files()]
    tray = [one for one in files if not buckets(specs[one.spec_id])]
    full = sum(one.record_count for one in tray) >= count * ROWS_OF_A_BUCKET
    if full or len(tray) >= _TRAY_FILES:
        return _as_much(sorted(tray, key=lambda one: one.file_size_in_bytes)), full
    places: dict[Any, list[DataFile]] = {}
    for one in files:
        if buckets(specs[one.spec_id]) and one.file_size_in_bytes < _FULL_BYTES:
            size = one.file_size_in_bytes.bit_length() // 2
            places.setdefault((one.spec_id, *one.partition, size), []).append(one)
    group = next((some for some in places.values() if len(some) >= _SMALL_FILES), [])
    return _as_much(group), True


def _as_much(files: Iterable[DataFile]) -> list[DataFile]:
    taken: list[DataFile] = []
    held = 0
    for one in files:
        held += one.file_size_in_bytes
        if taken and held > _STEP_BYTES:
            break
        taken.append(one)
    return taken


def nobodys(permit: Permit, vault: Vault, catalog: VaultCatalog) -> list[Entry]:
    """Files of views' tables that are no more."""
    listed = zone(vault).list(permit, f"iceberg/{VIEW_TABLE}")
    there = {name for _, name in catalog.list_tables()}  # after the files: what comes meanwhile is in no list
    return [one for one in listed if one.name.split("/")[1] not in there]


def used(table: Table) -> set[str]:
    """Names of the objects that a table is made of now, in all its snapshots."""
    files = {str(table.metadata_location)} | {entry.metadata_file for entry in table.metadata.metadata_log}
    for snapshot in table.snapshots():
        files.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            files.add(manifest.manifest_path)
            files.update(one.data_file.file_path for one in manifest.fetch_manifest_entry(table.io))
    return {name_of(path) for path in files}


def needed(tx: Any, nouns: Nouns, account: str, since: datetime, newest: str) -> set[str]:
    """Iceberg snapshots that stay: of the newest, of young ones, and of those that something was made from."""
    young = select(noun.c.ref).where(
        noun.c.kind == "snapshot", noun.c.account == account, noun.c.at >= iso(since), noun.c.state != THINNED
    )
    found: set[str] = set()
    for one in sorted({newest, *tx.execute(young).scalars(), *sources(tx, account)}):
        with suppress(NotFound):
            body = nouns.get(tx, one).body
            found.update(told["snapshot"] for kind in ("tables", "views") for told in body.get(kind, {}).values())
    return found


def sources(tx: Any, account: str) -> set[str]:
    """Refs of snapshots that something was made from, or that have a name."""
    made = noun.alias("made")
    query = (
        select(noun_from.c.source)
        .join(made, made.c.ref == noun_from.c.ref)
        .where(made.c.account == account, made.c.kind != "snapshot", noun_from.c.source.like("snapshot:%"))
        .where(made.c.state != "moved")  # a tag that names another one now
    )
    return set(tx.execute(query.distinct()).scalars())


def _note(permit: Permit, vault: Vault, nouns: Nouns, catalog: VaultCatalog) -> str:
    """The snapshot of the tables as they are laid out now, at the same position of the feed."""
    seq, before = position(permit, vault)
    if not before:
        return ""
    parts = told_all(catalog)
    with vault.database.transaction(permit) as tx:
        if nouns.get(tx, before).body == {"seq": seq, **parts}:
            return before
        content = {
            "workspace": vault.settings.workspace,
            "account": permit.account,
            "seq": seq,
            **{kind: {name: told["snapshot"] for name, told in some.items()} for kind, some in parts.items()},
        }
        name = ref("snapshot", canonical.dump(content))
        made = Noun(name, permit.account, "committed", permit.act, (before,), {"seq": seq, **parts})
        nouns.write(tx, made)
        moved(tx, permit.account, seq, name, since=seq, of=before)
        permit.log.wrote(name)
    return name
