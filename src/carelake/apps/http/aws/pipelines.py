"""Pipelines and their executions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.served import Asked, Run, Served, snake
from carelake.apps.http.aws.taking import wrong
from carelake.core.errors import NotFound

__all__ = ["operations"]

_READS, _DEFINES, _RUNS = "pipeline:read", "pipeline:define", "pipeline:run"
_TARGET = "pipelines"
_SERVED = {
    "CreatePipeline": _DEFINES,
    "UpdatePipeline": _DEFINES,
    "DeletePipeline": _DEFINES,
    "DescribePipeline": _READS,
    "ListPipelines": _READS,
    "StartPipelineExecution": _RUNS,
    "StopPipelineExecution": _RUNS,
    "RetryPipelineExecution": _RUNS,
    "UpdatePipelineExecution": _RUNS,
    "SendPipelineExecutionStepSuccess": _RUNS,
    "SendPipelineExecutionStepFailure": _RUNS,
    "DescribePipelineExecution": _READS,
    "DescribePipelineDefinitionForExecution": _READS,
    "ListPipelineExecutions": _READS,
    "ListPipelineExecutionSteps": _READS,
    "ListPipelineParametersForExecution": _READS,
}


def operations() -> list[Served]:
    """What is served of them."""
    again = {"CreatePipeline": _is_there}
    return [
        Served(SAGEMAKER, name, action, _TARGET, _run(name), changes=action != _READS, again=again.get(name))
        for name, action in _SERVED.items()
    ]


def _is_there(asked: Asked) -> bool:
    """Whether a pipeline of the name is there: then this is the same request again, or an error."""
    try:
        asked.door.platform.pipelines.describe_pipeline(asked.permit, {"PipelineName": asked.said["PipelineName"]})
    except NotFound:
        return False
    return True


def _run(name: str) -> Run:
    (method,) = snake({name: None})

    def run(asked: Asked) -> Mapping[str, Any]:
        if name == "ListPipelineExecutionSteps" and "PipelineExecutionArn" not in asked.said:
            raise wrong("PipelineExecutionArn", "a value; the steps of an execution are listed")
        done: Mapping[str, Any] = getattr(asked.door.platform.pipelines, method)(asked.permit, asked.said)
        return done

    return run
