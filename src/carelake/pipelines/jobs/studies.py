"""Jobs of prediction studies and of ``uci-readmission`` and ``utilisation``: their steps in a pipeline."""

from __future__ import annotations

from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.features import trainingset
from carelake.features.datasets import design
from carelake.pipelines.execution.work import Files, Made, Work
from carelake.pipelines.study import KINDS, Study
from carelake.pipelines.uci import UciReadmission
from carelake.pipelines.utilisation import Utilisation

__all__ = ["study_dataset", "study_fit", "uci_rows", "uci_train", "utilisation_days", "utilisation_train"]

_TARGET = "pipelines"


def study_dataset(work: Work) -> Made:
    """The rows of the study ``recipe`` as of the input ``snapshot``, and whether they are enough for a model."""
    work.check("features:build", _TARGET)
    study = _study(work)
    made = study.dataset(work.ref("snapshot"))
    said: dict[str, Any] = {"training_set": made.noun.ref, "attrition": dict(made.noun.body["attrition"])}
    lacking = study.lacking(made)
    said |= {"rows": made.noun.body["rows"], "enough": not lacking, **({"metrics": lacking} if lacking else {})}
    return _told(said, {"dataset": made.noun.ref})


def study_fit(work: Work) -> Made:
    """Train, calibrate and evaluate a model of the study ``recipe``, of the ``kind`` asked for."""
    study = _study(work)
    with work.acting("model:train", study.recipe.name) as permit:
        made = trainingset.load(permit, work.platform.vault, work.noun(permit, work.ref("training")))
        files, metrics = study.fitted(made, permit.principal)
    figures = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return Made({"model": Files(files)}, metrics=figures)


def _study(work: Work) -> Study:
    kind = str(work.settings.get("kind") or KINDS[0])
    if kind not in KINDS:
        raise Invalid("pipelines.parameter", f"There is no such kind of model; there are: {', '.join(KINDS)}.")
    return Study(work.platform, work.caller, design.read(str(work.settings.get("recipe") or "")), kind)


def uci_rows(work: Work) -> Made:
    """The training set of the UCI file that the input ``source`` is."""
    work.check("features:build", _TARGET)
    said = UciReadmission(work.platform, work.caller, work.data("source")).training_set()
    return _told(said, {"dataset": said["training_set"]})


def uci_train(work: Work) -> Made:
    """Tune, train, calibrate, evaluate and register; with too few cases it says so and makes no model."""
    work.check("model:train", _TARGET)
    said = UciReadmission(work.platform, work.caller, b"").train(_dataset(work))
    return _told(said, {})


def utilisation_days(work: Work) -> Made:
    """Counts of every unit and day as of the input ``snapshot``."""
    work.check("features:build", _TARGET)
    said = Utilisation(work.platform, work.caller).daily(work.ref("snapshot"))
    return _told(said, {"dataset": said["training_set"]})


def utilisation_train(work: Work) -> Made:
    """Fit, judge by backtest, register, and foretell."""
    work.check("model:train", _TARGET)
    return _told(Utilisation(work.platform, work.caller).train(_dataset(work)), {})


def _dataset(work: Work) -> dict[str, Any]:
    """What the step before told of its training set."""
    with work.acting("pipeline:step", work.pipeline) as permit:
        found = msgspec.json.decode(work.read(permit, work.ref("report"), "report.json"))
    if not isinstance(found, dict) or "training_set" not in found:
        raise Invalid("pipelines.no_input", "The job needs the report of the step that made the training set.")
    return found


def _told(said: dict[str, Any], outputs: dict[str, str]) -> Made:
    made_from = list(outputs.values())
    return Made({**outputs, "report": Files({"report.json": canonical.dump(said)}, made_from)})
