"""What a feature group is: CreateFeatureGroup's members, and what carelake adds to them.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateFeatureGroup.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from carelake.core.shapes import decodable
from carelake.features.groups.shapes import invalid

__all__ = ["SUBJECT_TAG", "Feature", "Gate", "Group", "Said", "checked_features", "owner_of", "subject_of"]

SUBJECT_TAG = "carelake:subject"
"""Key of the tag whose value names the feature that says whose a record is."""

_DEFAULT_SUBJECT = "subject_id"
_RESERVED = frozenset({"is_deleted", "write_time", "api_invocation_time"})
_MOST_FEATURES = 2_500
_LONGEST_OWNER = 256


class Gate(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What the values of a feature must keep to, in a batch.

    Attributes:
        low, high: bounds of each value, inclusive.
        allowed: the only values there are.
        complete: least share of the batch's rows that have a value.
    """

    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    complete: float = 0.0


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a group beside the request itself.

    Attributes:
        request: CreateFeatureGroup's, with what UpdateFeatureGroup made of it.
        subject: the feature that names the patient, "" for none.
        gates: by feature.
        on_breach: ``refuse`` the batch, or ``quarantine`` its rows that break a gate.
        about: of features: ``Description`` and ``Parameters``.
        declaration: the declaration that the features are computed by, as its text says; "" for none.
        stamps: when each feature was described last, an instant.
    """

    request: dict[str, Any]
    subject: str = ""
    gates: dict[str, Gate] = {}
    on_breach: str = "refuse"
    about: dict[str, dict[str, Any]] = {}
    declaration: str = ""
    stamps: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature; ``kind`` is Integral, Fractional or String, ``collection`` "" or List, Set, Vector."""

    name: str
    kind: str
    collection: str = ""
    dimension: int = 0


@dataclass(frozen=True)
class Group:
    """A feature group as it is now.

    Attributes:
        id: names it for good; its name may be another group's once it is deleted.
        version: grows with each change.
        created, modified: instants.
    """

    id: str
    account: str
    name: str
    state: str
    version: int
    created: str
    modified: str
    ref: str
    said: Said

    @classmethod
    def read(cls, row: Any) -> Group:
        """Of a row of the table."""
        said = msgspec.json.decode(row.definition, type=decodable(Said))
        return cls(row.id, row.account, row.name, row.state, row.version, row.created, row.modified, row.ref, said)

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """In the order of the definitions."""
        return tuple(_feature(one) for one in self.said.request["FeatureDefinitions"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(one.name for one in self.features)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Where each feature stands."""
        return {name: at for at, name in enumerate(self.names)}

    @cached_property
    def record(self) -> str:
        """The feature that identifies a record."""
        return str(self.said.request["RecordIdentifierFeatureName"])

    @cached_property
    def event(self) -> str:
        """The feature that is the event time."""
        return str(self.said.request["EventTimeFeatureName"])

    @cached_property
    def event_kind(self) -> str:
        """String or Fractional."""
        return self.features[self.index[self.event]].kind

    @cached_property
    def online(self) -> Mapping[str, Any] | None:
        """OnlineStoreConfig, None where it is off."""
        told: Mapping[str, Any] = self.said.request.get("OnlineStoreConfig") or {}
        return told if told.get("EnableOnlineStore") else None

    @cached_property
    def copied(self) -> bool:
        """Whether records of the online store may be copied to a driver of `stores`: StorageType InMemory."""
        return (self.online or {}).get("StorageType") == "InMemory"

    @cached_property
    def offline(self) -> Mapping[str, Any] | None:
        """OfflineStoreConfig, None for none."""
        return self.said.request.get("OfflineStoreConfig")

    @property
    def ttl(self) -> Mapping[str, Any] | None:
        """The group's TtlDuration."""
        return (self.online or {}).get("TtlDuration")

    @cached_property
    def _whose(self) -> int:
        return self.index.get(self.said.subject, -1)

    def owner(self, values: Sequence[Any]) -> str:
        """The id of the patient that a record is of; "" where none is said."""
        return owner_of(values[self._whose] if 0 <= self._whose < len(values) else None)


def owner_of(value: Any) -> str:
    """The patient's id that a value is; "" for none, and for what is longer than an id can be."""
    text = value.removeprefix("Patient/") if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_OWNER else ""


def _feature(said: Mapping[str, Any]) -> Feature:
    dimension = ((said.get("CollectionConfig") or {}).get("VectorConfig") or {}).get("Dimension", 0)
    return Feature(said["FeatureName"], said["FeatureType"], said.get("CollectionType") or "", dimension)


def checked_features(definitions: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]] = ()) -> None:
    """Let pass definitions that may stand beside those that are known.

    Raises:
        Invalid: ``features.validation``.
    """
    taken = {one["FeatureName"].lower() for one in known}
    for one in definitions:
        name = one["FeatureName"].lower()
        if name in _RESERVED:
            raise invalid(f"FeatureName may not be one of {', '.join(sorted(_RESERVED))}.")
        if name in taken:
            raise invalid("FeatureDefinitions names a feature twice; names differ by more than capitals.")
        taken.add(name)
        _checked_collection(one)
    if len(taken) > _MOST_FEATURES:
        raise invalid(f"A feature group has at most {_MOST_FEATURES} features.")


def _checked_collection(said: Mapping[str, Any]) -> None:
    feature = _feature(said)
    if (feature.collection == "Vector") != bool(feature.dimension):
        raise invalid("A Vector, and nothing else, has a CollectionConfig with the Dimension of a VectorConfig.")
    if feature.collection == "Vector" and feature.kind != "Fractional":
        raise invalid("A Vector is of Fractional numbers.")


def subject_of(request: Mapping[str, Any]) -> str:
    """The feature that says whose a record is: by the tag, else ``subject_id`` where there is one, else none.

    Raises:
        Invalid: ``features.validation``: the tag names no plain feature of the group.
    """
    plain = {one["FeatureName"] for one in request["FeatureDefinitions"] if not one.get("CollectionType")}
    told = [one["Value"] for one in request.get("Tags") or () if one["Key"] == SUBJECT_TAG]
    if told and told[-1] not in plain:
        raise invalid(f"The tag {SUBJECT_TAG} names no feature of the group that is no collection.")
    return str(told[-1]) if told else _DEFAULT_SUBJECT if _DEFAULT_SUBJECT in plain else ""
