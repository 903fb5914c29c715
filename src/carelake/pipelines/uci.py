"""The steps of ``run uci-readmission``: a model of the UCI file, registered, and risks for a file of strangers.

The file's patients are nobody in the record: the version waits for approval like any other, but no endpoint can serve
it, since the record's patients have no such rows. Scoring a file is part of judging the version, and no care rests on
it; so it is done under ``model:train``, with the version read back from the registry and its signature checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carelake.access.identity import Caller
from carelake.core.permit import Permit
from carelake.features import parquet, trainingset, uci, uci_read
from carelake.features.split import SETS, Fractions
from carelake.models import artifact, matrix
from carelake.models.card import About, card, html
from carelake.models.evaluate import evaluate, insufficient, nothing
from carelake.models.train import Plan, train
from carelake.monitor.baseline import of_model
from carelake.pipelines.platform import Platform

__all__ = ["NAME", "PLAN", "UciReadmission"]

NAME = "uci-readmission"
_TRAINER = "pipeline"
_DEAD = 0.001
_DATA = (
    "UCI Machine Learning Repository, Diabetes 130-US hospitals for years 1999-2008 (Strack et al. 2014, CC BY 4.0): "
    "encounters of patients with diabetes. The file has no dates: figures are those of strangers, not of later years."
)
_USES = "None in care: a public file to judge the platform's training by, and to be judged on."
_LIMITS = (
    "US hospitals of 1999 to 2008, patients with diabetes; what was done for them has changed since.",
    "Not a medical device; no clinical decision may rest on it.",
    "Judged on strangers of the same years and hospitals; neither on later years nor elsewhere.",
    "Returns to other hospitals, and deaths at home, are not in the file.",
    "Payer and specialty tell of the health system, not of the patient; race is no feature, and is looked at below.",
    "Reasons tell what moved this model's figure, not what causes readmission.",
    "Subgroup intervals are wide where a group is small; an absent figure means too few, not no difference.",
)
_FRACTIONS = Fractions(test_patients=0.2, calibration_patients=0.05)

PLAN = Plan(
    name=NAME,
    # Found by grouped cross-validation on the rows of `train`; tuning asks whether others do better on a given file.
    parameters={"num_leaves": 12, "min_data_in_leaf": 160, "learning_rate": 0.04, "feature_fraction": 0.5},
    calibration="auto",
    candidates=4,
    scores=uci.SCORES,
    groups=uci.GROUPS,
    temporal=False,
    not_computable=uci.NOT_COMPUTABLE,
    thresholds=(0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4),
)


@dataclass(frozen=True)
class UciReadmission:
    """Steps over one platform on behalf of a caller.

    Attributes:
        source: the file to learn from, as it is.
        score: the file of strangers; None for none.
    """

    platform: Platform
    caller: Caller
    source: bytes
    score: bytes | None = None
    plan: Plan = PLAN

    def run(self, tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
        """From the file to a registered version. What is made is named by its content: doing it again finds it.

        Returns:
            ``training_set``, ``attrition``, ``split``, ``odd``, ``model_version``, ``state``, ``metrics``,
            ``stopped`` (why there is no model, or None).
        """
        tell("Reading the file, leaving out deaths and hospice, sharing out by patient")
        if self.score is not None:
            uci_read.read(self.score, labelled=False)  # what cannot be scored is said before minutes of training
        dataset = self.training_set()
        tell("Tuning, training, calibrating and evaluating beside the baselines")
        return {**dataset, **self.train(dataset)}

    def training_set(self) -> dict[str, Any]:
        """The file's rows with features, label and set."""
        source = {"source": hashlib.sha256(self.source).hexdigest()}
        with self.platform.acting(_TRAINER, self.caller, "features:build", NAME) as permit:
            made = uci.build(uci_read.read(self.source, labelled=True), labelled=True)
            shared = uci.sets(made.table, fractions=_FRACTIONS)
            table, told = _training(made, shared, source)
            vault, nouns = self.platform.vault, self.platform.nouns
            noun = parquet.keep(permit, vault, nouns, "trainingset", table, (), told)
        return {"training_set": noun.ref, **{name: told[name] for name in ("attrition", "split", "odd")}}

    def train(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        """Tune, train, calibrate, evaluate and register; with too few cases it says so and makes no model."""
        ref, plan = dataset["training_set"], self.plan
        with self.platform.acting(_TRAINER, self.caller, "model:train", NAME) as permit:
            rows = self._rows(permit, ref)
            reason = insufficient(rows, plan)
            if reason is not None:
                return {"model_version": None, "state": None, "metrics": nothing(rows, reason), "stopped": reason}
            scorer = train(rows, plan, training_set=ref, words=_words())
            metrics = evaluate(rows, scorer, plan)
            steps = tuple(dataset["attrition"].items())
            about = About(ref, permit.principal, steps, synthetic=False, data=_DATA, uses=_USES, limits=_LIMITS)
            said = card(scorer, metrics, plan, about)
            page = html(said, scorer.description.words)
            files = artifact.pack(scorer, metrics, said, page, of_model(rows, scorer).to_bytes())
            version = self.platform.registry.register(permit, plan.name, ref, files)
        return {"model_version": version.ref, "state": version.state, "metrics": metrics, "stopped": None}

    def _rows(self, permit: Permit, ref: str) -> matrix.Rows:
        with self.platform.vault.database.reading(permit) as connection:
            noun = self.platform.nouns.get(connection, ref, account=permit.account)
        made = trainingset.load(permit, self.platform.vault, noun)
        return matrix.rows(made.table, made.features, points=self.plan.scores, groups=self.plan.groups)

    def scored(self, ref: str) -> tuple[bytes, dict[str, Any]]:
        """Risks for every encounter of ``score`` by a registered version; its label's column is not read.

        Nobody readmits the dead: they get `_DEAD`, by rule. Hospice is scored as all others are. Both are counted,
        since the version was not made for them.

        Returns:
            CSV ``encounter_id,probability`` in the order of the file, and what there is to say of it.
        """
        assert self.score is not None
        with self.platform.acting(_TRAINER, self.caller, "model:train", ref) as permit:
            scorer = self.platform.registry.files(permit, ref).scorer
            read = uci_read.read(self.score, labelled=False)
            made = uci.build(read, labelled=False)
            risk = scorer.risk(matrix.features(made.table, scorer.names))
            died = pc.fill_null(pc.equal(made.table.column("outside"), "died"), False)
            risk = np.where(died.to_numpy(zero_copy_only=False), _DEAD, risk)
            permit.log.count(scored=len(risk), unscored=len(read.unread))
        rows = zip(made.table.column("encounter_id").to_pylist(), risk, strict=True)
        lines = ["encounter_id,probability", *(f"{_field(name)},{p:.10g}" for name, p in rows)]
        outside = pc.value_counts(made.table.column("outside").drop_null()).to_pylist()
        return ("\n".join(lines) + "\n").encode(), {
            "rows": len(risk),
            "unscored": [{"line": line, "reason": reason} for line, reason in read.unread],
            "outside_cohort": {one["values"]: one["counts"] for one in outside},
            "odd": dict(made.odd),
        }


def _words() -> dict[str, str]:
    return {feature.name: feature.description for feature in uci.features()}


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _training(made: uci.Made, shared: pa.Array, source: Mapping[str, Any]) -> tuple[pa.Table, dict[str, Any]]:
    """The rows that a set uses, and what the noun says of them."""
    outside = made.table.column("outside").to_pylist()
    used = pc.is_valid(shared)
    table = made.table.add_column(3, "set", shared).filter(used).drop_columns(["outside"])
    words = table.column("set").to_pylist()
    attrition = {
        "encounters": len(made.table) + sum(made.odd.get(name, 0) for name in ("repeated", "no_label")),
        "repeated": made.odd.get("repeated", 0),
        "no_label": made.odd.get("no_label", 0),
        **{reason: outside.count(reason) for reason in sorted(set(outside) - {None})},
        "labelled": len(table),
        "readmitted": int(pc.sum(table.column("label")).as_py() or 0),
    }
    split = {
        "boundary": None,
        "seed": 1,
        "test_patients": str(_FRACTIONS.test_patients),
        "calibration_patients": str(_FRACTIONS.calibration_patients),
        "counts": {**{name: words.count(name) for name in SETS}, "unused": shared.null_count},
    }
    told = {
        "features": [f.name for f in made.features],
        "attrition": attrition,
        "split": split,
        "odd": dict(made.odd),
    }
    noted = json.dumps({"split": split, **source}, sort_keys=True)
    return table.replace_schema_metadata({b"carelake": noted.encode()}), {**told, **source}
