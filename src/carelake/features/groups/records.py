"""Records of feature groups: the operations of SageMaker's Feature Store runtime, on both stores.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Feature_Store_Runtime.html

A write is one transaction: the online record and the row of the offline log. Of records of one identifier the online
store has the one with the latest event time; what is not later than that is history, and goes to the offline store
alone. A record that has expired, by the injected clock, is as if it had been removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.audit.patients import note
from carelake.core.errors import Conflict, Invalid, NotFound, Unavailable
from carelake.core.permit import Permit
from carelake.features.groups import online
from carelake.features.groups.definition import Group
from carelake.features.groups.known import find
from carelake.features.groups.listing import Pages
from carelake.features.groups.reading import Answer, code_of, online_group, read
from carelake.features.groups.shapes import check, invalid
from carelake.features.groups.sight import check_whole, shows
from carelake.features.groups.stores import settle
from carelake.features.groups.values import (
    as_record,
    check_identifier,
    event_micros,
    expiry,
    micros,
    record_values,
    until,
)
from carelake.features.groups.writing import ONLINE, Entry, erased_values, keep, mark, stores_of
from carelake.vault.workspace import Vault

__all__ = ["Records"]

Record = Sequence[Mapping[str, Any]]
Ttl = Mapping[str, Any]

_AT_ONCE = 100
_UPDATED = 100
_UPDATABLE = ("Standard_V2", "InMemory")


class Records:
    """Records of the feature groups of a workspace. Arguments are botocore's, in snake_case; so are the answers.

    Errors and what AWS calls them: `Invalid` ValidationError, `NotFound` ResourceNotFound, `Conflict`
    ConflictException, `Refused` AccessForbidden, `Unavailable` ServiceUnavailable.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def _now(self) -> int:
        return micros(self._vault.clock.now())

    def _settled(self, permit: Permit, work: Callable[[Connection], list[Group]]) -> dict[str, Any]:
        """Done, with the writes of others that wait, and told to the copies of these groups; answers nothing."""
        settle(permit, self._vault, self._vault.database.grouped(permit, work))
        return {}

    # -- write ----------------------------------------------------------------------------------------------------

    def put_record(
        self,
        permit: Permit,
        *,
        feature_group_name: str,
        record: Record,
        target_stores: Sequence[str] | None = None,
        ttl_duration: Ttl | None = None,
    ) -> dict[str, Any]:
        """PutRecord: overwrite the whole record. Needs ``features:write``, ``rows:read``, ``rows:write``.

        Raises:
            Invalid: ``features.validation``. NotFound: ``features.no_group``.
        """
        told = {"FeatureGroupName": feature_group_name, "Record": record}
        check("PutRecord", {**told, "TargetStores": target_stores, "TtlDuration": ttl_duration})
        check_whole(permit)
        called = self._now()

        def work(tx: Connection) -> list[Group]:
            entry = _entry(tx, permit, {**told, "TargetStores": target_stores, "TtlDuration": ttl_duration}, called)
            keep(permit, tx, self._vault, [entry])
            return [entry.group]

        return self._settled(permit, work)

    def batch_write_record(
        self, permit: Permit, *, entries: Sequence[Mapping[str, Any]], ttl_duration: Ttl | None = None
    ) -> dict[str, Any]:
        """BatchWriteRecord: each entry by itself; those that cannot be written are told, with why.

        Raises:
            Invalid: ``features.validation``, of the request itself.
        """
        _check_entries(entries, ttl_duration)
        check_whole(permit)
        called, errors = self._now(), list[dict[str, Any]]()

        def work(tx: Connection) -> list[Group]:
            good = []
            for one in entries:
                try:
                    check("BatchWriteRecord", {"Entries": [one]})
                    wanted = {**one, "TtlDuration": one.get("TtlDuration") or ttl_duration}
                    good.append(_entry(tx, permit, wanted, called))
                except (Invalid, NotFound) as error:
                    errors.append({"Entry": one, "ErrorCode": code_of(error), "ErrorMessage": error.message})
            keep(permit, tx, self._vault, good)
            return [one.group for one in good]

        try:
            self._settled(permit, work)
        except Unavailable:
            return {"Errors": [], "UnprocessedEntries": list(entries)}
        return {"Errors": errors, "UnprocessedEntries": []}

    def delete_record(
        self,
        permit: Permit,
        *,
        feature_group_name: str,
        record_identifier_value_as_string: str,
        event_time: str,
        target_stores: Sequence[str] | None = None,
        deletion_mode: str | None = None,
    ) -> dict[str, Any]:
        """DeleteRecord: softly (its event time still counts) or hard; the offline store gets a marker.

        Where the event time is not later than the stored record's: a soft deletion writes the marker alone, a hard
        one is refused.

        Raises:
            Invalid: ``features.validation``. NotFound: ``features.no_group``.
        """
        told = {
            "FeatureGroupName": feature_group_name,
            "RecordIdentifierValueAsString": record_identifier_value_as_string,
            "EventTime": event_time,
            "TargetStores": target_stores,
            "DeletionMode": deletion_mode,
        }
        check("DeleteRecord", told)
        check_whole(permit)
        called = self._now()

        def work(tx: Connection) -> list[Group]:
            group = find(tx, permit.account, feature_group_name)
            values = erased_values(group, record_identifier_value_as_string, event_time)
            event = event_micros(event_time, group.event_kind)
            entry = Entry(group, values, event, None, stores_of(group, target_stores), called)
            mark(permit, tx, self._vault, entry, hard=deletion_mode == "HardDelete")
            return [group]

        return self._settled(permit, work)

    def update_record(
        self,
        permit: Permit,
        *,
        feature_group_name: str,
        record_identifier_value_as_string: str,
        features: Record,
        target_stores: Sequence[str] | None = None,
        ttl_duration: Ttl | None = None,
    ) -> dict[str, Any]:
        """UpdateRecord: change some features of a record that is there, in a Standard_V2 or InMemory group.

        Raises:
            NotFound: ``features.no_record``, ``features.no_group``.
            Conflict: ``features.older``: the event time is before the record's. Invalid: ``features.validation``.
        """
        told = {
            "FeatureGroupName": feature_group_name,
            "RecordIdentifierValueAsString": record_identifier_value_as_string,
            "Features": features,
            "TargetStores": target_stores,
            "TtlDuration": ttl_duration,
        }
        check("UpdateRecord", told)
        check_whole(permit)
        called = self._now()

        def work(tx: Connection) -> list[Group]:
            group = find(tx, permit.account, feature_group_name)
            stores = stores_of(group, target_stores)
            entry = self._updated(permit, tx, group, record_identifier_value_as_string, features, ttl_duration)
            keep(permit, tx, self._vault, [entry._replace(stores=stores, called=called)], same=True)
            return [group]

        return self._settled(permit, work)

    def _updated(
        self, permit: Permit, tx: Connection, group: Group, record: str, features: Record, ttl: Ttl | None
    ) -> Entry:
        """The whole record after an update."""
        _check_update(group, features, record, ttl)
        now = self._now()
        found = online.latest(tx, group.id, [record]).get(record)
        if found is None or found.deleted or not found.there(now):
            raise NotFound("features.no_record", "There is no such record in the online store; PutRecord makes one.")
        given = {one["FeatureName"]: one for one in features}
        event = found.event
        if group.event in given:
            event = event_micros(str(given[group.event].get("ValueAsString") or ""), group.event_kind)
        if event < found.event:
            raise Conflict(
                "features.older", "The EventTime is before the record's own; get the record and update it as it is."
            )
        keys = self._vault.sealer.keys_for(permit, tx, [found.owner], create=False)
        old = online.unpacked(keys.open(found.owner, online.row_context(group.id, record), found.sealed))
        merged = {one["FeatureName"]: one for one in as_record(group, old)} | given
        lives = None if found.expires is None else found.expires - found.event
        expires = expiry(event, ttl) if ttl else None if lives is None else until(event + lives)
        return Entry(group, record_values(group, list(merged.values())), event, expires, frozenset(), 0)

    # -- read -----------------------------------------------------------------------------------------------------

    def get_record(
        self,
        permit: Permit,
        *,
        feature_group_name: str,
        record_identifier_value_as_string: str,
        feature_names: Sequence[str] | None = None,
        expiration_time_response: str | None = None,
    ) -> dict[str, Any]:
        """GetRecord: the latest record; an empty answer where there is none. Needs ``features:read``, ``rows:read``.

        Raises:
            Invalid: ``features.validation``, also for a group without an online store.
            NotFound: ``features.no_group``.
        """
        record = record_identifier_value_as_string
        told = {"FeatureGroupName": feature_group_name, "RecordIdentifierValueAsString": record}
        check(
            "GetRecord",
            {**told, "FeatureNames": feature_names, "ExpirationTimeResponse": expiration_time_response},
        )
        with self._vault.database.reading(permit) as tx:
            group = online_group(tx, permit.account, feature_group_name)
            check_identifier(group, record)
            found = read(permit, tx, self._vault, group, [record], feature_names)
            return next((one.said(expiration_time_response == "Enabled") for one in found), {})

    def batch_get_record(
        self,
        permit: Permit,
        *,
        identifiers: Sequence[Mapping[str, Any]],
        expiration_time_response: str | None = None,
    ) -> dict[str, Any]:
        """BatchGetRecord: records of several groups; those that are not there are left out.

        An answer holds 10 MiB of values; what is beyond is in ``UnprocessedIdentifiers``, to be asked again.

        Raises:
            Invalid: ``features.validation``: also for more than 100 identifiers altogether.
        """
        check("BatchGetRecord", {"Identifiers": identifiers, "ExpirationTimeResponse": expiration_time_response})
        if sum(len(one["RecordIdentifiersValueAsString"]) for one in identifiers) > _AT_ONCE:
            raise invalid(f"BatchGetRecord reads at most {_AT_ONCE} records.")
        answer = Answer(expiration_time_response == "Enabled")
        with self._vault.database.reading(permit) as tx:
            for one in identifiers:
                answer.add(permit, tx, self._vault, one)
        return answer.said

    def list_records(
        self,
        permit: Permit,
        *,
        feature_group_name: str,
        max_results: int | None = None,
        next_token: str | None = None,
        include_soft_deleted_records: bool | None = None,
    ) -> dict[str, Any]:
        """ListRecords: identifiers of the online store, in order.

        Raises:
            Invalid: ``features.validation``. NotFound: ``features.no_group``.
        """
        told = {"FeatureGroupName": feature_group_name, "MaxResults": max_results, "NextToken": next_token}
        check("ListRecords", {**told, "IncludeSoftDeletedRecords": include_soft_deleted_records})
        limit = max_results or _AT_ONCE
        made: list[str] = []
        with self._vault.database.reading(permit) as tx:
            group = online_group(tx, permit.account, feature_group_name)
            pages = Pages(permit, self._vault.keyring, group.id, bool(include_soft_deleted_records))
            after = "".join(pages.read(next_token, 1))
            shown, now = shows(permit, tx), self._now()
            owners: set[str] = set()
            while len(made) <= limit:
                some = online.page(tx, group.id, after, now, limit + 1, deleted=bool(include_soft_deleted_records))
                seen = [(record, owner) for record, owner in some if shown is None or shown(owner)]
                made += [record for record, _ in seen]
                owners.update(owner for _, owner in seen)
                if len(some) <= limit:
                    break
                after = some[-1][0]
            note(permit, self._vault.keyring, owners)
        answer: dict[str, Any] = {"RecordIdentifiers": made[:limit]}
        return {**answer, "NextToken": pages.make(made[limit - 1])} if len(made) > limit else answer


def _entry(tx: Connection, permit: Permit, said: Mapping[str, Any], called: int) -> Entry:
    group = find(tx, permit.account, said["FeatureGroupName"])
    values = record_values(group, said["Record"])
    event = event_micros(str(values[group.index[group.event]]), group.event_kind)
    ttl = said.get("TtlDuration")
    stores = stores_of(group, said.get("TargetStores"))
    if ttl and ONLINE not in stores:
        raise invalid("TtlDuration is of the online store, which this is not written to.")
    return Entry(group, values, event, expiry(event, ttl or group.ttl), stores, called)


def _check_entries(entries: Sequence[Mapping[str, Any]], ttl: Ttl | None) -> None:
    """The request itself; what is wrong with an entry is told beside the others."""
    stand_in = {"FeatureGroupName": "a", "Record": [{"FeatureName": "a", "ValueAsString": ""}]}
    told = [stand_in] * len(entries) if isinstance(entries, list | tuple) else entries
    check("BatchWriteRecord", {"Entries": told, "TtlDuration": ttl})


def _check_update(group: Group, features: Record, record: str, ttl: Ttl | None) -> None:
    if group.online is None or group.online.get("StorageType", "Standard") not in _UPDATABLE:
        raise invalid("UpdateRecord is for feature groups whose online store is Standard_V2 or InMemory.")
    if len(features) > _UPDATED:
        raise invalid(f"UpdateRecord changes at most {_UPDATED} features.")
    names = [one["FeatureName"] for one in features]
    if len(set(names)) < len(names):
        raise invalid("The record has a feature twice.")
    if ttl and group.event not in names:
        raise invalid("A TtlDuration needs an EventTime beside it.")
    own = next((one for one in features if one["FeatureName"] == group.record), None)
    if own is not None and own.get("ValueAsString") != record:
        raise invalid("The record identifier cannot be changed.")
