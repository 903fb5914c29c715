"""Steps that do a job, ask somebody, decide, or end an execution; and the pipeline of them all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carelake.pipelines.definition.document import parse
from carelake.pipelines.dsl.step import Machine, Step, inputs, job, outputs
from carelake.pipelines.dsl.values import Parameter, plain

__all__ = ["Callback", "Condition", "Fail", "Function", "Pipeline", "Processing"]


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
            "AppSpecification": {"ImageUri": plain(machine.image), "ContainerEntrypoint": job(self.job)},
            "ProcessingResources": {"ClusterConfig": plain(machine.resources())},
            "RoleArn": plain(machine.role),
        }
        arguments |= {"ProcessingInputs": inputs(self.inputs)} if self.inputs else {}
        if self.outputs:
            arguments["ProcessingOutputConfig"] = outputs(self.outputs, machine, pipeline, self.name)
        arguments |= {"Environment": plain(dict(self.settings))} if self.settings else {}
        arguments |= {"StoppingCondition": {"MaxRuntimeInSeconds": self.seconds}} if self.seconds else {}
        files = [
            {"PropertyFileName": name, "OutputName": output, "FilePath": file}
            for name, (output, file) in self.files.items()
        ]
        return {"Arguments": arguments, **({"PropertyFiles": files} if files else {})}


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
        return {"Arguments": plain(dict(self.arguments)), "FunctionArn": arn, **_parameters(self.outputs)}


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
        return {"Arguments": plain(dict(self.arguments)), **queue, **_parameters(self.outputs)}


@dataclass
class Fail(Step):
    """Ends the execution as failed, with a message."""

    message: Any

    _type = "Fail"

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        return {"Arguments": {"ErrorMessage": plain(self.message)}}


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
        return {"Arguments": {"Conditions": plain(list(self.conditions)), **branches}}


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


def _parameters(outputs: Mapping[str, str]) -> dict[str, Any]:
    return {"OutputParameters": [{"OutputName": name, "OutputType": kind} for name, kind in outputs.items()]}
