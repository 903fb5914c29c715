"""A made-up cohort whose true risks are known, and a model trained on it once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.ids import SequenceIds
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.events.outbox import Outbox
from carelake.models import artifact, card, evaluate, matrix, train
from carelake.models.registry import Registry
from carelake.vault.workspace import Vault

NAMES = [f"feature_{number}" for number in range(20)]
TRAINING_SET = "trainingset:" + "0" * 64


def make_cohort(rows: int, seed: int = 1) -> tuple[pa.Table, np.ndarray]:
    """A training set and the true risk of each row: counts, thresholds, an interaction, values missing."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, len(NAMES)))
    x[:, :4] = random.poisson(1.0, (rows, 4))
    score = 0.6 * np.minimum(x[:, 0], 4) + 0.4 * x[:, 1] + 0.7 * (x[:, 5] > 0.5) + 0.5 * x[:, 6]
    score += 0.5 * (x[:, 7] > 0) * (x[:, 8] > 0) - 3.4
    truth = 1.0 / (1.0 + np.exp(-score))
    x[random.random(x.shape) < np.where(np.arange(len(NAMES)) == 6, 0.15, 0.0)] = np.nan
    lace = np.clip(np.round(2 * x[:, 0] + 2 * x[:, 1] + random.normal(0, 2, rows)), 0, 19)
    part = np.arange(rows) / rows
    columns = {
        "encounter_id": [f"enc-{number}" for number in range(rows)],
        "subject_id": [f"pat-{number}" for number in random.integers(0, rows // 2, rows)],
        "prediction_time": np.datetime64("2026-01-01T00:00:00", "us")
        + np.arange(rows) * np.timedelta64(60_000_000, "us"),
        "label": random.random(rows) < truth,
        "set": np.where(part < 0.5, "train", np.where(part < 0.6, "calibration", "test")),
        "lace": lace,
        "hospital": np.clip(lace // 2, 0, 13),
        "sex": random.choice(["female", "male"], rows),
        "race": random.choice(np.asarray(["Asian", "Black", "White", None], dtype=object), rows),
        "age_group": random.choice(["18-49", "50-64", "65-79", "80+"], rows),
        **{name: x[:, at] for at, name in enumerate(NAMES)},
    }
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()}), truth


@pytest.fixture(scope="session")
def cohort_of() -> Callable[..., tuple[pa.Table, np.ndarray]]:
    return make_cohort


@pytest.fixture(scope="session")
def cohort() -> tuple[matrix.Rows, np.ndarray]:
    table, truth = make_cohort(8_000)
    return matrix.rows(table, NAMES), truth


@pytest.fixture(scope="session")
def plan() -> train.Plan:
    return train.Plan(replicates=60)


@pytest.fixture(scope="session")
def scorer(cohort: tuple[matrix.Rows, np.ndarray], plan: train.Plan) -> train.Scorer:
    return train.train(cohort[0], plan, training_set=TRAINING_SET, words={"feature_0": "Stays <before>"})


@pytest.fixture(scope="session")
def metrics(cohort: tuple[matrix.Rows, np.ndarray], scorer: train.Scorer, plan: train.Plan) -> evaluate.Metrics:
    return evaluate.evaluate(cohort[0], scorer, plan)


@pytest.fixture(scope="session")
def files(scorer: train.Scorer, metrics: evaluate.Metrics, plan: train.Plan) -> dict[str, bytes]:
    content = card.card(scorer, metrics, plan, card.About(TRAINING_SET, "pipeline", [("stays", 12_000)]))
    return artifact.pack(scorer, metrics, content, card.html(content, scorer.description.words), b'{"rows":1}')


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Vault:
    made = Vault.create(
        tmp_path / "w", settings=Settings(workspace="w1"), key_dir=tmp_path / "k", clock=clock, ids=SequenceIds()
    )
    yield made
    made.close()


@pytest.fixture
def registry(vault: Vault, clock: FixedClock, permit_for: Callable[..., Permit]) -> Registry:
    nouns = Nouns(clock)
    with vault.database.transaction(permit_for("rows:write")) as tx:
        body = {"rows": 4_800, "data_end": "2026-01-01T00:00:00Z"}
        nouns.write(tx, Noun(TRAINING_SET, "production", "made", "a" * 32, (), body))
    return Registry(vault, nouns, Outbox(clock, SequenceIds(), workspace="w1"))
