"""Which jobs there are: the name that a step may give, the function that does it, and whose code makes its result.

A step of type Processing or Training names its job in ``ContainerEntrypoint``: ``["carelake-job", NAME]``; a Tuning
step may say it as the static hyperparameter ``carelake-job``; a Lambda step in ``FunctionArn``, whose last part is
the name. Functions are imported where they are carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import NotFound
from carelake.pipelines.definition.document import Definition, Step
from carelake.pipelines.definition.shapes import ENTRY

__all__ = ["JOBS", "Job", "check_jobs", "job_of", "named"]

_HERE = "carelake.pipelines.jobs"
_CHECKS = {
    "DATA_QUALITY": "monitor.data-quality",
    "MODEL_QUALITY": "monitor.model-quality",
    "DATA_BIAS": "monitor.data-bias",
    "MODEL_BIAS": "monitor.model-bias",
    "MODEL_EXPLAINABILITY": "monitor.explainability",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        does: ``MODULE:FUNCTION``; takes a `Work` and gives what it `Made`.
    """

    name: str
    does: str


JOBS: dict[str, Job] = {
    one.name: one
    for one in (
        Job("lake.sync", f"{_HERE}.readmission:sync"),
        Job("features.readmission", f"{_HERE}.readmission:features"),
        Job("features.split", f"{_HERE}.readmission:dataset"),
        Job("models.train", f"{_HERE}.readmission:fit"),
        Job("models.evaluate", f"{_HERE}.releasing:judge"),
        Job("models.register", f"{_HERE}.releasing:register"),
        Job("models.approve", f"{_HERE}.releasing:approve"),
        Job("serving.deploy", f"{_HERE}.releasing:deploy"),
        Job("models.transform", f"{_HERE}.transforming:transform"),
        Job("monitor.data-quality", f"{_HERE}.checks:data_quality"),
        Job("monitor.model-quality", f"{_HERE}.checks:model_quality"),
        Job("monitor.data-bias", f"{_HERE}.clarify:data_bias"),
        Job("monitor.model-bias", f"{_HERE}.clarify:model_bias"),
        Job("monitor.explainability", f"{_HERE}.clarify:explainability"),
        Job("study.dataset", f"{_HERE}.studies:study_dataset"),
        Job("study.train", f"{_HERE}.studies:study_fit"),
        Job("uci.rows", f"{_HERE}.studies:uci_rows"),
        Job("uci.train", f"{_HERE}.studies:uci_train"),
        Job("utilisation.days", f"{_HERE}.studies:utilisation_days"),
        Job("utilisation.train", f"{_HERE}.studies:utilisation_train"),
    )
}


def named(name: str, jobs: Mapping[str, Job] = JOBS) -> Job:
    """A job; `NotFound` ``pipelines.no_such_job``."""
    if name not in jobs:
        raise NotFound("pipelines.no_such_job", f"There is no such job; there are: {', '.join(sorted(jobs))}.")
    return jobs[name]


def job_of(step: Step) -> str | None:
    """The name of the job that a step runs, None where it runs none."""
    arguments: Mapping[str, Any] = step.arguments
    if step.type == "Tuning":
        arguments = arguments["TrainingJobDefinition"]
    if step.type in ("Training", "Tuning"):
        named = (arguments.get("StaticHyperParameters") or {}).get(ENTRY)
        return str(named or arguments["AlgorithmSpecification"]["ContainerEntrypoint"][1])
    entry = (arguments.get("AppSpecification") or {}).get("ContainerEntrypoint")
    if entry:
        return str(entry[1])
    if step.type in ("QualityCheck", "ClarifyCheck"):
        return _CHECKS[str(step.said["CheckType"])]
    if step.type == "Lambda":
        return str(step.said.get("FunctionArn") or "").rpartition(":")[2]
    if step.type == "Transform":
        return str((arguments.get("Environment") or {}).get("CARELAKE_JOB", "models.transform"))
    return "models.register" if step.type == "RegisterModel" else None


def check_jobs(definition: Definition, jobs: Mapping[str, Job] = JOBS) -> None:
    """Let pass a definition all of whose jobs there are; `NotFound` ``pipelines.no_such_job``."""
    for step in definition.steps.values():
        name = job_of(step)
        if name is not None and name not in jobs:
            raise NotFound(
                "pipelines.no_such_job",
                f"Step {step.name} names a job that there is not; there are: {', '.join(sorted(jobs))}.",
            )
