"""Tuning steps: the training job for each candidate, one after another; the best by its objective is the result.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTuningJobConfig.html
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from carelake.core.errors import Invalid
from carelake.pipelines.execution.work import Made

__all__ = ["candidates", "tuned"]

_KINDS = ("CategoricalParameterRanges", "IntegerParameterRanges", "ContinuousParameterRanges")


def tuned(config: Mapping[str, Any], train: Callable[[dict[str, str]], Made]) -> Made:
    """Train every candidate; the model of the best one, with what it was told and its figure.

    Args:
        config: ``HyperParameterTuningJobConfig``.

    Raises:
        Invalid: ``pipelines.objective``: the job gives no figure of that name; ``pipelines.ranges``.
    """
    objective = config["HyperParameterTuningJobObjective"]
    name, sign = str(objective["MetricName"]), 1 if objective["Type"] == "Maximize" else -1
    best: tuple[float, int, dict[str, str], Made] | None = None
    for number, settings in enumerate(candidates(config)):
        made = train(settings)
        if name not in made.metrics:
            raise Invalid("pipelines.objective", "The job gives no figure of the objective's name.")
        if best is None or sign * made.metrics[name] > best[0]:
            best = (sign * made.metrics[name], number, settings, made)
    if best is None:
        raise Invalid("pipelines.ranges", "The ranges leave no candidate.")
    _, number, settings, made = best
    values = {
        "BestTrainingJob.TrainingJobName": f"candidate-{number + 1}",
        "BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value": made.metrics[name],
        "BestTrainingJob.TunedHyperParameters": settings,
    }
    return Made(made.outputs, {**made.values, **values}, made.metrics)


def candidates(config: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What each candidate is told: the grid in its order, or draws that ``RandomSeed`` fixes."""
    most = int(config["ResourceLimits"]["MaxNumberOfTrainingJobs"])
    ranges = config["ParameterRanges"]
    if config["Strategy"] == "Grid":
        if ranges.get(_KINDS[1]) or ranges.get(_KINDS[2]):
            raise Invalid("pipelines.ranges", "A grid is of categorical ranges alone.")
        named = [(str(one["Name"]), [str(value) for value in one["Values"]]) for one in ranges.get(_KINDS[0]) or ()]
        grid = itertools.product(*(values for _, values in named))
        yield from (dict(zip((name for name, _ in named), one, strict=True)) for one in itertools.islice(grid, most))
        return
    drawn = random.Random(int(config.get("RandomSeed") or 0))  # noqa: S311 - the same draws each time
    for _ in range(most):
        yield {str(one["Name"]): _draw(drawn, kind, one) for kind in _KINDS for one in ranges.get(kind) or ()}


def _draw(drawn: random.Random, kind: str, one: Mapping[str, Any]) -> str:
    if kind == _KINDS[0]:
        return str(drawn.choice(one["Values"]))
    try:
        low, high = float(one["MinValue"]), float(one["MaxValue"])
    except ValueError:
        raise _wrong() from None
    scale = one.get("ScalingType", "Auto")
    if not low <= high or scale not in ("Auto", "Linear", "Logarithmic") or (scale == "Logarithmic" and low <= 0):
        raise _wrong()
    if scale == "Logarithmic":
        value = math.exp(drawn.uniform(math.log(low), math.log(high)))
    else:
        value = drawn.uniform(low, high)
    return str(round(value)) if kind == _KINDS[1] else repr(value)


def _wrong() -> Invalid:
    return Invalid(
        "pipelines.ranges", "A range needs MinValue up to MaxValue, and Auto, Linear or Logarithmic scale."
    )
