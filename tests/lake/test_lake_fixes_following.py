"""What a follower, upkeep and long work beside it must not take from each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from threading import Event
from typing import Any

import pytest

from carelake.audit.acts import ActHeader, write
from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.errors import Gone, Refused
from carelake.core.permit import Permit
from carelake.lake import asof, query
from carelake.lake.following import sync
from carelake.lake.following.follow import Follower
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.materialisation import materialised, materialising
from carelake.lake.upkeep.maintain import tidy
from carelake.lake.upkeep.thinning import thin
from carelake.lake.views import saved
from carelake.lake.views.over import over
from carelake.pipelines import view_export
from carelake.vault.workspace import Vault

VIEW = {
    "resourceType": "ViewDefinition",
    "name": "seen",
    "resource": "Observation",
    "select": [{"column": [{"name": "id", "path": "getResourceKey()"}]}],
}


@pytest.fixture
def now(permit_for: Callable[..., Permit]) -> Callable[[], Permit]:
    return lambda: permit_for("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write")


def observation(name: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": name, "status": "final", "subject": {"reference": "Patient/p1"}}


def synced(permit: Permit, vault: Vault, nouns: Nouns, feed: Any, name: str) -> str:
    feed.put(observation(name))
    return sync.sync(permit, vault, feed, nouns).snapshot_ref


def test_no_error_ends_a_follower_unsaid(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    told: list[str] = []

    def broken() -> Any:
        raise FileNotFoundError("a name that is not to be told")

    follower = Follower(
        vault,
        feed,
        nouns,
        enter=lambda job: nullcontext(permit),
        look=broken,
        seconds=0.5,
        failed=lambda error: told.append(f"{error.code} {error.message}"),
    )
    assert [follower.turn(Event()) for _ in range(3)] == [1.0, 2.0, 4.0]
    assert follower.done.failed == 3
    assert len(told) == 3
    assert told[0].startswith("lake.follow ")
    assert "a name" not in told[0]


def test_a_permit_that_runs_out_in_a_long_turn_ends_the_turn_alone(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any
) -> None:
    told: list[str] = []

    def late() -> Any:
        raise Refused("permit.expired", "The permit has expired; enter the gate again.")

    follower = Follower(vault, feed, nouns, lambda job: nullcontext(permit), late, 0.5, lambda e: told.append(e.code))
    assert follower.turn(Event()) == 1.0
    assert told == ["permit.expired"]


def test_the_snapshot_of_an_export_that_waits_stays(
    vault: Vault, now: Callable[[], Permit], nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    clock.move(minutes=60 - clock.now().minute)  # a whole hour begins
    first = synced(now(), vault, nouns, feed, "o1")
    asked = view_export.AskedViews(request="x", names=("seen",), nodes=({"view": VIEW},), snapshot=first)
    job = view_export.begin(vault, now(), asked)
    for number in (2, 3):
        clock.move(minutes=10)
        synced(now(), vault, nouns, feed, f"o{number}")
    clock.move(minutes=10)
    thin(now(), vault, nouns)
    snapshot = query.snapshot_of(now(), vault, nouns, first)
    assert over(now(), vault, snapshot, VIEW).to_pylist() == [{"id": "o1"}]
    with vault.database.transaction(now()) as tx:
        view_export.Jobs(vault).end(tx, job, seconds=1.0)
    assert thin(now(), vault, nouns) >= 1
    with pytest.raises(Gone):
        over(now(), vault, snapshot, VIEW)


def test_the_snapshot_that_a_running_job_began_with_stays(
    vault: Vault, now: Callable[[], Permit], nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    clock.move(minutes=60 - clock.now().minute)  # a whole hour begins
    first = synced(now(), vault, nouns, feed, "o1")
    clock.move(minutes=1)
    header = ActHeader("b" * 32, "tester", now().account, "TREAT", "lake:export", "lake")
    with vault.database.transaction(now()) as tx:
        write(tx, header, "start", clock, {})
    for number in (2, 3):
        clock.move(minutes=10)
        synced(now(), vault, nouns, feed, f"o{number}")
    clock.move(minutes=10)
    thin(now(), vault, nouns)
    snapshot = query.snapshot_of(now(), vault, nouns, first)
    assert over(now(), vault, snapshot, VIEW).to_pylist() == [{"id": "o1"}]
    with vault.database.transaction(now()) as tx:
        write(tx, header, "done", clock, {})
    assert thin(now(), vault, nouns) >= 1


def test_what_merging_left_without_a_name_goes_too(
    vault: Vault,
    now: Callable[[], Permit],
    nouns: Nouns,
    feed: Any,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carelake.lake.upkeep.maintain._TRAY_FILES", 2)
    clock.move(minutes=60 - clock.now().minute)
    for number in range(6):
        synced(now(), vault, nouns, feed, f"o{number}")
        tidy(now(), vault, nouns, ("Observation",), 1)
        clock.move(minutes=6)
    thin(now(), vault, nouns)
    table = VaultCatalog(vault, now()).load_table((now().account, "Observation"))
    assert len(table.snapshots()) == 3  # the newest that has a name, and what was merged right before and after it


def test_a_snapshot_that_is_gone_gets_no_name(
    vault: Vault, now: Callable[[], Permit], nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    clock.move(minutes=60 - clock.now().minute)
    first = synced(now(), vault, nouns, feed, "o1")
    for number in (2, 3):
        clock.move(minutes=10)
        synced(now(), vault, nouns, feed, f"o{number}")
    clock.move(minutes=10)
    thin(now(), vault, nouns)
    with pytest.raises(Gone, match="let go of"):
        asof.tag(now(), vault, nouns, "late", query.snapshot_of(now(), vault, nouns, first))


def test_a_view_that_another_one_took_further_is_not_set_back(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two fill a view for the first time; the slower one had looked before a sync."""
    synced(permit, vault, nouns, feed, "o1")
    saved.save(permit, vault, VIEW, keep=True)
    plain, done = materialising._Following._one, []

    def overtaken(work: Any, view: Any, tables: Any) -> bool:
        if not done:
            done.append(True)
            synced(permit, vault, nouns, feed, "o2")
        return plain(work, view, tables)

    monkeypatch.setattr(materialising._Following, "_one", overtaken)
    materialising.refresh(permit, vault, nouns)
    synced(permit, vault, nouns, feed, "o3")
    snapshot = query.snapshot_of(permit, vault, nouns)
    found = materialised.of_saved(permit, vault, snapshot, saved.found(permit, vault, "seen"))
    assert found.kept == "seen"
    assert sorted(found.rows.column("id").to_pylist()) == ["o1", "o2", "o3"]
