"""Syncs, upkeep and erasures at once, and what a killed or refused sync leaves."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.errors import Conflict
from carelake.core.permit import Permit, mint
from carelake.fhir.gone import Gone
from carelake.lake import schema
from carelake.lake.following import sync
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.layout import PROPERTIES
from carelake.lake.upkeep import erase, maintain
from carelake.vault.forgotten import raise_epoch
from carelake.vault.workspace import Vault


def observation(name: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": name, "status": "final", "subject": {"reference": "Patient/p1"}}


def seqs(permit: Permit, vault: Vault) -> list[int]:
    table = VaultCatalog(vault, permit).load_table((permit.account, "Observation"))
    found: list[int] = table.scan().to_arrow().column("seq").to_pylist()
    return sorted(found)


def test_two_syncs_at_once_do_not_double_rows(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.put(observation("o1"))
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o2"))
    plain = sync._Sync._append

    def second_first(work: Any, name: str, waiting: Any) -> int:
        monkeypatch.setattr(sync._Sync, "_append", plain)
        sync.sync(permit, vault, feed, nouns)
        return plain(work, name, waiting)

    monkeypatch.setattr(sync._Sync, "_append", second_first)
    with pytest.raises(Conflict) as caught:
        sync.sync(permit, vault, feed, nouns)
    assert caught.value.code == "lake.concurrent"
    assert seqs(permit, vault) == [1, 2]
    sync.sync(permit, vault, feed, nouns)
    assert seqs(permit, vault) == [1, 2]


def test_the_position_never_moves_backwards(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    for name in ("o1", "o2"):
        feed.put(observation(name))
        sync.sync(permit, vault, feed, nouns)
    seq, snapshot = sync.position(permit, vault)
    for since, of in ((seq - 1, None), (0, None), (seq, "snapshot:other")):
        with pytest.raises(CommitFailedException), vault.database.transaction(permit) as tx:
            sync.moved(tx, permit.account, 1, "snapshot:older", since=since, of=of)
    assert sync.position(permit, vault) == (seq, snapshot)


def test_a_text_beside_a_primitive_is_not_the_digits_of_a_decimal() -> None:
    arrow = pa.schema([("_text", pa.string()), ("value", pa.float64()), ("value_text", pa.string())])
    assert schema._occurs(pa.struct(list(arrow))) == {"_text": None, "value": None}


def test_files_of_half_a_step_are_merged_two_by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    assert maintain._STEP_BYTES == 2 * maintain._FULL_BYTES
    files = [SimpleNamespace(file_size_in_bytes=31 << 20, spec_id=0, partition=(), record_count=1) for _ in range(4)]
    table: Any = SimpleNamespace(
        scan=lambda: SimpleNamespace(plan_files=lambda: [SimpleNamespace(file=one) for one in files]),
        metadata=SimpleNamespace(specs=lambda: {0: None}),
    )
    monkeypatch.setattr(maintain, "buckets", lambda spec: 8)
    assert len(maintain._mergeable(table, 8)[0]) == 2
    monkeypatch.setattr(maintain, "_STEP_BYTES", 48 << 20)
    assert maintain._mergeable(table, 8) == ([], False)


def test_a_table_without_a_snapshot_is_swept_too(vault: Vault, permit: Permit, feed: Any) -> None:
    VaultCatalog(vault, permit).create_table(
        (permit.account, "Observation"), schema.KEYS, properties=PROPERTIES, buckets=4
    )
    vault.objects.put(permit, "lake", "iceberg/Observation/data/left.parquet", b"rows")
    leaving, gone = erase.Leaving({"p1"}), Gone(["Patient/p1"], [])
    assert erase.residue(permit, vault, leaving, gone) == 1
    told = erase.erase(permit, vault, Nouns(vault.clock), feed, leaving, mark="e1")
    assert told["lake_files_removed"] >= 1
    assert erase.residue(permit, vault, leaving, gone) == 0


def test_a_sync_that_an_erasure_refused_leaves_no_files(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.put(observation("o1"))
    sync.sync(permit, vault, feed, nouns)
    before = {one.name for one in vault.objects.list(permit, "lake")}
    feed.put(observation("o2"))
    plain = sync._Sync._append

    def then_erased(work: Any, name: str, waiting: Any) -> int:
        count = plain(work, name, waiting)
        with vault.database.transaction(permit) as tx:
            raise_epoch(tx)
        return count

    monkeypatch.setattr(sync._Sync, "_append", then_erased)
    with pytest.raises(Conflict):
        sync.sync(permit, vault, feed, nouns)
    assert {one.name for one in vault.objects.list(permit, "lake")} == before
    monkeypatch.undo()
    sync.sync(permit, vault, feed, nouns)
    assert seqs(permit, vault) == [1, 2]


def test_upkeep_keeps_what_a_sync_made_meanwhile(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.put(observation("o1"))
    sync.sync(permit, vault, feed, nouns)
    plain = maintain._Work.table

    def synced_first(work: Any, name: str) -> None:
        for one in ("o2", "o3"):
            feed.put(observation(one))
            sync.sync(permit, vault, feed, nouns)
        plain(work, name)

    monkeypatch.setattr(maintain._Work, "table", synced_first)
    assert maintain.maintain(permit, vault, nouns).expired == 0


def test_a_workspace_that_lives_is_rid_of_old_files(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    removed = []
    for number in range(8):
        feed.put(observation(f"o{number}"))
        sync.sync(permit, vault, feed, nouns)
        clock.move(days=9)
        names = ("act", "principal", "account", "purpose", "action", "target", "grants", "scope", "log")
        permit = mint(**{name: getattr(permit, name) for name in names}, expires=clock.now() + timedelta(hours=1))
        removed.append(maintain.maintain(permit, vault, nouns).removed)
    assert any(removed)
    assert len(seqs(permit, vault)) == 8
