"""Check steps: a data set beside a baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from executing import Home, text

from carelake.features import parquet


def kept(home: Home, shift: float) -> str:
    """A training set of 600 made-up rows; its ref."""
    drawn = np.random.default_rng(4)
    columns = {"age": drawn.normal(60 + shift, 10, 600), "n": drawn.poisson(3, 600)}
    columns["subject_id"] = np.arange(600)
    with home.enter("features:build") as permit:
        table, body = pa.table(columns), {"features": ["age", "n"]}
        return parquet.keep(permit, home.vault, home.platform.nouns, "trainingset", table, (), body).ref


def quality(name: str, ref: str, **told: Any) -> dict[str, Any]:
    """A check of the quality of data."""
    source = {"InputName": "baseline_dataset_input", "S3Input": {"S3Uri": ref}}
    arguments = {"AppSpecification": {"ImageUri": "carelake"}, "ProcessingInputs": [source]}
    return {"Name": name, "Type": "QualityCheck", "CheckType": "DATA_QUALITY", "Arguments": arguments, **told}


def test_what_moved_from_the_baseline_fails_the_check_unless_it_is_only_to_be_told(vault: Any) -> None:
    home = Home(vault)
    base = quality("base", kept(home, 0.0), SkipCheck=True)
    supplied = {"SuppliedBaselineStatistics": {"Get": "Steps.base.CalculatedBaselineStatistics"}}
    moved = kept(home, 15.0)
    one, steps = home.run(text(base, quality("told", moved, FailOnViolation=False, **supplied)))
    assert one.status == "Succeeded", one.reason
    said = steps["told"].output["properties"]
    assert (
        said["BaselineUsedForDriftCheckStatistics"]
        == steps["base"].output["properties"]["CalculatedBaselineStatistics"]
    )
    assert home.run(text(base, quality("same", kept(home, 0.0), **supplied)))[0].status == "Succeeded"
    one, _ = home.run(text(base, quality("moved", moved, **supplied)))
    assert one.reason == "Step moved failed: pipelines.violations: Columns have moved from the baseline: age."
    one, _ = home.run(text(quality("alone", moved)))
    assert "pipelines.no_baseline" in one.reason


def test_checks_that_no_job_does_are_refused_when_they_are_defined(vault: Any) -> None:
    from carelake.core.errors import NotFound

    step = {**quality("bias", "trainingset:" + "0" * 64), "Type": "ClarifyCheck", "CheckType": "DATA_BIAS"}
    with pytest.raises(NotFound, match="Step bias"):
        Home(vault).define(text(step))
