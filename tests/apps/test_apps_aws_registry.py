"""Model packages and pipelines by boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.aws import REGION, Clients, client, clients_of, made_key, refused
from tests.apps.served import admit, own_workspace

from carelake.apps.wiring import Workspace
from carelake.core.arns import account_number

PREFIX = f"arn:aws:sagemaker:{REGION}:{account_number('production')}:"
ROLE = "arn:aws:iam::123456789012:role/pipelines"
DEFINITION = json.dumps(
    {
        "Version": "2020-12-01",
        "Parameters": [{"Name": "Least", "Type": "Float", "DefaultValue": 0.5}],
        "Steps": [{"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "not yet"}}],
    }
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(Path(tmp_path_factory.mktemp("registry"))) as made:
        admit(made, "person", judge="reviewer")
        yield made


@pytest.fixture(scope="module")
def sagemaker(workspace: Workspace, address: str) -> Any:
    of: Clients = clients_of(address, made_key(workspace, "operator", purpose="HOPERAT"))
    return of("sagemaker")


@pytest.fixture(scope="module")
def judge(workspace: Workspace, address: str) -> Any:
    return client(address, made_key(workspace, "judge", purpose="HOPERAT"), "sagemaker")


def test_a_version_is_entered_described_and_turned_down(sagemaker: Any, judge: Any) -> None:
    made = sagemaker.create_model_package_group(ModelPackageGroupName="outside", ModelPackageGroupDescription="by X")
    assert made["ModelPackageGroupArn"] == PREFIX + "model-package-group/outside"
    with refused("ValidationException", 400):
        sagemaker.create_model_package_group(ModelPackageGroupName="outside")
    container = {"Image": "outside/image:1", "ModelDataUrl": "s3://outside/model.tar.gz"}
    spec = {"Containers": [container], "SupportedContentTypes": ["text/csv"]}
    made = sagemaker.create_model_package(ModelPackageGroupName="outside", InferenceSpecification=spec)
    package = {"ModelPackageArn": made["ModelPackageArn"]}
    assert package["ModelPackageArn"] == PREFIX + "model-package/outside/1"
    told = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
    assert (told["ModelPackageVersion"], told["ModelApprovalStatus"]) == (1, "PendingManualApproval")
    sagemaker.update_model_package(**package, CustomerMetadataProperties={"ticket": "12"})
    with refused("AccessDeniedException", 403):  # whoever makes models does not approve them
        sagemaker.update_model_package(**package, ModelApprovalStatus="Approved")
    judge.update_model_package(**package, ModelApprovalStatus="Rejected", ApprovalDescription="no evidence")
    (one,) = sagemaker.list_model_packages(ModelPackageGroupName="outside")["ModelPackageSummaryList"]
    assert one["ModelApprovalStatus"] == "Rejected"
    found = sagemaker.batch_describe_model_package(
        ModelPackageArnList=[package["ModelPackageArn"], PREFIX + "model-package/outside/2"]
    )
    assert list(found["ModelPackageSummaries"]) == [package["ModelPackageArn"]]
    assert list(found["BatchDescribeModelPackageErrorMap"]) == [PREFIX + "model-package/outside/2"]
    assert sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert sagemaker.describe_model_package_group(ModelPackageGroupName="outside")["ModelPackageGroupStatus"]
    with refused("ConflictException", 400):
        sagemaker.delete_model_package_group(ModelPackageGroupName="outside")
    for resource in ("ModelPackage", "ModelPackageGroup"):
        wanted = {"Filters": [{"Name": "ModelPackageGroupName", "Operator": "Equals", "Value": "outside"}]}
        (one,) = sagemaker.search(Resource=resource, SearchExpression=wanted)["Results"]
        assert one[resource]["ModelPackageGroupName"] == "outside"
    sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
    sagemaker.delete_model_package_group(ModelPackageGroupName="outside")
    with refused("ValidationException", 400):
        sagemaker.describe_model_package_group(ModelPackageGroupName="outside")


def test_a_pipeline_is_made_started_and_followed(sagemaker: Any) -> None:
    made = sagemaker.create_pipeline(
        PipelineName="nightly", PipelineDefinition=DEFINITION, RoleArn=ROLE, ClientRequestToken="t" * 32
    )
    assert made["PipelineArn"] == PREFIX + "pipeline/nightly"
    told = sagemaker.describe_pipeline(PipelineName="nightly")
    assert json.loads(told["PipelineDefinition"]) == json.loads(DEFINITION)
    sagemaker.update_pipeline(PipelineName="nightly", PipelineDescription="each night")
    assert [one["PipelineName"] for one in sagemaker.list_pipelines()["PipelineSummaries"]] == ["nightly"]
    started = sagemaker.start_pipeline_execution(
        PipelineName="nightly", PipelineParameters=[{"Name": "Least", "Value": "0.7"}]
    )
    one = {"PipelineExecutionArn": started["PipelineExecutionArn"]}
    assert started["PipelineExecutionArn"].startswith(PREFIX + "pipeline/nightly/execution/")
    assert sagemaker.describe_pipeline_execution(**one)["PipelineArn"] == made["PipelineArn"]
    with refused("ResourceNotFound"):
        sagemaker.describe_pipeline_execution(PipelineExecutionArn=f"{made['PipelineArn']}/execution/abcdef123456")
    assert sagemaker.describe_pipeline_definition_for_execution(**one)["PipelineDefinition"]
    given = sagemaker.list_pipeline_parameters_for_execution(**one)["PipelineParameters"]
    assert given == [{"Name": "Least", "Value": "0.7"}]
    sagemaker.list_pipeline_execution_steps(**one)
    found = sagemaker.list_pipeline_executions(PipelineName="nightly")["PipelineExecutionSummaries"]
    assert [each["PipelineExecutionArn"] for each in found] == [started["PipelineExecutionArn"]]
    (seen,) = sagemaker.search(Resource="Pipeline")["Results"]
    assert seen["Pipeline"]["PipelineName"] == "nightly"
    sagemaker.update_pipeline_execution(**one, PipelineExecutionDescription="by hand")
    sagemaker.stop_pipeline_execution(**one, ClientRequestToken="s" * 32)
    sagemaker.retry_pipeline_execution(**one, ClientRequestToken="r" * 32)
    with refused("ResourceNotFound", 400):
        sagemaker.send_pipeline_execution_step_success(CallbackToken="a1b2c3d4e5")
    with refused("ResourceNotFound", 400):
        sagemaker.send_pipeline_execution_step_failure(CallbackToken="a1b2c3d4e5", FailureReason="no")
    with refused("ConflictException", 400):
        sagemaker.delete_pipeline(PipelineName="nightly", ClientRequestToken="d" * 32)


def test_what_is_made_again_by_its_token_keeps_its_tags(sagemaker: Any) -> None:
    def tags(arn: str) -> dict[str, str]:
        return {one["Key"]: one["Value"] for one in sagemaker.list_tags(ResourceArn=arn)["Tags"]}

    first = [{"Key": "ward", "Value": "4"}]
    sagemaker.create_model_package_group(ModelPackageGroupName="tagged", Tags=first)
    asked = [
        (
            sagemaker.create_model_package,
            {"ModelPackageGroupName": "tagged", "ClientToken": "once", "Tags": first},
            "ModelPackageArn",
        ),
        (
            sagemaker.create_pipeline,
            {
                "PipelineName": "tagged",
                "PipelineDefinition": DEFINITION,
                "RoleArn": ROLE,
                "ClientRequestToken": "k" * 32,
                "Tags": first,
            },
            "PipelineArn",
        ),
    ]
    for create, said, key in asked:
        arn = create(**said)[key]
        assert tags(arn) == {"ward": "4"}
        sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "ward", "Value": "5"}, {"Key": "who", "Value": "x"}])
        assert create(**said)[key] == arn
        assert tags(arn) == {"ward": "5", "who": "x"}
    # What takes the name of a thing that was deleted has none of its tags.
    sagemaker.delete_pipeline(PipelineName="tagged", ClientRequestToken="e" * 32)
    arn = sagemaker.create_pipeline(**{**asked[1][1], "Tags": []})["PipelineArn"]
    assert tags(arn) == {}
    sagemaker.delete_pipeline(PipelineName="tagged", ClientRequestToken="f" * 32)


def test_a_token_of_a_list_goes_on_with_that_list_alone(sagemaker: Any, judge: Any) -> None:
    for number in range(3):
        sagemaker.create_model_package_group(ModelPackageGroupName=f"paged-{number}")
    asked = {"NameContains": "paged", "SortBy": "Name"}
    first = sagemaker.list_model_package_groups(**asked, MaxResults=2)
    names = [one["ModelPackageGroupName"] for one in first["ModelPackageGroupSummaryList"]]
    rest = sagemaker.list_model_package_groups(**asked, NextToken=first["NextToken"])
    assert [*names, *(one["ModelPackageGroupName"] for one in rest["ModelPackageGroupSummaryList"])] == [
        "paged-0",
        "paged-1",
        "paged-2",
    ]
    for caller, other in (
        (sagemaker, {"SortBy": "Name"}),
        (sagemaker, {**asked, "SortOrder": "Descending"}),
        (judge, asked),
    ):
        with refused("ValidationException", 400):
            caller.list_model_package_groups(**other, NextToken=first["NextToken"])
    with refused("ValidationException", 400):
        sagemaker.list_model_packages(NextToken=first["NextToken"])
    with refused("ValidationException", 400):
        sagemaker.list_monitoring_schedules(NextToken="2")


def test_a_wrong_definition_is_told_where(sagemaker: Any) -> None:
    with refused("ValidationException", 400) as said:
        sagemaker.create_pipeline(
            PipelineName="wrong", PipelineDefinition="{}", RoleArn=ROLE, ClientRequestToken="w" * 32
        )
    assert "Steps" in said["Error"]["Message"]
    with refused("ResourceNotFound", 400):
        sagemaker.describe_pipeline(PipelineName="wrong")
