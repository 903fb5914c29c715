"""Jobs of the recipe ``readmission``, each in acts of its own, by the principal whose work it is."""

from __future__ import annotations

from typing import Any

from carelake.core import canonical
from carelake.features import featureset, readmission, trainingset
from carelake.features.datasets import build as building
from carelake.features.datasets import design
from carelake.lake import asof, query
from carelake.models import artifact, matrix
from carelake.models.card import About, card, html
from carelake.models.evaluate import evaluate, insufficient, nothing
from carelake.models.train import Plan, planned, train
from carelake.monitor.baseline import of_model
from carelake.pipelines.execution.work import Files, Made, Work

__all__ = ["dataset", "features", "fit", "sync"]

_NAME = "readmission"
_EMPTY = "The record is empty, so there is nothing to learn from; read data with `carelake ingest` first."


def sync(work: Work) -> Made:
    """Bring the lake up to the record, or find the snapshot of ``as_of``; it names the data of this execution."""
    platform = work.platform
    if told := work.settings.get("as_of"):
        with work.acting("features:build", _NAME) as permit:
            snapshot = asof.as_of(permit, platform.vault, platform.nouns, told).ref
    else:
        with work.acting("lake:sync", "lake", job=True) as permit:
            snapshot = platform.sync(permit).snapshot_ref
    said: dict[str, Any] = {"snapshot": snapshot or None, "empty": not snapshot}
    if not snapshot:
        said["metrics"] = nothing(None, _EMPTY)
    return _report(said, "report", *([snapshot] if snapshot else []))


def features(work: Work) -> Made:
    """Run the flat views over the snapshot, some patients at a time; cohort, labels and features as of discharge.

    The setting ``engine`` is that of ``datasets.build.engine_for``; the rows are the same.
    """
    vault, nouns = work.platform.vault, work.platform.nouns
    with work.acting("features:build", _NAME, job=True) as permit:
        snapshot = query.snapshot_of(permit, vault, nouns, work.ref("snapshot"))
        lake = building.Lake(permit, vault, nouns)
        engine = str(work.settings.get("engine") or "") or None
        made = building.feature_set(lake, design.read(_NAME), snapshot, engine=engine).noun
    return Made({"features": made.ref})


def dataset(work: Work) -> Made:
    """Share the labelled rows out by patient and time, and say whether they are enough for a sound estimate."""
    vault, nouns = work.platform.vault, work.platform.nouns
    with work.acting("features:build", _NAME) as permit:
        read = featureset.load(permit, vault, work.noun(permit, work.ref("features")))
        shared = trainingset.create(permit, vault, nouns, read)
    made = shared.noun
    rows = matrix.rows(shared.table, shared.features)
    reason = insufficient(rows, Plan(name=_NAME))
    said = {name: made.body[name] for name in ("rows", "attrition", "split")}
    said |= {"training_set": made.ref, "enough": reason is None}
    if reason is not None:
        said["metrics"] = nothing(rows, reason)
    report = _report(said, "report", made.ref)
    return Made({"dataset": made.ref, **report.outputs})


def fit(work: Work) -> Made:
    """Train, calibrate and evaluate; the model with its figures, its card and the baseline of its monitor."""
    ref, plan = work.ref("training"), planned({"name": _NAME, **work.settings})
    with work.acting("model:train", _NAME) as permit:
        noun = work.noun(permit, ref)
        made = trainingset.load(permit, work.platform.vault, noun)
        rows = matrix.rows(made.table, made.features)
        words = {feature.name: feature.description for feature in readmission.features()}
        scorer = train(rows, plan, training_set=ref, words=words)
        metrics = evaluate(rows, scorer, plan)
        about = About(ref, permit.principal, attrition=tuple(noun.body["attrition"].items()))
    said = card(scorer, metrics, plan, about)
    files = artifact.pack(scorer, metrics, said, html(said, words), of_model(rows, scorer).to_bytes())
    figures = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return Made({"model": Files(files)}, metrics=figures)


def _report(said: dict[str, Any], output: str, *made_from: str) -> Made:
    return Made({output: Files({"report.json": canonical.dump(said)}, made_from)})
