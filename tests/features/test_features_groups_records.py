"""Records: what PutRecord, DeleteRecord, UpdateRecord and the reads mean, as AWS documents them."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from sqlalchemy import select

from carelake.core.clock import instant
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.features.groups import erase, offline, reading
from carelake.features.groups.ingest import ingest
from carelake.features.groups.tables import feature_row

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

from groups_data import GRANTS, S3, Store, record, request

DAY1, DAY2, DAY3 = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))
ONLINE, OFFLINE = "OnlineStore", "OfflineStore"


@pytest.fixture
def store(vault: Any, permit_for: Callable[..., Permit]) -> Store:
    return Store(vault, permit_for(*GRANTS, expires=vault.clock.now() + timedelta(days=30)))


def history(store: Store, name: str = "g") -> list[tuple[Any, ...]]:
    found = offline.table(store.permit, store.vault, name)
    return [
        (one["subject_id"], one["event_time"].strftime("%d"), one["is_deleted"], one["x"])
        for one in found.to_pylist()
    ]


def test_put_is_a_full_overwrite(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1.50", n="7"))
    store.put("g", *record("p", DAY2, t="word"))
    assert store.get("g", "p") == {"Record": record("p", DAY2, t="word")}
    assert history(store) == [("p", "01", False, 1.5), ("p", "02", False, None)]


def test_what_is_not_newer_is_history(store: Store) -> None:
    store.groups.create(store.permit, request())
    for at, x in ((DAY2, "2"), (DAY1, "1"), (DAY2, "22")):
        store.put("g", *record("p", at, x=x))
    assert store.value("g", "p") == "2"
    assert history(store) == [("p", "02", False, 2.0), ("p", "01", False, 1.0), ("p", "02", False, 22.0)]


def test_a_missing_record_is_an_empty_answer(store: Store) -> None:
    store.groups.create(store.permit, request())
    assert store.get("g", "p") == {}
    with pytest.raises(NotFound) as caught:
        store.get("other", "p")
    assert caught.value.code == "features.no_group"


def test_target_stores(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"), target_stores=[ONLINE])
    store.put("g", *record("p", DAY2, x="2"), target_stores=[OFFLINE])
    assert store.value("g", "p") == "1"
    assert history(store) == [("p", "02", False, 2.0)]
    store.groups.create(store.permit, {**request("online"), "OfflineStoreConfig": None})
    store.put("online", *record("p", DAY1))
    with pytest.raises(Invalid):
        store.put("online", *record("p", DAY1), target_stores=[OFFLINE])
    store.groups.create(store.permit, {**request("offline"), "OnlineStoreConfig": None})
    store.put("offline", *record("p", DAY1))
    with pytest.raises(Invalid):
        store.get("offline", "p")


def test_a_soft_deletion_keeps_its_event_time(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"))
    store.delete("g", "p", DAY3)
    assert store.get("g", "p") == {}
    assert store.listed("g") == []
    assert store.listed("g", include_soft_deleted_records=True) == ["p"]
    store.put("g", *record("p", DAY2, x="2"))
    assert store.get("g", "p") == {}
    store.put("g", *record("p", "2026-01-03T00:00:00.001Z", x="3"))
    assert store.value("g", "p") == "3"
    assert history(store)[1] == ("p", "03", True, None)


def test_a_soft_deletion_that_is_too_early_leaves_a_marker_alone(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY2, x="2"))
    for at in (DAY1, DAY2):
        store.delete("g", "p", at)
    assert store.value("g", "p") == "2"
    assert [one[:3] for one in history(store)] == [("p", "02", False), ("p", "01", True), ("p", "02", True)]


def test_a_hard_deletion(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY2, x="2"))
    for at in (DAY1, DAY2):
        with pytest.raises(Invalid, match="EventTime") as caught:
            store.delete("g", "p", at, deletion_mode="HardDelete")
        assert caught.value.code == "features.validation"
    assert len(history(store)) == 1  # no marker
    store.delete("g", "p", DAY3, deletion_mode="HardDelete")
    assert store.listed("g", include_soft_deleted_records=True) == []
    assert history(store)[-1] == ("p", "03", True, None)
    store.put("g", *record("p", DAY1, x="1"))  # nothing is left that its event time would be compared with
    assert store.value("g", "p") == "1"


def test_deletions_by_store(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"))
    store.delete("g", "p", DAY2, target_stores=[OFFLINE])
    assert store.value("g", "p") == "1"
    store.delete("g", "p", DAY2, target_stores=[ONLINE])
    assert store.get("g", "p") == {}
    assert [one[2] for one in history(store)] == [False, True]


def test_time_to_live(store: Store) -> None:
    ttl = {"EnableOnlineStore": True, "TtlDuration": {"Unit": "Days", "Value": 2}}
    store.groups.create(store.permit, request(OnlineStoreConfig=ttl))
    store.put("g", *record("p", DAY1, x="1"))
    store.put("g", *record("q", DAY1), ttl_duration={"Unit": "Weeks", "Value": 1})
    asked = {"expiration_time_response": "Enabled"}
    assert store.get("g", "p", **asked)["ExpiresAt"] == "2026-01-03T00:00:00Z"
    assert "ExpiresAt" not in store.get("g", "p")
    assert store.get("g", "q", **asked)["ExpiresAt"] == "2026-01-08T00:00:00Z"
    store.vault.clock.move(days=1)  # 2026-01-03T03:04:05Z
    assert store.get("g", "p") == {}
    assert store.listed("g", include_soft_deleted_records=True) == ["q"]
    store.put("g", *record("p", "2026-01-02T12:00:00Z", x="2"))  # as if there had been nothing
    assert store.value("g", "p") == "2"
    store.put("g", *record("p", "2026-01-02T13:00:00Z"), ttl_duration={"Unit": "Hours", "Value": 1})
    assert store.get("g", "p") == {}  # it had expired before it came
    assert len(history(store)) == 4
    store.put("g", *record("s", "2026-01-03T12:00:00Z"))
    assert store.value("g", "p") is None
    store.vault.clock.move(days=1)
    offline.flush(store.permit, store.vault)  # what has expired is gone with its bytes
    with store.vault.database.reading(store.permit) as tx:
        assert tx.execute(select(feature_row.c.record)).scalars().all() == ["q", "s"]
    online = {"OnlineStoreConfig": {"TtlDuration": {"Unit": None, "Value": None}}}
    store.groups.update(store.permit, {"FeatureGroupName": "g", **online})
    store.put("g", *record("r", DAY1))
    assert "ExpiresAt" not in store.get("g", "r", **asked)


def test_times_to_live_begin_at_the_event(store: Store) -> None:
    store.groups.create(store.permit, request())
    for unit, seconds in (("Seconds", 1), ("Minutes", 60), ("Hours", 3600), ("Days", 86400), ("Weeks", 604800)):
        store.put("g", *record(unit, "2026-01-02T03:04:05Z"), ttl_duration={"Unit": unit, "Value": 1})
        found = store.get("g", unit, expiration_time_response="Enabled")
        assert instant(found["ExpiresAt"]) == store.vault.clock.now() + timedelta(seconds=seconds)


def test_update_changes_some_features(store: Store) -> None:
    v2 = {"EnableOnlineStore": True, "StorageType": "Standard_V2"}
    store.groups.create(store.permit, request())
    store.groups.create(store.permit, request("v2", OnlineStoreConfig=v2))

    def update(name: str, subject: str, *features: dict[str, Any], **more: Any) -> None:
        told = {"feature_group_name": name, "record_identifier_value_as_string": subject}
        store.records.update_record(store.permit, **told, features=list(features), **more)

    change = {"FeatureName": "n", "ValueAsString": "5"}
    with pytest.raises(Invalid, match="Standard_V2"):
        update("g", "p", change)
    with pytest.raises(NotFound) as caught:
        update("v2", "p", change)
    assert caught.value.code == "features.no_record"
    store.put("v2", *record("p", DAY2, x="2", n="1"), ttl_duration={"Unit": "Days", "Value": 1})
    update("v2", "p", change)
    asked = {"expiration_time_response": "Enabled"}
    assert store.get("v2", "p", **asked) == {
        "Record": record("p", DAY2, x="2", n="5"), "ExpiresAt": "2026-01-03T00:00:00Z",
    }  # fmt: skip
    with pytest.raises(Conflict) as older:
        update("v2", "p", change, {"FeatureName": "at", "ValueAsString": DAY1})
    assert older.value.code == "features.older"
    update("v2", "p", {"FeatureName": "at", "ValueAsString": DAY3}, {"FeatureName": "x", "ValueAsString": "3"})
    assert store.get("v2", "p", **asked)["ExpiresAt"] == "2026-01-04T00:00:00Z"
    with pytest.raises(Invalid, match="EventTime"):
        update("v2", "p", change, ttl_duration={"Unit": "Days", "Value": 1})
    with pytest.raises(Invalid, match="identifier"):
        update("v2", "p", {"FeatureName": "subject_id", "ValueAsString": "q"})
    assert [one[3] for one in history(store, "v2")] == [2.0, 2.0, 3.0]
    store.delete("v2", "p", "2026-01-05T00:00:00Z")
    with pytest.raises(NotFound):
        update("v2", "p", change)


def test_batches_tell_what_they_could_not_do(store: Store) -> None:
    store.groups.create(store.permit, request())
    good = {"FeatureGroupName": "g", "Record": record("p", DAY1, x="1")}
    bad = [
        {"FeatureGroupName": "other", "Record": record("p", DAY1)},
        {"FeatureGroupName": "g", "Record": record("p", DAY1, x="secret")},
        {"FeatureGroupName": "g", "Record": record("p", DAY1), "TargetStores": ["Elsewhere"]},
    ]
    said = store.records.batch_write_record(
        store.permit, entries=[good, *bad], ttl_duration={"Unit": "Weeks", "Value": 1}
    )
    assert [one["Entry"] for one in said["Errors"]] == bad
    assert [one["ErrorCode"] for one in said["Errors"]] == ["ResourceNotFound", "ValidationError", "ValidationError"]
    assert not any("secret" in one["ErrorMessage"] for one in said["Errors"])
    assert said["UnprocessedEntries"] == []
    asked = [
        {"FeatureGroupName": "g", "RecordIdentifiersValueAsString": ["p", "q"], "FeatureNames": ["x"]},
        {"FeatureGroupName": "other", "RecordIdentifiersValueAsString": ["p"]},
    ]
    found = store.records.batch_get_record(store.permit, identifiers=asked, expiration_time_response="Enabled")
    assert found["Records"] == [
        {
            "FeatureGroupName": "g",
            "RecordIdentifierValueAsString": "p",
            "Record": [{"FeatureName": "x", "ValueAsString": "1"}],
            "ExpiresAt": "2026-01-08T00:00:00Z",
        }
    ]
    assert [(one["FeatureGroupName"], one["ErrorCode"]) for one in found["Errors"]] == [("other", "ResourceNotFound")]
    assert_shape("BatchWriteRecord", said)
    assert_shape("BatchGetRecord", found)
    with pytest.raises(Invalid):
        store.records.batch_write_record(store.permit, entries=[good] * 26)
    many = {"FeatureGroupName": "g", "RecordIdentifiersValueAsString": [str(n) for n in range(51)]}
    with pytest.raises(Invalid, match="100"):
        store.records.batch_get_record(store.permit, identifiers=[many, many])


def test_lists_come_in_pages(store: Store) -> None:
    store.groups.create(store.permit, request())
    names = [f"p{number:03}" for number in range(7)]
    for name in names:
        store.put("g", *record(name, DAY1))
    store.delete("g", "p003", DAY2)
    made, token = [], None
    while True:
        page = store.records.list_records(store.permit, feature_group_name="g", max_results=2, next_token=token)
        assert_shape("ListRecords", page)
        made += page["RecordIdentifiers"]
        if (token := page.get("NextToken")) is None:
            break
    assert made == [name for name in names if name != "p003"]
    token = store.records.list_records(store.permit, feature_group_name="g", max_results=2)["NextToken"]
    assert "p00" not in base64.b64decode(token + "==", altchars="-_").decode("latin-1")
    store.groups.create(store.permit, request("h"))
    seen = Store(store.vault, store.permit)
    for name, given, more in (("g", "x", {}), ("h", token, {}), ("g", token, {"include_soft_deleted_records": True})):
        with pytest.raises(Invalid, match="NextToken"):
            seen.records.list_records(store.permit, feature_group_name=name, next_token=given, **more)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"x": "1,5"}, "Fractional"),
        ({"x": "1_000"}, "Fractional"),
        ({"n": "1.0"}, "Integral"),
        ({"n": str(2**63)}, "Integral"),
        ({"other": "1"}, "does not define"),
        ({"x": ["1"]}, "no collection"),
        ({"at": "2026-01-01"}, "EventTime"),
        ({"at": "2026-01-01T00:00:00+01:00"}, "EventTime"),
        ({"at": "2026-13-01T00:00:00Z"}, "EventTime"),
        ({"at": "2026-01-01T00:00:00.1Z"}, "EventTime"),
        ({"t": "x" * 358_400}, "350 KB"),
        ({"subject_id": "p" * 2_049}, "2 KB"),
        ({"subject_id": ""}, "lacks subject_id"),
    ],
)
def test_a_record_that_is_wrong_is_refused(store: Store, values: dict[str, Any], says: str) -> None:
    store.groups.create(store.permit, request())
    with pytest.raises(Invalid, match=says) as caught:
        store.put("g", *_with(values))
    assert caught.value.code == "features.validation"
    assert store.listed("g") == []
    assert history(store) == []


def _with(values: dict[str, Any]) -> list[dict[str, Any]]:
    told = {"subject_id": "p", "at": DAY1, **values}
    return record(told.pop("subject_id"), told.pop("at"), **told)


def test_numbers_keep_their_digits_and_extremes(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1.10", n=str(-(2**63)), t=""))
    assert store.get("g", "p") == {"Record": record("p", DAY1, x="1.10", n=str(-(2**63)), t="")}
    assert offline.table(store.permit, store.vault, "g").to_pylist()[0]["n"] == -(2**63)


def test_an_identifier_may_have_2_kb(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p" * 2_048, DAY1, x="1"))
    assert store.value("g", "p" * 2_048) == "1"


def test_an_identifier_has_no_nul(store: Store) -> None:
    store.groups.create(store.permit, request())
    with pytest.raises(Invalid):  # which PostgreSQL keeps in no text
        store.put("g", *record("p\0q", DAY1, x="1"))
    with pytest.raises(Invalid):
        store.get("g", "p\0q")
    store.put("g", *record("p", DAY1, x="1"))


def test_collections(store: Store) -> None:
    more = [
        {"FeatureName": "tags", "FeatureType": "String", "CollectionType": "Set"},
        {
            "FeatureName": "v",
            "FeatureType": "Fractional",
            "CollectionType": "Vector",
            "CollectionConfig": {"VectorConfig": {"Dimension": 2}},
        },
    ]
    plain = request(OnlineStoreConfig={"EnableOnlineStore": True, "StorageType": "InMemory"})
    store.groups.create(store.permit, {**plain, "FeatureDefinitions": [*plain["FeatureDefinitions"], *more]})
    store.put("g", *record("p", DAY1, tags=["a", "b", "a"], v=["1", "2.5"]))
    assert store.get("g", "p") == {"Record": record("p", DAY1, tags=["a", "b"], v=["1", "2.5"])}
    with pytest.raises(Invalid, match="Vector of 2"):
        store.put("g", *record("p", DAY2, v=["1"]))
    with pytest.raises(Invalid, match="ValueAsStringList"):
        store.put("g", *record("p", DAY2, v="1"))
    offline.flush(store.permit, store.vault)
    assert offline.table(store.permit, store.vault, "g").to_pylist()[0]["v"] == [1.0, 2.5]


def test_fractional_event_times(store: Store) -> None:
    definitions = request()["FeatureDefinitions"]
    definitions[1] = {"FeatureName": "at", "FeatureType": "Fractional"}
    store.groups.create(store.permit, request(FeatureDefinitions=definitions))
    store.put("g", *record("p", "1767225600.5", x="1"))
    store.put("g", *record("p", "1767225600", x="0"))
    assert store.value("g", "p") == "1"
    times = offline.table(store.permit, store.vault, "g").column("event_time").to_pylist()
    assert times[0] - times[1] == timedelta(seconds=0.5)
    with pytest.raises(Invalid):
        store.put("g", *record("p", DAY1))
    with pytest.raises(Invalid, match="Iceberg"):
        store.groups.create(
            store.permit,
            request("h", FeatureDefinitions=definitions, OfflineStoreConfig={**S3, "TableFormat": "Iceberg"}),
        )


def test_arns_name_groups_too(store: Store) -> None:
    arn = store.groups.create(store.permit, request())["FeatureGroupArn"]
    store.put(arn, *record("p", DAY1))
    assert store.get(arn, "p")
    with pytest.raises(Invalid) as caught:
        store.get(arn.replace("production", "x").replace(arn.split(":")[4], "0" * 12), "p")
    assert caught.value.code == "core.arn"


def test_permits_are_asked_for(vault: Any, permit_for: Callable[..., Permit]) -> None:
    store = Store(vault, permit_for(*GRANTS))
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"))
    blind = Store(vault, permit_for("rows:read", "rows:write"))
    for work in (lambda: blind.get("g", "p"), lambda: blind.put("g", *record("p", DAY2))):
        with pytest.raises(Refused):
            work()
    other = Store(vault, permit_for(*GRANTS, account="research"))
    with pytest.raises(NotFound):
        other.get("g", "p")
    one = Store(vault, permit_for(*GRANTS, scope=("patient:q",)))
    assert one.get("g", "p") == {}
    assert one.listed("g") == []
    assert len(offline.table(one.permit, vault, "g")) == 0
    with pytest.raises(Refused):
        one.put("g", *record("q", DAY1))
    cut = Store(vault, permit_for(*GRANTS, scope=("deidentified",)))
    with pytest.raises(Refused):
        cut.get("g", "p")


def assert_shape(operation: str, answer: dict[str, Any]) -> None:
    """An answer is in the shape that botocore's model says."""
    session = botocore.session.get_session()
    model = session.get_service_model("sagemaker-featurestore-runtime").operation_model(operation)
    report = ParamValidator().validate(answer, model.output_shape)
    assert not report.has_errors(), report.generate_report()


def test_a_time_to_live_ends_with_what_a_moment_can_be(store: Store) -> None:
    store.groups.create(
        store.permit, request(OnlineStoreConfig={"EnableOnlineStore": True, "StorageType": "InMemory"})
    )
    for unit in ("Hours", "Weeks"):
        store.put("g", *record(unit, DAY1, x="1"), ttl_duration={"Unit": unit, "Value": 999_999_999})
        found = store.get("g", unit, expiration_time_response="Enabled")
        assert (store.value("g", unit), found["ExpiresAt"]) == ("1", "9999-12-31T23:59:59Z")


def numbered(kind: str, subject: str = "") -> dict[str, Any]:
    """A group whose records are named by numbers."""
    named = request()["FeatureDefinitions"]
    definitions = [{"FeatureName": "n0", "FeatureType": kind}, *named[:3]]
    tags = {"Tags": [{"Key": "carelake:subject", "Value": subject}]} if subject else {}
    return request(FeatureDefinitions=definitions, RecordIdentifierFeatureName="n0", **tags)


@pytest.mark.parametrize(
    ("kind", "good", "others"),
    [
        ("Integral", "1", ["01", "+1", "-0", "1.00", "six"]),
        ("Fractional", "1.0", ["01.0", "1e0", "+1.0", "NaN", "Infinity", "-0.0", "1"]),
    ],
)
def test_a_number_that_names_a_record_is_written_in_one_way(
    store: Store, tmp_path: Path, kind: str, good: str, others: list[str]
) -> None:
    store.groups.create(store.permit, numbered(kind))

    def said(number: str) -> list[dict[str, Any]]:
        return [{"FeatureName": "n0", "ValueAsString": number}, *record("p", DAY1, x="1")]

    store.put("g", *said(good))
    for other in others:
        for work in (
            lambda other=other: store.put("g", *said(other)),
            lambda other=other: store.get("g", other),
            lambda other=other: store.delete("g", other, DAY2),
        ):
            with pytest.raises(Invalid) as caught:
                work()
            assert caught.value.code == "features.validation"
            assert other == "1" or other not in caught.value.message
    assert store.listed("g") == [good]
    asked = [{"FeatureGroupName": "g", "RecordIdentifiersValueAsString": [others[0], good, *others[1:]]}]
    found = store.records.batch_get_record(store.permit, identifiers=asked)
    assert [one["RecordIdentifierValueAsString"] for one in found["Records"]] == [good]
    assert {one["RecordIdentifierValueAsString"] for one in found["Errors"]} == set(others)
    # A file is as if it had been put row by row.
    path = tmp_path / "a.csv"
    path.write_text(f"n0,subject_id,at,x\n{good},p,{DAY3},3\n")
    assert ingest(store.permit, store.vault, store.outbox, "g", path).online == 1
    assert (store.listed("g"), store.value("g", good)) == ([good], "3.0")
    path.write_text("n0,subject_id,at,x\n" + "".join(f"{one},p,{DAY3},3\n" for one in others))
    with pytest.raises(Invalid, match=f"{len(others)} of {len(others)} rows"):
        ingest(store.permit, store.vault, store.outbox, "g", path)


def test_a_patient_who_is_named_by_a_number_is_one_patient(store: Store) -> None:
    store.groups.create(store.permit, numbered("Integral", "n0"))
    store.put("g", {"FeatureName": "n0", "ValueAsString": "7"}, *record("x", DAY1))
    assert erase.residue(store.permit, store.vault, {"7"}) == 2
    with pytest.raises(Invalid, match="names a record or a patient"):
        store.put("g", {"FeatureName": "n0", "ValueAsString": "07"}, *record("x", DAY2))


def test_an_answer_of_a_batch_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_ANSWER_BYTES", 5_000)
    for name in ("g", "h"):
        store.groups.create(store.permit, request(name))
        for number in range(3):
            store.put(name, *record(f"p{number}", DAY1, t=str(number) * 2_000))
    wanted = [
        {
            "FeatureGroupName": name,
            "RecordIdentifiersValueAsString": ["p0", "none", "p1", "p2"],
            "FeatureNames": ["t"],
        }
        for name in ("g", "h")
    ]
    made, turns = [], 0
    while wanted:
        found = store.records.batch_get_record(store.permit, identifiers=wanted)
        assert_shape("BatchGetRecord", found)
        made += [(one["FeatureGroupName"], one["RecordIdentifierValueAsString"]) for one in found["Records"]]
        wanted, turns = found["UnprocessedIdentifiers"], turns + 1
        assert all(one["FeatureNames"] == ["t"] for one in wanted)
    assert (made, turns) == ([(name, f"p{number}") for name in ("g", "h") for number in range(3)], 3)
    monkeypatch.setattr(reading, "_ANSWER_BYTES", 10)  # a record that is larger alone is answered
    asked = [{"FeatureGroupName": "g", "RecordIdentifiersValueAsString": ["p0", "p1"]}]
    found = store.records.batch_get_record(store.permit, identifiers=asked)
    assert [one["RecordIdentifierValueAsString"] for one in found["Records"]] == ["p0"]
    assert found["UnprocessedIdentifiers"] == [{**asked[0], "RecordIdentifiersValueAsString": ["p1"]}]
