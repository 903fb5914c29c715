"""A follower keeps the lake behind the record: turns, others beside it, and what it merges and lets go of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.errors import Gone, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.lake import asof, query
from carelake.lake.following import follow, sync
from carelake.lake.following.follow import Follower
from carelake.lake.following.fresh import freshness
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.upkeep.thinning import thin
from carelake.vault.forgotten import raise_epoch
from carelake.vault.workspace import Vault


def observation(name: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": name, "status": "final", "subject": {"reference": "Patient/p1"}}


class Made:
    """A follower whose clock is the test's: house is kept when it says so."""

    def __init__(self, permit: Permit, vault: Vault, nouns: Nouns, feed: Any) -> None:
        self.jobs: list[bool] = []
        self.stop = Event()
        self.follower = Follower(
            vault, feed, nouns, enter=self._enter, look=lambda: freshness(permit, vault, feed), seconds=0.5
        )
        self._permit = permit

    @contextmanager
    def _enter(self, job: bool) -> Iterator[Permit]:
        self.jobs.append(job)
        yield self._permit

    def turn(self) -> float:
        return self.follower.turn(self.stop)


@pytest.fixture
def made(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> Made:
    return Made(permit, vault, nouns, feed)


def seqs(permit: Permit, vault: Vault) -> list[int]:
    table = VaultCatalog(vault, permit).load_table((permit.account, "Observation"))
    found: list[int] = table.scan().to_arrow().column("seq").to_pylist()
    return sorted(found)


def test_a_turn_writes_what_came_and_nothing_where_nothing_came(
    made: Made, vault: Vault, permit: Permit, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_TIDY_SECONDS", 1e9)
    assert made.turn() == follow._POLL_SECONDS
    assert made.jobs == []  # a look is no act
    for number in range(3):
        feed.put(observation(f"o{number}"))
        assert made.turn() == 0.5
        assert made.turn() == follow._POLL_SECONDS
    assert made.jobs == [False] * 3
    assert seqs(permit, vault) == [1, 2, 3]
    assert (made.follower.done.turns, made.follower.done.synced) == (3, 3)


def test_what_another_one_moved_is_let_alone_until_it_stands_still(
    made: Made, vault: Vault, permit: Permit, nouns: Nouns, feed: Any
) -> None:
    feed.put(observation("o1"))
    made.turn()
    feed.put(observation("o2"))
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o3"))
    assert made.turn() == follow._STAND_BY_SECONDS
    assert seqs(permit, vault) == [1, 2]
    made.turn()
    assert seqs(permit, vault) == [1, 2, 3]


def test_an_erasure_in_the_middle_costs_a_turn(
    made: Made, vault: Vault, permit: Permit, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.put(observation("o1"))
    plain = sync._Sync._append

    def then_erased(work: Any, name: str, waiting: Any) -> int:
        count = plain(work, name, waiting)
        with vault.database.transaction(permit) as tx:
            raise_epoch(tx)
        return count

    with monkeypatch.context() as patched:
        patched.setattr(sync._Sync, "_append", then_erased)
        assert made.turn() == follow._STAND_BY_SECONDS
    assert made.follower.done.lost == 1
    made.turn()
    made.turn()
    assert seqs(permit, vault) == [1]


def test_what_hinders_is_told_and_tried_again_and_a_refusal_ends_it(made: Made, feed: Any, vault: Vault) -> None:
    told: list[str] = []
    made.follower.failed = lambda error: told.append(error.code)

    def busy() -> Any:
        raise Unavailable("vault.busy", "The database is busy.")

    look, made.follower.look = made.follower.look, busy
    assert [made.turn() for _ in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert told == ["vault.busy"] * 7
    made.follower.look = look
    feed.put(observation("o1"))
    made.turn()
    assert made.follower.done.synced == 1

    def refused() -> Any:
        raise Refused("access.denied", "You may not.")

    made.follower.look = refused
    with pytest.raises(Refused):
        made.follower.run(made.stop)


def test_a_stop_in_a_long_sync_leaves_the_rest_for_the_next_one(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any
) -> None:
    for number in range(6):
        feed.put(observation(f"o{number}"))
    report = sync.sync(permit, vault, feed, nouns, batch_bytes=1, stop=lambda: True)
    assert 0 < report.behind_after < 6
    assert sync.sync(permit, vault, feed, nouns).behind_after == 0
    assert seqs(permit, vault) == [1, 2, 3, 4, 5, 6]


def test_many_flushes_leave_few_files(
    made: Made, vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_TIDY_SECONDS", 0.0)
    monkeypatch.setattr("carelake.lake.upkeep.maintain._TRAY_FILES", 4)
    for number in range(10):
        feed.put(observation(f"o{number}"))
        made.turn()
    table = VaultCatalog(vault, permit).load_table((permit.account, "Observation"))
    assert len(list(table.scan().plan_files())) < 5
    assert made.follower.done.merged >= 2
    assert seqs(permit, vault) == list(range(1, 11))
    found = query.current(permit, vault, query.snapshot_of(permit, vault, nouns), "Observation", columns=["id"])
    assert found is not None
    assert sorted(found.column("id").to_pylist()) == sorted(f"o{number}" for number in range(10))


def test_of_many_snapshots_the_last_of_each_hour_and_the_tagged_stay(
    vault: Vault, permit_for: Callable[..., Permit], nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    def now() -> Permit:
        return permit_for("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write")

    clock.move(minutes=60 - clock.now().minute)  # a whole hour begins
    refs = []
    for number in range(12):
        feed.put(observation(f"o{number}"))
        refs.append(sync.sync(now(), vault, feed, nouns).snapshot_ref)
        if number == 2:
            asof.tag(now(), vault, nouns, "kept", query.snapshot_of(now(), vault, nouns))
        clock.move(minutes=10)
    last = clock.now()
    assert thin(now(), vault, nouns) == 9  # of 12 stay: the tagged one, the last of the first hour, the newest
    assert thin(now(), vault, nouns) == 0

    def count(ref: str) -> int:
        found = query.current(now(), vault, query.snapshot_of(now(), vault, nouns, ref), "Observation")
        assert found is not None
        return len(found)

    assert [count(refs[number]) for number in (2, 5, 11)] == [3, 6, 12]
    assert count(asof.as_of(now(), vault, nouns, "kept").ref) == 3
    with pytest.raises(Gone, match="expired"):
        count(refs[7])
    # A moment between is answered by what was kept before it.
    assert asof.as_of(now(), vault, nouns, (last - timedelta(minutes=45)).isoformat()).ref == refs[5]
