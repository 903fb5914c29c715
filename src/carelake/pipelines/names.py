"""Names of pipelines and executions as ARNs, and back."""

from __future__ import annotations

import re

from carelake.core.arns import arn, resource_of
from carelake.core.errors import Invalid, NotFound

__all__ = ["execution_arn", "execution_of", "job_arn", "pipeline_arn", "pipeline_of"]

_PIPELINE = re.compile(r"(?:pipeline/)?([a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,255})")
_EXECUTION = re.compile(r"(?:pipeline/[a-zA-Z0-9-]{1,256}/execution/)?([0-9a-f]{32})")
_FOREIGN = re.compile(r"pipeline/[a-zA-Z0-9-]{1,256}/execution/[a-zA-Z0-9]{1,64}")


def pipeline_arn(account: str, name: str) -> str:
    """The ARN of a pipeline."""
    return arn("sagemaker", account, f"pipeline/{name}")


def execution_arn(account: str, name: str, execution: str) -> str:
    """The ARN of an execution."""
    return f"{pipeline_arn(account, name)}/execution/{execution}"


def job_arn(account: str, kind: str, execution: str, step: str) -> str:
    """The ARN of what a step began, for example of a ``processing-job``."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", step).strip("-")[:20].strip("-")
    return arn("sagemaker", account, f"{kind}/{name}-{execution}".lower())


def pipeline_of(text: str, account: str) -> str:
    """The name of the pipeline that a name or an ARN means; `Invalid` ``pipelines.name``."""
    found = _PIPELINE.fullmatch(resource_of(text, "sagemaker", account))
    if found is None:
        raise Invalid(
            "pipelines.name", "A pipeline's name is letters, digits and single dashes, 256 at most, or its ARN."
        )
    return found[1]


def execution_of(text: str, account: str) -> str:
    """The id of the execution that an id or an ARN means.

    Raises:
        Invalid: ``pipelines.execution``. NotFound: ``pipelines.no_such_execution``: an ARN as SageMaker writes it,
            whose execution cannot be one of ours.
    """
    resource = resource_of(text, "sagemaker", account)
    found = _EXECUTION.fullmatch(resource)
    if found is None and _FOREIGN.fullmatch(resource):
        raise NotFound(
            "pipelines.no_such_execution", "No such execution; `carelake pipelines status NAME` shows them."
        )
    if found is None:
        raise Invalid("pipelines.execution", "Expected an execution's ARN or its id, 32 hex digits.")
    return found[1]
