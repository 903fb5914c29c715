"""What a record's write comes to in both stores, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from carelake.audit.patients import note
from carelake.core.permit import Permit
from carelake.features.groups import log, online, turns
from carelake.features.groups.definition import Group
from carelake.features.groups.shapes import invalid
from carelake.features.groups.values import Values, expiry, micros
from carelake.vault.workspace import Vault

__all__ = ["OFFLINE", "ONLINE", "Entry", "erased_values", "keep", "mark", "stores_of"]

ONLINE, OFFLINE = "OnlineStore", "OfflineStore"


class Entry(NamedTuple):
    """A record on its way; times in microseconds since 1970 UTC.

    Attributes:
        expires: of the online record, None for never.
        called: when the operation was invoked.
    """

    group: Group
    values: Values
    event: int
    expires: int | None
    stores: frozenset[str]
    called: int

    @property
    def record(self) -> str:
        """The record identifier."""
        return str(self.values[self.group.index[self.group.record]])


def stores_of(group: Group, asked: Sequence[str] | None) -> frozenset[str]:
    """The stores that a write goes to: by default all that the group has.

    Raises:
        Invalid: ``features.validation``: one that the group has not.
    """
    there = {ONLINE} if group.online is not None else set()
    there |= {OFFLINE} if group.offline is not None else set()
    wanted = frozenset(asked) if asked else frozenset(there)
    if not wanted <= there:
        raise invalid("TargetStores has a store that the feature group has not.")
    return wanted


def erased_values(group: Group, record: str, event_time: str) -> Values:
    """A record with its identifier and event time alone, each in its type.

    Raises:
        Invalid: ``features.validation``.
    """
    from carelake.features.groups.values import record_values

    said = [{"FeatureName": group.record, "ValueAsString": record}]
    return record_values(group, [*said, {"FeatureName": group.event, "ValueAsString": event_time}])


def keep(permit: Permit, tx: Connection, vault: Vault, entries: Sequence[Entry], *, same: bool = False) -> None:
    """Write records, in order.

    Args:
        same: a record of the same event time as the stored one takes its place, too.
    """
    vault.keyring.use(permit, "features:write", f"{permit.account}/features")
    owners = [one.group.owner(one.values) for one in entries]
    keys = vault.sealer.keys_for(permit, tx, owners)
    note(permit, vault.keyring, owners)
    now = micros(vault.clock.now())
    for one, owner in zip(entries, owners, strict=True):
        group = one.group.id
        if ONLINE in one.stores:
            found = online.latest(tx, group, [one.record]).get(one.record)
            if found is None or not found.there(now) or one.event > found.event - same:
                row = online.Latest(one.record, owner, one.event, one.expires, False, b"")
                if row.there(now):
                    online.put(tx, keys, permit.account, group, [(row, online.packed(one.values))])
                else:  # it has expired before it came
                    online.drop(tx, group, [one.record])
        if OFFLINE in one.stores:
            ref = log.teller(permit, vault, group)(one.record)
            logged = log.Logged(owner, one.called, now, False, ref, one.values)
            log.append(tx, keys, permit.account, group, [logged])
        if ONLINE in one.stores:
            turns.changed(permit, tx, vault, one.group, [one.record])
    permit.log.count(features_records=len(entries))


def mark(permit: Permit, tx: Connection, vault: Vault, entry: Entry, *, hard: bool) -> None:
    """Delete a record.

    Raises:
        Invalid: ``features.validation``: hard, and not later than what is stored: nothing is written.
    """
    vault.keyring.use(permit, "features:write", f"{permit.account}/features")
    group, record, now = entry.group, entry.record, micros(vault.clock.now())
    found = online.latest(tx, group.id, [record]).get(record) if group.online is not None else None
    stored = found if found is not None and found.there(now) else None
    # A marker says no features, so not whose it is: that is known of the record that goes, or by the identifier.
    owner = group.owner(entry.values) or (found.owner if found else "")
    keys = vault.sealer.keys_for(permit, tx, [owner])
    note(permit, vault.keyring, [owner])
    if ONLINE in entry.stores:
        if stored is None or entry.event > stored.event:
            if hard:
                online.drop(tx, group.id, [record])
            else:
                expires = stored.expires if stored else expiry(entry.event, group.ttl)
                row = online.Latest(record, owner, entry.event, expires, True, b"")
                online.put(tx, keys, permit.account, group.id, [(row, online.packed(entry.values))])
        elif hard:
            raise invalid("EventTime is not later than that of the stored record, so it is not deleted.")
        turns.changed(permit, tx, vault, entry.group, [record])
    if OFFLINE in entry.stores:
        ref = log.teller(permit, vault, group.id)(record)
        logged = log.Logged(owner, entry.called, now, True, ref, entry.values)
        log.append(tx, keys, permit.account, group.id, [logged])
    permit.log.count(features_deleted=1)
