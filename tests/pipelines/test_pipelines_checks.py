"""Batch transforms and check steps: data, models and explanations beside a baseline."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from executing import Home, text

from carelake.core.errors import Invalid
from carelake.features import parquet
from carelake.monitor import attribution, bias
from carelake.pipelines import dsl
from carelake.pipelines.execution import artifacts
from carelake.pipelines.execution.standing import standing

SEX = {"facet": [{"name_or_index": "sex"}], "group_variable": "race", "label": "label"}


def made_up(name: str = "rows", **settings: Any) -> dsl.Processing:
    """Rows of 1,500 made-up stays."""
    return dsl.Processing(name, "test.rows", outputs=["dataset"], settings={k: str(v) for k, v in settings.items()})


def learned(rows: dsl.Processing) -> list[dsl.Step]:
    """A model of these rows, by its name."""
    fit = dsl.Training("fit", "models.train", {"training": rows.output("dataset")}, {"kind": "logistic"})
    return [fit, dsl.Model("named", fit.model)]


def quality(name: str, rows: dsl.Processing, **told: Any) -> dsl.QualityCheck:
    return dsl.QualityCheck(name, "DATA_QUALITY", rows.output("dataset"), **told)


def through(home: Home, *steps: dsl.Step, name: str = "small") -> Any:
    home.define(dsl.Pipeline(name, list(steps)).definition(), name)
    one = home.carry(home.start(name))
    return one, home.steps(one.id)


def file_of(home: Home, steps: Any, step: str, file: str) -> Any:
    """A file that a check left."""
    with home.enter("pipeline:step") as permit:
        with home.vault.database.reading(permit) as tx:
            noun = home.platform.nouns.get(tx, steps[step].output["outputs"]["result"])
        return json.loads(artifacts.read(permit, home.vault, noun, file))


def test_what_moved_from_the_baseline_fails_the_check_unless_it_is_only_to_be_told(vault: Any) -> None:
    home = Home(vault)
    rows, moved, same = made_up(), made_up("moved", shift=1.5), made_up("same", seed=2)
    base = quality("base", rows, skip=True, register=True)
    supplied = {"supplied": base.constraints}
    told = quality("told", moved, fails=False, **supplied)
    said = {"problem_type": "Regression", "ground_truth_attribute": "age", "inference_attribute": "guess"}
    amounts = dsl.QualityCheck("amounts", "MODEL_QUALITY", rows.output("dataset"), skip=True, settings=said)
    apart = {"supplied": amounts.constraints, "fails": False, "settings": said}
    worse = dsl.QualityCheck("worse", "MODEL_QUALITY", moved.output("dataset"), **apart)
    more = (told, quality("kept", same, **supplied), amounts, worse)
    one, steps = through(home, rows, moved, same, base, *more)
    assert one.status == "Succeeded", one.reason
    first = steps["base"].output["properties"]
    assert first["BaselineUsedForDriftCheckConstraints"] == first["CalculatedBaselineConstraints"]
    said = steps["told"].output["properties"]
    assert said["BaselineUsedForDriftCheckStatistics"] == first["CalculatedBaselineStatistics"]
    assert said["CalculatedBaselineStatistics"] != first["CalculatedBaselineStatistics"]
    with home.enter("pipeline:read") as permit:
        arn = home.pipelines.arn_of(permit, one.id)
        listed = home.pipelines.list_pipeline_execution_steps(permit, {"PipelineExecutionArn": arn})
    model = Session().get_service_model("sagemaker").operation_model("ListPipelineExecutionSteps").output_shape
    report = ParamValidator().validate(listed, model)
    assert not report.has_errors(), report.generate_report()
    found = {step["StepName"]: step.get("Metadata", {}) for step in listed["PipelineExecutionSteps"]}
    assert found["told"]["QualityCheck"]["ViolationReport"].endswith("/constraint_violations.json")
    assert "ViolationReport" not in found["kept"]["QualityCheck"]
    found = file_of(home, steps, "worse", "constraint_violations.json")["violations"]
    assert {each["metric_name"] for each in found} >= {"mae", "rmse"}
    one, steps = through(home, rows, moved, base, quality("held", moved, **supplied), name="two")
    assert one.reason == "Step held failed: pipelines.violations: The baseline is not met by: age."
    assert "ViolationReport" in steps["held"].output["metadata"]["QualityCheck"]  # what it found stays
    found = file_of(home, steps, "held", "constraint_violations.json")["violations"]
    assert {each["feature_name"] for each in found} == {"age"}
    one, _ = through(home, moved, quality("alone", moved), name="three")
    assert "pipelines.no_baseline" in one.reason


def test_too_few_rows_are_no_passed_check(vault: Any) -> None:
    home = Home(vault)
    rows, few = made_up(), made_up("few", count=90)
    base = quality("base", rows, skip=True)
    one, _ = through(home, rows, few, base, quality("held", few, supplied=base.constraints))
    assert "pipelines.too_few" in one.reason
    few = made_up("few", count=40)
    one, _ = through(home, few, dsl.ClarifyCheck("fair", "DATA_BIAS", few.output("dataset"), skip=True), name="two")
    assert "pipelines.too_few" in one.reason


def test_what_shares_nothing_with_the_baseline_is_no_passed_check(vault: Any) -> None:
    """Differences of another attribute are there: nothing would be compared, so nothing would violate."""
    home = Home(vault)
    rows = made_up()
    race = {"facet": [{"name_or_index": "race"}], "label": "label"}
    base = dsl.ClarifyCheck("base", "DATA_BIAS", rows.output("dataset"), config=race, skip=True)
    supplied = {"supplied": base.get("CalculatedBaselineConstraints")}
    held = dsl.ClarifyCheck("held", "DATA_BIAS", rows.output("dataset"), config=SEX, **supplied)
    one, steps = through(home, rows, base, held)
    assert steps["base"].status == "Succeeded", steps["base"].reason
    assert "pipelines.no_baseline" in one.reason


def test_a_check_rests_on_the_state_of_versions_that_its_configuration_may_name(vault: Any) -> None:
    home = Home(vault)
    rows = made_up()
    fit, _ = learned(rows)
    enter = dsl.Register("enter", fit.get("ModelArtifacts.S3ModelArtifacts"), "risks")
    said = {"model": enter.get("ModelPackageName"), "approve_as": "reviewer", "approves": True}
    asked = dsl.Function("asked", "models.approve", said, {"state": "String"})
    one, steps = through(home, rows, fit, enter, asked)
    assert one.status == "Succeeded", one.reason
    state = steps["asked"].output["properties"]["OutputParameters['state']"]
    assert state == "PendingManualApproval", "who started it from afar speaks for no reviewer"
    by_file: Any = {"ProcessingInputs": [{"InputName": "analysis_config"}]}

    def told(request: Any) -> Any:
        with home.enter("pipeline:read") as permit, home.vault.database.reading(permit) as tx:
            return standing(tx, "production", request)

    requests = [by_file, {"Environment": {"analysis_config": "{}"}}]
    before = [told(request) for request in requests]
    reviewer = home.platform.identity.named("reviewer", home.caller.principal)
    with home.gate.enter(reviewer, "model:approve", "risks", "HOPERAT", account="production") as permit:
        (version,) = home.platform.registry.versions(permit, "risks")
        home.platform.registry.reject(permit, version.ref)
    assert all(told(request) != was for request, was in zip(requests, before, strict=True))
    assert told({"Environment": {"other": "x"}}) == {}


def test_a_model_is_asked_about_rows_and_checked_and_later_rows_are_held_against_what_it_was_registered_with(
    vault: Any,
) -> None:
    """Fit, name, transform, quality, bias, explanations, register with all baselines; approve; then other rows."""
    home = Home(vault)
    rows = made_up()
    new: dict[str, Any] = {"skip": True, "register": True}
    model = {"Get": "Steps.named.ModelName"}
    score = dsl.Transform("score", model, rows.output("dataset"), settings={"part": "test"})
    checks = [
        dsl.QualityCheck("good", "MODEL_QUALITY", score.output, **new),
        dsl.ClarifyCheck("fair", "DATA_BIAS", rows.output("dataset"), config=SEX, **new),
        dsl.ClarifyCheck("just", "MODEL_BIAS", rows.output("dataset"), config=SEX, model=model, **new),
        dsl.ClarifyCheck("why", "MODEL_EXPLAINABILITY", rows.output("dataset"), model=model, **new),
    ]
    fit, named = learned(rows)
    kept = {one.kind: one.used for one in checks}
    enter = dsl.Register("enter", fit.get("ModelArtifacts.S3ModelArtifacts"), "risks", baselines=kept)
    one, steps = through(home, rows, fit, named, score, *checks, enter)
    assert one.status == "Succeeded", one.reason
    _scored(home, steps)
    shap = file_of(home, steps, "why", "analysis.json")["explanations"]["kernel_shap"]["label0"]["global_shap_values"]
    assert set(shap) == {"age", "before"}
    just = file_of(home, steps, "just", "analysis.json")
    assert "pre_training_bias_metrics" not in just
    metrics = {m["name"] for m in just["post_training_bias_metrics"]["facets"]["sex"][0]["metrics"]}
    assert metrics == set(bias.POST)
    version = steps["enter"].output["properties"]["ModelPackageName"]
    _approve(home, version)
    with home.enter("model:read") as permit:
        said = home.platform.model_packages.describe(permit, {"ModelPackageName": version})["DriftCheckBaselines"]
    assert (
        said["Bias"]["PostTrainingConstraints"]["S3Uri"]
        == steps["just"].output["properties"]["BaselineUsedForDriftCheckConstraints"]
    )
    _later(home, version)


def _scored(home: Home, steps: Any) -> None:
    """A transform's rows are kept where an erasure finds them, and its properties tell of them."""
    ref = steps["score"].output["properties"]["TransformOutput.S3OutputPath"]
    with home.enter("features:build") as permit:
        with home.vault.database.reading(permit) as tx:
            noun = home.platform.nouns.get(tx, ref)
        table = parquet.read(permit, home.vault, noun)
    assert {"subject_id", "label", "sex", "probability", "prediction"} <= set(table.column_names)
    assert "age" not in table.column_names
    assert set(table.column("set").to_pylist()) == {"test"}
    threshold = noun.body["threshold"]
    told = zip(table.column("probability").to_pylist(), table.column("prediction").to_pylist(), strict=True)
    assert all((risk >= threshold) is alert for risk, alert in told)


def _approve(home: Home, version: str) -> None:
    reviewer = home.platform.identity.named("reviewer", home.caller.principal)
    account, purpose = home.caller.account, home.caller.purpose
    with home.gate.enter(reviewer, "model:approve", version, purpose, account=account) as permit:
        home.platform.registry.approve(permit, version)


def _later(home: Home, version: str) -> None:
    """The registered version is asked about people of whom one group fares worse."""
    rows = made_up("rows", seed=3, worse=0.35)
    named = dsl.Model("named", package=version)
    score = dsl.Transform("score", named.called, rows.output("dataset"), joined=True)
    told: dict[str, Any] = {"group": "risks", "fails": False}
    checks = [
        dsl.QualityCheck("good", "MODEL_QUALITY", score.output, **told),
        dsl.ClarifyCheck("fair", "DATA_BIAS", rows.output("dataset"), config=SEX, **told),
        dsl.ClarifyCheck("just", "MODEL_BIAS", score.output, config=SEX, **told),
        dsl.ClarifyCheck("why", "MODEL_EXPLAINABILITY", score.output, model=version, **told),
    ]
    one, steps = through(home, rows, named, score, *checks, name="later")
    assert one.status == "Succeeded", one.reason
    violations = {
        name: {v["metric_name"] for v in file_of(home, steps, name, "constraint_violations.json")["violations"]}
        for name in ("good", "fair", "just", "why")
    }
    assert "calibration_intercept" in violations["good"]
    assert "DPL" in violations["fair"]
    assert violations["why"] == set()
    for name in ("fair", "just"):
        used = steps[name].output["properties"]["BaselineUsedForDriftCheckConstraints"]
        assert used.startswith("artifact:")  # what it was registered with
        assert used.endswith("/analysis.json")


def test_a_version_that_is_not_approved_is_not_asked_about_a_batch(vault: Any) -> None:
    home = Home(vault)
    rows = made_up()
    fit, _ = learned(rows)
    enter = dsl.Register("enter", fit.get("ModelArtifacts.S3ModelArtifacts"), "risks")
    named = dsl.Model("named", package=enter.get("ModelPackageArn"))
    score = dsl.Transform("score", named.called, rows.output("dataset"))
    one, _ = through(home, rows, fit, enter, named, score)
    assert "models.not_approved" in one.reason


def test_an_analysis_that_is_not_done_is_refused_by_name(vault: Any) -> None:
    home = Home(vault)
    rows = made_up()
    for number, (config, code) in enumerate(
        [
            ({**SEX, "joinsource_name_or_index": "x"}, "pipelines.unsupported"),
            ({**SEX, "methods": {"pre_training_bias": {"methods": ["XYZ"]}}}, "pipelines.analysis_config"),
            ({"facet": [{"name_or_index": "colour"}]}, "pipelines.no_column"),
        ]
    ):
        check = dsl.ClarifyCheck("fair", "DATA_BIAS", rows.output("dataset"), config=config, skip=True)
        one, _ = through(home, rows, check, name=f"p{number}")
        assert code in one.reason
    wrong = {**quality("x", rows).said(dsl.Machine(), "p"), "CheckType": "DATA_BIAS"}
    with pytest.raises(Invalid, match="one of DATA_QUALITY, MODEL_QUALITY"):
        home.define(text(wrong))


def test_figures_are_the_monitors() -> None:
    """Clarify's definitions, by hand: 30 of 100 and 60 of 100 have the outcome."""
    import numpy as np

    from carelake.monitor.performance import Labelled

    y = np.repeat([True, False, True, False], [30, 70, 60, 40])
    sex = np.repeat(["female", "male"], [100, 100])
    found = bias.baseline(Labelled(y, np.zeros(200), np.arange(200), 1.0), {"sex": sex})["sex"]["female"]
    assert found["CI"]["value"] == 0.0
    assert found["DPL"]["value"] == pytest.approx(0.3)
    assert attribution.ndcg({"a": 2.0, "b": 1.0}, {"a": 2.0, "b": 1.0}) == 1.0
