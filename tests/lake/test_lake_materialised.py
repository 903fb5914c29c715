"""Materialised views equal what is computed, whatever happens: changes, deletions, moves, upkeep, erasures, kills."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock, instant
from carelake.core.errors import Invalid, NotFound, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import LakeSettings, Settings
from carelake.fhir.gone import Gone
from carelake.lake import query
from carelake.lake.following import sync
from carelake.lake.materialisation import materialised, materialising
from carelake.lake.upkeep import erase, maintain
from carelake.lake.views import saved
from carelake.lake.views.over import over
from carelake.vault.workspace import Vault

NAMES = {
    "resourceType": "ViewDefinition",
    "name": "Names",
    "resource": "Patient",
    "select": [
        {"column": [{"name": "id", "path": "getResourceKey()"}, {"name": "gender", "path": "gender"}]},
        {"forEachOrNull": "name", "column": [{"name": "given", "path": "given", "collection": True}]},
    ],
}
VALUES = {
    "resourceType": "ViewDefinition",
    "name": "vitals",
    "resource": "Observation",
    "where": [{"path": "status = 'final'"}],
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "of", "path": "subject.getReferenceKey(Patient)"},
                {"name": "value", "path": "value.ofType(Quantity).value"},
            ]
        }
    ],
}


def patient(name: str, gender: str = "female", *given: str) -> dict[str, Any]:
    names = {"name": [{"given": [one]} for one in given]} if given else {}
    return {"resourceType": "Patient", "id": name, "gender": gender, **names}


def observation(name: str, of: str, value: str = "1.0", status: str = "final") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": status,
        "code": {"text": "x"},
        "subject": {"reference": f"Patient/{of}"},
        "valueQuantity": {"value": canonical.load(value)},
    }


def rows(table: pa.Table) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in table.to_pylist())


def both(permit: Permit, vault: Vault, nouns: Nouns, name: str, ref: str | None = None) -> tuple[Any, list[str], str]:
    """What is read, what is computed, and the name of what was read."""
    snapshot = query.snapshot_of(permit, vault, nouns, ref)
    view = saved.found(permit, vault, name)
    found = materialised.of_saved(permit, vault, snapshot, view)
    return rows(found.rows), rows(over(permit, vault, snapshot, view.view)), found.kept


def test_a_materialisation_follows_the_record(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(patient("p1", "female", "A", "B"), "p1")
    feed.put(observation("o1", "p1"), "p1")
    sync.sync(permit, vault, feed, nouns)
    for view in (NAMES, VALUES):
        materialising.materialise(permit, vault, nouns, view)
    first = query.snapshot_of(permit, vault, nouns).ref
    for name in ("names", "Vitals"):
        found, live, kept = both(permit, vault, nouns, name)
        assert (found, kept.lower()) == (live, name.lower())
    feed.put(patient("p1", "male", "A"), "p1")
    feed.put(observation("o1", "p1", "2.50"), "p2")  # another's now
    feed.put(observation("o2", "p1", status="preliminary"), "p1")
    done = sync.sync(permit, vault, feed, nouns)
    assert done.snapshot_ref == query.snapshot_of(permit, vault, nouns).ref
    assert both(permit, vault, nouns, "names")[::2] == (
        [rows(pa.table({"id": ["p1"], "gender": ["male"], "given": [["A"]]}))[0]],
        "Names",
    )
    assert both(permit, vault, nouns, "vitals")[0] == [json.dumps({"id": "o1", "of": "p1", "value": 2.5})]
    feed.put(observation("o1", "p1"), "p2", deleted=True)
    sync.sync(permit, vault, feed, nouns)
    assert both(permit, vault, nouns, "vitals") == ([], [], "vitals")
    found, live, kept = both(permit, vault, nouns, "names", first)
    assert (found, kept, len(found)) == (live, "Names", 2), "as it was then"


def test_a_saved_view_is_a_relation(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    for number in range(4):
        feed.put(observation(f"o{number}", "p1", f"{number}.0"), "p1")
    sync.sync(permit, vault, feed, nouns)
    asked = "SELECT count(*) AS n, sum(value) AS v FROM Vitals WHERE id <> 'o0'"
    told = []
    for keep in (False, True):
        (materialising.materialise if keep else saved_only)(permit, vault, nouns, VALUES)
        snapshot = query.snapshot_of(permit, vault, nouns)
        told.append(query.sql(permit, vault, snapshot, asked).to_pylist())
    assert told == [[{"n": 3, "v": 6.0}]] * 2
    assert query.deletions(permit, vault, query.snapshot_of(permit, vault, nouns)).num_rows == 0
    assert materialised.of_view(permit, vault, snapshot, {**VALUES, "name": "same"}).kept == "vitals"


def saved_only(permit: Permit, vault: Vault, nouns: Nouns, view: Any) -> None:
    saved.save(permit, vault, view)


def test_a_narrowed_permit_reads_what_is_computed(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, permit_for: Callable[..., Permit]
) -> None:
    feed.put(observation("o1", "p1"), "p1")
    feed.put(observation("o2", "p2"), "p2")
    sync.sync(permit, vault, feed, nouns)
    materialising.materialise(permit, vault, nouns, VALUES)
    snapshot = query.snapshot_of(permit, vault, nouns)
    view = saved.found(permit, vault, "vitals")
    one = permit_for("lake:read", "rows:read", scope=("patient:p2",))
    found = materialised.of_saved(one, vault, snapshot, view)
    assert (found.rows.column("id").to_pylist(), found.kept) == (["o2"], "vitals")
    with pytest.raises(Refused):
        materialised.of_saved(one, vault, snapshot, view, patient="p1")
    for scope in (("deidentified",), ("consent", "patient:p1"), ("only:/Observation.rs",)):
        narrowed = permit_for("lake:read", "lake:write", "rows:read", "rows:write", scope=scope)
        with suppress(Refused):  # a scope that nothing here knows
            assert materialised.of_saved(narrowed, vault, snapshot, view).kept == ""
        with pytest.raises(Refused):
            materialising.materialise(narrowed, vault, nouns, NAMES)
        with pytest.raises(Refused):
            materialising.refresh(narrowed, vault, nouns)


def test_another_view_takes_the_place_and_dropped_files_go(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    feed.put(patient("p1", "female", "A"), "p1")
    sync.sync(permit, vault, feed, nouns)
    materialising.materialise(permit, vault, nouns, NAMES)
    before = query.snapshot_of(permit, vault, nouns).ref
    other = {**NAMES, "select": [{"column": [{"name": "born", "path": "birthDate"}]}]}
    materialising.materialise(permit, vault, nouns, other, "nAmEs")
    assert both(permit, vault, nouns, "names")[::2] == ([json.dumps({"born": None})], "nAmEs")
    found, live, kept = both(permit, vault, nouns, "names", before)
    assert (found, kept) == (live, ""), "what was kept then was of another view"
    saved.drop(permit, vault, "NAMES")
    with pytest.raises(NotFound):
        saved.found(permit, vault, "names")
    there = vault.objects.list(permit, "lake", "iceberg/view.names/")
    assert there, "somebody may read them still"
    clock.move(days=30)
    fresh = _again(permit, clock)
    maintain.maintain(fresh, vault, nouns)
    assert vault.objects.list(fresh, "lake", "iceberg/view.names/") == []


@pytest.mark.parametrize("wrong", ["Patient", "patient_history", "deletions", "observations", "a" * 49, "1a", "a-b"])
def test_names_that_are_taken(vault: Vault, permit: Permit, wrong: str) -> None:
    with pytest.raises(Invalid) as told:
        saved.save(permit, vault, NAMES, wrong)
    assert told.value.code == "lake.view_name"


def test_a_view_that_does_not_fit_the_data_is_not_kept_and_stops_no_sync(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any
) -> None:
    one_given = {**NAMES, "select": [{"column": [{"name": "g", "path": "name.given"}]}]}
    feed.put(patient("p1", "female", "A"), "p1")
    sync.sync(permit, vault, feed, nouns)
    materialising.materialise(permit, vault, nouns, one_given)
    feed.put(patient("p2", "female", "A", "B"), "p2")
    assert sync.sync(permit, vault, feed, nouns).tables == {"Patient": 1}
    view = saved.found(permit, vault, "names")
    assert (view.state, view.error) == (saved.KEPT, "lake.view_cardinality")
    with pytest.raises(Invalid):
        materialised.of_saved(permit, vault, query.snapshot_of(permit, vault, nouns), view)
    feed.put(patient("p2", "female", "A"), "p2")
    sync.sync(permit, vault, feed, nouns)
    assert saved.found(permit, vault, "names").error == ""
    assert both(permit, vault, nouns, "names")[2] == "Names"
    with pytest.raises(Invalid):
        materialising.materialise(
            permit,
            vault,
            nouns,
            {
                **one_given,
                "name": "m",
                "select": [{"column": [{"name": "g", "path": "telecom.first().value.toInteger() + 'a'"}]}],
            },
        )


def _again(permit: Permit, clock: FixedClock) -> Permit:
    """The same permit, longer."""
    told = {
        name: getattr(permit, name) for name in ("act", "principal", "purpose", "action", "target", "scope", "log")
    }
    return mint(account=permit.account, grants=permit.grants, expires=clock.now() + timedelta(hours=1), **told)


class Machine(RuleBasedStateMachine):
    """A record that changes at random, with two views that are kept."""

    folder: Any = None
    permit: Permit
    feed_of: Any = None

    @initialize()
    def begin(self) -> None:
        self.vault, self.nouns, self.clock = Machine.folder()
        self.feed = Machine.feed_of()
        self.owner: dict[str, str] = {}
        self.permit = _again(Machine.permit, self.clock)
        self.gone: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "vault"):
            self.vault.close()

    @rule(
        name=st.sampled_from("abc"),
        gender=st.sampled_from(["male", "female"]),
        given=st.lists(st.sampled_from("XYZ"), max_size=2),
    )
    def change_patient(self, name: str, gender: str, given: list[str]) -> None:
        if name not in self.gone:
            self.feed.put(patient(name, gender, *given), name)

    @rule(
        name=st.sampled_from(["o1", "o2", "o3"]),
        of=st.sampled_from("abc"),
        value=st.sampled_from(["1.0", "2.50"]),
        status=st.sampled_from(["final", "final", "preliminary"]),
        deleted=st.booleans(),
    )
    def change_observation(self, name: str, of: str, value: str, status: str, deleted: bool) -> None:
        """An update, a deletion, or a move to another patient."""
        if of not in self.gone:
            self.feed.put(observation(name, of, value, status), of, deleted=deleted)

    @rule(small=st.booleans())
    def follow(self, small: bool) -> None:
        sync.sync(self.permit, self.vault, self.feed, self.nouns, batch_bytes=1 if small else 1 << 20)

    @rule(view=st.sampled_from([NAMES, VALUES]))
    def keep(self, view: Any) -> None:
        materialising.materialise(self.permit, self.vault, self.nouns, view)

    @rule()
    def upkeep(self) -> None:
        self.clock.move(days=9)
        self.permit = _again(self.permit, self.clock)
        maintain.maintain(self.permit, self.vault, self.nouns)

    @rule(name=st.sampled_from("ab"))
    def erase(self, name: str) -> None:
        sync.sync(self.permit, self.vault, self.feed, self.nouns)
        if not sync.position(self.permit, self.vault)[1]:
            return
        self.gone.add(name)
        theirs = [one for one in self.feed.entries if one.owner == name]
        seqs: dict[str, set[int]] = {}
        for one in theirs:
            seqs.setdefault(one.type, set()).add(one.seq)
        leaving = erase.Leaving({name}, seqs)
        erase.erase(self.permit, self.vault, self.nouns, self.feed, leaving, mark=f"m{len(self.feed.entries)}{name}")
        assert erase.residue(self.permit, self.vault, leaving, Gone([f"Patient/{name}"], [])) == 0

    @invariant()
    def what_is_kept_is_what_is_computed(self) -> None:
        if not hasattr(self, "vault") or not sync.position(self.permit, self.vault)[1]:
            return
        for view in saved.all_of(self.permit, self.vault):
            found, live, kept = both(self.permit, self.vault, self.nouns, view.name)
            assert found == live
            snapshot = query.snapshot_of(self.permit, self.vault, self.nouns)
            assert kept or view.definition.resource not in snapshot.body["tables"]


@pytest.mark.slow
def test_kept_equals_computed_with_a_model(tmp_path: Path, permit: Permit, feed: Any) -> None:
    made = iter(range(1_000_000))

    def folder() -> tuple[Vault, Nouns, FixedClock]:
        clock = FixedClock(instant("2026-01-02T03:04:05Z"))
        where = tmp_path / str(next(made))
        told = Settings(workspace="w1", lake=LakeSettings(keep_days=1, grace_seconds=60))
        vault = Vault.create(where, settings=told, key_dir=where.with_suffix(".keys"), clock=clock, ids=RandomIds())
        return vault, Nouns(clock), clock

    Machine.folder, Machine.permit, Machine.feed_of = staticmethod(folder), permit, type(feed)
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=8, stateful_step_count=14, deadline=None, database=None)
    )


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from test_lake_materialised import killed_part
killed_part(Path(sys.argv[2]), int(sys.argv[3]))
"""


def killed_part(folder: Path, at: int) -> None:
    """Run in a child: sync a record that grows, with two views that are kept, until the ``at``-th file is written."""
    from conftest import ListFeed

    clock = FixedClock(instant("2026-01-02T03:04:05Z"))
    vault = _opened(folder, clock)
    nouns, permit = Nouns(clock), _permit(clock)
    put, count = vault.objects.put, 0

    def dying(*said: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(*said, **more)

    vault.objects.put = dying  # type: ignore[method-assign]
    for upto in range(4, 41, 4):
        sync.sync(permit, vault, _growing(ListFeed(), upto), nouns)
        if upto == 4:
            for view in (NAMES, VALUES):
                materialising.materialise(permit, vault, nouns, view)


@pytest.mark.slow
def test_kill_9_leaves_readers_right_and_the_next_run_whole(tmp_path: Path, feed: Any) -> None:
    clock = FixedClock(instant("2026-01-02T03:04:05Z"))
    folder, permit, nouns = tmp_path / "ws", _permit(clock), Nouns(clock)
    Vault.create(
        folder, settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    ).close()
    dice = random.Random(46)
    for _ in range(2):
        child = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder), str(dice.randint(8, 70))]
        done = subprocess.run(child, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        with _opened(folder, clock) as vault:
            for view in saved.all_of(permit, vault):
                found, live, _ = both(permit, vault, nouns, view.name)
                assert found == live
    with _opened(folder, clock) as vault:
        sync.sync(permit, vault, _growing(feed, 44), nouns)
        for view in (NAMES, VALUES):
            materialising.materialise(permit, vault, nouns, view)
            found, live, kept = both(permit, vault, nouns, view["name"])
            assert (found, kept) == (live, view["name"])
            assert len(found) == 4


def _growing(made: Any, upto: int) -> Any:
    """The first changes of a record that every process has alike."""
    for number in range(0, upto, 2):
        one = f"{number % 8 // 2}"
        made.put(patient(f"p{one}", "male" if number % 3 else "female", str(number)), f"p{one}")
        made.put(observation(f"o{one}", f"p{one}", f"{number}.0"), f"p{(number + number // 8) % 4}")
    return made


def _opened(folder: Path, clock: FixedClock) -> Vault:
    return Vault.open(
        folder, settings=Settings(workspace="w1"), key_dir=folder.parent / "keys", clock=clock, ids=RandomIds()
    )


def _permit(clock: FixedClock) -> Permit:
    from tests.conftest import SilentLog

    told: dict[str, Any] = {"act": "a" * 32, "principal": "tester", "purpose": "TREAT", "action": "test:act"}
    grants = ("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write")
    until = clock.now() + timedelta(hours=1)
    return mint(account="production", grants=grants, target="t", scope=(), expires=until, log=SilentLog(), **told)
