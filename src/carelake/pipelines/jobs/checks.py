"""Jobs of QualityCheck steps: a data set, or risks beside their outcomes, held against a baseline.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-quality-check
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc

from carelake.core.errors import Invalid, Unsupported
from carelake.models.matrix import Floats
from carelake.monitor import performance, quality
from carelake.monitor.baseline import PREDICTION, Baseline, counted_table, of_table
from carelake.monitor.drift import Bounds, judge
from carelake.monitor.performance import Labelled
from carelake.pipelines.execution.work import Made, Work
from carelake.pipelines.jobs.baselines import concluded, of_figures, too_few
from carelake.pipelines.jobs.rows import LABEL, PROBABILITY, Table, outcomes, owners, table_of

__all__ = ["ENOUGH", "data_quality", "labelled", "model_quality"]

_Judged = tuple[Mapping[str, Any], Baseline, Callable[[Baseline], tuple[Mapping[str, Any], Sequence[str]]]]
_INPUT = "baseline_dataset_input"
_HALF = 0.5
ENOUGH = f"{performance.ENOUGH} with the outcome and {performance.ENOUGH} without"


def data_quality(work: Work) -> Made:
    """Statistics and constraints of a data set; where there is a baseline, what has moved from it.

    Raises:
        Invalid: as `baselines.concluded`; ``pipelines.too_few``.
    """
    with work.acting("features:build", work.pipeline) as permit:
        read = table_of(work, permit, _INPUT, work.settings.get("part", ""))
    features = read.table.select(list(read.features))
    made = of_table(features, "data set")

    def held(base: Baseline) -> tuple[Mapping[str, Any], Sequence[str]]:
        # The data set has no risks, but where it is what a batch transform made.
        asked = {k: v for k, v in base.spread.items() if k != PREDICTION}
        base = msgspec.structs.replace(base, spread=asked)
        seen = counted_table(base.spread, features)
        patients = pc.count_distinct(read.column("subject_id")).as_py() if _named(read) else len(features)
        found = judge(base, seen, len(features), patients=patients, columns=features.column_names)
        if found.reason:
            raise too_few(f"{Bounds().enough} rows and patients")
        return found.as_json(), [one["feature_name"] for one in found.violations]

    files = {"statistics.json": made.statistics, "constraints.json": made.constraints}
    return concluded(work, "DATA_QUALITY", made, files, held, [read.noun.ref])


def _named(read: Table) -> bool:
    return "subject_id" in read.table.column_names


def model_quality(work: Work) -> Made:
    """How good answers were, where outcomes are known: SageMaker's metrics, judged as the monitor judges them.

    The environment says which columns are which, as SageMaker's container is told: ``probability_attribute`` or
    ``inference_attribute``, ``ground_truth_attribute``, ``probability_threshold_attribute``, ``problem_type``.

    Raises:
        Invalid: as `baselines.concluded`; ``pipelines.too_few``, ``pipelines.no_column``.
        Unsupported: ``pipelines.unsupported``: a problem_type that is neither BinaryClassification nor Regression.
    """
    told = work.settings
    problem = told.get("problem_type", "BinaryClassification")
    if problem not in ("BinaryClassification", "Regression"):
        raise Unsupported("pipelines.unsupported", "The problem_type is BinaryClassification or Regression here.")
    with work.acting("monitor:check", work.pipeline) as permit:
        read = table_of(work, permit, _INPUT, told.get("part", ""))
    judged = _risks_judged if problem == "BinaryClassification" else _amounts_judged
    metrics, base, held = judged(read, told)
    files = {
        "statistics.json": {"version": 0.0, "dataset": {"item_count": base.rows}, **metrics},
        "constraints.json": quality.constraints(metrics),
    }
    return concluded(work, "MODEL_QUALITY", base, files, held, [read.noun.ref])


def _risks_judged(read: Table, told: Mapping[str, Any]) -> _Judged:
    p, label = _risks(read, told), told.get("ground_truth_attribute", LABEL)
    seen = labelled(read, p, label, _threshold(told, read))[0]
    if performance.too_few(seen):
        raise too_few(ENOUGH)
    base = of_figures(len(seen), "predictions", quality=performance.baseline(seen))

    def held(before: Baseline) -> tuple[Mapping[str, Any], Sequence[str]]:
        found = performance.judge(base.quality["figures"], _figures(before, "auc"))
        return {"violations": found}, [one["metric_name"] for one in found]

    return quality.binary(seen.y, seen.p, seen.threshold), base, held


def _amounts_judged(read: Table, told: Mapping[str, Any]) -> _Judged:
    columns = (told.get("ground_truth_attribute", LABEL), told.get("inference_attribute", PROBABILITY))
    real, said = (_numbers(read, name) for name in columns)
    known = np.isfinite(real) & np.isfinite(said)
    if known.sum() < performance.ENOUGH:
        raise too_few(f"{performance.ENOUGH} with what came")
    metrics = quality.regression(real[known], said[known])
    base = of_figures(int(known.sum()), "predictions", quality={"figures": metrics["regression_metrics"]})

    def held(before: Baseline) -> tuple[Mapping[str, Any], Sequence[str]]:
        found = quality.worse(metrics["regression_metrics"], _figures(before, "mae")["figures"])
        return {"violations": found}, [one["metric_name"] for one in found]

    return metrics, base, held


def labelled(
    read: Table, p: Floats, label: str, threshold: float, positive: Sequence[Any] = ()
) -> tuple[Labelled, np.ndarray]:
    """The rows whose outcome is known, and which of all they are."""
    y, known = outcomes(read.column(label), positive)
    known &= np.isfinite(p)
    return Labelled(y[known], p[known], owners(read.table)[known], threshold), known


def _risks(read: Table, told: Mapping[str, Any]) -> Floats:
    if "probability_attribute" not in told and "inference_attribute" in told:
        said, known = outcomes(read.column(told["inference_attribute"]))
        return np.where(known, said.astype(np.float64), np.nan)
    return _numbers(read, told.get("probability_attribute", PROBABILITY))


def _numbers(read: Table, name: str) -> Floats:
    try:
        column = pc.fill_null(read.column(name).cast("double"), float("nan"))
    except (ValueError, NotImplementedError):  # pyarrow's own are of these
        raise Invalid("pipelines.no_column", f"The column {name[:64]} does not hold numbers.") from None
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _threshold(told: Mapping[str, Any], read: Table) -> float:
    """Of an alert: as told, else the model's that made the risks, else one half."""
    try:
        found = float(told.get("probability_threshold_attribute") or read.noun.body.get("threshold", _HALF))
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1.0:
        raise Invalid("pipelines.parameter", "A threshold of risks is a number between 0 and 1.")
    return found


def _figures(before: Baseline, needed: str) -> dict[str, Any]:
    """Figures of a baseline; what was no number then is none now."""
    figures = before.quality.get("figures") or {}
    if needed not in figures:
        raise Invalid(
            "pipelines.no_baseline",
            "The baseline has no such figures of quality; supply one that such a check left.",
        )
    nan = float("nan")
    return {"figures": {k: {n: nan if x is None else x for n, x in one.items()} for k, one in figures.items()}}
