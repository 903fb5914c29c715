"""Feature groups: create, describe, update, delete, list, in the shapes of SageMaker's operations.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateFeatureGroup.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.arns import arn
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Unavailable
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.features.groups import turns
from carelake.features.groups.declaration import Declared, request_of
from carelake.features.groups.definition import Gate, Group, Said, checked_features, subject_of
from carelake.features.groups.known import CREATED, DELETED, every, find
from carelake.features.groups.listing import chosen
from carelake.features.groups.shapes import check, invalid
from carelake.features.groups.stores import store_of
from carelake.features.groups.tables import feature_due, feature_position, feature_row
from carelake.features.groups.tables import feature_group as table
from carelake.vault.workspace import Vault

__all__ = ["FeatureGroups"]

Request = Mapping[str, Any]

_STORAGE_MOVES = {("Standard", "Standard_V2")}


class FeatureGroups:
    """The feature groups of a workspace. Requests and answers are dicts in botocore's shapes."""

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox

    def create(
        self,
        permit: Permit,
        request: Request,
        *,
        gates: Mapping[str, Gate] | None = None,
        on_breach: str = "refuse",
        about: Mapping[str, Mapping[str, Any]] | None = None,
        declaration: str = "",
    ) -> dict[str, Any]:
        """CreateFeatureGroup. The tag ``carelake:subject`` names the feature that says whose a record is.

        Args:
            gates, on_breach: what batches must keep to, and what becomes of one that does not; see `quality`.
            about: of features: ``Description`` and ``Parameters``, as UpdateFeatureMetadata sets them.
            declaration: what the features are computed by.

        Raises:
            Invalid: ``features.validation``. Conflict: ``features.group_exists``, ``features.group_limit``.
        """
        _check_create(request)
        kept = {name: value for name, value in request.items() if value is not None}
        said = Said(
            kept,
            subject_of(kept),
            dict(gates or {}),
            on_breach,
            {name: dict(told) for name, told in (about or {}).items()},
            declaration,
        )
        with self._vault.database.transaction(permit) as tx:
            self._check_room(permit, tx, kept["FeatureGroupName"])
            group = self._insert(permit, tx, said)
            self._outbox.publish(tx, permit.account, "features.group", group.ref, {"state": CREATED})
        return {"FeatureGroupArn": _arn(group)}

    def declare(self, permit: Permit, declared: Declared) -> dict[str, Any]:
        """CreateFeatureGroup of a declaration, which may be of TOML (`declaration.load`) or of `features.declare`.

        Raises:
            As `create`.
        """
        return self.create(permit, request_of(declared), **declared.extras())

    def describe(self, permit: Permit, request: Request) -> dict[str, Any]:
        """DescribeFeatureGroup; times are datetimes.

        Raises:
            NotFound: ``features.no_group``.
        """
        check("DescribeFeatureGroup", request)
        with self._vault.database.reading(permit) as tx:
            group = find(tx, permit.account, request["FeatureGroupName"])
        return _described(group)

    def get(self, permit: Permit, name: str) -> Group:
        """The group itself.

        Raises:
            NotFound: ``features.no_group``.
        """
        with self._vault.database.reading(permit) as tx:
            return find(tx, permit.account, name)

    def update(self, permit: Permit, request: Request) -> dict[str, Any]:
        """UpdateFeatureGroup: more features, or the online store's TTL or storage type: one of them at a time.

        Raises:
            NotFound: ``features.no_group``. Invalid: ``features.validation``.
        """
        check("UpdateFeatureGroup", request)
        asked = [name for name in _PARTS if request.get(name) is not None]
        if len(asked) != 1:
            raise invalid(f"UpdateFeatureGroup takes one of {', '.join(_PARTS)} at a time.")

        def change(group: Group) -> Said:
            return msgspec.structs.replace(group.said, request=_PARTS[asked[0]](group, request[asked[0]]))

        return {"FeatureGroupArn": _arn(self._change(permit, request["FeatureGroupName"], change))}

    def delete(self, permit: Permit, request: Request) -> dict[str, Any]:
        """DeleteFeatureGroup: with the online store; what is in the offline store stays.

        Raises:
            NotFound: ``features.no_group``.
        """
        check("DeleteFeatureGroup", request)
        with self._vault.database.transaction(permit) as tx:
            group = find(tx, permit.account, request["FeatureGroupName"])
            gone = tx.execute(delete(feature_row).where(feature_row.c.grp == group.id)).rowcount
            for own in (feature_due, feature_position):
                tx.execute(delete(own).where(own.c.grp == group.id))
            now = iso(self._vault.clock.now())
            tx.execute(update(table).where(table.c.id == group.id).values(state=DELETED, modified=now))
            self._nouns.set_state(tx, group.ref, DELETED.lower())
            permit.log.wrote(group.ref)
            permit.log.count(features_removed=gone)
            turns.forget(tx, permit.account, group)
            self._outbox.publish(tx, permit.account, "features.group", group.ref, {"state": DELETED})
        with suppress(Unavailable):  # nobody reads them any more, and they end by themselves
            store_of(self._vault, group).purge(permit, self._vault, group)
        return {}

    def list(self, permit: Permit, request: Request | None = None) -> dict[str, Any]:
        """ListFeatureGroups.

        Raises:
            Invalid: ``features.validation``.
        """
        asked = {name: value for name, value in (request or {}).items() if value is not None}
        check("ListFeatureGroups", asked)
        with self._vault.database.reading(permit) as tx:
            found = every(tx, permit.account)
        groups, token = chosen(found, asked, permit, self._vault.keyring)
        answer: dict[str, Any] = {"FeatureGroupSummaries": [_summary(one) for one in groups]}
        return {**answer, "NextToken": token} if token else answer

    def describe_feature(self, permit: Permit, request: Request) -> dict[str, Any]:
        """DescribeFeatureMetadata.

        Raises:
            NotFound: ``features.no_group``. Invalid: ``features.validation``: no such feature.
        """
        check("DescribeFeatureMetadata", request)
        with self._vault.database.reading(permit) as tx:
            group = find(tx, permit.account, request["FeatureGroupName"])
        name = request["FeatureName"]
        _check_feature(group, name)
        return {
            "FeatureGroupArn": _arn(group),
            "FeatureGroupName": group.name,
            "FeatureName": name,
            "FeatureType": group.features[group.index[name]].kind,
            "CreationTime": instant(group.created),
            "LastModifiedTime": instant(group.said.stamps.get(name, group.created)),
            **group.said.about.get(name, {}),
        }

    def update_feature(self, permit: Permit, request: Request) -> dict[str, Any]:
        """UpdateFeatureMetadata.

        Raises:
            NotFound: ``features.no_group``. Invalid: ``features.validation``: no such feature, or over 25 parameters.
        """
        check("UpdateFeatureMetadata", request)
        name, now = request["FeatureName"], iso(self._vault.clock.now())

        def change(group: Group) -> Said:
            _check_feature(group, name)
            about = {**group.said.about, name: _told_anew(group.said.about.get(name, {}), request)}
            return msgspec.structs.replace(group.said, about=about, stamps={**group.said.stamps, name: now})

        self._change(permit, request["FeatureGroupName"], change)
        return {}

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check_room(self, permit: Permit, tx: Connection, name: str) -> None:
        known = [one.name for one in every(tx, permit.account)]
        if name in known:
            raise Conflict("features.group_exists", "There is a feature group of that name; choose another one.")
        most = self._vault.settings.features.groups
        if len(known) >= most:
            raise Conflict("features.group_limit", f"The account has {most} feature groups (features.groups).")

    def _insert(self, permit: Permit, tx: Connection, said: Said) -> Group:
        group_id, now = self._vault.ids.new(), iso(self._vault.clock.now())
        name = said.request["FeatureGroupName"]
        content = {"workspace": self._vault.settings.workspace, "account": permit.account, "id": group_id}
        own = ref("featuregroup", canonical.dump(content))
        row = {
            "id": group_id,
            "account": permit.account,
            "name": name,
            "state": CREATED,
            "version": 1,
            "definition": msgspec.json.encode(said),
            "seq": 0,
            "turn": 0,
            "word": "",
            "created": now,
            "modified": now,
            "ref": own,
        }
        tx.execute(insert(table).values(**row))
        body = {"name": name, "features": len(said.request["FeatureDefinitions"])}
        self._nouns.write(tx, Noun(own, permit.account, CREATED.lower(), permit.act, (), body))
        permit.log.wrote(own)
        return Group(group_id, permit.account, name, CREATED, 1, now, now, own, said)

    def _change(self, permit: Permit, name: str, change: Callable[[Group], Said]) -> Group:
        """A change of the definition, which is of the version that it was made from."""
        with self._vault.database.transaction(permit) as tx:
            group = find(tx, permit.account, name)
            said = change(group)
            told = {"definition": msgspec.json.encode(said), "version": group.version + 1}
            now = iso(self._vault.clock.now())
            tx.execute(update(table).where(table.c.id == group.id).values(modified=now, **told))
            permit.log.wrote(group.ref)
        return group


def _check_create(request: Request) -> None:
    check("CreateFeatureGroup", request)
    definitions = request["FeatureDefinitions"]
    checked_features(definitions)
    kinds = {one["FeatureName"]: one for one in definitions}
    record, event = request["RecordIdentifierFeatureName"], request["EventTimeFeatureName"]
    if record not in kinds or event not in kinds or record == event:
        raise invalid("The record identifier and the event time are two of the FeatureDefinitions.")
    if kinds[record].get("CollectionType") or kinds[event].get("CollectionType"):
        raise invalid("The record identifier and the event time are no collections.")
    if kinds[event]["FeatureType"] == "Integral":
        raise invalid("The event time is a String or a Fractional.")
    online, offline = request.get("OnlineStoreConfig") or {}, request.get("OfflineStoreConfig")
    if not online.get("EnableOnlineStore") and offline is None:
        raise invalid("A feature group has an OnlineStoreConfig that is enabled, an OfflineStoreConfig, or both.")
    if offline and offline.get("TableFormat") == "Iceberg" and kinds[event]["FeatureType"] != "String":
        raise invalid("In an offline store of TableFormat Iceberg the event time is a String.")
    _check_ttl(online.get("TtlDuration"))


def _check_ttl(ttl: Request | None) -> None:
    if ttl and (ttl.get("Unit") is None) != (ttl.get("Value") is None):
        raise invalid("A TtlDuration has a Unit and a Value.")


def _with_more(group: Group, additions: Sequence[Request]) -> dict[str, Any]:
    known = group.said.request["FeatureDefinitions"]
    checked_features(additions, known)
    return {**group.said.request, "FeatureDefinitions": [*known, *additions]}


def _with_online(group: Group, wanted: Request) -> dict[str, Any]:
    if group.online is None:
        raise invalid("The feature group has no online store.")
    made = dict(group.online)
    if (kind := wanted.get("StorageType")) is not None:
        now = made.get("StorageType", "Standard")
        if kind != now and (now, kind) not in _STORAGE_MOVES:
            raise invalid("A StorageType is changed from Standard to Standard_V2, and from nothing else.")
        made["StorageType"] = kind
    if (ttl := wanted.get("TtlDuration")) is not None:
        _check_ttl(ttl)
        if ttl.get("Unit") is None:  # both are null: there is none from now on
            made.pop("TtlDuration", None)
        else:
            made["TtlDuration"] = dict(ttl)
    return {**group.said.request, "OnlineStoreConfig": made}


def _with_capacity(group: Group, wanted: Request) -> dict[str, Any]:
    told = {**(group.said.request.get("ThroughputConfig") or {}), **wanted}
    return {**group.said.request, "ThroughputConfig": told}


_PARTS: Mapping[str, Callable[[Group, Any], dict[str, Any]]] = {
    "FeatureAdditions": _with_more,
    "OnlineStoreConfig": _with_online,
    "ThroughputConfig": _with_capacity,
}
"""What UpdateFeatureGroup changes."""


def _check_feature(group: Group, name: str) -> None:
    if name not in group.index:
        raise invalid("The feature group does not define a feature of that name.")


def _told_anew(told: Request, request: Request) -> dict[str, Any]:
    made = dict(told)
    if request.get("Description") is not None:
        made["Description"] = request["Description"]
    parameters = {one["Key"]: one.get("Value", "") for one in told.get("Parameters", ())}
    parameters |= {one["Key"]: one.get("Value", "") for one in request.get("ParameterAdditions") or ()}
    for key in request.get("ParameterRemovals") or ():
        parameters.pop(key, None)
    if len(parameters) > 25:
        raise invalid("A feature has at most 25 parameters.")
    made["Parameters"] = [{"Key": key, "Value": value} for key, value in parameters.items()]
    return made


def _arn(group: Group) -> str:
    return arn("sagemaker", group.account, f"feature-group/{group.name}")


def _summary(group: Group) -> dict[str, Any]:
    said: dict[str, Any] = {
        "FeatureGroupName": group.name,
        "FeatureGroupArn": _arn(group),
        "CreationTime": instant(group.created),
        "FeatureGroupStatus": group.state,
    }
    return {**said, "OfflineStoreStatus": {"Status": "Active"}} if group.offline is not None else said


def _described(group: Group) -> dict[str, Any]:
    said = group.said.request
    copied = (
        "RecordIdentifierFeatureName",
        "EventTimeFeatureName",
        "FeatureDefinitions",
        "OnlineStoreConfig",
        "RoleArn",
        "Description",
    )
    told = {**_summary(group), **{name: said[name] for name in copied if name in said}}
    told |= {
        "LastModifiedTime": instant(group.modified),
        "LastUpdateStatus": {"Status": "Successful"},
        "NextToken": "",
        "ThroughputConfig": said.get("ThroughputConfig") or {"ThroughputMode": "OnDemand"},
    }
    if group.offline is not None:
        told["OfflineStoreConfig"] = _resolved(group, group.offline)
    return told


def _resolved(group: Group, offline: Request) -> dict[str, Any]:
    """With the place that its files would have on AWS: under the prefix that was asked for."""
    place = dict(offline["S3StorageConfig"])
    below = f"{group.account}/sagemaker/offline-store/{group.name}-{group.id[:10]}/data"
    place.setdefault("ResolvedOutputS3Uri", f"{place['S3Uri'].rstrip('/')}/{below}"[:1024])
    return {**offline, "S3StorageConfig": place}
