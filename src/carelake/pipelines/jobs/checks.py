"""Jobs of check steps: a data set against a baseline, in SageMaker's files.

https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-steps-types.html#step-type-quality-check
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.features import parquet
from carelake.models.registry import APPROVED
from carelake.monitor.baseline import PREDICTION, Baseline, counted_table, of_table
from carelake.monitor.drift import judge
from carelake.pipelines.execution.work import Files, Made, Work, given

__all__ = ["data_quality"]

_INPUT = "baseline_dataset_input"
_SUBJECT = "subject_id"


def data_quality(work: Work) -> Made:
    """Statistics and constraints of a data set; where there is a baseline, what has moved from it.

    The baseline is the one supplied, else that of the newest approved version of ``ModelPackageGroupName``. A check
    that finds violations fails, unless ``FailOnViolation`` is false.

    Raises:
        Invalid: ``pipelines.violations``, with the columns' names; ``pipelines.no_baseline``.
    """
    told = work.request.get("Check") or {}
    with work.acting("features:build", work.pipeline) as permit:
        noun = work.noun(permit, work.ref(_INPUT))
        table = parquet.read(permit, work.platform.vault, noun)
    features = table.select([name for name in noun.body["features"] if name in table.column_names])
    made = of_table(features, "data set")
    files = {
        "baseline.json": made.to_bytes(),
        "constraints.json": canonical.dump(made.constraints),
        "statistics.json": canonical.dump(made.statistics),
    }
    if not told.get("SkipCheck"):
        found = _compared(_baseline(work, told), table, features)
        files["constraint_violations.json"] = canonical.dump(found)
        moved = sorted({one["feature_name"] for one in found["violations"]})
        if moved and told.get("FailOnViolation") is not False:
            raise Invalid("pipelines.violations", f"Columns have moved from the baseline: {', '.join(moved[:20])}.")
    return Made({"result": Files(files, [noun.ref])})


def _compared(base: Baseline, table: pa.Table, features: pa.Table) -> dict[str, Any]:
    patients = pc.count_distinct(table.column(_SUBJECT)).as_py() if _SUBJECT in table.column_names else len(table)
    seen = counted_table(base.spread, features)
    return judge(base, seen, len(table), patients=patients, columns=features.column_names).as_json()


def _baseline(work: Work, told: dict[str, Any]) -> Baseline:
    supplied = told.get("SuppliedBaselineStatistics") or told.get("SuppliedBaselineConstraints")
    if supplied:
        with work.acting("pipeline:step", work.pipeline) as permit:
            found = msgspec.json.decode(work.read(permit, given(str(supplied), local=False).ref, "baseline.json"))
    elif group := told.get("ModelPackageGroupName"):
        with work.acting("model:read", str(group)) as permit:
            registry = work.platform.registry
            refs = [one.ref for one in registry.versions(permit, str(group)) if one.state == APPROVED]
            if not refs:
                raise _none()
            found = registry.files(permit, refs[0]).baseline
    else:
        raise _none()
    base = Baseline.from_json(found)
    # The data set has no risks.
    return msgspec.structs.replace(base, spread={k: v for k, v in base.spread.items() if k != PREDICTION})


def _none() -> Invalid:
    return Invalid(
        "pipelines.no_baseline",
        "There is nothing to check against: supply a baseline, name a group with an approved version, or SkipCheck.",
    )
