"""What keeps a version from being removed: retention, legal hold, and the lock of the audit zone.

The words are those of S3 Object Lock. ``governance``: may be shortened or lifted by who holds ``ZONE:keep``.
``compliance``: may be lengthened, and is never shortened or lifted by anybody. A legal hold has no end until it is
lifted. A locked zone is written once: its versions are under ``compliance`` from the start, and are not removed after
its end either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, select, update

from carelake.core.clock import Clock, instant, iso
from carelake.core.errors import Invalid, Refused
from carelake.vault.blobs import Blob, Guard
from carelake.vault.depot import Depot
from carelake.vault.places import LOCKED
from carelake.vault.space import users
from carelake.vault.tables import object_version
from carelake.vault.versions import ObjectVersion, told
from carelake.vault.vouched import voucher

__all__ = [
    "Mode",
    "check_free",
    "guard_of",
    "hold",
    "is_free",
    "lock_of",
    "locked",
    "protect",
    "retain",
    "strongest",
]

Mode = Literal["governance", "compliance"]
_T = object_version.c


def locked(zone: str) -> Refused:
    """The refusal to touch what is in a locked zone."""
    return Refused(
        "vault.locked", f"The zone {zone} is locked: its objects are never replaced or deleted.", zone=zone
    )


def lock_of(depot: Depot, zone: str) -> tuple[str, str]:
    """Mode and end of the retention that an object is written under; empty outside locked zones.

    The setting is six years at least (45 CFR 164.316(b)(2)); it refuses less.
    """
    if zone not in LOCKED:
        return "", ""
    days = depot.settings.audit.retention_days
    return "compliance", iso(depot.clock.now() + timedelta(days=days))


def guard_of(version: ObjectVersion) -> Guard:
    """The same for a driver."""
    until = instant(version.retain_until) if version.retain_until else None
    mode = version.retain_mode
    return Guard(mode if mode in get_args(Mode) else "", until, version.held)  # type: ignore[arg-type]


def strongest(rows: Iterable[Row[Any]], clock: Clock) -> Guard:
    """What keeps a blob that several versions use: any hold, and compliance or else governance at its longest."""
    guard = Guard()
    for row in rows:
        if row.held:
            guard = replace(guard, hold=True)
        if _retained(row, clock):
            mode, until = row.retain_mode, instant(row.retain_until)
            same = mode == guard.mode and guard.until is not None and until <= guard.until
            if not same and (mode == "compliance" or guard.mode != "compliance"):
                guard = replace(guard, mode=mode, until=until)
    return guard


def protect(connection: Connection, depot: Depot, blobs: Iterable[Blob]) -> None:
    """Have the place keep each blob as strongly as any version that uses it is kept."""
    for blob in blobs:
        depot.blobs.protect(blob, strongest(users(connection, [blob.object]), depot.clock))


def is_free(row: Row[Any], clock: Clock) -> bool:
    """May this version be removed?"""
    return row.zone not in LOCKED and not row.held and not _retained(row, clock)


def check_free(row: Row[Any], clock: Clock) -> None:
    """Let pass a version that may be removed.

    Raises:
        Refused: ``vault.locked``, ``vault.held``, ``vault.retained``.
    """
    if row.zone in LOCKED:
        raise locked(row.zone)
    if row.held:
        raise Refused(
            "vault.held", "A version of the object is under legal hold and is not removed; lift the hold first."
        )
    if _retained(row, clock):
        raise Refused(
            "vault.retained",
            f"A version of the object is under {row.retain_mode} retention until {row.retain_until}; "
            "it is not removed before.",
            until=row.retain_until,
        )


def _retained(row: Row[Any], clock: Clock) -> bool:
    return bool(row.retain_until) and instant(row.retain_until) > clock.now()


def retain(
    connection: Connection, depot: Depot, row: Row[Any], mode: Mode | None, until: datetime | None
) -> ObjectVersion:
    """Set, lengthen, or (under governance) shorten or lift the retention of a version.

    Raises:
        Refused: ``vault.retained``, it would weaken a compliance retention; ``vault.locked``.
        Invalid: ``vault.retention``, no such mode, or an end that is not ahead.
    """
    if row.zone in LOCKED:
        raise locked(row.zone)
    if (mode is None) != (until is None) or (mode is not None and mode not in get_args(Mode)):
        raise Invalid("vault.retention", "A retention has a mode, governance or compliance, and an end; or neither.")
    if until is not None and until <= depot.clock.now():
        raise Invalid("vault.retention", "The end of a retention lies ahead; this one is past.")
    weaker = mode != "compliance" or until is None or iso(until) < (row.retain_until or "")
    if row.retain_mode == "compliance" and _retained(row, depot.clock) and weaker:
        raise Refused(
            "vault.retained",
            f"The version is under compliance retention until {row.retain_until}, "
            "which can be lengthened and never shortened, lifted or changed to governance.",
            until=row.retain_until,
        )
    return _set(connection, depot, row, retain_mode=mode, retain_until=None if until is None else iso(until))


def hold(connection: Connection, depot: Depot, row: Row[Any], *, on: bool) -> ObjectVersion:
    """Put a version under legal hold, or lift it.

    Raises:
        Refused: ``vault.locked``: what is in a locked zone stays in any case.
    """
    if row.zone in LOCKED:
        raise locked(row.zone)
    return _set(connection, depot, row, held=on)


def _set(connection: Connection, depot: Depot, row: Row[Any], **values: Any) -> ObjectVersion:
    told(row, depot)  # what was altered is not vouched for anew
    values |= {"voucher": voucher(depot, {**row._mapping, **values})}
    connection.execute(update(object_version).where(_T.seq == row.seq).values(values))
    return told(connection.execute(select(object_version).where(_T.seq == row.seq)).one(), depot)
