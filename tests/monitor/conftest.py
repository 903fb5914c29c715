"""A workspace with a small approved model behind an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.ids import SequenceIds
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.events.outbox import Outbox
from carelake.models import artifact, card, evaluate, matrix, train
from carelake.models.registry import Registry
from carelake.monitor import baseline
from carelake.serving.endpoint import Endpoints
from carelake.store.resources import Resources
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

NAMES = ["age", "n_admissions_12m", "hemoglobin", "noise"]
TRAINING_SET = "trainingset:" + "0" * 64


def make_rows(count: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Index admissions with a label; ``shift`` moves the population."""
    random = np.random.default_rng(seed)
    age, before = random.normal(65 + 12 * shift, 12, count), random.poisson(0.8 + shift, count).astype(float)
    hemoglobin = random.normal(12.5 - shift, 1.8, count)
    risk = 1 / (1 + np.exp(-(0.02 * (age - 65) + 0.7 * before - 0.25 * (hemoglobin - 12.5) - 2.0)))
    part = np.arange(count) / count
    columns = {
        "encounter_id": [f"enc-{seed}-{number}" for number in range(count)],
        "subject_id": [f"pat-{seed}-{number}" for number in range(count)],
        "prediction_time": np.datetime64("2026-01-01T00:00:00", "us")
        + np.arange(count) * np.timedelta64(60_000_000, "us"),
        "label": random.random(count) < risk,
        "set": np.where(part < 0.5, "train", np.where(part < 0.65, "calibration", "test")),
        "lace": np.clip(3 * before + 2, 0, 19),
        "hospital": [None] * count,
        "age": age,
        "n_admissions_12m": before,
        "hemoglobin": np.where(random.random(count) < 0.1, np.nan, hemoglobin),
        "noise": random.normal(size=count),
        "sex": np.where(np.arange(count) % 2, "female", "male"),
        "age_group": np.where(age < 65, "40-64", "65-79"),
    }
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    at = table.schema.get_field_index("prediction_time")
    table = table.set_column(at, "prediction_time", table.column(at).cast(pa.timestamp("us", "UTC")))
    return table.set_column(6, "hospital", table.column("hospital").cast(pa.float64()))


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., pa.Table]:
    return make_rows


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    data, plan = matrix.rows(make_rows(6_000, 1), NAMES), train.Plan(replicates=50)
    scorer = train.train(data, plan, training_set=TRAINING_SET, words={"age": "age in years"})
    metrics = evaluate.evaluate(data, scorer, plan)
    content = card.card(scorer, metrics, plan, card.About(TRAINING_SET, "pipeline"))
    return artifact.pack(scorer, metrics, content, card.html(content, {}), baseline.of_model(data, scorer).to_bytes())


@dataclass
class Record:
    """The store, counted; it fails, when told to, after it has written."""

    resources: Resources
    writes: int = 0
    full: bool = False

    def __call__(self, permit: Permit, tx: Connection, resources: Sequence[Mapping[str, Any]]) -> None:
        self.resources.keep(permit, tx, "", [parsed(dict(resource)) for resource in resources])
        if self.full:
            raise OSError("no space left")
        self.writes += len(resources)


@dataclass
class Place:
    """All that a test of an endpoint needs."""

    vault: Vault
    nouns: Nouns
    outbox: Outbox
    registry: Registry
    endpoints: Endpoints
    record: Record
    clock: FixedClock
    author: Permit
    reviewer: Permit
    model: Noun

    def approved(self) -> str:
        return self.registry.approve(self.reviewer, self.model.ref).ref


@pytest.fixture
def place(
    tmp_path: Path, clock: FixedClock, permit_for: Callable[..., Permit], files: dict[str, bytes]
) -> Iterator[Place]:
    settings = Settings(workspace="w1")
    with Vault.create(
        tmp_path / "w", settings=settings, key_dir=tmp_path / "k", clock=clock, ids=SequenceIds()
    ) as vault:
        nouns, outbox, record = Nouns(clock), Outbox(clock, SequenceIds(), workspace="w1"), Record(Resources(vault))
        registry = Registry(vault, nouns, outbox)
        author = permit_for("models:read", "models:write", "rows:read", "rows:write", principal="pipeline")
        reviewer = permit_for("models:read", "models:approve", "rows:read", "rows:write", principal="reviewer")
        with vault.database.transaction(author) as tx:  # what the models say they were trained on
            nouns.write_all(tx, [Noun(f"trainingset:{digit * 64}", "production", "made", "a" * 32) for digit in "01"])
        model = registry.register(author, "readmission", TRAINING_SET, files)
        endpoints = Endpoints(vault, nouns, outbox, registry, record)
        yield Place(vault, nouns, outbox, registry, endpoints, record, clock, author, reviewer, model)


@pytest.fixture
def permit(permit_for: Callable[..., Permit]) -> Permit:
    return permit_for(
        "clinical:read", "clinical:write", "models:read", "rows:read", "rows:write", principal="endpoint"
    )
