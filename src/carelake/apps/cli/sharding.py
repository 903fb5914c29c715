"""``view export --workers N``: rows of views by shards of patients, a file each, taken up where it was left."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carelake.apps.cli.parts_folder import PartsFolder
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core import canonical
from carelake.lake import asof
from carelake.lake.engines import sharded
from carelake.lake.ready.parts import Export, part_name

__all__ = ["export_sharded"]


def export_sharded(
    session: Session,
    *,
    json_out: bool,
    views: Mapping[str, Mapping[str, Any]],
    out: Path,
    form: str,
    as_of: str | None,
    workers: int,
) -> None:
    """``OUT/NAME/part-00001.FORM`` and so on; the same files whatever the number of workers."""
    workspace, place = session.workspace, PartsFolder(out)
    vault = workspace.vault
    with progress() as bars, workspace.enter(session.caller(), "lake:export", "lake", job=True) as permit:
        snapshot = asof.as_of(permit, vault, workspace.nouns, as_of) if as_of else None
        # Another principal, purpose or scope may see other rows: its parts would not go with these.
        kept = Export.begin(
            place,
            later={"snapshot": snapshot.ref if snapshot else ""},
            account=permit.account,
            principal=permit.principal,
            purpose=permit.purpose,
            scope=list(permit.scope),
            views={name: hashlib.sha256(canonical.dump(view)).hexdigest() for name, view in views.items()},
            shards=f"{sharded.ROWS} of {vault.settings.lake.buckets}",
            form=form,
        )
        snapshot = snapshot or asof.as_of(permit, vault, workspace.nouns, kept.said["snapshot"] or None)
        kept.start(snapshot=snapshot.ref)
        for name, view in views.items():
            task = bars.add_task(name, total=None)
            found = sharded.view_shards(
                permit,
                vault,
                snapshot,
                view,
                form,
                workers=workers,
                done=lambda key, of=name: f"{of}/{key}" in kept.done,  # type: ignore[misc]
            )
            for made in found:
                _write(place, kept, name, made, form)
                bars.advance(task)
        told = [_told(name, kept.done) for name in views]
        kept.finish()
    if json_out:
        answer({"snapshot": snapshot.ref, "views": told})
        return
    note(f"Snapshot: {snapshot.ref}")
    show(["view", "resources", "parts", "folder"], told)


def _write(place: PartsFolder, kept: Export, name: str, made: sharded.Made, form: str) -> None:
    def work() -> Mapping[str, Any]:
        place.write(part_name(name, int(made.key), form), made.data)
        return {"resources": made.rows, "sha256": hashlib.sha256(made.data).hexdigest()}

    kept.shard(f"{name}/{made.key}", work)


def _told(name: str, done: Mapping[str, Any]) -> dict[str, Any]:
    mine = [one for key, one in done.items() if key.startswith(f"{name}/")]
    return {"view": name, "resources": sum(one["resources"] for one in mine), "parts": len(mine), "folder": name}
