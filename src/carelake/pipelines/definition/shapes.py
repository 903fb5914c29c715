"""What a step of each type may hold: SageMaker's names, those that are carried out here and those that are accepted.

Accepted without effect is only what says on which machines of AWS a job runs and under which role: a definition that
is to run there must have it, and here it changes no result. All else that is not carried out is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from carelake.pipelines.definition.places import Place

__all__ = [
    "BASELINES",
    "CACHED",
    "CHECKS",
    "ENTRY",
    "JOBS",
    "RETRIED",
    "STEP_KEYS",
    "TYPES",
    "check_arguments",
    "check_kind",
    "property_known",
]

_COMMON = frozenset({"Name", "Type", "Arguments", "DependsOn", "DisplayName", "Description"})
CHECKS: tuple[str, ...] = (
    "CheckType",
    "FailOnViolation",
    "ModelPackageGroupName",
    "RegisterNewBaseline",
    "SkipCheck",
)
CHECKS += ("SuppliedBaselineConstraints", "SuppliedBaselineStatistics")
"""What a check step is told beside its arguments."""

_KINDS: Mapping[str, tuple[str, ...]] = {
    "QualityCheck": ("DATA_QUALITY", "MODEL_QUALITY"),
    "ClarifyCheck": ("DATA_BIAS", "MODEL_BIAS", "MODEL_EXPLAINABILITY"),
}
"""CheckType of each type of check step."""

BASELINES: Mapping[str, tuple[str, ...]] = {
    "DATA_QUALITY": ("ModelDataQuality", "Constraints"),
    "MODEL_QUALITY": ("ModelQuality", "Constraints"),
    "DATA_BIAS": ("Bias", "PreTrainingConstraints"),
    "MODEL_BIAS": ("Bias", "PostTrainingConstraints"),
    "MODEL_EXPLAINABILITY": ("Explainability", "Constraints"),
}
"""Where DriftCheckBaselines of a model package has the baseline of each check."""

_CHECK = {*CHECKS, "CacheConfig", "RetryPolicies"} - {"SuppliedBaselineStatistics"}
STEP_KEYS: Mapping[str, frozenset[str]] = {
    "Processing": _COMMON | {"CacheConfig", "RetryPolicies", "PropertyFiles"},
    "Training": _COMMON | {"CacheConfig", "RetryPolicies"},
    "Tuning": _COMMON | {"CacheConfig", "RetryPolicies"},
    "Transform": _COMMON | {"CacheConfig", "RetryPolicies"},
    "Model": _COMMON | {"RetryPolicies"},
    "RegisterModel": _COMMON | {"RetryPolicies"},
    "QualityCheck": _COMMON | _CHECK | {"SuppliedBaselineStatistics"},
    "ClarifyCheck": _COMMON | _CHECK,
    "Callback": _COMMON | {"SqsQueueUrl", "OutputParameters"},
    "Lambda": _COMMON | {"FunctionArn", "OutputParameters", "RetryPolicies"},
    "Condition": _COMMON,
    "Fail": _COMMON,
}
"""Keys of a step beside its arguments, by type."""

TYPES = tuple(STEP_KEYS)
CACHED = frozenset({"Processing", "Training", "Tuning", "Transform", "QualityCheck", "ClarifyCheck"})
RETRIED = frozenset(name for name, keys in STEP_KEYS.items() if "RetryPolicies" in keys)
JOBS = frozenset(set(TYPES) - {"Condition", "Fail", "Callback"})
"""Types whose step is work of its own: a process."""

_MACHINES = {"RoleArn", "Tags", "ExperimentConfig"}
_STOPPING = frozenset({"MaxRuntimeInSeconds"})
ENTRY = "carelake-job"
"""The entry point of containers; of a tuning step, the hyperparameter that names the job."""
_S3_INPUT = frozenset(
    {"S3Uri", "LocalPath", "S3DataType", "S3InputMode", "S3DataDistributionType", "S3CompressionType"}
)


def check_arguments(kind: str, place: Place) -> None:
    """Let pass the arguments of a step of that type."""
    _CHECKS[kind](place)


def check_kind(kind: str, step: Place) -> None:
    """Let pass what a check step is told beside its arguments."""
    if kind not in _KINDS:
        return
    if step["CheckType"].value not in _KINDS[kind]:
        raise step["CheckType"].wrong(f"one of {', '.join(_KINDS[kind])}")
    for name in ("FailOnViolation", "RegisterNewBaseline", "SkipCheck"):
        if name in step and not isinstance(step[name].value, bool | dict):
            raise step[name].wrong("true, false or a reference")


def _processing(place: Place, *, entry: bool = True) -> None:
    used = {"AppSpecification", "Environment", "ProcessingInputs", "ProcessingOutputConfig", "StoppingCondition"}
    place.keys(frozenset(used | _MACHINES | {"ProcessingResources"}), frozenset({"AppSpecification"}))
    _one_machine(place["ProcessingResources"], "ClusterConfig")
    if entry or "ContainerEntrypoint" in place["AppSpecification"]:
        place["AppSpecification"].keys(frozenset({"ImageUri", "ContainerEntrypoint", "ContainerArguments"}))
        _entry(place["AppSpecification"]["ContainerEntrypoint"])
    for one in place["ProcessingInputs"].items(10):
        one.keys(frozenset({"InputName", "AppManaged", "S3Input"}), frozenset({"InputName", "S3Input"}))
        one["S3Input"].keys(_S3_INPUT, frozenset({"S3Uri"}))
    if "ProcessingOutputConfig" in place:
        place["ProcessingOutputConfig"].keys(frozenset({"Outputs"}))
        for one in place["ProcessingOutputConfig"]["Outputs"].items(10):
            one.keys(frozenset({"OutputName", "AppManaged", "S3Output"}), frozenset({"OutputName"}))
            one["OutputName"].text(r"[^']{1,64}", "a name of 1 to 64 characters")
            if "S3Output" in one:
                one["S3Output"].keys(frozenset({"S3Uri", "LocalPath", "S3UploadMode"}))
    _texts(place)


def _training(place: Place) -> None:
    used = {"AlgorithmSpecification", "Environment", "HyperParameters", "InputDataConfig", "OutputDataConfig"}
    known = frozenset(used | _MACHINES | {"ResourceConfig", "StoppingCondition"})
    place.keys(known, frozenset({"AlgorithmSpecification", "OutputDataConfig"}))
    algorithm = place["AlgorithmSpecification"]
    said = {"TrainingImage", "TrainingInputMode", "ContainerEntrypoint", "ContainerArguments"}
    # How SageMaker finds figures in what a container prints: a job here gives them.
    algorithm.keys(frozenset(said | {"MetricDefinitions"}), frozenset({"ContainerEntrypoint"}))
    _entry(algorithm["ContainerEntrypoint"])
    _one_machine(place["ResourceConfig"])
    for one in place["InputDataConfig"].items(20):
        one.keys(frozenset({"ChannelName", "DataSource", "ContentType", "InputMode"}), frozenset({"ChannelName"}))
        source = one["DataSource"]
        source.keys(frozenset({"S3DataSource"}), frozenset({"S3DataSource"}))
        source["S3DataSource"].keys(
            frozenset({"S3Uri", "S3DataType", "S3DataDistributionType"}), frozenset({"S3Uri"})
        )
    place["OutputDataConfig"].keys(frozenset({"S3OutputPath"}))
    _texts(place, "HyperParameters")


def _tuning(place: Place) -> None:
    known = frozenset({"HyperParameterTuningJobConfig", "TrainingJobDefinition", "Tags"})
    place.keys(known, known - {"Tags"})
    config = place["HyperParameterTuningJobConfig"]
    said = {"Strategy", "HyperParameterTuningJobObjective", "ResourceLimits", "ParameterRanges", "RandomSeed"}
    config.keys(frozenset(said), frozenset(said - {"RandomSeed"}))
    if config["Strategy"].value not in ("Grid", "Random"):
        raise config["Strategy"].wrong("Grid or Random; Bayesian and Hyperband are not carried out here")
    objective = config["HyperParameterTuningJobObjective"]
    objective.keys(frozenset({"Type", "MetricName"}), frozenset({"Type", "MetricName"}))
    if objective["Type"].value not in ("Maximize", "Minimize"):
        raise objective["Type"].wrong("Maximize or Minimize")
    limits = config["ResourceLimits"]
    limits.keys(frozenset({"MaxNumberOfTrainingJobs", "MaxParallelTrainingJobs"}))
    limits["MaxNumberOfTrainingJobs"].number(1, 200, whole=True)
    ranges = config["ParameterRanges"]
    ranges.keys(frozenset({"CategoricalParameterRanges", "IntegerParameterRanges", "ContinuousParameterRanges"}))
    definition = place["TrainingJobDefinition"]
    fixed = {**definition.mapping()}
    fixed["HyperParameters"] = definition["StaticHyperParameters"].value or {}
    fixed.pop("StaticHyperParameters", None)
    algorithm = definition["AlgorithmSpecification"]
    if ENTRY in Place(definition.words, fixed["HyperParameters"]):
        # Candidates of SageMaker have no entry point of their own; theirs is told as its SDK tells a script.
        entry = [ENTRY, fixed["HyperParameters"][ENTRY]]
        fixed["AlgorithmSpecification"] = {**algorithm.mapping(), "ContainerEntrypoint": entry}
    _training(Place(definition.words, fixed))


def _transform(place: Place) -> None:
    used = {"ModelName", "TransformInput", "TransformOutput", "Environment", "DataProcessing"}
    batches = {"BatchStrategy", "MaxConcurrentTransforms", "MaxPayloadInMB"}  # how rows travel, and not what they say
    known = frozenset(used | batches | {"TransformResources", "Tags", "ExperimentConfig"})
    place.keys(known, frozenset({"ModelName", "TransformInput", "TransformOutput"}))
    _one_machine(place["TransformResources"])
    if "DataProcessing" in place:
        place["DataProcessing"].keys(frozenset({"JoinSource"}))
        if place["DataProcessing"]["JoinSource"].value not in ("None", "Input", None):
            raise place["DataProcessing"]["JoinSource"].wrong("None or Input")
    place["TransformInput"].keys(frozenset({"DataSource", "ContentType", "SplitType"}), frozenset({"DataSource"}))
    source = place["TransformInput"]["DataSource"]
    source.keys(frozenset({"S3DataSource"}), frozenset({"S3DataSource"}))
    source["S3DataSource"].keys(frozenset({"S3Uri", "S3DataType"}), frozenset({"S3Uri"}))
    place["TransformOutput"].keys(frozenset({"S3OutputPath", "Accept", "AssembleWith"}), frozenset({"S3OutputPath"}))
    _texts(place)


def _model(place: Place) -> None:
    place.keys(frozenset({"PrimaryContainer", "ExecutionRoleArn", "Tags"}), frozenset({"PrimaryContainer"}))
    container = place["PrimaryContainer"]
    container.keys(frozenset({"Image", "ModelDataUrl", "ModelPackageName", "Environment"}))
    if ("ModelDataUrl" in container) == ("ModelPackageName" in container):
        raise container.wrong("either ModelDataUrl, a fitted model, or ModelPackageName, a registered one")


def _register(place: Place) -> None:
    used = {"ModelPackageGroupName", "InferenceSpecification", "ModelApprovalStatus", "ModelPackageDescription"}
    used |= {"CustomerMetadataProperties", "ModelMetrics", "DriftCheckBaselines", "SkipModelValidation"}
    known = frozenset(used | {"MetadataProperties", "Domain", "Task", "Tags"})
    place.keys(known, frozenset({"ModelPackageGroupName", "InferenceSpecification"}))
    if "ModelApprovalStatus" in place and place["ModelApprovalStatus"].value == "Approved":
        raise place["ModelApprovalStatus"].wrong(
            "PendingManualApproval: a pipeline cannot approve what it has trained"
        )
    said = {"Containers", "SupportedContentTypes", "SupportedResponseMIMETypes"}
    said |= {"SupportedTransformInstanceTypes", "SupportedRealtimeInferenceInstanceTypes"}
    specification = place["InferenceSpecification"]
    specification.keys(frozenset(said), frozenset({"Containers"}))
    containers = list(specification["Containers"].items(15))
    if len(containers) != 1:
        raise specification["Containers"].wrong("one container")
    containers[0].keys(
        frozenset({"Image", "ModelDataUrl", "Environment", "Framework", "FrameworkVersion", "NearestModelName"}),
        frozenset({"ModelDataUrl"}),
    )


def _named(place: Place) -> None:
    """Arguments of a callback or a function: a flat object of names."""
    if place.value is not None:
        place.keys(frozenset(place.mapping()))


def _fail(place: Place) -> None:
    place.keys(frozenset({"ErrorMessage"}), frozenset({"ErrorMessage"}))


def _condition(place: Place) -> None:
    place.keys(frozenset({"Conditions", "IfSteps", "ElseSteps"}), frozenset({"Conditions"}))


def _check(place: Place) -> None:
    _processing(place, entry=False)


_CHECKS: Mapping[str, Callable[[Place], None]] = {
    "Processing": _processing,
    "Training": _training,
    "Tuning": _tuning,
    "Transform": _transform,
    "Model": _model,
    "RegisterModel": _register,
    "QualityCheck": _check,
    "ClarifyCheck": _check,
    "Callback": _named,
    "Lambda": _named,
    "Condition": _condition,
    "Fail": _fail,
}


def _entry(place: Place) -> None:
    said = place.value
    if not isinstance(said, list) or len(said) != 2 or said[0] != ENTRY or not isinstance(said[1], str):
        raise place.wrong(f'["{ENTRY}", NAME]: here the work of a step is a named job')


def _one_machine(resources: Place, key: str = "") -> None:
    """A number of machines other than one would change what a job does."""
    if resources.value is None:
        return
    if key:
        resources.keys(frozenset({key}))
        resources = resources[key]
    said = {"InstanceCount", "InstanceType", "VolumeSizeInGB", "VolumeKmsKeyId", "KeepAlivePeriodInSeconds"}
    resources.keys(frozenset(said))
    count = resources["InstanceCount"].value
    if count is not None and not isinstance(count, dict) and count != 1:
        raise resources["InstanceCount"].wrong("1: here a job runs in one process")


def _texts(place: Place, *more: str) -> None:
    """Environment and hyperparameters are texts, or references; a stopping condition is seconds."""
    for name in ("Environment", *more):
        if name in place:
            if len(place[name].mapping()) > 100:
                raise place[name].wrong("at most 100 entries")
            for key, value in place[name].mapping().items():
                if not isinstance(value, str | dict):
                    raise place[name][key].wrong("a text")
    if "StoppingCondition" in place:
        place["StoppingCondition"].keys(_STOPPING)


_OUTPUT = r"ProcessingOutputConfig\.Outputs\[(?:'[^']{1,64}'|\"[^\"]{1,64}\"|\d{1,2})\]\.S3Output\.S3Uri"
_CANDIDATE = (
    r"(?:TrainingJob(?:Name|Arn|Status)|ObjectiveStatus|TunedHyperParameters\['[^']{1,256}'\]"
    r"|FinalHyperParameterTuningJobObjectiveMetric\.(?:Type|MetricName|Value))"
)
_PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "Processing": (_OUTPUT, r"ProcessingJob(Name|Arn|Status)", r"PropertyFiles\.[A-Za-z0-9_-]{1,64}"),
    "Training": (
        r"ModelArtifacts\.S3ModelArtifacts",
        r"TrainingJob(Name|Arn|Status)",
        r"OutputDataConfig\.S3OutputPath",
        r"FinalMetricDataList\['[^']{1,255}'\]\.Value",
    ),
    "Tuning": (
        r"HyperParameterTuningJob(Name|Arn|Status)",
        rf"(?:BestTrainingJob|TrainingJobSummaries\[\d{{1,2}}\])\.{_CANDIDATE}",
        r"ModelArtifacts\.S3ModelArtifacts",
    ),
    "Transform": (r"TransformJob(Name|Arn|Status)", r"TransformOutput\.S3OutputPath"),
    "Model": (r"ModelName", r"ModelArn"),
    "RegisterModel": (r"ModelPackage(Arn|GroupName|Version|Name)", r"ModelApprovalStatus"),
    "QualityCheck": (r"(CalculatedBaseline|BaselineUsedForDriftCheck)(Statistics|Constraints)",),
    "ClarifyCheck": (r"(CalculatedBaseline|BaselineUsedForDriftCheck)Constraints",),
    "Callback": (r"OutputParameters\['[^']{1,256}'\]",),
    "Lambda": (r"OutputParameters\['[^']{1,256}'\]",),
    "Condition": (r"Outcome",),
    "Fail": (),
}


def property_known(kind: str) -> Iterator[str]:
    """Patterns of the properties that a step of that type has."""
    yield from _PROPERTIES[kind]
