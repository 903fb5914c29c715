"""Batch transform: a model asked about every row of a table.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTransformJob.html
"""

from __future__ import annotations

import pyarrow as pa

from carelake.features import parquet
from carelake.pipelines.execution.work import Made, Work
from carelake.pipelines.jobs.rows import ALERT, PROBABILITY, Table, model_of, table_of

__all__ = ["transform"]


def transform(work: Work) -> Made:
    """The rows of the input with ``probability`` and ``prediction``, whether an alert is raised, as a table.

    Features stay with ``JoinSource`` ``Input`` only; who it is about, outcomes and groups always do. The rows are
    kept where an erasure finds them. A registered version must be approved; what a training step left may be asked.
    """
    joined = (work.request.get("DataProcessing") or {}).get("JoinSource") == "Input"
    with work.acting("model:read", work.pipeline) as permit:
        model = model_of(work, permit, str(work.request["ModelName"]), released=True)
    with work.acting("features:build", work.pipeline) as permit:
        read = table_of(work, permit, "input", work.settings.get("part", ""))
        _, risks = model.risks(read.table)
        told = [PROBABILITY] if not joined else [*read.features, PROBABILITY]
        body = {"features": told, "model": model.ref, "threshold": model.scorer.threshold}
        table = _scored(read, risks, model.scorer.threshold, joined)
        vault, nouns, made_from = work.platform.vault, work.platform.nouns, (read.noun.ref, model.ref)
        noun = parquet.keep(permit, vault, nouns, "featureset", table, made_from, body)
    return Made({"output": noun.ref})


def _scored(read: Table, risks: object, threshold: float, joined: bool) -> pa.Table:
    aside = {PROBABILITY, ALERT} | (set() if joined else set(read.features))
    table = read.table.select([name for name in read.table.column_names if name not in aside])
    probability = pa.array(risks, pa.float64())
    table = table.append_column(PROBABILITY, probability)
    alerts = pa.array([one >= threshold for one in probability.to_pylist()], pa.bool_())
    return table.append_column(ALERT, alerts).replace_schema_metadata(None)
