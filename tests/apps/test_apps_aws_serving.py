"""From a registered version to answers by boto3: approval, endpoint, invocation, monitors, tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.apps.aws import REGION, Clients, client, clients_of, made_key, refused
from tests.apps.served import known, own_workspace
from tests.serving.conftest import NAMES, TRAINING_SET, make_rows

from carelake.apps.wiring import Workspace
from carelake.core.arns import account_number
from carelake.core.errors import Invalid, Unsupported
from carelake.core.nouns import Noun
from carelake.models import artifact, card, evaluate, matrix, train
from carelake.monitor import baseline
from carelake.pipelines import predictions

PREFIX = f"arn:aws:sagemaker:{REGION}:{account_number('production')}:"
PACKAGE = PREFIX + "model-package/readmission/1"
ROLE = "arn:aws:iam::123456789012:role/serving"
VARIANT = {
    "VariantName": "all",
    "ModelName": "readmission-1",
    "InitialInstanceCount": 1,
    "InstanceType": "ml.m5.large",
}


def files() -> dict[str, bytes]:
    data, plan = matrix.rows(make_rows(1_500, 1), NAMES), train.Plan(replicates=10)
    scorer = train.train(data, plan, training_set=TRAINING_SET, words={"age": "age in years"})
    metrics = evaluate.evaluate(data, scorer, plan)
    content = card.card(scorer, metrics, plan, card.About(TRAINING_SET, "pipeline"))
    return artifact.pack(scorer, metrics, content, card.html(content, {}), baseline.of_model(data, scorer).to_bytes())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(Path(tmp_path_factory.mktemp("serving"))) as made:
        who = known(made, "pipeline")
        with made.gate.enter(who, "model:train", "models", "HOPERAT", account="production") as permit:
            with made.vault.database.transaction(permit) as tx:
                made.nouns.write(tx, Noun(TRAINING_SET, "production", "made", permit.act))
            made.platform.registry.register(permit, "readmission", TRAINING_SET, files())
        yield made


@pytest.fixture(scope="module")
def of(workspace: Workspace, address: str) -> Clients:
    judge = client(address, made_key(workspace, "reviewer", purpose="HOPERAT"), "sagemaker")
    made = clients_of(address, made_key(workspace, "operator", purpose="TREAT"))
    sagemaker = made("sagemaker")
    judge.update_model_package(ModelPackageArn=PACKAGE, ModelApprovalStatus="Approved")
    assert sagemaker.describe_model_package(ModelPackageName=PACKAGE)["ModelApprovalStatus"] == "Approved"
    container = {"ModelPackageName": PACKAGE}
    told = sagemaker.create_model(ModelName="readmission-1", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    assert told["ModelArn"] == PREFIX + "model/readmission-1"
    sagemaker.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[VARIANT])
    tags = [{"Key": "ward", "Value": "4"}]
    told = sagemaker.create_endpoint(EndpointName="readmission", EndpointConfigName="first", Tags=tags)
    assert told["EndpointArn"] == PREFIX + "endpoint/readmission"
    return made


def row(subject: str = "") -> dict[str, Any]:
    told = {"age": 70, "n_admissions_12m": 2, "hemoglobin": 11.5, "noise": None}
    return {**told, **({"subject_id": subject} if subject else {})}


def test_an_endpoint_is_described_and_listed(of: Clients) -> None:
    sagemaker = of("sagemaker")
    told = sagemaker.describe_endpoint(EndpointName="readmission")
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", "first")
    assert [one["VariantName"] for one in told["ProductionVariants"]] == ["all"]
    assert told["DataCaptureConfig"]["CurrentSamplingPercentage"] == 100
    assert [one["EndpointName"] for one in sagemaker.list_endpoints(StatusEquals="InService")["Endpoints"]] == [
        "readmission"
    ]
    assert [one["ModelName"] for one in sagemaker.list_models()["Models"]] == ["readmission-1"]
    assert sagemaker.describe_model(ModelName="readmission-1")["PrimaryContainer"] == {"ModelPackageName": PACKAGE}
    found = sagemaker.list_endpoint_configs(NameContains="irs")["EndpointConfigs"]
    assert [one["EndpointConfigName"] for one in found] == ["first"]
    assert sagemaker.describe_endpoint_config(EndpointConfigName="first")["ProductionVariants"] == [VARIANT]


def test_rows_are_answered_and_captured(workspace: Workspace, of: Clients) -> None:
    runtime = of("sagemaker-runtime")
    asked = {"EndpointName": "readmission", "ContentType": "application/json"}
    body = json.dumps({"instances": [row(), row()]})
    told = runtime.invoke_endpoint(**asked, Body=body, InferenceId="one", TargetVariant="all")
    found = json.loads(told["Body"])["predictions"]
    assert len(found) == 2
    assert all(0 < one["score"] < 1 for one in found)
    assert (told["ContentType"], told["InvokedProductionVariant"]) == ("application/json", "all")
    runtime.invoke_endpoint(**asked, Body=body)  # the same again, in the same second
    lines = runtime.invoke_endpoint(
        EndpointName="readmission", Body=b"70,2,11.5,", ContentType="text/csv", Accept="text/csv"
    )
    assert float(lines["Body"].decode()) == pytest.approx(found[0]["score"])
    who = known(workspace, "operator")
    with workspace.gate.enter(who, "endpoint:invoke", "endpoints", "TREAT", account="production") as permit:
        assert workspace.platform.endpoints.verify_captures(permit, "readmission").requests == 3


def test_what_cannot_be_answered_is_an_error_of_the_model_or_the_request(of: Clients) -> None:
    runtime = of("sagemaker-runtime")
    asked = {"EndpointName": "readmission", "ContentType": "application/json"}
    with refused("ModelError", 424) as said:
        runtime.invoke_endpoint(**asked, Body=b'{"instances": [[1, 2]]}')
    assert said["OriginalStatusCode"] == 400
    for kind, status in (({"ContentType": "image/png"}, 415), ({"Accept": "image/png"}, 406)):
        with refused("ModelError", 424) as said:
            runtime.invoke_endpoint(**{**asked, **kind}, Body=json.dumps({"instances": [row()]}))
        assert said["OriginalStatusCode"] == status
    for body in (json.dumps({"instances": [row()]}), "no rows"):
        with refused("ValidationError", 400):
            runtime.invoke_endpoint(EndpointName="nowhere", Body=body)
    with refused("ValidationError", 400):
        runtime.invoke_endpoint(**asked, Body=b"{}", TargetModel="other.tar.gz")


def test_a_model_of_other_features_is_not_asked_about_a_patient(workspace: Workspace, of: Clients) -> None:
    kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    times = {"start": "2026-01-01T08:00:00Z", "end": "2026-01-09T08:00:00Z"}
    stay = {"resourceType": "Encounter", "id": "s", "status": "finished", "class": kind, "period": times}
    sent = [
        {"resourceType": "Patient", "id": "p", "birthDate": "1950-01-01"},
        {**stay, "subject": {"reference": "Patient/p"}},
    ]
    who = known(workspace, "operator")
    asked = workspace.gate.enter(who, "endpoint:invoke", "endpoints", "TREAT", account="production")
    with asked as permit, pytest.raises(Unsupported, match="takes other features"):
        predictions.advise(workspace.platform, permit, "readmission", "p", sent=lambda: sent)


def test_traffic_is_moved_and_weights_are_changed(of: Clients) -> None:
    sagemaker = of("sagemaker")
    two = [{**VARIANT, "VariantName": name, "InitialVariantWeight": 1} for name in ("left", "right")]
    with refused("ValidationException", 400):
        sagemaker.create_endpoint_config(EndpointConfigName="twice", ProductionVariants=two[:1] * 2)
    began = sagemaker.describe_endpoint(EndpointName="readmission")["CreationTime"]
    sagemaker.create_endpoint_config(EndpointConfigName="second", ProductionVariants=two)
    sagemaker.update_endpoint(EndpointName="readmission", EndpointConfigName="second")
    told = sagemaker.describe_endpoint(EndpointName="readmission")
    assert [one["CurrentWeight"] for one in told["ProductionVariants"]] == [0.5, 0.5]
    weights = [{"VariantName": "left", "DesiredWeight": 3}]
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="readmission", DesiredWeightsAndCapacities=weights)
    told = sagemaker.describe_endpoint(EndpointName="readmission")
    assert [one["CurrentWeight"] for one in told["ProductionVariants"]] == [0.75, 0.25]
    assert told["CreationTime"] == began < told["LastModifiedTime"]


def test_the_configuration_is_that_of_who_answers(workspace: Workspace, of: Clients) -> None:
    sagemaker, third = of("sagemaker"), {**VARIANT, "VariantName": "third"}
    before = sagemaker.describe_endpoint(EndpointName="readmission")["EndpointConfigName"]
    sagemaker.create_endpoint_config(EndpointConfigName="third", ProductionVariants=[third])
    canary = {"Type": "CAPACITY_PERCENT", "Value": 10}
    routing = {"Type": "CANARY", "CanarySize": canary, "WaitIntervalInSeconds": 600}
    policy = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    sagemaker.update_endpoint(EndpointName="readmission", EndpointConfigName="third", DeploymentConfig=policy)
    told = sagemaker.describe_endpoint(EndpointName="readmission")
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("Updating", before)
    assert told["PendingDeploymentSummary"]["EndpointConfigName"] == "third"
    who = known(workspace, "operator")
    with workspace.gate.enter(who, "endpoint:deploy", "endpoints", "HOPERAT", account="production") as permit:
        workspace.platform.endpoints.rollback(permit, "readmission")
    told = sagemaker.describe_endpoint(EndpointName="readmission")
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", before)
    assert "rolled back" in told["FailureReason"]
    weight = {"VariantName": told["ProductionVariants"][0]["VariantName"], "DesiredWeight": 2}
    sagemaker.update_endpoint_weights_and_capacities(EndpointName="readmission", DesiredWeightsAndCapacities=[weight])
    assert sagemaker.describe_endpoint(EndpointName="readmission")["EndpointConfigName"] == before
    sagemaker.update_endpoint(EndpointName="readmission", EndpointConfigName="third")
    assert sagemaker.describe_endpoint(EndpointName="readmission")["EndpointConfigName"] == "third"
    sagemaker.update_endpoint(EndpointName="readmission", EndpointConfigName=before)


def test_network_isolation_is_the_sandbox(workspace: Workspace, of: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told is followed; tests/serving has the sandbox itself."""
    sagemaker, asked, word = of("sagemaker"), [], "EnableNetworkIsolation"

    def deploy(*told: Any, sandbox: bool | None = None, **more: Any) -> None:
        asked.append(sandbox)
        raise Invalid("test.asked", "it was asked")

    monkeypatch.setattr("carelake.serving.endpoint.Endpoints.deploy", deploy)
    container = {"ModelPackageName": PACKAGE}
    closed = {"ModelName": "closed-1", "PrimaryContainer": container, "ExecutionRoleArn": ROLE}
    sagemaker.create_model(**closed, **{word: True})
    for name, said in (("open", {}), ("closed", {word: True}), ("not", {word: False})):
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[VARIANT], **said)
    variant = {**VARIANT, "ModelName": "closed-1"}
    sagemaker.create_endpoint_config(EndpointConfigName="model", ProductionVariants=[variant])
    for name in ("open", "closed", "not", "model"):
        with refused("ValidationException", 400):
            sagemaker.update_endpoint(EndpointName="readmission", EndpointConfigName=name)
    assert asked == [None, True, False, True]


def test_what_was_not_made_here_is_not_deployed(of: Clients) -> None:
    sagemaker = of("sagemaker")
    with refused("ValidationException", 400):
        image = {"Image": "elsewhere/image:1", "ModelDataUrl": "s3://elsewhere/model.tar.gz"}
        sagemaker.create_model(ModelName="elsewhere", PrimaryContainer=image, ExecutionRoleArn=ROLE)
    with refused("ValidationException", 400):
        unknown = [{**VARIANT, "ModelName": "unknown"}]
        sagemaker.create_endpoint_config(EndpointConfigName="third", ProductionVariants=unknown)
    with refused("ValidationException", 400):
        sagemaker.create_endpoint(EndpointName="other", EndpointConfigName="none")
    with refused("ValidationException", 400):
        sagemaker.create_endpoint(EndpointName="readmission", EndpointConfigName="first")


def test_things_have_tags(of: Clients) -> None:
    sagemaker = of("sagemaker")
    arn = PREFIX + "endpoint/readmission"
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "ward", "Value": "4"}]
    told = sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "ward", "Value": "5"}, {"Key": "who", "Value": "é"}])
    assert told["Tags"] == [{"Key": "ward", "Value": "5"}, {"Key": "who", "Value": "é"}]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["who"])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "ward", "Value": "5"}]
    for wrong in ("endpoint/nowhere", "domain/d"):
        with refused("ValidationException", 400):
            sagemaker.list_tags(ResourceArn=PREFIX + wrong)


INPUT = {"EndpointInput": {"EndpointName": "readmission", "LocalPath": "/data"}}
TRUTH = {"GroundTruthS3Input": {"S3Uri": "s3://outcomes"}}
ROOM: dict[str, Any] = {
    "JobResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
    "RoleArn": ROLE,
}
OUTPUT = {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://findings", "LocalPath": "/data"}}]}


def definition(word: str) -> dict[str, Any]:
    """What a job definition of this kind is made of."""
    specification: dict[str, Any] = {"ImageUri": "carelake"}
    if word in ("ModelBias", "ModelExplainability"):
        specification["ConfigUri"] = "s3://findings/analysis.json"
    if word == "ModelQuality":
        specification["ProblemType"] = "BinaryClassification"
    given = {**INPUT, **(TRUTH if word in ("ModelQuality", "ModelBias") else {})}
    return {
        f"{word}AppSpecification": specification,
        f"{word}JobInput": given,
        f"{word}JobOutputConfig": OUTPUT,
        **ROOM,
    }


def test_definitions_of_every_kind(of: Clients) -> None:
    sagemaker = of("sagemaker")
    kinds = {
        "ModelQuality": (
            sagemaker.create_model_quality_job_definition,
            sagemaker.describe_model_quality_job_definition,
            sagemaker.list_model_quality_job_definitions,
            sagemaker.delete_model_quality_job_definition,
        ),
        "ModelBias": (
            sagemaker.create_model_bias_job_definition,
            sagemaker.describe_model_bias_job_definition,
            sagemaker.list_model_bias_job_definitions,
            sagemaker.delete_model_bias_job_definition,
        ),
        "ModelExplainability": (
            sagemaker.create_model_explainability_job_definition,
            sagemaker.describe_model_explainability_job_definition,
            sagemaker.list_model_explainability_job_definitions,
            sagemaker.delete_model_explainability_job_definition,
        ),
    }
    for word, (create, describe, lists, delete) in kinds.items():
        create(JobDefinitionName="one", **definition(word))
        told = describe(JobDefinitionName="one")
        assert {name: told[name] for name in definition(word)} == definition(word)
        assert [one["MonitoringJobDefinitionName"] for one in lists()["JobDefinitionSummaries"]] == ["one"]
        delete(JobDefinitionName="one")


def test_schedules_and_their_definitions(of: Clients) -> None:
    sagemaker = of("sagemaker")
    made = sagemaker.create_data_quality_job_definition(JobDefinitionName="quality", **definition("DataQuality"))
    assert made["JobDefinitionArn"] == PREFIX + "data-quality-job-definition/quality"
    told = sagemaker.describe_data_quality_job_definition(JobDefinitionName="quality")
    assert told["DataQualityJobInput"] == INPUT
    found = sagemaker.list_data_quality_job_definitions(EndpointName="readmission")["JobDefinitionSummaries"]
    assert [one["MonitoringJobDefinitionName"] for one in found] == ["quality"]
    config = {
        "ScheduleConfig": {"ScheduleExpression": "cron(0 * ? * * *)"},
        "MonitoringJobDefinitionName": "quality",
        "MonitoringType": "DataQuality",
    }
    sagemaker.create_monitoring_schedule(MonitoringScheduleName="hourly", MonitoringScheduleConfig=config)
    told = sagemaker.describe_monitoring_schedule(MonitoringScheduleName="hourly")
    assert told["MonitoringScheduleConfig"]["MonitoringJobDefinitionName"] == "quality"
    inputs = told["MonitoringScheduleConfig"]["MonitoringJobDefinition"]["MonitoringInputs"]
    assert inputs == [INPUT]
    sagemaker.stop_monitoring_schedule(MonitoringScheduleName="hourly")
    sagemaker.start_monitoring_schedule(MonitoringScheduleName="hourly")
    daily = {**config, "ScheduleConfig": {"ScheduleExpression": "cron(0 0 ? * * *)"}}
    sagemaker.update_monitoring_schedule(MonitoringScheduleName="hourly", MonitoringScheduleConfig=daily)
    found = sagemaker.list_monitoring_schedules()["MonitoringScheduleSummaries"]
    assert [one["MonitoringScheduleName"] for one in found] == ["hourly"]
    assert sagemaker.list_monitoring_executions()["MonitoringExecutionSummaries"] == []
    sagemaker.delete_monitoring_schedule(MonitoringScheduleName="hourly")
    with refused("ResourceNotFound", 400):
        sagemaker.describe_monitoring_schedule(MonitoringScheduleName="hourly")
    sagemaker.delete_data_quality_job_definition(JobDefinitionName="quality")
    with refused("ResourceNotFound", 400):
        sagemaker.describe_data_quality_job_definition(JobDefinitionName="quality")


def test_the_page_shows_what_works(
    workspace: Workspace, address: str, of: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "aws.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0].replace("http://127.0.0.1:8080", address)
    key = made_key(workspace, "operator", purpose="TREAT")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # another test's has the keys of then
    exec(code, {})
    assert of("sagemaker").describe_feature_group(FeatureGroupName="stays")["FeatureGroupStatus"] == "Created"


def test_what_is_deleted_is_gone(of: Clients) -> None:
    sagemaker = of("sagemaker")
    before = sagemaker.describe_endpoint(EndpointName="readmission")
    sagemaker.delete_endpoint(EndpointName="readmission")
    with refused("ValidationException", 400):
        sagemaker.describe_endpoint(EndpointName="readmission")
    sagemaker.create_endpoint(EndpointName="readmission", EndpointConfigName="first")
    again = sagemaker.describe_endpoint(EndpointName="readmission")
    assert again["CreationTime"] > before["CreationTime"]
    sagemaker.delete_endpoint(EndpointName="readmission")
    sagemaker.delete_endpoint_config(EndpointConfigName="first")
    sagemaker.delete_model(ModelName="readmission-1")
    with refused("ValidationException", 400):
        sagemaker.describe_model(ModelName="readmission-1")
    with refused("ValidationException", 400):
        sagemaker.describe_endpoint_config(EndpointConfigName="first")
