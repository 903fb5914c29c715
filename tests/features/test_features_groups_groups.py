"""Feature groups: what may be created and changed, in the shapes of botocore's own models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.settings import FeatureSettings, Settings
from carelake.features.groups import offline

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

from groups_data import GRANTS, S3, Store, record, request

ROOT = Path(__file__).resolve().parents[2]
DAY1, DAY2 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.fixture
def store(vault: Any, permit_for: Callable[..., Permit]) -> Store:
    return Store(vault, permit_for(*GRANTS))


def assert_shape(operation: str, answer: dict[str, Any]) -> None:
    model = botocore.session.get_session().get_service_model("sagemaker").operation_model(operation)
    report = ParamValidator().validate(answer, model.output_shape)
    assert not report.has_errors(), report.generate_report()


def test_the_model_that_is_shipped_is_botocores(tool: Callable[[str], Any]) -> None:
    page = ROOT / "src" / "carelake" / "features" / "groups" / "aws.json"
    assert page.read_text(encoding="utf-8") == tool("write_featurestore").render(), "run tools/write_featurestore.py"


@pytest.fixture
def tool() -> Callable[[str], Any]:
    import importlib.util

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_create_describe_list_delete(store: Store) -> None:
    made = store.groups.create(store.permit, request(Description="words", Tags=[{"Key": "a", "Value": "b"}]))
    assert_shape("CreateFeatureGroup", made)
    store.put("g", *record("p", DAY1, x="1"))
    told = store.groups.describe(store.permit, {"FeatureGroupName": "g"})
    assert_shape("DescribeFeatureGroup", told)
    assert told["FeatureDefinitions"] == request()["FeatureDefinitions"]
    assert told["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"].startswith("s3://bucket/prefix/")
    assert (told["FeatureGroupStatus"], told["Description"]) == ("Created", "words")
    assert "OnlineStoreTotalSizeBytes" not in told  # which would be a look at every record
    assert_shape("ListFeatureGroups", store.groups.list(store.permit))
    with pytest.raises(Conflict) as caught:
        store.groups.create(store.permit, request())
    assert caught.value.code == "features.group_exists"
    assert store.groups.delete(store.permit, {"FeatureGroupName": "g"}) == {}
    for again in (store.groups.describe, store.groups.delete):
        with pytest.raises(NotFound):
            again(store.permit, {"FeatureGroupName": "g"})
    # One of the same name is another one: nothing of the old one is in it, and the old one's rows are still there.
    store.groups.create(store.permit, request())
    assert store.get("g", "p") == {}
    assert len(offline.table(store.permit, store.vault, "g")) == 0
    assert offline.flush(store.permit, store.vault) == {"g": 1}


def test_lists_are_filtered_and_paged(store: Store) -> None:
    for name in ("b", "a", "ab"):
        store.groups.create(store.permit, request(name))
        store.vault.clock.move(seconds=1)
    store.groups.create(store.permit, {**request("on"), "OfflineStoreConfig": None})

    def names(**asked: Any) -> list[str]:
        found = store.groups.list(store.permit, asked)
        assert_shape("ListFeatureGroups", found)
        return [one["FeatureGroupName"] for one in found["FeatureGroupSummaries"]]

    assert names() == ["b", "a", "ab", "on"]
    assert names(SortBy="Name", SortOrder="Descending") == ["on", "b", "ab", "a"]
    assert names(NameContains="a", SortBy="Name") == ["a", "ab"]
    assert names(OfflineStoreStatusEquals="Disabled") == ["on"]
    page = store.groups.list(store.permit, {"MaxResults": 3})
    assert names(MaxResults=3, NextToken=page["NextToken"]) == ["on"]
    assert names(MaxResults=1, NextToken=page["NextToken"]) == ["on"]  # how much at a time may change
    for other in ({"SortBy": "Name"}, {"NameContains": "o"}):  # a token is of one list
        with pytest.raises(Invalid, match="NextToken"):
            names(NextToken=page["NextToken"], **other)
    last = store.groups.list(store.permit, {"MaxResults": 2, "SortOrder": "Descending"})["NextToken"]
    store.groups.delete(store.permit, {"FeatureGroupName": "on"})  # which the first page told of
    assert names(SortOrder="Descending", NextToken=last) == ["a", "b"]


def test_update(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"))
    more = [
        {"FeatureName": "time", "FeatureType": "Integral"},
        {"FeatureName": "time_feature", "FeatureType": "String"},
    ]
    offline.flush(store.permit, store.vault)
    made = store.groups.update(store.permit, {"FeatureGroupName": "g", "FeatureAdditions": more})
    assert_shape("UpdateFeatureGroup", made)
    store.put("g", *record("p", DAY2, time="5", time_feature="t"))
    for _ in range(2):
        rows = offline.table(store.permit, store.vault, "g").select(["x", "time", "time_feature"]).to_pylist()
        assert rows == [
            {"x": 1.0, "time": None, "time_feature": None},
            {"x": None, "time": 5, "time_feature": "t"},
        ]
        offline.flush(store.permit, store.vault)

    def refused(**change: Any) -> None:
        with pytest.raises(Invalid) as caught:
            store.groups.update(store.permit, {"FeatureGroupName": "g", **change})
        assert caught.value.code == "features.validation"

    refused()
    refused(FeatureAdditions=more)
    refused(FeatureAdditions=more, OnlineStoreConfig={"StorageType": "Standard_V2"})
    refused(FeatureAdditions=[{"FeatureName": "Write_Time", "FeatureType": "String"}])
    refused(OnlineStoreConfig={"StorageType": "InMemory"})
    store.groups.update(store.permit, {"FeatureGroupName": "g", "OnlineStoreConfig": {"StorageType": "Standard_V2"}})
    refused(OnlineStoreConfig={"StorageType": "Standard"})


def test_features_are_described(store: Store) -> None:
    store.groups.create(store.permit, request())
    own = {"FeatureGroupName": "g", "FeatureName": "x"}
    parameters = [{"Key": "unit", "Value": "mg/dL"}, {"Key": "source", "Value": "LOINC 1-8"}]
    store.groups.update_feature(store.permit, {**own, "Description": "words", "ParameterAdditions": parameters})
    store.groups.update_feature(store.permit, {**own, "ParameterRemovals": ["source"]})
    told = store.groups.describe_feature(store.permit, own)
    assert_shape("DescribeFeatureMetadata", told)
    assert (told["Description"], told["Parameters"]) == ("words", parameters[:1])
    with pytest.raises(Invalid):
        store.groups.describe_feature(store.permit, {**own, "FeatureName": "y"})


def _definitions(*more: dict[str, Any]) -> dict[str, Any]:
    return {"FeatureDefinitions": [*request()["FeatureDefinitions"], *more]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"FeatureGroupName": "a" * 65},
        {"FeatureGroupName": "-a"},
        {"FeatureGroupName": None},
        {"Surprise": 1},
        {"EventTimeFeatureName": "n"},
        {"EventTimeFeatureName": "nowhere"},
        {"EventTimeFeatureName": "subject_id"},
        {"OnlineStoreConfig": None, "OfflineStoreConfig": None},
        {"OnlineStoreConfig": {"EnableOnlineStore": False}, "OfflineStoreConfig": None},
        {"OnlineStoreConfig": {"EnableOnlineStore": True, "TtlDuration": {"Unit": "Years", "Value": 1}}},
        {"OnlineStoreConfig": {"EnableOnlineStore": True, "TtlDuration": {"Unit": "Days", "Value": 0}}},
        {"OnlineStoreConfig": {"EnableOnlineStore": True, "TtlDuration": {"Unit": "Days"}}},
        {"OnlineStoreConfig": {"EnableOnlineStore": "yes"}},
        {"OfflineStoreConfig": {}},
        {"OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "elsewhere"}}},
        {"Description": "x" * 129},
        {"RoleArn": "x" * 20},
        {"Tags": [{"Key": "a" * 129, "Value": ""}]},
        {"Tags": [{"Key": "carelake:subject", "Value": "nowhere"}]},
        _definitions({"FeatureName": "is_deleted", "FeatureType": "String"}),
        _definitions({"FeatureName": "Api_Invocation_Time", "FeatureType": "String"}),
        _definitions({"FeatureName": "X", "FeatureType": "String"}),
        _definitions({"FeatureName": "a b", "FeatureType": "String"}),
        _definitions({"FeatureName": "y", "FeatureType": "Boolean"}),
        _definitions({"FeatureName": "y", "FeatureType": "Fractional", "CollectionType": "Vector"}),
        _definitions(*({"FeatureName": f"y{n}", "FeatureType": "String"} for n in range(2_496))),
    ],
)
def test_a_request_that_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    from carelake.features.groups.definition import subject_of
    from carelake.features.groups.groups import _check_create

    def take(asked: dict[str, Any]) -> None:
        _check_create(asked)
        subject_of(asked)

    with pytest.raises(Invalid) as caught:
        take(request(**wrong))
    assert caught.value.code == "features.validation"


def test_a_request_at_the_bounds_is_taken() -> None:
    from carelake.features.groups.groups import _check_create

    many = ({"FeatureName": f"y{n}", "FeatureType": "String"} for n in range(2_495))
    _check_create(request("a" * 64, **_definitions(*many), Tags=[{"Key": "á:_./=+-@ 1", "Value": ""}]))
    _check_create(request(OfflineStoreConfig={**S3, "TableFormat": "Iceberg"}))


def test_an_account_has_so_many_groups(tmp_path: Path, clock: Any, permit_for: Callable[..., Permit]) -> None:
    from carelake.apps.wiring import import_tables
    from carelake.core.ids import RandomIds
    from carelake.vault.workspace import Vault

    import_tables()
    settings = Settings(workspace="w1", features=FeatureSettings(groups=1))
    with Vault.create(
        tmp_path / "ws", settings=settings, key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    ) as vault:
        store = Store(vault, permit_for(*GRANTS))
        store.groups.create(store.permit, request())
        with pytest.raises(Conflict) as caught:
            store.groups.create(store.permit, request("h"))
        assert caught.value.code == "features.group_limit"
        store.groups.delete(store.permit, {"FeatureGroupName": "g"})
        store.groups.create(store.permit, request("h"))
