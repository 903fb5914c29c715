"""Tuning steps: the training job for each candidate, one after another; the best by its objective is the result.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperParameterTuningJobConfig.html
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid
from carelake.pipelines.execution.work import Made

__all__ = ["candidate_of", "candidates", "tuned"]

_KINDS = ("CategoricalParameterRanges", "IntegerParameterRanges", "ContinuousParameterRanges")
_TOLD = 50
"""Candidates that are told of, the best ones."""
_DIGITS = 3
"""Of the number at the end of a training job's name."""


@dataclass(frozen=True)
class _Tried:
    """One candidate: the ARN of its training job, what it was told, and what came of it."""

    arn: str
    settings: Mapping[str, str]
    made: Made
    figure: float

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]


def tuned(config: Mapping[str, Any], train: Callable[[dict[str, str]], Made], arn: Callable[[int], str]) -> Made:
    """Train every candidate; the model of the best one, and of each what it was told and its figure, the best first.

    Args:
        config: ``HyperParameterTuningJobConfig``.
        train: does the job and keeps its outputs.
        arn: of the so-manieth training job, from 1.

    Raises:
        Invalid: ``pipelines.objective``: the job gives no figure of that name; ``pipelines.ranges``.
    """
    objective = config["HyperParameterTuningJobObjective"]
    name = str(objective["MetricName"])
    found: list[_Tried] = []
    for number, settings in enumerate(candidates(config), 1):
        made = train(settings)
        if name not in made.metrics:
            raise Invalid("pipelines.objective", "The job gives no figure of the objective's name.")
        found.append(_Tried(arn(number), settings, made, made.metrics[name]))
    if not found:
        raise Invalid("pipelines.ranges", "The ranges leave no candidate.")
    sign = 1 if objective["Type"] == "Maximize" else -1
    # Stable: of two that are as good, the one that was tried first. What is no number is the worst.
    found.sort(key=lambda one: -math.inf if math.isnan(one.figure) else sign * one.figure, reverse=True)
    best = found[0].made
    values: dict[str, Any] = {**best.values, **_told("BestTrainingJob", found[0], objective)}
    for place, one in enumerate(found[:_TOLD]):
        values |= _told(f"TrainingJobSummaries[{place}]", one, objective)
    models = {
        f"candidate-{one.name[-_DIGITS:]}": one.made.outputs["model"]
        for one in found[:_TOLD]
        if "model" in one.made.outputs
    }
    return Made({**best.outputs, **models}, values, best.metrics)


def _told(path: str, one: _Tried, objective: Mapping[str, Any]) -> dict[str, Any]:
    """Properties of one candidate, as ListTrainingJobsForHyperParameterTuningJob tells them."""
    metric = f"{path}.FinalHyperParameterTuningJobObjectiveMetric"
    return {
        f"{path}.TrainingJobName": one.name,
        f"{path}.TrainingJobArn": one.arn,
        f"{path}.TrainingJobStatus": "Completed",
        f"{path}.ObjectiveStatus": "Succeeded",
        f"{metric}.Type": str(objective["Type"]),
        f"{metric}.MetricName": str(objective["MetricName"]),
        f"{metric}.Value": one.figure,
        **{f"{path}.TunedHyperParameters['{name}']": value for name, value in one.settings.items()},
    }


def candidate_of(said: Mapping[str, Any], outputs: Mapping[str, Any], name: str) -> str | None:
    """The model of the training job of that name, among a tuning step's properties and outputs; None for another."""
    known = any(value == name for path, value in said.items() if path.endswith("].TrainingJobName"))
    found = outputs.get(f"candidate-{name[-_DIGITS:]}") if known else None
    return None if found is None else str(found)


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
