"""The AWS-shaped doors, monitoring schedules and a server's ticker on PostgreSQL, with two servers.

Two workspaces are open on one database, each with a server of its own: nothing that one of them keeps in memory is
known to the other, as it is between workers.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.apps.aws import client, made_key, refused
from tests.apps.served import Lines, known, own_workspace, serving
from tests.apps.test_apps_aws_serving import PACKAGE, ROLE, VARIANT, files, row
from tests.serving.conftest import TRAINING_SET

from carelake.access.identity import Caller
from carelake.apps import monitoring
from carelake.apps.wiring import Workspace
from carelake.core.nouns import Noun

_NOW = {"ScheduleExpression": "NOW", "DataAnalysisStartTime": "-P1D", "DataAnalysisEndTime": "PT0H"}
_JOB = {
    "MonitoringInputs": [{"EndpointInput": {"EndpointName": "readmission", "LocalPath": "/in"}}],
    "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://b/out", "LocalPath": "/out"}}]},
    "MonitoringResources": {
        "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 20}
    },
    "MonitoringAppSpecification": {"ImageUri": "carelake"},
    "RoleArn": ROLE,
}


def registered(made: Workspace) -> None:
    with made.gate.enter(known(made, "pipeline"), "model:train", "models", "HOPERAT", account="production") as permit:
        with made.vault.database.transaction(permit) as tx:
            made.nouns.write(tx, Noun(TRAINING_SET, "production", "made", permit.act))
        made.platform.registry.register(permit, "readmission", TRAINING_SET, files())


def test_the_loop_by_boto3_with_two_servers_on_postgresql(tmp_path: Path, postgres: Any) -> None:
    told = {"CARELAKE_DATABASE__URL": postgres.url, "CARELAKE_DATABASE__PASSWORD_FILE": postgres.password_file}
    environment = {"CARELAKE_KEY_DIR": str(tmp_path / "keys"), **told}
    with own_workspace(tmp_path, **told) as made, serving(made, Lines()) as first:
        registered(made)
        with (
            closing(Workspace.open(tmp_path / "workspace", environment)) as other,
            serving(other, Lines()) as second,
        ):
            _walk(made, other, first, second)


def _walk(made: Workspace, other: Workspace, first: str, second: str) -> None:
    key, judging = made_key(made, "operator"), made_key(made, "reviewer", purpose="HOPERAT")
    one, two = (client(address, key, "sagemaker") for address in (first, second))
    runtime = [client(address, key, "sagemaker-runtime") for address in (first, second)]
    client(second, judging, "sagemaker").update_model_package(ModelPackageArn=PACKAGE, ModelApprovalStatus="Approved")
    container = {"ModelPackageName": PACKAGE}
    one.create_model(ModelName="readmission-1", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    two.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[VARIANT])
    one.create_endpoint(EndpointName="readmission", EndpointConfigName="first", Tags=[{"Key": "a", "Value": "1"}])
    arn = two.describe_endpoint(EndpointName="readmission")["EndpointArn"]
    assert two.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]

    asked = {"EndpointName": "readmission", "ContentType": "application/json"}
    for number in range(6):
        body = json.dumps({"instances": [row(f"p{number}")]})
        told = runtime[number % 2].invoke_endpoint(**asked, Body=body, InferenceId="mrn-00017" if number else "other")
        assert len(json.loads(told["Body"])["predictions"]) == 1
    with made.vault.database.ledger_reading() as tx:
        assert "mrn-00017" not in str(tx.exec_driver_sql("SELECT * FROM endpoint_invocation").all())
    who = known(made, "operator")
    for workspace in (made, other):
        workspace.endpoints.tick()
        with workspace.gate.enter(who, "status:read", "endpoints", "HOPERAT", account="production") as permit:
            assert workspace.endpoints.verify_captures(permit, "readmission").as_json()["whole"]

    for name in ("once", "twice"):
        config = {"ScheduleConfig": _NOW, "MonitoringJobDefinition": _JOB, "MonitoringType": "DataQuality"}
        one.create_monitoring_schedule(MonitoringScheduleName=name, MonitoringScheduleConfig=config)
    caller = Caller(who, "HOPERAT", "production")
    ran = [monitoring.look(workspace, caller) for workspace in (made, other)]
    assert [len(each) for each in ran] == [2, 0], "what one has run the other does not run again"
    page = one.list_monitoring_executions(MaxResults=1)
    rest = two.list_monitoring_executions(NextToken=page["NextToken"])
    names = [each["MonitoringScheduleName"] for told in (page, rest) for each in told["MonitoringExecutionSummaries"]]
    assert sorted(names) == ["once", "twice"]
    with refused("ValidationException", 400):
        two.list_monitoring_schedules(NextToken=page["NextToken"])

    # A rejection that one tells of is followed at once by the other.
    client(first, judging, "sagemaker").update_model_package(ModelPackageArn=PACKAGE, ModelApprovalStatus="Rejected")
    with refused("ModelNotReadyException"):
        runtime[1].invoke_endpoint(**asked, Body=json.dumps({"instances": [row("p1")]}))
    assert two.describe_endpoint(EndpointName="readmission")["EndpointStatus"] == "OutOfService"
