"""``object``: usage, inventory, lifecycle and uploads of whole zones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from carelake.apps.cli.objects import enter, version_json
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core import canonical
from carelake.vault.places import ZONES, zone_of

__all__ = ["inventory", "lifecycle", "uploads", "usage"]


def usage(session: Session, *, json_out: bool) -> None:
    """Counts and bytes."""
    with session.workspace.enter(session.caller(), "object:report", "workspace") as permit:
        found = session.workspace.vault.objects.report.usage(permit)
        permit.log.count(objects=sum(row["objects"] for row in found))
    if json_out:
        answer({"account": permit.account, "zones": found, "bytes": sum(row["bytes"] for row in found)})
    else:
        columns = [
            "zone",
            "storage",
            "objects",
            "versions",
            "markers",
            "bytes",
            "stored",
            "held",
            "retained",
            "uploads",
        ]
        show(columns, found)


def inventory(session: Session, *, json_out: bool, zone: str, into: str | None) -> None:
    """List every version of a zone, or write the list as an object of the zone."""
    report = session.workspace.vault.objects.report
    if into is None:
        with enter(session, "read", zone) as permit:
            found = [version_json(one) for one in report.inventory(permit, zone)]
            permit.log.count(versions=len(found))
        if json_out:
            answer(found)
        else:
            show(["name", "version", "size", "created", "current", "marker", "storage", "retained", "held"], found)
        return
    with enter(session, "write", zone) as permit:
        count = 0
        with session.workspace.vault.objects.writer(permit, zone, into) as out:
            for one in report.inventory(permit, zone):
                out.write(canonical.dump(version_json(one)) + b"\n")
                count += 1
        permit.log.count(versions=count)
    if json_out:
        answer({"versions": count})
    else:
        note(f"{count:,} versions listed in that object.")


def lifecycle(session: Session, *, json_out: bool, zones: Sequence[str], dry_run: bool) -> None:
    """Apply the rules, zone after zone."""
    done = []
    for zone in [zone_of(zone) for zone in zones] or ZONES:
        with enter(session, "keep", zone) as permit:
            passed = session.workspace.vault.objects.lifecycle.run(permit, zone, dry_run=dry_run)
        done.append({"zone": zone, **asdict(passed)})
    if json_out:
        answer({"dry_run": dry_run, "zones": done})
    else:
        show(["zone", "aborted", "expired", "expired_old", "cooled", "archived", "kept", "swept", "failed"], done)


def uploads(session: Session, *, json_out: bool, zone: str, abort: str | None) -> None:
    """List begun uploads, or give one up."""
    store = session.workspace.vault.objects.uploads
    with enter(session, "write", zone) as permit:
        if abort is not None:
            store.abort(permit, zone, abort)
        found = [
            {**asdict(one), "parts": len(parts), "bytes": sum(part.size for part in parts)}
            for one in store.list(permit, zone)
            for parts in [store.parts(permit, zone, one.id)]
        ]
        permit.log.count(uploads=len(found))
    if json_out:
        answer(found)
    else:
        show(["id", "name", "created", "parts", "bytes"], found)
