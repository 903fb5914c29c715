"""Executions: order, branches, cache, retries, selections, callbacks, stops, and answers as SageMaker's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from executing import Home, condition, of, processing, text, value

from carelake.access.identity import Caller
from carelake.access.principals import Principals
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.pipelines.execution.bounds import bounded
from carelake.pipelines.execution.cache import key_of
from carelake.pipelines.execution.launching import InThreads
from carelake.pipelines.execution.rows import Rows
from carelake.pipelines.execution.running import run_task
from carelake.pipelines.execution.work import Work
from carelake.pipelines.names import execution_arn, execution_of
from carelake.pipelines.resuming import begin_or_resume

CACHED = {"CacheConfig": {"Enabled": True}}


@pytest.fixture
def home(vault: Any) -> Home:
    return Home(vault)


def chain(**settings: Any) -> str:
    """a, b -> c = a + b -> is it more than 4? yes: d, no: fail."""
    asked = {"Type": "GreaterThan", "LeftValue": value("c"), "RightValue": 4}
    message = {"Std:Join": {"On": " ", "Values": ["too small:", value("c")]}}
    fail = {"Name": "no", "Type": "Fail", "Arguments": {"ErrorMessage": message}}
    return text(
        processing("a", number=2, **CACHED, **settings),
        processing("b", number={"Get": "Parameters.N"}, **CACHED, **settings),
        processing("c", "test.add", inputs={"x": of("a"), "y": of("b")}, **CACHED, **settings),
        condition("big", [asked], [processing("d", number=value("c"), **settings)], [fail]),
        parameters=[{"Name": "N", "Type": "Float", "DefaultValue": 3.5}],
    )


def test_through_to_the_end_and_once_more_from_the_cache(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    one, steps = home.run(chain(log=log))
    assert one.status == "Succeeded"
    assert {row.status for row in steps.values()} == {"Succeeded"}
    assert "no" not in steps
    _, found = home.run(chain(log=log))
    assert {name for name, row in found.items() if row.hit == one.id} == {"a", "b", "c"}
    assert [found[name].output["outputs"] for name in "abc"] == [steps[name].output["outputs"] for name in "abc"]
    assert sorted(log.read_text().split()) == ["a", "b", "c", "d", "d"]
    other, found = home.run(chain(log=log), {"N": "1"})
    assert other.status == "Failed"
    assert found["no"].output["metadata"] == {"Fail": {"ErrorMessage": "too small: 3.0"}}
    assert other.reason == "Step no failed: pipelines.fail: too small: 3.0"
    assert found["a"].hit == one.id
    assert not found["b"].hit
    assert "d" not in found


def test_a_cached_result_expires_and_is_not_taken_from_other_code_or_an_erased_input(home: Home, vault: Any) -> None:
    definition = text(processing("a", number=1, CacheConfig={"Enabled": True, "ExpireAfter": "T1H"}))
    first, steps = home.run(definition)
    vault.clock.move(minutes=30)
    assert home.run(definition)[1]["a"].hit == first.id
    vault.clock.move(minutes=31)
    assert not home.run(definition)[1]["a"].hit
    with home.enter("pipeline:step") as permit, vault.database.transaction(permit) as tx:
        home.platform.nouns.set_state(tx, steps["a"].output["outputs"]["out"], "erased")
    assert not home.run(definition)[1]["a"].hit


def test_the_key_looks_at_the_file_that_the_step_reads_and_at_none_that_it_may_not(tmp_path: Path) -> None:
    def key(uri: str, local: bool = True) -> str:
        return key_of(
            "Processing", "jobs_for_tests:write", {"x": uri}, {}, lambda _: pytest.fail("no noun"), local=local
        )

    (tmp_path / "a file").write_text("1")
    first = key(f"file://{tmp_path}/a%20file")
    assert first == key(f"file://{tmp_path}/a file")
    (tmp_path / "a file").write_text("2")
    assert key(f"file://{tmp_path}/a%20file") != first
    with pytest.raises(Refused):
        key(f"file://{tmp_path}/a file", local=False)
    with pytest.raises(NotFound):
        key("file:///dev/zero")


def test_the_lineage_of_an_output_is_what_its_step_read(home: Home) -> None:
    _, steps = home.run(chain())
    outputs = {name: row.output["outputs"]["out"] for name, row in steps.items() if name in "abc"}
    with home.enter("pipeline:read") as permit, home.vault.database.reading(permit) as tx:
        back = home.platform.nouns.lineage(tx, outputs["c"], account="production")
    assert {one.ref for one in back} == set(outputs.values())


@pytest.mark.parametrize(("attempts", "status"), [(2, "Succeeded"), (1, "Failed")])
def test_retries_as_the_policy_says(home: Home, tmp_path: Path, attempts: int, status: str) -> None:
    policy = {"ExceptionType": ["Step.SERVICE_FAULT"], "IntervalSeconds": 0, "MaxAttempts": attempts}
    step = processing("a", "test.flaky", times=3, log=tmp_path / "log", RetryPolicies=[policy])
    one, steps = home.run(text(step))
    assert one.status == status
    assert steps["a"].attempts == attempts + 1
    assert steps["a"].failures == ("Step.SERVICE_FAULT",) * 2


def test_what_no_attempt_mends_is_not_tried_again_and_nothing_begins_after_it(home: Home) -> None:
    policy = {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR", "Step.THROTTLING"], "MaxAttempts": 3}
    refused = processing("a", "test.refuse", RetryPolicies=[policy])
    one, steps = home.run(text(refused, processing("z", DependsOn=["a"])))
    assert (one.status, steps["a"].attempts, "z" in steps) == ("Failed", 1, False)
    assert one.reason == "Step a failed: test.never: This never works."


def test_a_function_gives_what_the_step_declares(home: Home) -> None:
    step = {
        "Name": "f",
        "Type": "Lambda",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:test.function",
        "Arguments": {"a": 2, "b": {"Get": "Parameters.B"}},
        "OutputParameters": [{"OutputName": "sum", "OutputType": "Integer"}],
    }
    after = processing("a", number={"Get": "Steps.f.OutputParameters['sum']"})
    parameters = [{"Name": "B", "Type": "Integer"}]
    _, steps = home.run(text(step, after, parameters=parameters), {"B": "5"})
    assert steps["f"].output["properties"]["OutputParameters['sum']"] == 7
    more = {**step, "OutputParameters": [{"OutputName": "nothing"}]}
    one, _ = home.run(text(more, parameters=parameters), {"B": "5"})
    assert "left no output nothing" in one.reason


def tuning(strategy: str, ranges: dict[str, Any], kind: str = "Maximize", metric: str = "value") -> str:
    entry = {
        "TrainingImage": "carelake",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["carelake-job", "test.add"],
    }
    config = {
        "Strategy": strategy,
        "HyperParameterTuningJobObjective": {"Type": kind, "MetricName": metric},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 1},
        "ParameterRanges": ranges,
        "RandomSeed": 3,
    }
    definition = {
        "AlgorithmSpecification": entry,
        "OutputDataConfig": {"S3OutputPath": "s3://b/p"},
        "StaticHyperParameters": {"other": "1"},
    }
    arguments = {"HyperParameterTuningJobConfig": config, "TrainingJobDefinition": definition}
    best = {"Get": "Steps.t.BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value"}
    return text({"Name": "t", "Type": "Tuning", "Arguments": arguments}, processing("after", number=best))


@pytest.mark.parametrize(("kind", "best"), [("Maximize", 9.0), ("Minimize", 2.0)])
def test_tuning_takes_the_best_of_a_grid(home: Home, kind: str, best: float) -> None:
    ranges = {"CategoricalParameterRanges": [{"Name": "number", "Values": ["3", "9", "2"]}]}
    one, steps = home.run(tuning("Grid", ranges, kind))
    assert one.status == "Succeeded", one.reason
    said = steps["t"].output["properties"]
    assert said["BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value"] == best
    outputs, path = steps["t"].output["outputs"], "TrainingJobSummaries[{}].{}"
    figures = [said[path.format(n, "FinalHyperParameterTuningJobObjectiveMetric.Value")] for n in range(3)]
    assert figures == sorted([3.0, 9.0, 2.0], reverse=kind == "Maximize")
    assert said[path.format(0, "TrainingJobName")] == said["BestTrainingJob.TrainingJobName"]
    assert said[path.format(0, "TunedHyperParameters['number']")] == f"{best:.0f}"
    assert (
        said["ModelArtifacts.S3ModelArtifacts"] == outputs["model"] == outputs[f"candidate-{2 if best > 2 else 3:03}"]
    )


def test_a_candidate_is_taken_by_the_address_that_sagemakers_sdk_writes(home: Home) -> None:
    """`TuningStep.get_top_model_s3_uri` makes an address of the training job's name."""
    ranges = {"CategoricalParameterRanges": [{"Name": "number", "Values": ["3", "9", "2"]}]}
    second = {"Get": "Steps.t.TrainingJobSummaries[1].TrainingJobName"}
    address = {"Std:Join": {"On": "/", "Values": ["s3:/", "bucket", "a", second, "output/model.tar.gz"]}}
    named = {"Name": "m", "Type": "Model", "Arguments": {"PrimaryContainer": {"ModelDataUrl": address}}}
    said = json.loads(tuning("Grid", ranges))
    one, steps = home.run(json.dumps({**said, "Steps": [*said["Steps"], named]}))
    assert one.status == "Succeeded", one.reason
    assert steps["m"].output["properties"]["ModelName"] == steps["t"].output["outputs"]["candidate-001"]


def test_tuning_draws_the_same_each_time(home: Home) -> None:
    ranges = {
        "ContinuousParameterRanges": [
            {"Name": "number", "MinValue": "0.001", "MaxValue": "10", "ScalingType": "Logarithmic"}
        ],
        "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "4"}],
    }
    found = [home.run(tuning("Random", ranges))[1]["t"].output["outputs"] for _ in range(2)]
    assert found[0] == found[1]
    one, _ = home.run(tuning("Random", ranges, metric="none"))
    assert "pipelines.objective" in one.reason


def test_a_callback_waits_for_its_token_and_takes_it_once(home: Home) -> None:
    step = {
        "Name": "ask",
        "Type": "Callback",
        "Arguments": {"n": value("a")},
        "OutputParameters": [{"OutputName": "answer", "OutputType": "Integer"}],
    }
    after = processing("b", number={"Get": "Steps.ask.OutputParameters['answer']"})
    one, steps = home.run(text(processing("a", number=1), step, after))
    assert (one.status, steps["ask"].status, "b" in steps) == ("Executing", "Executing", False)
    token = steps["ask"].output["metadata"]["Callback"]["CallbackToken"]
    with home.enter() as permit, home.vault.database.reading(permit) as tx:
        events = (
            tx.exec_driver_sql("SELECT data FROM event WHERE type = 'carelake.pipeline.callback'").scalars().all()
        )
    assert len(events) == 1
    assert token in events[0]
    said = {"CallbackToken": token, "OutputParameters": [{"Name": "answer", "Value": "5"}]}
    for _ in range(2):
        with home.enter() as permit:
            home.pipelines.send_pipeline_execution_step_success(permit, said)
    with home.enter() as permit, pytest.raises(Conflict):
        home.pipelines.send_pipeline_execution_step_failure(permit, {"CallbackToken": token})
    with home.enter() as permit, pytest.raises(NotFound):
        home.pipelines.send_pipeline_execution_step_success(permit, {"CallbackToken": "x" * 10})
    done = home.carry(one.id)
    assert done.status == "Succeeded"
    assert home.steps(one.id)["b"].status == "Succeeded"


def test_selected_steps_take_the_rest_from_another_execution(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    one, _ = home.run(chain(log=log))
    arn = execution_arn("production", "small", one.id)
    config = {"SourcePipelineExecutionArn": arn, "SelectedSteps": [{"StepName": "c"}]}
    again, steps = home.run(chain(log=log, mark=1), SelectiveExecutionConfig=config)
    assert again.status == "Succeeded"
    assert steps["a"].source == one.id
    assert steps["c"].source == ""
    assert steps["c"].attempts == 1
    assert log.read_text().split().count("c") == 2
    assert log.read_text().split().count("a") == 1
    with home.enter("pipeline:read") as permit:
        told = home.pipelines.list_pipeline_execution_steps(
            permit, {"PipelineExecutionArn": execution_arn("production", "small", again.id)}
        )["PipelineExecutionSteps"]
    reused = {one["StepName"]: one.get("SelectiveExecutionResult") for one in told}
    assert reused["a"] == {"SourcePipelineExecutionArn": arn}
    assert reused["c"] is None
    more = [{"StepName": name} for name in ("c", "big", "d")]
    config = {"SourcePipelineExecutionArn": arn, "SelectedSteps": more}
    third, steps = home.run(chain(log=log, mark=2), SelectiveExecutionConfig=config)
    assert third.status == "Succeeded", third.reason
    assert {name for name, row in steps.items() if not row.source} == {"c", "big", "d"}
    for wrong in ({"SelectedSteps": [{"StepName": "c"}]}, {"SelectedSteps": [{"StepName": "none"}]}):
        with pytest.raises(Invalid) as caught:
            home.start(SelectiveExecutionConfig=wrong)
        assert caught.value.code == "pipelines.selected"


def test_a_request_token_starts_one_execution(home: Home) -> None:
    home.define(chain())
    token = {"ClientRequestToken": "t" * 32}
    assert home.start(**token) == home.start(**token)
    with pytest.raises(Invalid) as caught:
        home.start(parameters={"N": "9"}, **token)
    assert caught.value.code == "pipelines.token_used"


@pytest.mark.parametrize("wrong", [{"N": "many"}, {"M": "1"}, {"N": "1e400" * 300}, {"N": "-1e999"}])
def test_parameters_are_checked_when_it_starts(home: Home, wrong: dict[str, str]) -> None:
    home.define(chain())
    with pytest.raises(Invalid) as caught:
        home.start(parameters=wrong)
    assert caught.value.code == "pipelines.parameter"


def test_stopped_and_retried(home: Home) -> None:
    home.define(chain())
    execution = home.start()
    arn = {"PipelineExecutionArn": execution_arn("production", "small", execution)}
    with home.enter() as permit:
        home.pipelines.stop_pipeline_execution(permit, arn)
    assert home.carry(execution).status == "Stopped"
    with home.enter() as permit:
        home.pipelines.stop_pipeline_execution(permit, arn)  # twice is once
        home.pipelines.retry_pipeline_execution(permit, arn)
    assert home.carry(execution).status == "Succeeded"
    with home.enter() as permit, pytest.raises(Conflict):
        home.pipelines.retry_pipeline_execution(permit, arn)


def test_a_failed_one_is_retried_from_where_it_failed(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    policy = {"ExceptionType": ["Step.SERVICE_FAULT"], "IntervalSeconds": 0, "MaxAttempts": 2}
    flaky = processing("b", "test.flaky", times=4, log=log, DependsOn=["a"], RetryPolicies=[policy])
    home.define(text(processing("a", log=log), flaky))
    execution = home.start()
    assert home.carry(execution).status == "Failed"
    with home.enter() as permit:
        arn = execution_arn("production", "small", execution)
        home.pipelines.retry_pipeline_execution(permit, {"PipelineExecutionArn": arn})
        told = home.pipelines.list_pipeline_execution_steps(permit, {"PipelineExecutionArn": arn})
    begun = {one["StepName"]: "StartTime" in one for one in told["PipelineExecutionSteps"]}
    assert begun == {"a": True, "b": False}  # what a policy allows is counted from the new attempt on
    assert home.carry(execution).status == "Succeeded"
    assert log.read_text().split() == ["a", "b", "b", "b", "b"]


def test_answers_have_the_shapes_that_boto3_reads(home: Home) -> None:
    botocore = pytest.importorskip("botocore")
    assert botocore
    from botocore.session import Session
    from botocore.validate import ParamValidator

    model = Session().get_service_model("sagemaker")
    one, _ = home.run(chain(), PipelineExecutionDisplayName="mine")
    arn = {"PipelineExecutionArn": execution_arn("production", "small", one.id)}
    name = {"PipelineName": "small"}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ListPipelines", {}),
        ("DescribePipeline", name),
        ("ListPipelineExecutions", name),
        ("DescribePipelineExecution", arn),
        ("DescribePipelineDefinitionForExecution", arn),
        ("ListPipelineExecutionSteps", arn),
        ("ListPipelineParametersForExecution", arn),
    ]
    for operation, request in calls:
        method = "".join(f"_{c.lower()}" if c.isupper() else c for c in operation)[1:]
        with home.enter("pipeline:read") as permit:
            answer = getattr(home.pipelines, method)(permit, request)
        report = ParamValidator().validate(answer, model.operation_model(operation).output_shape)
        assert not report.has_errors(), (operation, report.generate_report())
        assert set(answer) <= set(model.operation_model(operation).output_shape.members)


def test_pages_and_deleting(home: Home) -> None:
    home.define(chain())
    executions = [home.start() for _ in range(3)]
    with home.enter("pipeline:read") as permit:
        first = home.pipelines.list_pipeline_executions(permit, {"PipelineName": "small", "MaxResults": 2})
        rest = home.pipelines.list_pipeline_executions(
            permit, {"PipelineName": "small", "NextToken": first["NextToken"]}
        )
        for other in (
            {"PipelineName": "small", "SortOrder": "Ascending"},
            {"PipelineName": "small", "MaxResults": 2},
        ):
            token = first["NextToken"] if "SortOrder" in other else "2"
            with pytest.raises(Invalid) as caught:
                home.pipelines.list_pipeline_executions(permit, {**other, "NextToken": token})
            assert caught.value.code == "pipelines.token"  # of another question, or made up
    told = [one["PipelineExecutionArn"] for page in (first, rest) for one in page["PipelineExecutionSummaries"]]
    assert sorted(told) == sorted(execution_arn("production", "small", one) for one in executions)
    with home.enter("pipeline:define") as permit, pytest.raises(Conflict):
        home.pipelines.delete_pipeline(permit, {"PipelineName": "small"})
    for one in executions:
        home.carry(one)
    with home.enter("pipeline:define") as permit:
        home.pipelines.delete_pipeline(permit, {"PipelineName": "small"})
    with home.enter("pipeline:read") as permit, pytest.raises(NotFound):
        home.pipelines.describe_pipeline(permit, {"PipelineName": "small"})
    with home.enter("pipeline:read") as permit:
        assert (
            len(
                home.pipelines.list_pipeline_executions(permit, {"PipelineName": "small"})[
                    "PipelineExecutionSummaries"
                ]
            )
            == 3
        )


def test_another_account_sees_none_of_it(home: Home) -> None:
    one, _ = home.run(chain())
    with home.gate.enter(home.caller.principal, "pipeline:read", "pipeline", "HOPERAT", account="research") as permit:
        assert home.pipelines.list_pipelines(permit, {})["PipelineSummaries"] == []
        with pytest.raises(NotFound):
            home.pipelines.describe_pipeline_execution(permit, {"PipelineExecutionArn": one.id})


def test_one_process_at_a_time(home: Home) -> None:
    import os

    from carelake.audit.processes import _start_ticks
    from carelake.core import canonical

    home.define(chain())
    execution = home.start()
    parent = {"host": __import__("platform").node(), "pid": os.getppid(), "started": _start_ticks(os.getppid())}
    with home.enter() as permit, home.vault.database.transaction(permit) as tx:
        Rows(tx, "production").change_execution(execution, process=canonical.dump(parent).decode())
    with pytest.raises(Conflict) as caught:
        home.carry(execution)
    assert caught.value.code == "pipelines.running"
    gone = canonical.dump({**parent, "started": 1}).decode()
    with home.enter() as permit, home.vault.database.transaction(permit) as tx:
        Rows(tx, "production").change_execution(execution, process=gone)
    assert home.carry(execution).status == "Succeeded"


def test_a_run_has_no_more_than_its_starter_came_with(home: Home) -> None:
    """Somebody starts a pipeline by a key with fewer roles: its steps have fewer too, whoever carries it out."""
    seen: list[tuple[str, ...]] = []

    def run(platform: Any, caller: Any, task: Any) -> Any:
        seen.append(bounded(caller.principal, task["bounds"]).roles)
        return run_task(platform, caller, task)

    launcher = InThreads(lambda task: run(home.platform, home.caller, task))
    home.executor = replace(home.executor, launcher=launcher)
    home.define(text(processing("a", number=1), processing("b", "test.add", inputs={"x": of("a")})))
    whole = home.caller
    assert whole.principal.roles == ("operator",)
    with home.vault.database.ledger() as connection:
        Principals(connection).add_role("operator", "reviewer")
    standing = home.platform.identity.register.standing("operator")
    assert standing is not None
    home.caller = replace(whole, principal=standing.principal)
    assert home.carry(home.start()).status == "Succeeded"
    assert set(seen.pop()) == {"operator", "reviewer"}
    seen.clear()
    few = replace(standing.principal, roles=("operator",), credential="key:K")
    home.caller = replace(whole, principal=few)
    execution = home.start()
    home.caller = replace(whole, principal=standing.principal)  # who carries it out has all
    assert home.carry(execution).status == "Succeeded"
    assert set(seen) == {("operator",)}


def test_a_step_lends_no_right_that_its_starter_has_not(home: Home) -> None:
    """Rights were taken since: the service principal still has them, and does not lend them."""
    home.define(text(processing("a", number=1), processing("b", "test.add", inputs={"x": of("a")})))
    execution = home.start()
    auditor = home.platform.identity.register.standing("auditor")
    assert auditor is not None
    caller = Caller(auditor.principal, "HOPERAT", "production")
    home.executor = replace(home.executor, launcher=InThreads(lambda task: run_task(home.platform, caller, task)))
    one = home.carry(execution)
    assert one.status == "Failed"
    assert "access.denied" in one.reason


def test_what_others_started_is_left_to_who_carries_it_out(home: Home) -> None:
    """A command begins its own execution anew; a trigger's and a client's wait on."""
    home.define(text(processing("a", number={"Get": "Parameters.N"}), parameters=[NUMBER]))
    queued = home.start(parameters={"N": "1"})
    with home.enter() as permit:
        arn = home.pipelines.start_pipeline_execution(
            permit, {"PipelineName": "small", "PipelineParameters": [{"Name": "N", "Value": "5"}]}, cause="nightly"
        )["PipelineExecutionArn"]
        triggered = execution_of(arn, "production")
        mine, _ = begin_or_resume(permit, home.pipelines, home.executor, "small", {"N": "2"})
        same, _ = begin_or_resume(permit, home.pipelines, home.executor, "small", {"N": "2"})
        other, _ = begin_or_resume(permit, home.pipelines, home.executor, "small", {"N": "5"})
        states = {one: status(home, one) for one in (queued, triggered, mine, other)}
    assert same == mine
    assert other not in (triggered, mine)
    assert states == {queued: "Executing", triggered: "Executing", mine: "Stopped", other: "Executing"}


NUMBER = {"Name": "N", "Type": "Integer"}


def status(home: Home, execution: str) -> str:
    with home.enter("pipeline:read") as permit, home.vault.database.reading(permit) as tx:
        return Rows(tx, "production").execution(execution).status


def test_a_result_is_given_to_nobody_who_may_not_do_what_it_asked(home: Home, tmp_path: Path) -> None:
    """From the cache, and from the execution that a selective one names."""
    log = tmp_path / "log"
    one, steps = home.run(chain(log=log))
    assert steps["a"].output["asked"] == ["pipeline:step"]
    with home.vault.database.ledger() as connection:
        Principals(connection).add_role("operator", "reviewer")
    standing = home.platform.identity.register.standing("operator")
    assert standing is not None
    # Started with a credential of fewer roles: none of those may do a step's work.
    whole, few = home.caller, replace(standing.principal, roles=("reviewer",), credential="key:K")
    home.caller = replace(whole, principal=standing.principal)
    again, other = home.start(), home.start()
    given = bounds_for(few)
    with home.enter() as permit, home.vault.database.transaction(permit) as tx:
        Rows(tx, "production").change_execution(again, bounds=given)
        changed = {"bounds": given, "source": one.id, "selected": ("c",)}
        Rows(tx, "production").change_execution(other, **changed)
    done = home.carry(again)
    assert done.status == "Failed"
    assert "access.denied" in done.reason
    assert not any(row.hit or "outputs" in row.output for row in home.steps(again).values())
    done = home.carry(other)
    assert (done.status, done.reason[:28]) == ("Failed", "access.denied: Step a is tak")
    whole_again = home.carry(home.start())
    assert home.steps(whole_again.id)["a"].hit == one.id  # who may, is given it as before
    assert log.read_text().split().count("c") == 1


def test_what_another_does_for_a_step_is_not_asked_of_who_is_given_its_result(home: Home) -> None:
    """The operator starts it, and speaks for the reviewer who approves; they may take the result over."""
    work = Work(home.platform, home.caller, "e" * 32, "small", "a", {}, (), {}, {})
    with work.acting("pipeline:step", "small"), work.acting("model:approve", "small", name="reviewer"):
        assert work.asked == {"pipeline:step"}


def bounds_for(who: Any) -> str:
    return json.dumps({"roles": list(who.roles), "narrowed": None})
