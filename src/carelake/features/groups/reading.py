"""What GetRecord and BatchGetRecord answer, in the caller's snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from carelake.audit.patients import note
from carelake.core.errors import CarelakeError, Gone, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.features.groups import online
from carelake.features.groups.definition import Group
from carelake.features.groups.known import find
from carelake.features.groups.shapes import invalid
from carelake.features.groups.sight import shows
from carelake.features.groups.stores import store_of
from carelake.features.groups.values import as_record, check_identifier, micros, zulu
from carelake.vault.workspace import Vault

__all__ = ["Answer", "Found", "code_of", "online_group", "read"]

_ANSWER_BYTES = 10 << 20


class Found(NamedTuple):
    """A record that is there, with the features that were asked for.

    Attributes:
        size: bytes, about: as the whole record is stored, or of the features that were asked for.
    """

    name: str
    record: list[dict[str, Any]]
    expires: int | None
    size: int

    def said(self, expirations: bool) -> dict[str, Any]:
        """``Record``, and ``ExpiresAt`` where it is asked for."""
        told: dict[str, Any] = {"Record": self.record}
        return {**told, "ExpiresAt": zulu(self.expires)} if expirations and self.expires is not None else told


def read(
    permit: Permit, tx: Connection, vault: Vault, group: Group, records: Sequence[str], names: Sequence[str] | None
) -> Iterator[Found]:
    """What is there of these, in their order; each is opened when it is its turn.

    Raises:
        Invalid: ``features.validation``: a feature that the group does not define.
    """
    if names is not None and not set(names) <= group.index.keys():
        raise invalid("FeatureNames has one that the feature group does not define.")
    now, shown = micros(vault.clock.now()), shows(permit, tx)
    found = store_of(vault, group).latest(permit, tx, vault, group, records)
    rows = [found[one] for one in dict.fromkeys(records) if one in found]
    rows = [row for row in rows if not row.deleted and row.there(now) and (shown is None or shown(row.owner))]
    # Whoever holds no grant on the zone reads no features, though the rows are rows.
    vault.keyring.use(permit, "features:read", f"{permit.account}/features")
    return _opened(permit, tx, vault, group, rows, names) if rows else iter(())


def _opened(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    group: Group,
    rows: Sequence[online.Latest],
    names: Sequence[str] | None,
) -> Iterator[Found]:
    keys = vault.sealer.keys_for(permit, tx, [row.owner for row in rows], create=False)
    note(permit, vault.keyring, [row.owner for row in rows])
    for row in rows:
        try:
            values = online.unpacked(keys.open(row.owner, online.row_context(group.id, row.record), row.sealed))
        except Gone:
            continue
        said = as_record(group, values, names)
        yield Found(row.record, said, row.expires, len(row.sealed) if names is None else _size(said))


def _size(record: list[dict[str, Any]]) -> int:
    """Characters of values."""
    return sum(len(one.get("ValueAsString", "")) + sum(map(len, one.get("ValueAsStringList", ()))) for one in record)


class Answer:
    """BatchGetRecord's answer, as it grows.

    Attributes:
        said: Records, Errors, and UnprocessedIdentifiers: those beyond 10 MiB of values, to be asked again.
    """

    def __init__(self, expirations: bool) -> None:
        self._expirations = expirations
        self._room = _ANSWER_BYTES
        self.said: dict[str, list[dict[str, Any]]] = {"Records": [], "Errors": [], "UnprocessedIdentifiers": []}

    def add(self, permit: Permit, tx: Connection, vault: Vault, asked: Mapping[str, Any]) -> None:
        """What is asked of one group."""
        name, wanted = asked["FeatureGroupName"], list(dict.fromkeys(asked["RecordIdentifiersValueAsString"]))
        before = len(self.said["Errors"])
        try:
            group = online_group(tx, permit.account, name)
            good = [one for one in wanted if self._is_one(group, name, one)]
            found = read(permit, tx, vault, group, good, asked.get("FeatureNames"))
        except (Invalid, NotFound) as error:
            self.said["Errors"][before:] = [_error(name, one, error) for one in wanted]
            return
        for one in found:
            self._room -= one.size
            if self._room < 0 and self.said["Records"]:
                left = good[good.index(one.name) :]
                self.said["UnprocessedIdentifiers"].append({**asked, "RecordIdentifiersValueAsString": left})
                break
            told = {"FeatureGroupName": group.name, "RecordIdentifierValueAsString": one.name}
            self.said["Records"].append({**told, **one.said(self._expirations)})

    def _is_one(self, group: Group, name: str, record: str) -> bool:
        try:
            check_identifier(group, record)
        except Invalid as error:
            self.said["Errors"].append(_error(name, record, error))
            return False
        return True


def online_group(tx: Connection, account: str, name: str) -> Group:
    """The group; `Invalid` ``features.validation`` where it has no online store."""
    group = find(tx, account, name)
    if group.online is None:
        raise invalid("The feature group has no online store.")
    return group


def code_of(error: CarelakeError) -> str:
    """What AWS calls an error of one entry."""
    return "ResourceNotFound" if isinstance(error, NotFound) else "ValidationError"


def _error(name: str, record: str, error: CarelakeError) -> dict[str, Any]:
    told = {"FeatureGroupName": name, "RecordIdentifierValueAsString": record}
    return {**told, "ErrorCode": code_of(error), "ErrorMessage": error.message}
