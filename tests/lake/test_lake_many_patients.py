"""Rows of many patients at once: files are left out by their buckets, and the rows are those of each."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.current import _MANY
from carelake.lake.following.sync import sync
from carelake.lake.upkeep.maintain import maintain
from carelake.vault.workspace import Vault

COUNT = 300


@pytest.mark.parametrize("merged", [False, True], ids=["in the tray", "in buckets"])
def test_many_are_read_as_each(vault: Vault, permit: Permit, nouns: Nouns, feed: Any, *, merged: bool) -> None:
    class Pages:
        """All at once."""

        changes = staticmethod(lambda permit, after, limit: feed.entries[after : after + limit])
        last_seq = staticmethod(feed.last_seq)

    for number in range(COUNT):
        feed.put({"resourceType": "Encounter", "id": f"e{number}", "status": "planned"}, f"p{number}")
    sync(permit, vault, Pages(), nouns)
    if merged:
        maintain(permit, vault, nouns)
    for number in range(0, COUNT, 3):
        feed.put({"resourceType": "Encounter", "id": f"e{number}", "status": "finished"}, f"p{number}")
        feed.put({"resourceType": "Encounter", "id": f"e{number + 1}"}, f"p{number + 1}", deleted=True)
    sync(permit, vault, Pages(), nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    wanted = frozenset(f"p{number}" for number in range(COUNT) if number % 4)
    assert len(wanted) > _MANY
    found = query.current(permit, vault, snapshot, "Encounter", columns=["patient", "status"], patient=wanted)
    every = query.current(permit, vault, snapshot, "Encounter", columns=["patient", "status"])
    assert found is not None
    assert every is not None
    told = sorted((one["id"], one["status"]) for one in found.to_pylist())
    assert told == sorted((one["id"], one["status"]) for one in every.to_pylist() if one["patient"] in wanted)
    assert len(told) == len([number for number in range(COUNT) if number % 4 and number % 3 != 1])
    versions = query.versions(permit, vault, snapshot, "Encounter", columns=["patient", "seq"], patient=wanted)
    assert versions is not None
    assert set(versions.column("patient").to_pylist()) == wanted
