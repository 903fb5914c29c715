"""Declared features over a lake that changes: online and offline are what is computed from scratch."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.features import asof
from carelake.features.groups import erase, offline
from carelake.features.groups.compute import compute, waiting
from carelake.features.groups.declaration import Declared, load, request_of, shipped
from carelake.features.groups.facts import facts_of
from carelake.features.groups.values import micros
from carelake.features.groups.windows import value_at
from carelake.lake import query
from carelake.lake.following.sync import sync
from carelake.store.feed import Change

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

from groups_data import GRANTS, Store

TEXT = """
name = "g"
availability = "system"
[codes]
heart = ["I50*"]
[[feature]]
name = "mean_2h"
view = "observations"
reading = "heart_rate"
take = "mean"
window = "2h"
[[feature]]
name = "slope"
view = "observations"
reading = "heart_rate"
take = "slope"
[[feature]]
name = "visits_1d"
view = "encounters"
take = "count"
window = "1d"
where = { class = ["emergency"] }
[[feature]]
name = "failure"
view = "conditions"
take = "any"
where = { code = ["heart"] }
"""
SUBJECTS = ("p1", "p2", "p3")


class ListFeed:
    """A change feed over a list."""

    def __init__(self) -> None:
        self.entries: list[Change] = []
        self.latest: dict[tuple[str, str], tuple[int, int]] = {}

    def put(self, resource: dict[str, Any], owner: str, *, deleted: bool = False) -> None:
        key = (resource["resourceType"], resource["id"])
        version, previous = self.latest.get(key, (0, 0))
        seq = len(self.entries) + 1
        body = b"" if deleted else canonical.dump(resource)
        at = "2025-01-01T00:00:00.000Z"
        self.entries.append(Change(seq, *key, version + 1, deleted, owner, at, body, f"resource:{seq}", previous))
        self.latest[key] = (version + 1, seq)

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return self.entries[after : after + limit]

    def last_seq(self, permit: Permit) -> int:
        return len(self.entries)


class Hospital:
    """A lake, a group of declared features, and changes by chance."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.feed, self.random = store, ListFeed(), random.Random(seed)

    @property
    def now(self) -> datetime:
        return self.store.vault.clock.now()

    def change(self) -> None:
        owner = self.random.choice(SUBJECTS)
        at = self.now - timedelta(minutes=self.random.choice([0, 0, 5, 90, 300]))
        name = str(self.random.randrange(9))
        told = {"id": f"o{name}", "subject": {"reference": f"Patient/{owner}"}}
        kind = self.random.choice(["Observation", "Observation", "Observation", "Encounter", "Condition"])
        time = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        if kind == "Observation":
            value = {"value": self.random.choice([60, 61.5, 72]), "unit": "/min", "code": "/min"}
            issued = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
            coding = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
            told |= {"status": "final", "code": coding, "effectiveDateTime": time, "issued": issued}
            told["valueQuantity"] = value
        elif kind == "Encounter":
            told |= {"status": "finished", "class": {"code": "EMER"}, "period": {"start": time}}
        else:
            coding = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I50.9"}]}
            told |= {"code": coding, "recordedDate": time}
        self.feed.put({"resourceType": kind, **told}, owner, deleted=self.random.random() < 0.15)

    def sync(self) -> None:
        sync(self.store.permit, self.store.vault, self.feed, self.store.groups._nouns)

    def compute(self) -> int:
        groups = self.store.groups
        found = compute(self.store.permit, self.store.vault, groups._nouns, self.store.outbox)
        return sum(one.records for one in found)

    def truth(self, declared: Declared, moment: datetime) -> dict[str, tuple[Any, ...]]:
        """From scratch, over the newest snapshot."""
        vault = self.store.vault
        snapshot = query.snapshot_of(self.store.permit, vault, self.store.groups._nouns)
        views = query.views(self.store.permit, vault, snapshot, declared.views)
        facts = facts_of(declared, views)
        items = declared.feature
        return {
            who: tuple(value_at(one, own.get(who), micros(moment)) for one, own in zip(items, facts, strict=True))
            for who in SUBJECTS
        }


@pytest.fixture
def store(vault: Any, permit_for: Callable[..., Permit]) -> Store:
    permit = permit_for(*GRANTS, "lake:write", "clinical:read", expires=vault.clock.now() + timedelta(days=90))
    return Store(vault, permit)


@pytest.mark.parametrize(("seed", "turns"), [(1, 4), pytest.param(2, 12, marks=pytest.mark.soak)])
def test_online_and_offline_are_what_is_computed_from_scratch(store: Store, seed: int, turns: int) -> None:
    declared = load(TEXT)
    store.groups.create(store.permit, request_of(declared), **declared.extras())
    hospital = Hospital(store, seed)
    store.vault.clock.at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    names = [one.name for one in declared.feature]
    empty = (None, None, 0, 0)
    for _turn in range(turns):
        for _ in range(hospital.random.randrange(1, 5)):
            hospital.change()
        store.vault.clock.move(minutes=hospital.random.choice([1, 45, 121, 1500]))
        hospital.sync()
        hospital.compute()
        assert hospital.compute() == 0
        assert not waiting(store.permit, store.vault, "production")
        check(store, hospital, declared, names, empty)


def check(store: Store, hospital: Hospital, declared: Declared, names: list[str], empty: tuple[Any, ...]) -> None:
    now = hospital.now
    truth = hospital.truth(declared, now)
    for who in SUBJECTS:
        said = {one["FeatureName"]: one["ValueAsString"] for one in store.get("g", who).get("Record", ())}
        online = tuple(None if name not in said else float(said[name]) for name in names)
        assert (online if said else empty) == truth[who]
    rows = offline.table(store.permit, store.vault, "g")
    known = rows.set_column(rows.column_names.index("write_time"), "write_time", rows.column("event_time"))
    for back in (1, 120, 1440):
        at = now - timedelta(minutes=back)
        # What is believed now of then; by write time nothing would be known of before it was computed.
        labels = pa.table(
            {"subject_id": list(SUBJECTS), "prediction_time": pa.array([at] * 3, pa.timestamp("us", "UTC"))}
        )
        joined = asof.join(labels, {"g": latest(known)})
        truth = hospital.truth(declared, at)
        for number, who in enumerate(SUBJECTS):
            found = tuple(joined.column(f"g__{name}")[number].as_py() for name in names)
            assert (empty if set(found) == {None} else found) == truth[who]


def latest(rows: pa.Table) -> pa.Table:
    """The last word on each moment."""
    last: dict[tuple[str, Any], int] = {}
    for number, one in enumerate(
        zip(*(rows.column(n).to_pylist() for n in ("subject_id", "event_time")), strict=True)
    ):
        last[one] = number
    return rows.take(pa.array(sorted(last.values()), pa.int64()))


def test_values_that_break_a_gate_are_not_there_and_are_told(store: Store) -> None:
    declared = load(TEXT.replace('window = "2h"', 'window = "2h"\nlow = 65.0', 1))
    store.groups.create(store.permit, request_of(declared), **declared.extras())
    hospital = Hospital(store, 3)
    for _ in range(40):
        hospital.change()
        store.vault.clock.move(minutes=20)
    hospital.sync()
    groups = store.groups
    [done] = compute(store.permit, store.vault, groups._nouns, store.outbox, "g")
    assert set(done.masked) == {"mean_2h: below 65"}
    means = offline.table(store.permit, store.vault, "g").column("mean_2h").drop_null().to_pylist()
    assert means
    assert min(means) >= 65
    assert hospital.compute() == 0
    erase.erase(store.permit, store.vault, set(SUBJECTS))
    assert erase.residue(store.permit, store.vault, set(SUBJECTS)) == 0


def test_a_history_counts_as_known_from_its_own_moments_on(store: Store) -> None:
    declared = load(TEXT.replace('"system"', '"recorded"'))
    store.groups.create(store.permit, request_of(declared), **declared.extras())
    hospital = Hospital(store, 4)
    for _ in range(10):
        hospital.change()
        store.vault.clock.move(minutes=20)
    hospital.sync()
    assert hospital.compute() > 0
    found = offline.table(store.permit, store.vault, "g")
    assert found.column("write_time").to_pylist() == found.column("event_time").to_pylist()
    hospital.change()
    store.vault.clock.move(days=2)
    hospital.sync()
    assert (count := hospital.compute()) > 0
    later = offline.table(store.permit, store.vault, "g").slice(len(found))
    assert set(later.column("write_time").to_pylist()) == {hospital.now}
    assert len(later) == count


def test_nobody_is_computed_whose_erasure_is_under_way(store: Store, permit_for: Callable[..., Permit]) -> None:
    """The lake has the rows still, since the key goes first; nothing may be made of them, not even a key."""
    declared = load(TEXT)
    store.groups.create(store.permit, request_of(declared), **declared.extras())
    hospital = Hospital(store, 5)
    vault = store.vault
    for _ in range(30):
        hospital.change()
        vault.clock.move(minutes=7)
    hospital.sync()
    with vault.database.transaction(store.permit) as tx:
        vault.sealer.keys_for(store.permit, tx, SUBJECTS)
    with vault.database.transaction(permit_for("rows:erase", "rows:write", expires=store.permit.expires)) as tx:
        vault.sealer.forget(permit_for("rows:erase", expires=store.permit.expires), tx, "p1")
    assert hospital.compute() > 0
    assert set(offline.table(store.permit, vault, "g").column("subject_id").to_pylist()) == {"p2", "p3"}
    erase.erase(store.permit, vault, {"p1"})
    assert erase.residue(store.permit, vault, {"p1"}) == 0
    work, forgotten = store.groups._nouns, vault.sealer.forgotten
    hospital.change()
    hospital.sync()
    calls = []

    def later(permit: Permit, tx: Any, owners: Any) -> set[str]:  # another process, between reading and writing
        calls.append(1)
        return forgotten(permit, tx, owners) if len(calls) == 1 else set(owners)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(vault.sealer), "forgotten", lambda self, *told: later(*told))
        vault.clock.move(days=3)
        with pytest.raises(Conflict) as caught:
            compute(store.permit, vault, work, store.outbox)
    assert caught.value.code == "features.concurrent"


def test_a_group_without_a_declaration_is_not_computed(store: Store) -> None:
    declared = load(shipped()["patient-utilisation"])
    store.groups.create(store.permit, {**request_of(declared), "FeatureGroupName": "plain"})
    groups = store.groups
    with pytest.raises(Invalid) as caught:
        compute(store.permit, store.vault, groups._nouns, store.outbox, "plain")
    assert caught.value.code == "features.not_declared"
    assert compute(store.permit, store.vault, groups._nouns, store.outbox) == []
    store.groups.create(store.permit, request_of(declared), **declared.extras())
    with pytest.raises(NotFound) as missing:
        compute(store.permit, store.vault, groups._nouns, store.outbox)
    assert missing.value.code == "lake.no_snapshot"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('view = "encounters"\ntake = "count"\nwhere = { clas = ["EMER"] }', "has no column clas"),
        ('view = "observations"\ntake = "last"\nvalue = "code"', "last is of numbers"),
        ('view = "observations"\ntake = "last"\ntime = "code"', "columns of times"),
        ('view = "observations"\ntake = "last"\ntext = true', "its value is no text"),
        ('view = "observations"\ntake = "last"\nvalue = "code"\ntext = true\nlow = 1.0', "no low"),
    ],
)
def test_a_declaration_names_columns_that_there_are(wrong: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        load(f'name = "g"\n[[feature]]\nname = "x"\n{wrong}\n')
