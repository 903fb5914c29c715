"""Feature groups for tests, and records of them."""

from __future__ import annotations

from typing import Any

from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.features.groups import FeatureGroups, Records

GRANTS = ("features:read", "features:write", "rows:read", "rows:write", "lake:read")
S3 = {"S3StorageConfig": {"S3Uri": "s3://bucket/prefix"}}


def request(name: str = "g", **more: Any) -> dict[str, Any]:
    """A group of patients with a number, a whole number and a text."""
    return {
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "subject_id",
        "EventTimeFeatureName": "at",
        "FeatureDefinitions": [
            {"FeatureName": "subject_id", "FeatureType": "String"},
            {"FeatureName": "at", "FeatureType": "String"},
            {"FeatureName": "x", "FeatureType": "Fractional"},
            {"FeatureName": "n", "FeatureType": "Integral"},
            {"FeatureName": "t", "FeatureType": "String"},
        ],
        "OnlineStoreConfig": {"EnableOnlineStore": True},
        "OfflineStoreConfig": S3,
        **more,
    }


def record(subject: str, at: str, **values: Any) -> list[dict[str, Any]]:
    """FeatureValues; a list is a collection."""
    told = {"subject_id": subject, "at": at, **values}
    return [
        {"FeatureName": name, "ValueAsStringList" if isinstance(value, list) else "ValueAsString": value}
        for name, value in told.items()
    ]


class Store:
    """The groups and records of a vault under one permit."""

    def __init__(self, vault: Any, permit: Permit) -> None:
        self.vault, self.permit = vault, permit
        self.outbox = Outbox(vault.clock, vault.ids, workspace="w1")
        self.groups = FeatureGroups(vault, Nouns(vault.clock), self.outbox)
        self.records = Records(vault)

    def put(self, name: str, *values: dict[str, Any], **more: Any) -> None:
        assert self.records.put_record(self.permit, feature_group_name=name, record=list(values), **more) == {}

    def get(self, name: str, subject: str, **more: Any) -> dict[str, Any]:
        return self.records.get_record(
            self.permit, feature_group_name=name, record_identifier_value_as_string=subject, **more
        )

    def value(self, name: str, subject: str, feature: str = "x") -> Any:
        """One feature of the latest record, None for no record."""
        found = {one["FeatureName"]: one for one in self.get(name, subject).get("Record", ())}
        return found[feature]["ValueAsString"] if feature in found else None

    def delete(self, name: str, subject: str, at: str, **more: Any) -> None:
        told = {"feature_group_name": name, "record_identifier_value_as_string": subject, "event_time": at}
        assert self.records.delete_record(self.permit, **told, **more) == {}

    def listed(self, name: str, **more: Any) -> list[str]:
        return list(self.records.list_records(self.permit, feature_group_name=name, **more)["RecordIdentifiers"])
