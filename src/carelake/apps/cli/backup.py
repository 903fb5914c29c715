"""``backup``: a point in time, the list of points, and what may be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.apps.wiring import Workspace
from carelake.audit.restores import TrailEnd, seal_all, trail_end
from carelake.core.permit import Permit
from carelake.vault.backup.manifest import points
from carelake.vault.backup.opening import wanted_for
from carelake.vault.backup.retention import Pruned, prune
from carelake.vault.backup.ship import Shipped, ship

__all__ = ["backup", "bars", "needed_to_restore"]


def backup(
    session: Session,
    *,
    json_out: bool,
    out: Path,
    label: str,
    keep: int | None,
    prune: bool,
    digest: bool | None,
    listing: bool,
) -> None:
    """Make a point, list points, or prune."""
    workspace = session.workspace
    if listing:
        _list(session, out, json_out=json_out)
        return
    said: dict[str, Any] = {"workspace": workspace.settings.workspace, "out": str(out)}
    with workspace.enter(session.caller(), "workspace:backup", "workspace", job=True) as permit, bars() as step:
        if not prune:
            said |= _told(_ship(workspace, permit, out, label, digest, step))
        if prune or keep is not None:
            said["pruned"] = _pruned(_prune(workspace, permit, out, keep))
    said["needed_to_restore"] = needed_to_restore(workspace)
    if json_out:
        answer(said)
    else:
        _words(said)


def _ship(
    workspace: Workspace,
    permit: Permit,
    out: Path,
    label: str,
    digest: bool | None,
    step: Callable[[str, int, int], None],
) -> Shipped:
    seal_all(workspace.vault, workspace.trail, workspace.gate.sealing())
    made = ship(
        permit,
        workspace.vault,
        out,
        trail=lambda connection: _end(trail_end(connection)),
        label=label,
        digests=digest,
        progress=step,
    )
    permit.log.wrote(f"backup:{made.envelope.point}")
    return made


def _end(end: TrailEnd) -> dict[str, Any]:
    return {"number": end.number, "digest": end.digest, "sealed": end.sealed, "last": end.last, "at": end.at}


def _prune(workspace: Workspace, permit: Permit, out: Path, keep: int | None) -> Pruned:
    return prune(permit, workspace.vault.keyring, workspace.vault.clock, out, keep=keep)


def _told(made: Shipped) -> dict[str, Any]:
    body = made.body
    return {
        "point": made.envelope.point,
        "at": made.envelope.at,
        "label": body.label,
        "segment": body.trail["number"],
        "acts": body.trail["last"],
        "objects": body.objects.count,
        "bytes": body.objects.size + body.database.size,
        "new_pieces": made.new_pieces,
        "new_bytes": made.new_bytes,
        "digests": all(digest for _, digest in body.tables.values()),
        "writers_waited_seconds": round(made.stalled, 6),
        "seconds": round(made.seconds, 3),
    }


def _pruned(made: Pruned) -> dict[str, int]:
    return {"points": made.points, "pieces": made.pieces, "bytes": made.size, "points_left": made.left}


def _list(session: Session, out: Path, *, json_out: bool) -> None:
    workspace = session.workspace
    with workspace.enter(session.caller(), "workspace:backup", "workspace"):
        found = [{"point": one.point, "at": one.at, "previous": one.previous} for one in points(out)]
    if json_out:
        answer(found)
    else:
        show(["point", "at"], found)


def needed_to_restore(workspace: Workspace) -> str:
    """What must be had beside the backup."""
    vault = workspace.vault
    return wanted_for(vault.root, vault.head_folder, workspace.settings.workspace)


def _words(said: dict[str, Any]) -> None:
    if "point" in said:
        note(
            f"Point {said['point']}: {said['objects']} objects, {said['acts']} acts, {said['bytes']:,} bytes; "
            f"shipped {said['new_bytes']:,} bytes in {said['new_pieces']} pieces, {said['seconds']:.1f} s."
        )
    if "pruned" in said:
        gone = said["pruned"]
        note(
            f"Removed {gone['points']} points and {gone['pieces']} pieces, {gone['bytes']:,} bytes; "
            f"{gone['points_left']} points are left."
        )
    note(f"The root key is not in the backup. To restore, have {said['needed_to_restore']}; keep it apart from this.")


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr, one for each kind of work as it begins."""
    with progress() as shown:
        tasks: dict[str, Any] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what.capitalize(), total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield step
