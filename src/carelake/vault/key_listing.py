"""What can be told of the keys: names, versions, states, ages, holds and policies; never key material."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select

from carelake.core.clock import Clock, instant, iso
from carelake.core.permit import Permit, check
from carelake.core.settings import KeysSettings
from carelake.vault.database import Database
from carelake.vault.destruction import Pending, pending, targets
from carelake.vault.key_names import KeyKind, kind_of_key
from carelake.vault.keyring import Keyring
from carelake.vault.ring import ROOT, Entry, KeyPolicy, RingFile
from carelake.vault.rotation import rotates_at
from carelake.vault.tables import object_version, patient_key

__all__ = ["Impact", "KeyInfo", "impact", "listing"]


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One version of one key.

    Attributes:
        state: ``active``, ``retired`` (reads only), ``disabled``, ``pending`` (to be destroyed), ``destroyed``.
        age_days: whole days since it was made.
        rotates_at: when the newest version is due by age; None where it never is.
        provider: of the root key only.
    """

    name: str
    version: int
    kind: KeyKind
    state: str
    created: str
    age_days: int
    rotates_at: str | None
    due: bool
    policy: KeyPolicy | None
    destruction: Pending | None
    provider: str = ""
    kit: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """``production/clinical/v1``."""
        return f"{self.name}/v{self.version}"


def listing(permit: Permit, keyring: Keyring, clock: Clock, settings: KeysSettings) -> list[KeyInfo]:
    """Every version of every key, the root first.

    Raises:
        Refused: the permit has no grant ``keys:read``.
    """
    check(permit, "keys:read", now=clock.now())
    file, now = keyring.current().file, clock.now()
    return [_root(file, now), *(_info(file, entry, settings, now) for entry in sorted(file.keys, key=_order))]


def _order(entry: Entry) -> tuple[str, int]:
    return entry.name, entry.version


def _root(file: RingFile, now: datetime) -> KeyInfo:
    root = file.root
    kit = msgspec.to_builtins(file.kit) if file.kit else None
    if kit is not None:
        kit["of_this_root"] = kit["root_version"] == root.version
    age = _age(root.made, now)
    return KeyInfo(ROOT, root.version, "root", "active", root.made, age, None, False, None, None, root.provider, kit)


def _info(file: RingFile, entry: Entry, settings: KeysSettings, now: datetime) -> KeyInfo:
    at = rotates_at(file, settings, entry.name) if entry.state == "active" else None
    waiting = {one.key: one for one in pending(file)}
    parent = entry.name.partition("/")[0]
    keys = (entry.label, entry.name, parent)
    return KeyInfo(
        entry.name,
        entry.version,
        kind_of_key(entry.name),
        _state(file, entry, keys),
        entry.created,
        _age(entry.created, now),
        at,
        at is not None and at <= iso(now),
        file.policies.get(entry.name),
        next((waiting[key] for key in keys if key in waiting), None),
    )


def _state(file: RingFile, entry: Entry, keys: tuple[str, ...]) -> str:
    if entry.state == "destroyed":
        return "destroyed"
    holds = [file.holds[key] for key in keys if key in file.holds]
    if any(hold.destruction and hold.destruction.confirmed_at for hold in holds):
        return "pending"
    return "disabled" if any(hold.disabled_at for hold in holds) else entry.state


def _age(created: str, now: datetime) -> int:
    return max(0, (now - instant(created)).days) if created else 0


@dataclass(frozen=True, slots=True)
class Impact:
    """What a destruction would make unreadable.

    Attributes:
        keys: labels of the versions that would go.
        objects: by ``ACCOUNT/ZONE``, versions of objects. Of one version of a key: those written while it was the
            newest, told by their times.
        patients: by account, patients whose key is wrapped by what would go.
        rows: by table, rows sealed for no patient, of the account; for a whole key only.
    """

    keys: tuple[str, ...]
    objects: dict[str, int]
    patients: dict[str, int]
    rows: dict[str, int]

    @property
    def total(self) -> int:
        """Everything counted."""
        return sum((*self.objects.values(), *self.patients.values(), *self.rows.values()))


def impact(permit: Permit, keyring: Keyring, database: Database, clock: Clock, key: str) -> Impact:
    """Count first what a destruction would make unreadable.

    Raises:
        Refused: the permit has no grant ``keys:read``. NotFound: ``vault.no_such_key``.
    """
    check(permit, "keys:read", now=clock.now())
    file = keyring.current().file
    gone = [entry for entry in targets(file, key) if entry.state != "destroyed"]
    objects: dict[str, int] = {}
    patients: dict[str, int] = {}
    rows: dict[str, int] = {}
    with database.snapshot() as connection:
        for entry in gone:
            kind, account = kind_of_key(entry.name), entry.name.partition("/")[0]
            if kind == "zone":
                count = connection.execute(_objects(file, entry)).scalar_one()
                objects[entry.name] = objects.get(entry.name, 0) + int(count)
            elif kind == "patient":
                count = connection.execute(_patients(account, entry.version)).scalar_one()
                patients[account] = patients.get(account, 0) + int(count)
    return Impact(tuple(entry.label for entry in gone), objects, patients, rows)


def _objects(file: RingFile, entry: Entry) -> Any:
    account, _, zone = entry.name.partition("/")
    column = object_version.c
    query = select(func.count()).select_from(object_version)
    query = query.where(column.account == account, column.zone == zone, ~column.deleted)
    after = [one.created for one in file.keys if one.name == entry.name and one.version == entry.version + 1]
    if entry.version > 1:
        query = query.where(column.created >= entry.created)
    return query.where(column.created < after[0]) if after else query


def _patients(account: str, version: int) -> Any:
    column = patient_key.c
    query = select(func.count(func.distinct(column.patient)))
    return query.where(column.account == account, column.parent_version == version)
