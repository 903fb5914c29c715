"""Properties of a step that has succeeded, by the paths with which others refer to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.core.errors import Invalid
from carelake.pipelines.definition.document import Step
from carelake.pipelines.names import job_arn

__all__ = ["VIOLATIONS", "metadata", "named", "properties", "typed"]

VIOLATIONS = "constraint_violations.json"
"""What a check leaves of what it found."""

_CHECKS = ("QualityCheck", "ClarifyCheck")
_TOLD_APART = ("Lambda", "Callback", *_CHECKS)
"""Types whose values are no properties as they are."""

_JOBS = {
    "Processing": ("ProcessingJob", "processing-job", "Completed"),
    "Training": ("TrainingJob", "training-job", "Completed"),
    "Tuning": ("HyperParameterTuningJob", "hyper-parameter-tuning-job", "Completed"),
    "Transform": ("TransformJob", "transform-job", "Completed"),
}


def properties(
    step: Step, request: Mapping[str, Any], result: Mapping[str, Any], account: str, execution: str
) -> dict[str, Any]:
    """What ``Steps.NAME.PATH`` means, by path.

    Args:
        request: the step's arguments, resolved.
        result: of `run_task`.

    Raises:
        Invalid: ``pipelines.no_output``: the job left out what the step declares.
    """
    outputs = result.get("outputs", {})
    said: dict[str, Any] = {}
    if step.type in _JOBS:
        name, kind, status = _JOBS[step.type]
        arn = job_arn(account, kind, execution, step.name)
        said |= {f"{name}Arn": arn, f"{name}Name": arn.rpartition("/")[2], f"{name}Status": status}
    if step.type == "Processing":
        for number, one in enumerate((request.get("ProcessingOutputConfig") or {}).get("Outputs") or ()):
            ref = _output(outputs, str(one["OutputName"]))
            for key in (number, f"'{one['OutputName']}'", f'"{one["OutputName"]}"'):
                said[f"ProcessingOutputConfig.Outputs[{key}].S3Output.S3Uri"] = ref
    elif step.type in ("Training", "Tuning"):
        said["ModelArtifacts.S3ModelArtifacts"] = _output(outputs, "model")
        said["OutputDataConfig.S3OutputPath"] = outputs["model"]
        for name, value in result.get("metrics", {}).items():
            said[f"FinalMetricDataList['{name}'].Value"] = value
    elif step.type == "Transform":
        said["TransformOutput.S3OutputPath"] = _output(outputs, "output")
    elif step.type in _CHECKS:
        said |= _checked(_output(outputs, "result"), request, result)
    elif step.type in ("Lambda", "Callback"):
        for one in step.said.get("OutputParameters") or ():
            if one["OutputName"] not in result.get("values", {}):
                raise _left_out(str(one["OutputName"]))
        said |= {f"OutputParameters['{name}']": value for name, value in result.get("values", {}).items()}
    return said | (dict(result.get("values", {})) if step.type not in _TOLD_APART else {})


def _checked(ref: str, request: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Baselines of a check step: what it calculated, and what the next ones are to be held against.

    With ``RegisterNewBaseline`` that is what was calculated, else what this one was held against; where there was
    nothing yet, it is not there to be referred to.
    """
    told, values = request.get("Check") or {}, result.get("values", {})
    new, before = told.get("RegisterNewBaseline") is True, str(values.get("baseline") or "")
    found = {}
    for name in ("Statistics", "Constraints"):
        if not (file := values.get("files", {}).get(name)):
            continue
        found[f"CalculatedBaseline{name}"] = f"{ref}/{file}"
        used = ref if new else before
        if used:
            found[f"BaselineUsedForDriftCheck{name}"] = f"{used}/{file}"
    return found


def _output(outputs: Mapping[str, Any], name: str) -> str:
    if name not in outputs:
        raise _left_out(name)
    return str(outputs[name])


def _left_out(name: str) -> Invalid:
    return Invalid("pipelines.no_output", f"The job left no output {name[:64]}, which the step declares.")


def named(given: Mapping[str, Any]) -> list[dict[str, str]]:
    """Output parameters as the API tells them."""
    return [{"Name": str(name), "Value": str(value)} for name, value in given.items()]


def typed(step: Step, given: Mapping[str, str]) -> dict[str, Any]:
    """Output parameters in the types that the step declares; texts that are none stay texts."""
    kinds = {one["OutputName"]: one.get("OutputType", "String") for one in step.said.get("OutputParameters") or ()}
    found: dict[str, Any] = {}
    for name, text in given.items():
        try:
            made: Any = {"Integer": int, "Float": float}.get(kinds.get(name, "String"), str)(text)
        except ValueError:
            made = text
        found[name] = text.lower() == "true" if kinds.get(name) == "Boolean" else made
    return found


def metadata(
    step: Step, request: Mapping[str, Any], result: Mapping[str, Any], account: str, execution: str
) -> dict[str, Any]:
    """What ListPipelineExecutionSteps tells of a function, a registered model or a check."""
    values = result.get("values", {})
    if step.type == "Lambda":
        arn = str(step.said.get("FunctionArn") or "")
        return {"metadata": {"Lambda": {"Arn": arn, "OutputParameters": named(values)}}}
    if step.type == "RegisterModel":
        return {"metadata": {"RegisterModel": {"Arn": str(values.get("ModelPackageArn", ""))}}}
    if step.type in _CHECKS and "result" in result.get("outputs", {}):
        ref, told = str(result["outputs"]["result"]), request.get("Check") or {}
        group = told.get("ModelPackageGroupName")
        said = {
            "CheckType": str(step.said["CheckType"]),
            **_checked(ref, request, result),
            **({"ModelPackageGroupName": str(group)} if group else {}),
            **({"ViolationReport": f"{ref}/{VIOLATIONS}"} if values.get("violations") else {}),
            "CheckJobArn": job_arn(account, "processing-job", execution, step.name),
            "SkipCheck": told.get("SkipCheck") is True,
            "RegisterNewBaseline": told.get("RegisterNewBaseline") is True,
        }
        return {"metadata": {step.type: said}}
    return {}
