"""``object``: one object at a time. The trail tells of zones and versions, never of names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from carelake.apps.cli.object_files import clear_file, copy, put_large, put_small, span_of
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.objects import ObjectVersion
from carelake.vault.places import ZONES, zone_of

__all__ = [
    "enter",
    "get",
    "hold",
    "ls",
    "purge",
    "put",
    "restore",
    "retain",
    "rm",
    "split",
    "tag",
    "verify",
    "version_json",
    "versions",
]

_NOT_INTACT = 6
_MOST_DAYS = 36_525
_COLUMNS = ["version", "size", "created", "current", "marker", "storage", "retained", "held"]


def split(path: str) -> tuple[str, str]:
    """Zone and name of ``ZONE/NAME``; `Invalid` ``apps.object_path`` or ``vault.zone``."""
    zone, slash, name = path.removeprefix("vault://").partition("/")
    if not slash or not name:
        raise Invalid("apps.object_path", "An object is named ZONE/NAME, for example landing/a.bin.")
    return zone_of(zone), name


def _in_a_zone(text: str) -> bool:
    return text.removeprefix("vault://").partition("/")[0] in ZONES


def enter(session: Session, verb: str, zone: str) -> AbstractContextManager[Permit]:
    """The gate, for ``object:VERB`` on a zone."""
    return session.workspace.enter(session.caller(), f"object:{verb}@{zone_of(zone)}", f"zone/{zone}")


def version_json(told: ObjectVersion) -> dict[str, Any]:
    """A version as a JSON object."""
    plain = asdict(told) | {"digest": f"sha256:{told.sha256}" + (f"-{told.parts}" if told.parts else "")}
    return {**plain, "retained": told.retain_until and f"{told.retain_mode} until {told.retain_until}"}


def _show(told: Sequence[ObjectVersion], columns: Sequence[str] = _COLUMNS) -> None:
    show(columns, [version_json(one) for one in told])


def put(
    session: Session,
    *,
    json_out: bool,
    path: str,
    source: str,
    tags: Sequence[str],
    if_none_match: bool,
    if_match: str | None,
    resume: bool,
) -> None:
    """Put a file; the order of ``cp`` is told by which of the two names a zone."""
    if not _in_a_zone(path) and _in_a_zone(source):
        path, source = source, path
    zone, name = split(path)
    where: dict[str, Any] = {"if_none_match": if_none_match, "if_match": if_match}
    objects, given = session.workspace.vault.objects, _pairs(tags)
    with enter(session, "write", zone) as permit, clear_file(source, "rb") as file:
        size = 0 if source == "-" else os.fstat(file.fileno()).st_size
        part = session.workspace.settings.objects.part_bytes
        if size > part:
            told, resumed = put_large(objects, permit, zone, name, file, size, given, where, resume=resume)
        else:
            told, resumed = put_small(objects, permit, zone, name, file, size, given, where), 0
        permit.log.wrote(f"object:{told.version}")
        permit.log.count(bytes=told.size)
    if json_out:
        answer(version_json(told) | {"resumed_parts": resumed})
    else:
        note(f"{told.size:,} bytes, version {told.version}, sha256 {told.sha256}.")


def get(
    session: Session, *, json_out: bool, path: str, out: str, version: str | None, span: str | None, force: bool
) -> None:
    """Get an object or a range of it; nothing is left of a file that was not got whole."""
    zone, name = split(path)
    with enter(session, "read", zone) as permit:
        objects = session.workspace.vault.objects
        told = objects.stat(permit, zone, name, version)
        start, length = span_of(span, told.size)
        with objects.open(permit, zone, name, told.version) as source, clear_file(out, "wb" if force else "xb") as to:
            source.seek(start)
            copy(source, to, length, "Getting")
        permit.log.read(f"object:{told.version}")
        permit.log.count(bytes=length)
    if json_out and out != "-":
        answer(version_json(told) | {"start": start, "length": length})


def ls(session: Session, *, json_out: bool, path: str) -> None:
    """List current objects."""
    zone, _, prefix = path.removeprefix("vault://").partition("/")
    with enter(session, "read", zone) as permit:
        found = session.workspace.vault.objects.list(permit, zone, prefix)
        permit.log.count(objects=len(found))
    if json_out:
        answer([version_json(one) for one in found])
    else:
        _show(found, ["name", "size", "created", "storage", "version"])


def versions(session: Session, *, json_out: bool, path: str) -> None:
    """List versions."""
    zone, name = split(path)
    with enter(session, "read", zone) as permit:
        found = session.workspace.vault.objects.versions(permit, zone, name)
        permit.log.count(versions=len(found))
    if json_out:
        answer([version_json(one) for one in found])
    else:
        _show(found)


def verify(session: Session, *, json_out: bool, path: str, version: str | None) -> int:
    """Verify one version."""
    zone, name = split(path)
    with enter(session, "read", zone) as permit:
        fault = session.workspace.vault.objects.check(permit, zone, name, version)
        permit.log.count(problems=int(fault is not None))
    if json_out:
        answer({"intact": fault is None, "reason": fault.reason if fault else None})
    else:
        note("Intact." if fault is None else f"NOT INTACT: {fault.reason}")
    return 0 if fault is None else _NOT_INTACT


def restore(session: Session, *, json_out: bool, path: str, version: str | None) -> None:
    """Restore a version."""
    zone, name = split(path)
    with enter(session, "write", zone) as permit:
        told = session.workspace.vault.objects.restore(permit, zone, name, version)
        permit.log.wrote(f"object:{told.version}")
    _done(told, json_out, f"Version {told.version} is the current one, {told.size:,} bytes.")


def rm(session: Session, *, json_out: bool, path: str, version: str | None) -> None:
    """Delete an object, or one version of it."""
    zone, name = split(path)
    with enter(session, "write", zone) as permit:
        marker = session.workspace.vault.objects.remove(permit, zone, name, version=version)
        permit.log.count(removed=1)
    if json_out:
        answer({"removed": True, "marker": marker.version if marker else None, "version": version})
    else:
        note("Deleted; `carelake object restore` brings it back." if marker else "Removed with its bytes.")


def tag(
    session: Session,
    *,
    json_out: bool,
    path: str,
    pairs: Sequence[str],
    remove: Sequence[str],
    version: str | None,
) -> None:
    """Show or change tags."""
    zone, name = split(path)
    objects = session.workspace.vault.objects
    if pairs or remove:
        with enter(session, "write", zone) as permit:
            told = objects.tag(permit, zone, name, _pairs(pairs), remove=tuple(remove), version=version)
            permit.log.wrote(f"object:{told.version}")
    else:
        with enter(session, "read", zone) as permit:
            told = objects.stat(permit, zone, name, version)
            permit.log.read(f"object:{told.version}")
    if json_out:
        answer(version_json(told))
    else:
        show(["tag", "value"], [{"tag": key, "value": value} for key, value in sorted(told.tags.items())])


def hold(session: Session, *, json_out: bool, path: str, state: str, version: str | None) -> None:
    """Legal hold on or off."""
    zone, name = split(path)
    if state not in ("on", "off"):
        raise Invalid("apps.hold", "A hold is on or off; say one of the two.")
    with enter(session, "keep", zone) as permit:
        keeping = session.workspace.vault.objects.keeping
        told = keeping.hold(permit, zone, name, on=state == "on", version=version)
    _done(told, json_out, f"Version {told.version} is {'' if told.held else 'not '}under legal hold.")


def retain(
    session: Session,
    *,
    json_out: bool,
    path: str,
    until: str | None,
    days: int | None,
    mode: str,
    lift: bool,
    version: str | None,
    yes: bool,
) -> None:
    """Set, lengthen or lift a retention."""
    zone, name = split(path)
    if sum((until is not None, days is not None, lift)) != 1:
        raise Invalid("apps.retain", "Say until when: one of --until, --days and --lift.")
    if mode == "compliance" and not lift and not yes:
        raise Invalid("apps.retain_yes", "Nobody can shorten or lift a compliance retention; say --yes as well.")
    end = None if lift else _end(session.workspace.vault.clock.now(), until, days)
    with enter(session, "keep", zone) as permit:
        keeping = session.workspace.vault.objects.keeping
        told = keeping.retain(permit, zone, name, None if lift else mode, end, version=version)  # type: ignore[arg-type]
    said = f"kept until {told.retain_until} ({told.retain_mode})" if told.retain_until else "under no retention"
    _done(told, json_out, f"Version {told.version} is {said}.")


def purge(session: Session, *, json_out: bool, path: str, yes: bool) -> None:
    """Remove an object for good."""
    zone, name = split(path)
    if not yes:
        raise Invalid("apps.purge", "A purge cannot be undone; say --yes as well.")
    with enter(session, "keep", zone) as permit:
        number = session.workspace.vault.objects.keeping.purge(permit, zone, name)
        permit.log.count(purged=number)
    if json_out:
        answer({"purged": number})
    else:
        note(f"Gone for good: {number} versions.")


def _done(told: ObjectVersion, json_out: bool, words: str) -> None:
    if json_out:
        answer(version_json(told))
    else:
        note(words)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Invalid("apps.tag", "A tag is given as KEY=VALUE.")
        found[key] = value
    return found


def _end(now: datetime, until: str | None, days: int | None) -> datetime:
    """When a retention ends, which a slip of the finger must not put off for ever."""
    if until is None and 0 < (days or 0) <= _MOST_DAYS:
        return now + timedelta(days=days or 0)
    if until is None or (end := _moment(until)) > now + timedelta(days=_MOST_DAYS):
        raise Invalid(
            "apps.retain", "A retention is of 1 day at least and of 100 years at most; name an earlier end."
        )
    return end


def _moment(text: str) -> datetime:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        return instant(text)
    except ValueError:
        raise Invalid("apps.retain", "A date is written 2032-11-22, or as an instant with its offset.") from None
