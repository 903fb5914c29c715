"""Feature groups and records by boto3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.apps.aws import REGION, Clients, client, clients_of, made_key, refused
from tests.apps.served import admit, own_workspace

from carelake.apps.wiring import Workspace
from carelake.core.arns import account_number

GROUP = {
    "FeatureGroupName": "stays",
    "RecordIdentifierFeatureName": "patient",
    "EventTimeFeatureName": "at",
    "FeatureDefinitions": [
        {"FeatureName": "patient", "FeatureType": "String"},
        {"FeatureName": "at", "FeatureType": "String"},
        {"FeatureName": "days", "FeatureType": "Integral"},
        {"FeatureName": "codes", "FeatureType": "String", "CollectionType": "List"},
    ],
    "OnlineStoreConfig": {"EnableOnlineStore": True, "StorageType": "Standard_V2"},
    "OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://features"}, "TableFormat": "Iceberg"},
    "RoleArn": "arn:aws:iam::123456789012:role/features",
    "Description": "Stays in hospital",
}
RECORDS = "sagemaker-featurestore-runtime"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(Path(tmp_path_factory.mktemp("features"))) as made:
        admit(made, "person", judge="reviewer")
        yield made


@pytest.fixture(scope="module")
def of(workspace: Workspace, address: str) -> Clients:
    made = clients_of(address, made_key(workspace, "operator", purpose="TREAT"))
    created = made("sagemaker").create_feature_group(**GROUP)
    assert created["FeatureGroupArn"] == arn("stays")
    return made


def arn(name: str) -> str:
    return f"arn:aws:sagemaker:{REGION}:{account_number('production')}:feature-group/{name}"


def record(patient: str, at: str, days: int, *codes: str) -> list[dict[str, Any]]:
    return [
        {"FeatureName": "patient", "ValueAsString": patient},
        {"FeatureName": "at", "ValueAsString": at},
        {"FeatureName": "days", "ValueAsString": str(days)},
        {"FeatureName": "codes", "ValueAsStringList": list(codes)},
    ]


def test_a_group_is_described_listed_changed_and_deleted(of: Clients) -> None:
    sagemaker = of("sagemaker")
    told = sagemaker.describe_feature_group(FeatureGroupName=arn("stays"))
    assert (told["FeatureGroupStatus"], told["Description"]) == ("Created", "Stays in hospital")
    assert told["FeatureDefinitions"] == GROUP["FeatureDefinitions"]
    assert [one["FeatureGroupArn"] for one in sagemaker.list_feature_groups()["FeatureGroupSummaries"]] == [
        arn("stays")
    ]
    more = [{"FeatureName": "age", "FeatureType": "Fractional"}]
    sagemaker.update_feature_group(FeatureGroupName="stays", FeatureAdditions=more)
    sagemaker.update_feature_metadata(
        FeatureGroupName="stays",
        FeatureName="age",
        Description="in years",
        ParameterAdditions=[{"Key": "unit", "Value": "a"}],
    )
    told = sagemaker.describe_feature_metadata(FeatureGroupName="stays", FeatureName="age")
    assert (told["Description"], told["Parameters"]) == ("in years", [{"Key": "unit", "Value": "a"}])
    sagemaker.create_feature_group(**{**GROUP, "FeatureGroupName": "gone"})
    sagemaker.delete_feature_group(FeatureGroupName="gone")
    with refused("ResourceNotFound", 400):
        sagemaker.describe_feature_group(FeatureGroupName="gone")
    with refused("ResourceInUse", 400):
        sagemaker.create_feature_group(**{**GROUP, "Description": "again"})


def test_groups_and_features_are_searched(of: Clients) -> None:
    sagemaker = of("sagemaker")

    def found(resource: str, *filters: dict[str, str], **more: Any) -> list[str]:
        expression = {**({"Filters": list(filters)} if filters else {}), **more}
        told = sagemaker.search(Resource=resource, **({"SearchExpression": expression} if expression else {}))
        assert told["TotalHits"]["Value"] == len(told["Results"])
        name = "FeatureName" if resource == "FeatureMetadata" else f"{resource}Name"
        return sorted(one[resource][name] for one in told["Results"])

    def named(name: str, operator: str, value: str) -> dict[str, str]:
        return {"Name": name, "Operator": operator, "Value": value}

    tagged = {**GROUP, "FeatureGroupName": "searched", "Tags": [{"Key": "ward", "Value": "4"}]}
    sagemaker.create_feature_group(**tagged)
    assert found("FeatureGroup") == ["searched", "stays"]
    assert found("FeatureGroup", named("FeatureGroupName", "Contains", "SEARCH")) == ["searched"]
    assert found("FeatureGroup", named("Tags.ward", "Equals", "4")) == ["searched"]
    assert found("FeatureGroup", {"Name": "Tags.ward", "Operator": "NotExists"}) == ["stays"]
    assert found("FeatureGroup", named("FeatureDefinitions.FeatureName", "In", "none, days")) == ["searched", "stays"]
    assert found("FeatureGroup", named("CreationTime", "LessThan", "2020-01-01T00:00:00Z")) == []
    both = [named("FeatureGroupName", "Equals", one) for one in ("stays", "searched")]
    assert found("FeatureGroup", *both) == []
    assert found("FeatureGroup", *both, Operator="Or") == ["searched", "stays"]
    typed = [
        named("FeatureDefinitions.FeatureName", "Equals", "days"),
        named("FeatureDefinitions.FeatureType", "Equals", "String"),
    ]
    nested = {"NestedPropertyName": "FeatureDefinitions", "Filters": typed}
    assert found("FeatureGroup", *typed) == ["searched", "stays"]  # of any two of them
    assert found("FeatureGroup", NestedFilters=[nested]) == []  # of one
    assert found("FeatureMetadata", named("FeatureType", "Equals", "Integral")) == ["days", "days"]
    first = sagemaker.search(Resource="FeatureMetadata", MaxResults=5)
    rest = sagemaker.search(Resource="FeatureMetadata", MaxResults=5, NextToken=first["NextToken"])
    assert (len(first["Results"]), len(rest["Results"]), first["TotalHits"]["Value"]) == (5, 4, 9)
    sagemaker.delete_feature_group(FeatureGroupName="searched")
    with refused("ValidationException", 400):
        sagemaker.search(Resource="TrainingJob")


def test_records_are_put_read_changed_and_deleted(of: Clients) -> None:
    store = of(RECORDS)
    first = record("p1/é", "2026-01-01T00:00:00Z", 3, "I10", "E11")
    store.put_record(FeatureGroupName="stays", Record=first)
    store.put_record(FeatureGroupName=arn("stays"), Record=record("p2", "2026-01-02T00:00:00Z", 5, "J45"))
    assert store.get_record(FeatureGroupName="stays", RecordIdentifierValueAsString="p1/é")["Record"] == first
    told = store.get_record(FeatureGroupName="stays", RecordIdentifierValueAsString="p2", FeatureNames=["days"])
    assert told["Record"] == [{"FeatureName": "days", "ValueAsString": "5"}]
    assert "Record" not in store.get_record(FeatureGroupName="stays", RecordIdentifierValueAsString="p3")
    store.update_record(
        FeatureGroupName="stays",
        RecordIdentifierValueAsString="p2",
        Features=[{"FeatureName": "days", "ValueAsString": "6"}],
    )
    both = [{"FeatureGroupName": "stays", "RecordIdentifiersValueAsString": ["p1/é", "p2"], "FeatureNames": ["days"]}]
    found = store.batch_get_record(Identifiers=both)
    assert [one["Record"][0]["ValueAsString"] for one in found["Records"]] == ["3", "6"]
    assert store.list_records(FeatureGroupName="stays")["RecordIdentifiers"] == ["p1/é", "p2"]
    store.delete_record(
        FeatureGroupName="stays", RecordIdentifierValueAsString="p2", EventTime="2026-02-01T00:00:00Z"
    )
    assert store.list_records(FeatureGroupName="stays")["RecordIdentifiers"] == ["p1/é"]


def test_a_batch_is_written_and_tells_what_was_not(of: Clients) -> None:
    good = {"FeatureGroupName": "stays", "Record": record("p7", "2026-01-01T00:00:00Z", 1)}
    bad = {"FeatureGroupName": "nowhere", "Record": record("p8", "2026-01-01T00:00:00Z", 1)}
    told = of(RECORDS).batch_write_record(Entries=[good, bad])
    assert [one["Entry"]["FeatureGroupName"] for one in told["Errors"]] == ["nowhere"]


def test_errors_are_those_of_the_model(workspace: Workspace, address: str, of: Clients) -> None:
    store = of(RECORDS)
    with refused("ResourceNotFound", 404):
        store.get_record(FeatureGroupName="nowhere", RecordIdentifierValueAsString="p1")
    with refused("ValidationError", 400):
        store.put_record(FeatureGroupName="stays", Record=record("p1", "yesterday", 3))
    with refused("ValidationError", 400):
        store.get_record(
            FeatureGroupName=f"arn:aws:sagemaker:{REGION}:{'0' * 12}:feature-group/stays",
            RecordIdentifierValueAsString="p1",
        )
    judge = client(address, made_key(workspace, "judge", purpose="HOPERAT"), RECORDS)
    with refused("AccessForbidden", 403) as said:
        judge.get_record(FeatureGroupName="stays", RecordIdentifierValueAsString="p1")
    assert "p1" not in said["Error"]["Message"]


def test_a_change_is_taken_once_and_a_client_that_signs_again_goes_on(
    workspace: Workspace, address: str, of: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from botocore import auth

    moment = datetime.now(UTC).replace(tzinfo=None)
    monkeypatch.setattr(auth, "get_current_datetime", lambda: moment)
    key = made_key(workspace, "operator", purpose="TREAT")
    store = client(address, key, RECORDS, retries={"total_max_attempts": 1})
    told = {"FeatureGroupName": "stays", "Record": record("p9", "2026-01-01T00:00:00Z", 1)}
    store.put_record(**told)
    with refused("ThrottlingException", 429) as said:
        store.put_record(**told)
    assert said["ResponseMetadata"]["HTTPHeaders"]["x-amz-retry-after"] == "1000"
    for _ in range(2):  # a reading may be repeated
        store.get_record(FeatureGroupName="stays", RecordIdentifierValueAsString="p9")
    monkeypatch.undo()
    for _ in range(2):  # as boto3 is, it waits as long as it is told to, and signs anew
        of(RECORDS).put_record(**told)
