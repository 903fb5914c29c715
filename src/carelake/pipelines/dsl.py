"""Pipelines in Python, written out as SageMaker Pipelines JSON; the same JSON runs here and can be sent to SageMaker.

rate = Parameter("LearningRate", "Float", 0.05)
rows = Processing("rows", job="features.split", inputs={"features": "featureset:…"}, outputs=["dataset"])
fit = Training("fit", job="models.train", inputs={"training": rows.output("dataset")}, settings={"rate": rate})
print(Pipeline("small", [rows, fit], [rate]).definition())
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carelake.pipelines.definition.document import parse

__all__ = [
    "Callback",
    "Condition",
    "Fail",
    "Function",
    "Machine",
    "Parameter",
    "Pipeline",
    "Processing",
    "Register",
    "Retry",
    "Step",
    "Training",
    "all_of",
    "at_least",
    "at_most",
    "equals",
    "greater",
    "is_in",
    "is_not",
    "join",
    "json_get",
    "less",
    "one_of",
]

_ROOT = "/opt/ml/processing"


@dataclass(frozen=True)
class Parameter:
    """A parameter; where a value may stand, so may it."""

    name: str
    type: str = "String"
    default: Any = None
    enum: Sequence[Any] = ()

    def said(self) -> dict[str, Any]:
        """The reference to it."""
        return {"Get": f"Parameters.{self.name}"}

    def declared(self) -> dict[str, Any]:
        """Its declaration."""
        found: dict[str, Any] = {"Name": self.name, "Type": self.type}
        found |= {"DefaultValue": self.default} if self.default is not None else {}
        return found | ({"EnumValues": list(self.enum)} if self.enum else {})


@dataclass(frozen=True)
class Machine:
    """What SageMaker must know beside: where a job runs, as whom, where outputs go. Nothing of it counts here."""

    image: Any = "carelake"
    role: Any = "arn:aws:iam::000000000000:role/carelake"
    bucket: Any = "carelake"
    instance: Any = "ml.m5.large"
    gigabytes: int = 30

    def resources(self) -> dict[str, Any]:
        """One instance."""
        return {"InstanceCount": 1, "InstanceType": self.instance, "VolumeSizeInGB": self.gigabytes}

    def uri(self, *parts: str) -> dict[str, Any]:
        """An address in the bucket."""
        return join("/", "s3:/", self.bucket, *parts)


@dataclass(frozen=True)
class Retry:
    """Tries a step again: how often in all beside the first time, after so many seconds, each wait longer."""

    exceptions: Sequence[str] = ("Step.SERVICE_FAULT", "Step.THROTTLING")
    attempts: int = 3
    seconds: float = 1
    backoff: float = 2.0

    def said(self) -> dict[str, Any]:
        """The policy."""
        waits = {"IntervalSeconds": self.seconds, "BackoffRate": self.backoff, "MaxAttempts": self.attempts}
        return {"ExceptionType": list(self.exceptions), **waits}


@dataclass
class Step(ABC):
    """What every step may have. ``cache`` is how long a result counts, for example ``P30D``; "" for no cache."""

    name: str
    title: str = field(default="", kw_only=True)
    after: Sequence[Step | str] = field(default=(), kw_only=True)
    cache: str = field(default="", kw_only=True)
    retries: Sequence[Retry] = field(default=(), kw_only=True)

    _type = ""

    def said(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        """The step as it stands in the definition."""
        found: dict[str, Any] = {"Name": self.name, "Type": self._type, **self._parts(machine, pipeline)}
        found |= {"DisplayName": self.title} if self.title else {}
        found |= (
            {"DependsOn": [one if isinstance(one, str) else one.name for one in self.after]} if self.after else {}
        )
        found |= {"CacheConfig": {"Enabled": True, "ExpireAfter": self.cache}} if self.cache else {}
        return found | ({"RetryPolicies": [one.said() for one in self.retries]} if self.retries else {})

    @abstractmethod
    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        """What a step of its type has beside name and type."""

    def get(self, path: str) -> dict[str, Any]:
        """A reference to a property."""
        return {"Get": f"Steps.{self.name}.{path}"}


@dataclass
class Processing(Step):
    """A named job: inputs and outputs by name, settings as its environment.

    Attributes:
        files: property files: name to output and file in it.
        seconds: for which it may run, 0 for the setting.
    """

    job: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    seconds: int = 0

    _type = "Processing"

    def output(self, name: str) -> dict[str, Any]:
        """A reference to an output."""
        return self.get(f"ProcessingOutputConfig.Outputs['{name}'].S3Output.S3Uri")

    def file(self, name: str, path: str) -> dict[str, Any]:
        """A reference to what lies at a path of a property file."""
        return {"Std:JsonGet": {"PropertyFile": self.get(f"PropertyFiles.{name}"), "Path": path}}

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "AppSpecification": {
                "ImageUri": _plain(machine.image),
                "ContainerEntrypoint": ["carelake-job", self.job],
            },
            "ProcessingResources": {"ClusterConfig": _plain(machine.resources())},
            "RoleArn": _plain(machine.role),
        }
        if self.inputs:
            arguments["ProcessingInputs"] = [
                {"InputName": name, "S3Input": {**_S3_INPUT, "S3Uri": _plain(one), "LocalPath": f"{_ROOT}/in/{name}"}}
                for name, one in self.inputs.items()
            ]
        if self.outputs:
            arguments["ProcessingOutputConfig"] = {
                "Outputs": [self._output(name, machine, pipeline) for name in self.outputs]
            }
        arguments |= {"Environment": _plain(dict(self.settings))} if self.settings else {}
        arguments |= {"StoppingCondition": {"MaxRuntimeInSeconds": self.seconds}} if self.seconds else {}
        files = [
            {"PropertyFileName": name, "OutputName": output, "FilePath": file}
            for name, (output, file) in self.files.items()
        ]
        return {"Arguments": arguments, **({"PropertyFiles": files} if files else {})}

    def _output(self, name: str, machine: Machine, pipeline: str) -> dict[str, Any]:
        uri = _plain(machine.uri(pipeline, self.name, name))
        place = {"S3Uri": uri, "LocalPath": f"{_ROOT}/out/{name}", "S3UploadMode": "EndOfJob"}
        return {"OutputName": name, "S3Output": place}


_S3_INPUT = {"S3DataType": "S3Prefix", "S3InputMode": "File"}


@dataclass
class Training(Step):
    """A named job that fits a model."""

    job: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: int = 86_400

    _type = "Training"

    @property
    def model(self) -> dict[str, Any]:
        """A reference to the fitted model."""
        return self.get("ModelArtifacts.S3ModelArtifacts")

    def metric(self, name: str) -> dict[str, Any]:
        """A reference to a figure that the job gave."""
        return self.get(f"FinalMetricDataList['{name}'].Value")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        entry = ["carelake-job", self.job]
        image = {"TrainingImage": _plain(machine.image), "TrainingInputMode": "File"}
        arguments: dict[str, Any] = {
            "AlgorithmSpecification": {**image, "ContainerEntrypoint": entry},
            "OutputDataConfig": {"S3OutputPath": _plain(machine.uri(pipeline, self.name))},
            "ResourceConfig": _plain(machine.resources()),
            "StoppingCondition": {"MaxRuntimeInSeconds": self.seconds},
            "RoleArn": _plain(machine.role),
        }
        arguments |= {"HyperParameters": _plain(dict(self.settings))} if self.settings else {}
        if self.inputs:
            arguments["InputDataConfig"] = [
                {"ChannelName": n, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": _plain(one)}}}
                for n, one in self.inputs.items()
            ]
        return {"Arguments": arguments}


@dataclass
class Register(Step):
    """Enters a fitted model in the registry, pending approval."""

    model: Any
    group: Any
    properties: Mapping[str, Any] = field(default_factory=dict)

    _type = "RegisterModel"

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        container = {"Image": _plain(machine.image), "ModelDataUrl": _plain(self.model)}
        types = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["application/json"]}
        arguments = {
            "ModelPackageGroupName": _plain(self.group),
            "InferenceSpecification": {"Containers": [container], **types},
            "ModelApprovalStatus": "PendingManualApproval",
        }
        more = {"CustomerMetadataProperties": _plain(dict(self.properties))} if self.properties else {}
        return {"Arguments": {**arguments, **more}}


@dataclass
class Function(Step):
    """A named function (SageMaker's Lambda step): arguments in, output parameters out, by name and type."""

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    _type = "Lambda"

    def output(self, name: str) -> dict[str, Any]:
        """A reference to an output parameter."""
        return self.get(f"OutputParameters['{name}']")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{self.function}"
        return {"Arguments": _plain(dict(self.arguments)), "FunctionArn": arn, **_parameters(self.outputs)}


@dataclass
class Callback(Step):
    """Waits until somebody sends its token back."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    queue: str = ""

    _type = "Callback"

    def output(self, name: str) -> dict[str, Any]:
        """A reference to an output parameter."""
        return self.get(f"OutputParameters['{name}']")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        queue = {"SqsQueueUrl": self.queue} if self.queue else {}
        return {"Arguments": _plain(dict(self.arguments)), **queue, **_parameters(self.outputs)}


@dataclass
class Fail(Step):
    """Ends the execution as failed, with a message."""

    message: Any

    _type = "Fail"

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        return {"Arguments": {"ErrorMessage": _plain(self.message)}}


@dataclass
class Condition(Step):
    """Takes one branch or the other; all conditions must hold."""

    conditions: Sequence[Mapping[str, Any]]
    yes: Sequence[Step] = ()
    no: Sequence[Step] = ()

    _type = "Condition"

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        branches = {
            key: [one.said(machine, pipeline) for one in steps]
            for key, steps in (("IfSteps", self.yes), ("ElseSteps", self.no))
        }
        return {"Arguments": {"Conditions": _plain(list(self.conditions)), **branches}}


@dataclass
class Pipeline:
    """A pipeline."""

    name: str
    steps: Sequence[Step]
    parameters: Sequence[Parameter] = ()
    machine: Machine = field(default_factory=Machine)

    def definition(self) -> str:
        """The definition as JSON, checked.

        Raises:
            Invalid: ``pipelines.definition``, naming the step.
        """
        said = {
            "Version": "2020-12-01",
            "Metadata": {},
            "Parameters": [one.declared() for one in self.parameters],
            "Steps": [one.said(self.machine, self.name) for one in self.steps],
        }
        text = json.dumps(said, indent=1)
        parse(text)
        return text


def join(on: str, *values: Any) -> dict[str, Any]:
    """``Std:Join``."""
    return {"Std:Join": {"On": on, "Values": _plain(list(values))}}


def json_get(uri: Any, path: str) -> dict[str, Any]:
    """``Std:JsonGet`` of a file that a step left."""
    return {"Std:JsonGet": {"S3Uri": _plain(uri), "Path": path}}


def equals(left: Any, right: Any) -> dict[str, Any]:
    """Whether both are the same."""
    return _two("Equals", left, right)


def greater(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is more."""
    return _two("GreaterThan", left, right)


def at_least(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is as much or more."""
    return _two("GreaterThanOrEqualTo", left, right)


def less(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is less."""
    return _two("LessThan", left, right)


def at_most(left: Any, right: Any) -> dict[str, Any]:
    """Whether the left one is as much or less."""
    return _two("LessThanOrEqualTo", left, right)


def is_in(value: Any, values: Sequence[Any]) -> dict[str, Any]:
    """Whether it is one of these."""
    return {"Type": "In", "QueryValue": _plain(value), "Values": _plain(list(values))}


def is_not(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a condition does not hold."""
    return {"Type": "Not", "Condition": dict(condition)}


def one_of(*conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Whether any of these holds."""
    return {"Type": "Or", "Conditions": [dict(one) for one in conditions]}


def all_of(*conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All of these, as a Condition step takes them."""
    return [dict(one) for one in conditions]


def _two(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": _plain(left), "RightValue": _plain(right)}


def _parameters(outputs: Mapping[str, str]) -> dict[str, Any]:
    return {"OutputParameters": [{"OutputName": name, "OutputType": kind} for name, kind in outputs.items()]}


def _plain(value: Any) -> Any:
    """JSON with references where parameters stood."""
    if isinstance(value, Parameter):
        return value.said()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
