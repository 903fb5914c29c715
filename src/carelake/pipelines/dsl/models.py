"""Steps that make models, enter them, and ask them about rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carelake.pipelines.definition.shapes import BASELINES, ENTRY
from carelake.pipelines.dsl.step import Machine, Step, job
from carelake.pipelines.dsl.values import join, plain

__all__ = ["Model", "Register", "Training", "Transform", "Tuning"]


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
        arguments = _training(machine, pipeline, self.name, self.job, self.inputs, self.seconds)
        arguments |= {"HyperParameters": plain(dict(self.settings))} if self.settings else {}
        return {"Arguments": arguments}


@dataclass
class Tuning(Step):
    """A training job for each candidate; the best by an objective is the result.

    Attributes:
        metric: name of the figure that is the objective.
        grid: values by hyperparameter, all combinations of which are tried; or
        ranges: from and to, drawn ``most`` times; of whole numbers where both ends are.
        settings: hyperparameters that all candidates have.
    """

    job: str
    metric: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    most: int = 10
    smallest: bool = False
    seed: int = 0
    seconds: int = 86_400

    _type = "Tuning"

    @property
    def model(self) -> dict[str, Any]:
        """A reference to the best model; SageMaker knows `top_model` alone."""
        return self.get("ModelArtifacts.S3ModelArtifacts")

    def top_model(self, place: int, bucket: Any, prefix: str = "") -> dict[str, Any]:
        """The address of the model in that place, 0 for the best one, as SageMaker's SDK writes it."""
        name = self.get(f"TrainingJobSummaries[{place}].TrainingJobName")
        return join("/", *(one for one in ("s3:/", bucket, prefix) if one), name, "output/model.tar.gz")

    def figure(self, place: int = 0) -> dict[str, Any]:
        """A reference to the objective's value of the candidate in that place."""
        return self.get(f"TrainingJobSummaries[{place}].FinalHyperParameterTuningJobObjectiveMetric.Value")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        objective = {"Type": "Minimize" if self.smallest else "Maximize", "MetricName": self.metric}
        config = {
            "Strategy": "Random" if self.ranges else "Grid",
            "HyperParameterTuningJobObjective": objective,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": self.most, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": self._ranges(),
            "RandomSeed": self.seed,
        }
        training = _training(machine, pipeline, self.name, self.job, self.inputs, self.seconds)
        # A candidate has no entry point of its own in SageMaker, and its figures are read from what it prints.
        algorithm = {k: v for k, v in training["AlgorithmSpecification"].items() if k != "ContainerEntrypoint"}
        metrics = [{"Name": self.metric, "Regex": f"{self.metric}=([-+.0-9eE]+)"}]
        training["AlgorithmSpecification"] = {**algorithm, "MetricDefinitions": metrics}
        training["StaticHyperParameters"] = {ENTRY: self.job, **plain(dict(self.settings))}
        return {"Arguments": {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": training}}

    def _ranges(self) -> dict[str, Any]:
        found: dict[str, list[dict[str, Any]]] = {}
        for name, values in self.grid.items():
            one = {"Name": name, "Values": [str(value) for value in values]}
            found.setdefault("CategoricalParameterRanges", []).append(one)
        for name, (low, high) in self.ranges.items():
            kind = "Integer" if isinstance(low, int) and isinstance(high, int) else "Continuous"
            found.setdefault(f"{kind}ParameterRanges", []).append(
                {"Name": name, "MinValue": str(low), "MaxValue": str(high)}
            )
        return dict(found)


@dataclass
class Model(Step):
    """Names a model for a batch transform: a fitted one (``model``), or a registered one (``package``)."""

    model: Any = None
    package: Any = None

    _type = "Model"

    @property
    def called(self) -> dict[str, Any]:
        """A reference to its name."""
        return self.get("ModelName")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        if self.package is not None:
            container: dict[str, Any] = {"ModelPackageName": plain(self.package)}
        else:
            container = {"Image": plain(machine.image), "ModelDataUrl": plain(self.model)}
        return {"Arguments": {"PrimaryContainer": container, "ExecutionRoleArn": plain(machine.role)}}


@dataclass
class Transform(Step):
    """A model asked about every row of a table.

    Attributes:
        model: the name of a model, as `Model.called` refers to it.
        joined: features stay beside the risks.
        settings: ``part`` for the rows of ``train``, ``calibration`` or ``test`` alone.
    """

    model: Any
    rows: Any
    joined: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    _type = "Transform"

    @property
    def output(self) -> dict[str, Any]:
        """A reference to the rows with their risks."""
        return self.get("TransformOutput.S3OutputPath")

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": plain(self.rows)}}
        arguments: dict[str, Any] = {
            "ModelName": plain(self.model),
            "TransformInput": {"DataSource": source, "ContentType": "text/csv", "SplitType": "Line"},
            "TransformOutput": {"S3OutputPath": plain(machine.uri(pipeline, self.name)), "AssembleWith": "Line"},
            "TransformResources": {"InstanceCount": 1, "InstanceType": plain(machine.instance)},
            "DataProcessing": {"JoinSource": "Input" if self.joined else "None"},
        }
        arguments |= {"Environment": plain(dict(self.settings))} if self.settings else {}
        return {"Arguments": arguments}


@dataclass
class Register(Step):
    """Enters a fitted model in the registry, pending approval.

    Attributes:
        baselines: by CheckType, the constraints that later checks of the group are held against.
    """

    model: Any
    group: Any
    properties: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)

    _type = "RegisterModel"

    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        container = {"Image": plain(machine.image), "ModelDataUrl": plain(self.model)}
        types = {"SupportedContentTypes": ["text/csv"], "SupportedResponseMIMETypes": ["application/json"]}
        arguments = {
            "ModelPackageGroupName": plain(self.group),
            "InferenceSpecification": {"Containers": [container], **types},
            "ModelApprovalStatus": "PendingManualApproval",
        }
        more = {"CustomerMetadataProperties": plain(dict(self.properties))} if self.properties else {}
        return {"Arguments": {**arguments, **more, **self._baselines()}}

    def _baselines(self) -> dict[str, Any]:
        found: dict[str, dict[str, Any]] = {}
        for kind, one in self.baselines.items():
            section, member = BASELINES[kind]
            found.setdefault(section, {})[member] = {"ContentType": "application/json", "S3Uri": plain(one)}
        return {"DriftCheckBaselines": found} if found else {}


def _training(
    machine: Machine, pipeline: str, name: str, named: str, channels: Mapping[str, Any], seconds: int
) -> dict[str, Any]:
    image = {"TrainingImage": plain(machine.image), "TrainingInputMode": "File"}
    found: dict[str, Any] = {
        "AlgorithmSpecification": {**image, "ContainerEntrypoint": job(named)},
        "OutputDataConfig": {"S3OutputPath": plain(machine.uri(pipeline, name))},
        "ResourceConfig": plain(machine.resources()),
        "StoppingCondition": {"MaxRuntimeInSeconds": seconds},
        "RoleArn": plain(machine.role),
    }
    if channels:
        found["InputDataConfig"] = [
            {"ChannelName": n, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": plain(one)}}}
            for n, one in channels.items()
        ]
    return found
