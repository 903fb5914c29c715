"""The DSL writes definitions that are read here and that SageMaker's shapes take; so are the shipped recipes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.apps.stepping import command
from carelake.core.errors import Invalid
from carelake.pipelines import dsl
from carelake.pipelines.definition.document import parse
from carelake.pipelines.definition.shapes import TYPES
from carelake.pipelines.jobs.catalogue import JOBS, check_jobs
from carelake.pipelines.shipped import shipped

OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Training": "CreateTrainingJob",
    "RegisterModel": "CreateModelPackage",
    "Tuning": "CreateHyperParameterTuningJob",
    "Transform": "CreateTransformJob",
    "Model": "CreateModel",
    "QualityCheck": "CreateProcessingJob",
    "ClarifyCheck": "CreateProcessingJob",
}
NAMED = {
    "CreateProcessingJob": "ProcessingJobName",
    "CreateTrainingJob": "TrainingJobName",
    "CreateHyperParameterTuningJob": "HyperParameterTuningJobName",
    "CreateTransformJob": "TransformJobName",
    "CreateModel": "ModelName",
}


def all_steps(steps: list[Any]) -> Iterator[Any]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from all_steps(step["Arguments"].get("IfSteps") or [])
            yield from all_steps(step["Arguments"].get("ElseSteps") or [])


def plain(value: Any, text: str = "x" * 40) -> Any:
    """With a text where a reference stands, as SageMaker sees it when the step begins."""
    if isinstance(value, dict):
        if set(value) & {"Get", "Std:Join", "Std:JsonGet"}:
            return text
        return {
            name: plain(one, "arn:aws:iam::000000000000:role/x" if name == "RoleArn" else text)
            for name, one in value.items()
        }
    return [plain(one, text) for one in value] if isinstance(value, list) else value


def check_shapes(definition: str) -> None:
    """Against botocore's CreatePipeline, and each step against the call that it stands for."""
    pytest.importorskip("botocore")
    from botocore.session import Session
    from botocore.validate import ParamValidator

    model = Session().get_service_model("sagemaker")

    def check(operation: str, request: dict[str, Any]) -> None:
        report = ParamValidator().validate(request, model.operation_model(operation).input_shape)
        assert not report.has_errors(), (operation, report.generate_report())

    said = {"PipelineName": "p", "PipelineDefinition": definition, "ClientRequestToken": "t" * 32}
    check("CreatePipeline", {**said, "RoleArn": "arn:aws:iam::000000000000:role/x"})
    assert len(definition) < 100_000  # more of it SageMaker takes from S3 alone
    for step in all_steps(json.loads(definition)["Steps"]):
        if operation := OPERATIONS.get(step["Type"]):
            named = {NAMED[operation]: "n"} if operation in NAMED else {}
            check(operation, {**plain(step["Arguments"]), **named})


@pytest.mark.parametrize("name", sorted(shipped()))
def test_recipes_that_come_along_are_whole_here_and_there(name: str) -> None:
    definition = parse(shipped()[name])
    check_jobs(definition)
    check_shapes(shipped()[name])


def everything() -> dsl.Pipeline:
    rate = dsl.Parameter("Rate", "Float", 0.05)
    kind = dsl.Parameter("Kind", "String", "boosting", ["boosting", "logistic"])
    rows = dsl.Processing(
        "rows",
        "features.split",
        {"features": "featureset:" + "0" * 64},
        ["dataset", "report"],
        {"kind": kind},
        {"Report": ("report", "report.json")},
        60,
        cache="P30D",
        retries=[dsl.Retry()],
    )
    fit = dsl.Training("fit", "models.train", {"training": rows.output("dataset")}, {"rate": rate}, cache="T12H")
    base = {"DATA_BIAS": "artifact:" + "0" * 64 + "/analysis.json"}
    enter = dsl.Register("enter", fit.model, "group", {"kind": kind}, base)
    ask = dsl.Callback("ask", {"model": enter.get("ModelPackageArn")}, {"answer": "String"}, "https://sqs.invalid/q")
    tune = dsl.Tuning(
        "tune", "models.train", "auroc", {"training": rows.output("dataset")}, {"kind": ["risk", "logistic"]}
    )
    drawn = dsl.Tuning("drawn", "models.train", "auroc", ranges={"folds": (2, 9), "ridge": (1.0, 9.0)}, seed=3)
    named = dsl.Model("named", tune.top_model(0, "bucket", "models"))
    known = dsl.Model("known", package="arn:aws:sagemaker:us-east-1:000000000000:model-package/group/1")
    score = dsl.Transform("score", named.called, rows.output("dataset"), joined=True, settings={"part": "test"})
    better = dsl.QualityCheck("better", "MODEL_QUALITY", score.output, skip=True, register=True, cache="P1D")
    moved = dsl.QualityCheck(
        "moved", "DATA_QUALITY", score.output, supplied=better.constraints, statistics=better.used
    )
    facet = {"facet": [{"name_or_index": "sex"}]}
    fair = dsl.ClarifyCheck("fair", "DATA_BIAS", rows.output("dataset"), group="group", config=facet)
    just = dsl.ClarifyCheck("just", "MODEL_BIAS", score.output, config_file=rows.output("report"), model=named.called)
    why = dsl.ClarifyCheck("why", "MODEL_EXPLAINABILITY", score.output, model=known.called, fails=False)
    more = [tune, drawn, named, known, score, better, moved, fair, just, why]
    tell = dsl.Function("tell", "models.approve", {"answer": ask.output("answer")}, {"state": "String"}, after=[ask])
    good = dsl.all_of(
        dsl.at_least(fit.metric("auroc"), 0.6),
        dsl.one_of(dsl.less(1, 2), dsl.greater(2, 1), dsl.at_most(1, 1)),
        dsl.is_not(dsl.is_in(kind, ["logistic"])),
        dsl.equals(rows.file("Report", "enough"), True),
        dsl.greater(tune.figure(1), 0.5),
        dsl.equals(dsl.json_get(dsl.join("/", rows.output("report"), "report.json"), "rows.test"), 5),
    )
    fail = dsl.Fail("no", dsl.join(" ", "not good enough:", fit.metric("auroc")))
    asked = dsl.Condition("good", good, [enter, ask, tell], [fail])
    return dsl.Pipeline("all", [rows, fit, *more, asked], [rate, kind])


def test_whatever_it_can_write_is_read_here_and_taken_there() -> None:
    text = everything().definition()
    found = parse(text)
    assert {step.type for step in found.steps.values()} == set(TYPES)
    check_jobs(found)
    assert found.steps["fit"].waits == {"rows"}
    assert found.steps["enter"].waits == {"fit", "good"}
    assert found.steps["rows"].retries[0].attempts == 3
    check_shapes(text)


def test_it_checks_what_it_writes() -> None:
    lonely = dsl.Function("a", "models.approve", {"x": {"Get": "Steps.b.OutputParameters['c']"}})
    with pytest.raises(Invalid, match="b is none"):
        dsl.Pipeline("p", [lonely]).definition()


def test_what_the_warm_process_imports_is_there() -> None:
    said = json.loads(command(Path("/nowhere"), None)[-1])
    assert all(importlib.util.find_spec(f"carelake.{name}") is not None for name in said["modules"])


def test_every_job_is_a_function_that_there_is() -> None:
    for job in JOBS.values():
        module, _, name = job.does.partition(":")
        found = importlib.util.find_spec(module)
        assert found is not None
        assert found.origin is not None
        assert f"\ndef {name}(work: Work) -> Made:" in Path(found.origin).read_text()
