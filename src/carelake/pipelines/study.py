"""A prediction study end to end: a data set's recipe (`features.datasets`) becomes a registered model of its outcome.

What such a recipe says is data: cohort, outcome, time at risk, features as of each prediction time. The model is of
the kind ``risk``, unless said otherwise; scores that the recipe asks for, and columns that hold one (`SCORES`), are
its baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from carelake.access.identity import Caller
from carelake.features.datasets import build as building
from carelake.features.datasets.build import Lake
from carelake.features.datasets.design import Recipe
from carelake.features.trainingset import TrainingSet
from carelake.lake import query
from carelake.models import artifact, matrix
from carelake.models.card import About, card, html
from carelake.models.evaluate import evaluate, insufficient, nothing
from carelake.models.survival import fit
from carelake.models.survival.evaluate import evaluate as evaluate_timed
from carelake.models.survival.rows import timed
from carelake.models.train import Plan, planned, train
from carelake.monitor.baseline import of_model
from carelake.pipelines.platform import Platform

__all__ = ["KINDS", "SCORES", "Study"]

KINDS = ("risk", "logistic", "boosting", "event_time")
"""Kinds of models that a study makes."""

SCORES = ("news2", "lace", "hospital")
"""Ends of the names of columns that hold a clinical score."""
_TRAINER = "pipeline"
_EMPTY = "The record is empty, so there is nothing to learn from; read data with `carelake ingest` first."
_USES = "Whom the data set's recipe takes, when it predicts; read by clinical staff who see the reasons beside it."


@dataclass(frozen=True)
class Study:
    """A study over one platform on behalf of a caller.

    Attributes:
        kind: of the model: ``risk``, ``logistic``, ``boosting`` or ``event_time``.
    """

    platform: Platform
    caller: Caller
    recipe: Recipe
    kind: str = "risk"

    def run(self, tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
        """From the record to a registered version; doing it again finds what is the same.

        Returns:
            ``training_set``, ``attrition``, ``model_version``, ``state``, ``metrics``, ``stopped``.
        """
        tell("Bringing the lake up to the record")
        with self.platform.acting(_TRAINER, self.caller, "lake:sync", "lake", job=True) as permit:
            snapshot = self.platform.sync(permit).snapshot_ref
        if not snapshot:
            return {"training_set": None, "attrition": {}, **_stopped(_EMPTY)}
        tell(f"Building the data set {self.recipe.name}")
        made = self.dataset(snapshot)
        told = {"training_set": made.noun.ref, "attrition": dict(made.noun.body["attrition"])}
        tell("Training, calibrating and evaluating beside the baselines")
        return {**told, **self.train(made)}

    def dataset(self, snapshot_ref: str) -> TrainingSet:
        """The recipe's rows, shared out by patient and time."""
        with self.platform.acting(_TRAINER, self.caller, "features:build", self.recipe.name, job=True) as permit:
            lake = Lake(permit, self.platform.vault, self.platform.nouns)
            snapshot = query.snapshot_of(permit, lake.vault, lake.nouns, snapshot_ref)
            return building.build(lake, self.recipe, snapshot)

    def plan(self, features: tuple[str, ...]) -> Plan:
        """How it is trained, and beside what it is judged."""
        named = (name for name in features if name.rpartition("__")[2] in SCORES)
        scores = tuple(dict.fromkeys([*self.recipe.scores, *named]))
        said = {"name": self.recipe.name, "calibration": "auto"}
        said |= {"kind": self.kind} if self.kind != "event_time" else {}
        return msgspec.structs.replace(planned(said), scores=scores)

    def train(self, made: TrainingSet) -> dict[str, Any]:
        """Train, calibrate, evaluate and register; with too few cases it says so and makes no model."""
        if lacking := self.lacking(made):
            return _stopped(lacking["reason"], lacking)
        with self.platform.acting(_TRAINER, self.caller, "model:train", self.recipe.name) as permit:
            files, metrics = self.fitted(made, permit.principal)
            version = self.platform.registry.register(permit, self.recipe.name, made.noun.ref, files)
        return {"model_version": version.ref, "state": version.state, "metrics": metrics, "stopped": None}

    def lacking(self, made: TrainingSet) -> dict[str, Any]:
        """Figures of a model that there cannot be, with the ``reason``: too few cases. Empty with enough."""
        rows, plan = self._rows(made)
        reason = insufficient(rows, plan)
        return {} if reason is None else dict(nothing(rows, reason))

    def fitted(self, made: TrainingSet, author: str) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of the model, and how it did."""
        ref, (rows, plan) = made.noun.ref, self._rows(made)
        scorer, metrics = self._timed(made) if self.kind == "event_time" else self._risk(rows, plan, ref)
        steps = tuple(made.noun.body["attrition"].items())
        about = About(ref, author, steps, description=f"{self.recipe.title}.", uses=_USES)
        said = card(scorer, metrics, plan, about)
        page = html(said, scorer.description.words)
        return artifact.pack(scorer, metrics, said, page, of_model(rows, scorer).to_bytes()), metrics

    def _rows(self, made: TrainingSet) -> tuple[matrix.Rows, Plan]:
        plan = self.plan(made.features)
        return matrix.rows(made.table, made.features, points=plan.scores, groups=plan.groups), plan

    def _risk(self, rows: matrix.Rows, plan: Plan, ref: str) -> tuple[Any, dict[str, Any]]:
        scorer = train(rows, plan, training_set=ref)
        return scorer, evaluate(rows, scorer, plan)

    def _timed(self, made: TrainingSet) -> tuple[Any, dict[str, Any]]:
        """Hazards up to the end of the time at risk."""
        days = self.recipe.design.to_hours / 24 if self.recipe.design is not None else 30.0
        plan = fit.SurvivalPlan(name=self.recipe.name, horizon=days)
        rows = timed(made.table, made.features)
        scorer = fit.train(rows, plan, training_set=made.noun.ref)
        return scorer, evaluate_timed(rows, scorer, plan)


def _stopped(reason: str, metrics: dict[str, Any] | None = None) -> dict[str, Any]:
    figures = metrics or nothing(None, reason)
    return {"model_version": None, "state": None, "metrics": figures, "stopped": reason}
