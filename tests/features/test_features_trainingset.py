"""From a synthetic hospital through the lake to a training set: same rows offline and online, same bytes twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.errors import Corrupt
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.features import featureset, readmission, trainingset
from carelake.features.proof import late
from carelake.lake import query, results
from carelake.lake.flat import flatten
from carelake.lake.following import sync
from carelake.lake.tables import lake_table
from carelake.store.feed import Change
from carelake.synth import generate
from carelake.vault.workspace import Vault

GRANTS = (
    *("clinical:read", "lake:read", "lake:write", "features:read", "features:write"),
    *("rows:read", "rows:write"),
)


class Hospital:
    """A change feed over a small synthetic hospital, and its truth."""

    def __init__(self, folder: Path) -> None:
        made = generate(folder, patients=120, seed=11, workers=1)
        lines = [line for file in made.files for line in file.read_bytes().splitlines()]
        self.resources: list[dict[str, Any]] = [canonical.load(line) for line in lines]
        self.truth = {row["encounter_id"]: row for row in pq.read_table(made.truth["admissions"]).to_pylist()}

    def owner(self, resource: dict[str, Any]) -> str:
        if resource["resourceType"] == "Patient":
            return str(resource["id"])
        return str(resource.get("subject", resource.get("patient", {})).get("reference", "")).removeprefix("Patient/")

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return [
            Change(
                at + 1, r["resourceType"], r["id"], 1, False, self.owner(r), "2025-01-01T00:00:00.000Z",
                canonical.dump(r), f"resource:{at + 1}",
            )
            for at, r in enumerate(self.resources[after : after + limit], after)
        ]  # fmt: skip

    def last_seq(self, permit: Permit) -> int:
        return len(self.resources)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("synth") / "out")


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    assert lake_table.name
    with Vault.create(
        tmp_path / "ws", settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    ) as made:
        yield made


@pytest.fixture(scope="module")
def memory(hospital: Hospital) -> Mapping[str, pa.Table]:
    return flatten(hospital.resources)


def test_labels_and_features_are_the_truth(hospital: Hospital, memory: Mapping[str, pa.Table]) -> None:
    rows = readmission.build(memory, data_end=datetime(2024, 1, 1, tzinfo=UTC)).to_pylist()
    assert len(rows) > 100
    same = {
        "admissions_12m": "prior_admissions",
        "los_days": "los_days",
        "emergent_admission": "urgent",
        "oncology_service": "oncology",
        "medications_stay": "meds",
        "hemoglobin_last": "hb",
        "sodium_last": "na",
        "creatinine_last": "cr",
        "heart_rate_last": "hr",
        "systolic_pressure_last": "sbp",
        "oxygen_saturation_last": "spo2",
    }
    for row in rows:
        true = hospital.truth[row["encounter_id"]]
        assert row["label"] == (None if true["censored"] else true["readmitted_30d"])
        for ours, theirs in same.items():
            value = true[theirs]
            wanted = None if value is None or value != value else pytest.approx(float(value))
            assert row[ours] == wanted, ours


def test_offline_and_online_give_the_same_rows(
    hospital: Hospital,
    memory: Mapping[str, pa.Table],
    vault: Vault,
    clock: FixedClock,
    permit_for: Callable[..., Permit],
) -> None:
    permit, nouns = permit_for(*GRANTS), Nouns(clock)
    sync.sync(permit, vault, hospital, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    views = query.views(permit, vault, snapshot)
    for name, table in views.items():
        assert table.equals(memory[name]), name
    offline = readmission.build(views)
    end = datetime.fromisoformat(readmission.attrition(offline)["data_end"])
    lasts = {row["subject_id"]: row for row in offline.to_pylist()}
    for patient in sorted(lasts)[:8]:
        own = flatten([r for r in hospital.resources if hospital.owner(r) == patient])
        online = readmission.latest(own, patient, end).to_pylist()[0]
        if online["reason"] is None:  # else the last stay is no index admission
            assert online == lasts[patient]
    told = results.note(permit, vault, nouns, snapshot, views)
    made = featureset.create(permit, vault, nouns, told, views)
    assert made.noun.made_from == tuple(one.ref for one in told)
    assert featureset.create(permit, vault, nouns, told, views).noun == made.noun
    assert featureset.load(permit, vault, made.noun).table.equals(made.table)
    first = trainingset.create(permit, vault, nouns, made)
    again = trainingset.create(permit, vault, nouns, made)
    assert again.noun == first.noun
    assert len(vault.objects.list(permit, "features")) == 4, "one feature set, one training set, a proof of each"
    leaks = [one for one in first.noun.body["leaks"] if one["severity"] == "leak"]
    assert not leaks
    assert first.proof is not None
    assert len(first.proof) == len(first.table)
    assert set(late(first.table, first.proof).values()) == {0}
    assert trainingset.create(permit, vault, nouns, made, seed=2).noun.ref != first.noun.ref
    back = trainingset.load(permit, vault, first.noun)
    assert back.table.equals(first.table)
    assert set(back.table.column("set").to_pylist()) <= {"train", "calibration", "test"}
    assert back.table.column("label").null_count == 0
    assert first.noun.made_from == (made.noun.ref,)
    assert first.noun.body["rows"] == len(first.table)
    assert sum(first.noun.body["split"]["counts"].values()) == len(offline)
    canonical.dump(dict(first.noun.body))
    vault.objects.put(permit, "features", first.noun.body["object"], b"other bytes")
    with pytest.raises(Corrupt):
        trainingset.load(permit, vault, first.noun)
