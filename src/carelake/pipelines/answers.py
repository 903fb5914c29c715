"""Answers in SageMaker's shapes: pipelines, executions and steps as the API tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.pipelines.execution.rows import Execution, StepRow
from carelake.pipelines.names import execution_arn, job_arn, pipeline_arn
from carelake.vault.keyring import Keyring
from carelake.vault.paging import paged

__all__ = ["described", "execution_described", "execution_summary", "page", "step_told", "summary"]

_JOBS = {
    "Processing": ("ProcessingJob", "processing-job"),
    "Training": ("TrainingJob", "training-job"),
    "Transform": ("TransformJob", "transform-job"),
    "Tuning": ("TuningJob", "hyper-parameter-tuning-job"),
    "Model": ("Model", "model"),
    "Lambda": ("Lambda", ""),
}


def summary(row: Row[Any], last: str) -> dict[str, Any]:
    """A pipeline as PipelineSummary."""
    said = {
        "PipelineArn": pipeline_arn(row.account, row.name),
        "PipelineName": row.name,
        "PipelineDisplayName": row.display or row.name,
        "PipelineDescription": row.description,
        "RoleArn": row.role,
        "CreationTime": instant(row.created),
        "LastModifiedTime": instant(row.modified),
    }
    return _without_nothing({**said, "LastExecutionTime": instant(last) if last else None})


def described(row: Row[Any], definition: str, last: str) -> dict[str, Any]:
    """A pipeline as DescribePipeline answers."""
    said = summary(row, last)
    run = said.pop("LastExecutionTime", None)
    parallel = {"MaxParallelExecutionSteps": row.parallel} if row.parallel else None
    told = {
        **said,
        "PipelineDefinition": definition,
        "PipelineStatus": "Active",
        "LastRunTime": run,
        "CreatedBy": {"UserProfileName": row.created_by},
        "LastModifiedBy": {"UserProfileName": row.modified_by},
        "ParallelismConfiguration": parallel,
    }
    return _without_nothing(told)


def execution_summary(one: Execution) -> dict[str, Any]:
    """An execution as PipelineExecutionSummary."""
    said = {
        "PipelineExecutionArn": execution_arn(one.account, one.pipeline, one.id),
        "StartTime": instant(one.created),
        "PipelineExecutionStatus": one.status,
        "PipelineExecutionDescription": one.description,
        "PipelineExecutionDisplayName": one.display,
        "PipelineExecutionFailureReason": one.reason,
    }
    return _without_nothing(said)


def execution_described(one: Execution) -> dict[str, Any]:
    """An execution as DescribePipelineExecution answers."""
    selective: dict[str, Any] | None = None
    if one.selected:
        selective = {"SelectedSteps": [{"StepName": name} for name in one.selected]}
        if one.source:
            selective["SourcePipelineExecutionArn"] = execution_arn(one.account, one.pipeline, one.source)
    said = {
        "PipelineArn": pipeline_arn(one.account, one.pipeline),
        "PipelineExecutionArn": execution_arn(one.account, one.pipeline, one.id),
        "PipelineExecutionDisplayName": one.display,
        "PipelineExecutionStatus": one.status,
        "PipelineExecutionDescription": one.description,
        "FailureReason": one.reason,
        "CreationTime": instant(one.created),
        "LastModifiedTime": instant(one.modified),
        "CreatedBy": {"UserProfileName": one.principal},
        "ParallelismConfiguration": {"MaxParallelExecutionSteps": one.parallel} if one.parallel else None,
        "SelectiveExecutionConfig": selective,
        "PipelineVersionId": one.version,
    }
    return _without_nothing(said)


def step_told(one: Execution, step: StepRow) -> dict[str, Any]:
    """A step as PipelineExecutionStep."""
    said = {
        "StepName": step.name,
        "StepDisplayName": step.output.get("title", ""),
        "StartTime": instant(step.started) if step.started else None,
        "EndTime": instant(step.ended) if step.ended else None,
        "StepStatus": step.status,
        "CacheHitResult": _of(one, step.hit),
        "FailureReason": step.reason[:1024],
        "Metadata": _metadata(one, step),
        "AttemptCount": step.attempts or None,
        "SelectiveExecutionResult": _of(one, step.source),
    }
    return _without_nothing(said)


def _of(one: Execution, other: str) -> dict[str, str] | None:
    return {"SourcePipelineExecutionArn": execution_arn(one.account, one.pipeline, other)} if other else None


def _metadata(one: Execution, step: StepRow) -> dict[str, Any] | None:
    said = step.output.get("metadata")
    if said:
        return dict(said)
    named = _JOBS.get(step.type)
    if named is None or not named[1]:
        return None
    return {named[0]: {"Arn": job_arn(one.account, named[1], step.hit or step.source or one.id, step.name)}}


def _without_nothing(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value not in (None, "")}


def page(
    permit: Permit, keyring: Keyring, found: Sequence[Any], request: Mapping[str, Any], key: str, *, most: int = 100
) -> dict[str, Any]:
    """One page of a list, and where the next one begins.

    Raises:
        Invalid: ``pipelines.token``: NextToken is none of ours, or of another list or question.
    """
    size = min(int(request.get("MaxResults") or most), most)
    try:
        shown, more = paged(permit, keyring, f"pipelines:{key}", request, found, size)
    except Invalid:
        raise Invalid("pipelines.token", "NextToken is not one that an earlier answer gave.") from None
    return {key: shown, **more}
