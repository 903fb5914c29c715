"""Jobs that lead from a fitted model to an endpoint; they import neither the lake nor a learner."""

from __future__ import annotations

from carelake.core.arns import arn
from carelake.core.errors import Refused
from carelake.models.registry import APPROVED
from carelake.pipelines.execution.work import Files, Made, Work

__all__ = ["approve", "deploy", "judge", "register"]

_TRAINER = "pipeline"
_TOLD = (
    "ModelPackageDescription",
    "ModelMetrics",
    "DriftCheckBaselines",
    "CustomerMetadataProperties",
    "MetadataProperties",
    "Domain",
    "Task",
    "SkipModelValidation",
)
"""Fields of CreateModelPackage that stand as the step gives them."""


def judge(work: Work) -> Made:
    """The figures of a fitted model as a report, for conditions that ask for them."""
    with work.acting("pipeline:step", work.pipeline) as permit:
        metrics = work.read(permit, work.ref("model"), "metrics.json")
    return Made({"report": Files({"report.json": metrics})})


def register(work: Work) -> Made:
    """Enter the model in the registry, signed and pending approval; its group is ModelPackageGroupName.

    ``DriftCheckBaselines`` that check steps left are what later checks of the group are held against.
    """
    name, ref = str(work.request["ModelPackageGroupName"]), work.ref("model")
    with work.acting("model:train", name) as permit:
        noun = work.noun(permit, ref)
        files = {file: work.read(permit, ref, file) for file in noun.body["files"]}
        source = next(one for one in noun.made_from if one.startswith("trainingset:"))
        told = {key: work.request[key] for key in _TOLD if work.request.get(key) is not None}
        beside = [one.ref for key, one in work.inputs.items() if key != "model" and one.ref]
        version = work.platform.registry.register(permit, name, source, files, beside, told)
    number = int(version.body["version"])
    said = {
        "ModelPackageArn": arn("sagemaker", work.caller.account, f"model-package/{name}/{number}"),
        "ModelPackageGroupName": name,
        "ModelPackageVersion": number,
        "ModelPackageName": version.ref,
        "ModelApprovalStatus": version.state,
    }
    return Made(values=said)


def approve(work: Work) -> Made:
    """Ask the second principal, unless they have decided.

    Only the operator of a local workspace may speak for that principal; anyone else's execution ends here, pending.
    """
    ref, name = str(work.settings["model"]), str(work.settings["approve_as"])
    registry = work.platform.registry
    with work.acting("model:read", ref) as permit:
        found = registry.get(permit, ref)
        state = found.state
        free = state != APPROVED and registry.plans.admits(permit, str(found.body["name"]), ref)
    if free:  # the group's change plan, which a second person approved, lets this version out without one
        with work.acting("model:release", ref) as permit:
            released = registry.approve_in_plan(permit, ref)
        if released is not None:
            return Made(values={"state": released.state})
    # Who starts it from afar, or by a trigger, speaks for nobody: at a door an operator approves nothing.
    asks = work.local and bool(work.settings["approves"]) and "operator" in work.caller.principal.roles
    if state == APPROVED or not asks:
        return Made(values={"state": state})
    with work.acting("model:approve", ref, name=name) as permit:
        if name == _TRAINER:
            raise Refused("models.self_approval", "Whoever trains a model may not approve it; name a reviewer.")
        version = registry.approve(permit, ref)
    return Made(values={"state": version.state})


def deploy(work: Work) -> Made:
    """Put the approved version behind the endpoint."""
    name, ref = str(work.settings["endpoint"]), str(work.settings["model"])
    with work.acting("endpoint:deploy", name) as permit:
        endpoint = work.platform.endpoints.deploy(permit, name, ref)
    return Made(values={"endpoint": endpoint.ref, "name": name})
