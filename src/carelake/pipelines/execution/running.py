"""Carries out one step's job: in the process that was made for it, or in this one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.core import errors
from carelake.core.errors import CarelakeError, Conflict, Unavailable
from carelake.pipelines.definition.shapes import ENTRY
from carelake.pipelines.execution import artifacts
from carelake.pipelines.execution.bounds import bounded
from carelake.pipelines.execution.tuning import tuned
from carelake.pipelines.execution.work import Files, Given, JobFunction, Made, Work, given
from carelake.pipelines.names import job_arn

if TYPE_CHECKING:
    from carelake.pipelines.platform import Platform

__all__ = ["Task", "error_of", "failed", "function", "inputs_of", "run_task", "settings_of"]

Task = dict[str, Any]
"""One step's work as JSON: ``execution``, ``pipeline``, ``step``, ``type``, ``does``, ``request``, ``local``,
``principal``, ``purpose``, ``account``, ``bounds``, ``seconds``."""


def run_task(platform: Platform, caller: Caller, task: Task) -> dict[str, Any]:
    """Do it; answers ``outputs``, ``values``, ``metrics`` and the actions ``asked``, or an ``error`` of some kind."""
    caller = replace(caller, principal=bounded(caller.principal, task.get("bounds")))
    try:
        return _run(platform, caller, task)
    except CarelakeError as error:
        return failed(error.code, error.message, _kind(error), type(error).__name__)
    except Exception as error:
        # Its text may hold anything.
        return failed(type(error).__name__, "The job ended with an error of its own.", "SageMaker.JOB_INTERNAL_ERROR")


def failed(code: str, message: str, kind: str, error: str = "") -> dict[str, Any]:
    """A failure; ``kind`` is one of `retries.EXCEPTIONS`, "" for one that no attempt can mend."""
    return {"error": {"code": code, "message": message, "kind": kind, "class": error}}


def error_of(said: Mapping[str, str]) -> CarelakeError:
    """The error that a step ended with, for whoever waited for it."""
    found = getattr(errors, said.get("class") or "", None)
    kind = found if isinstance(found, type) and issubclass(found, CarelakeError) else Unavailable
    return kind(said["code"], said["message"])


def _kind(error: CarelakeError) -> str:
    if isinstance(error, Unavailable):
        return "Step.SERVICE_FAULT"
    return "Step.THROTTLING" if isinstance(error, Conflict) else ""


def _run(platform: Platform, caller: Caller, task: Task) -> dict[str, Any]:
    does, request, asked = function(task["does"]), task["request"], set[str]()
    if task["type"] == "Tuning":
        definition = dict(request["TrainingJobDefinition"])
        fixed = {k: v for k, v in definition.pop("StaticHyperParameters", {}).items() if k != ENTRY}
        first = job_arn(caller.account, "training-job", task["execution"], task["step"])

        def train(told: dict[str, str]) -> Made:
            own = _work(platform, caller, task, {**definition, "HyperParameters": {**fixed, **told}}, asked)
            return _kept(own, does(own))

        made = tuned(request["HyperParameterTuningJobConfig"], train, lambda number: f"{first}-{number:03}")
    else:
        work = _work(platform, caller, task, request, asked)
        made = _kept(work, does(work))
    said: dict[str, Any] = {"outputs": dict(made.outputs), "values": dict(made.values), "metrics": dict(made.metrics)}
    said["asked"] = sorted(asked)
    return said | (failed("pipelines.violations", made.violated, "", "Invalid") if made.violated else {})


def _work(platform: Platform, caller: Caller, task: Task, request: Mapping[str, Any], asked: set[str]) -> Work:
    return Work(
        platform,
        caller,
        task["execution"],
        task["pipeline"],
        task["step"],
        settings_of(task["type"], request),
        _arguments(request),
        dict(inputs_of(request, local=task["local"])),
        request,
        task["local"],
        asked,
    )


def function(does: str) -> JobFunction:
    """The function of ``MODULE:FUNCTION``; the text is a catalogue's, never a definition's."""
    module, _, name = does.partition(":")
    found: JobFunction = getattr(importlib.import_module(module), name)
    return found


def _kept(work: Work, made: Made) -> Made:
    """What a job made, with refs in place of files."""
    outputs = {name: one if isinstance(one, str) else _keep(work, one) for name, one in made.outputs.items()}
    return replace(made, outputs=outputs)


def _keep(work: Work, files: Files) -> str:
    sources = [*files.made_from, *(one.ref for one in work.inputs.values() if one.ref)]
    with work.acting("pipeline:step", work.pipeline) as permit:
        return artifacts.keep(permit, work.platform.vault, work.platform.nouns, files.content, sources).ref


def inputs_of(request: Mapping[str, Any], *, local: bool) -> Iterator[tuple[str, Given]]:
    """Inputs by name, of a Processing, Training or Transform job, or of a model that is registered."""
    for one in request.get("ProcessingInputs") or ():
        yield str(one["InputName"]), given(str(one["S3Input"]["S3Uri"]), local=local)
    for one in request.get("InputDataConfig") or ():
        yield str(one["ChannelName"]), given(str(one["DataSource"]["S3DataSource"]["S3Uri"]), local=local)
    if "TransformInput" in request:
        uri = request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        yield "input", given(str(uri), local=local)
        if (name := str(request["ModelName"])).startswith(("artifact:", "model:")):
            yield "model", Given(name)
    if "InferenceSpecification" in request:
        yield "model", given(str(request["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]), local=local)
    for key in ("ModelMetrics", "DriftCheckBaselines"):
        for name, source in _metrics(request.get(key) or {}):
            yield f"{key}.{name}", given(source, local=local)


def _metrics(said: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Reports and baselines of a model that is registered: ``ModelQuality.Statistics`` and its like."""
    for name, value in said.items():
        if isinstance(value, Mapping):
            if "S3Uri" in value:
                yield f"{path}{name}", str(value["S3Uri"])
            else:
                yield from _metrics(value, f"{path}{name}.")


def settings_of(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Environment and hyperparameters; of a function, its arguments."""
    if kind == "Lambda":
        return dict(request)
    found = {**(request.get("Environment") or {}), **(request.get("HyperParameters") or {})}
    return {name: str(value) for name, value in found.items()}


def _arguments(request: Mapping[str, Any]) -> tuple[str, ...]:
    said = request.get("AppSpecification") or request.get("AlgorithmSpecification") or {}
    return tuple(map(str, said.get("ContainerArguments") or ()))
