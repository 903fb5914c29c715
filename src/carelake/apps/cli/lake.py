"""``lake`` and ``sql``: tables that follow the record, their upkeep, and questions to them."""

from __future__ import annotations

import sys
from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid
from carelake.lake import asof, query
from carelake.lake.drivers.spark import compact, reaches
from carelake.lake.following.fresh import freshness
from carelake.lake.following.sync import SyncReport, sync
from carelake.lake.seeing.relations import listed
from carelake.lake.upkeep import maintain

__all__ = ["ask", "bring_up", "name_it", "status", "tag_list", "upkeep"]


def _sync(session: Session) -> SyncReport:
    workspace = session.workspace
    with progress() as bars, workspace.enter(session.caller(), "lake:sync", "lake", job=True) as permit:
        task = bars.add_task("Lake", total=None)
        return sync(
            permit,
            workspace.vault,
            workspace.resources,
            workspace.nouns,
            progress=lambda done, of: bars.update(task, completed=done, total=of),
        )


def bring_up(session: Session, *, json_out: bool) -> None:
    """Bring the lake up to the record."""
    found = _sync(session)
    if json_out:
        answer(
            {
                "behind_before": found.behind_before,
                "behind_after": found.behind_after,
                "seconds": round(found.seconds, 3),
                "tables": dict(found.tables),
            }
        )
        return
    note(f"{found.behind_before} changes behind before, {found.behind_after} after, {found.seconds:.1f} s.")
    show(["table", "rows"], [{"table": k, "rows": v} for k, v in sorted(found.tables.items())])


def status(session: Session, *, json_out: bool) -> None:
    """How far behind, and what is there."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        told = freshness(permit, workspace.vault, workspace.resources)
        tables: dict[str, int | None] = {}
        if told.snapshot_ref:
            snapshot = query.snapshot_of(permit, workspace.vault, workspace.nouns)
            tables = listed(permit, workspace.vault, snapshot)
    said = {
        "behind": told.behind,
        "seconds_behind": round(told.seconds, 3),
        "seq": told.seq,
        "snapshot": told.snapshot_ref or None,
        "tables": tables,
    }
    if json_out:
        answer(said)
        return
    note(f"{told.behind} changes behind, {told.seconds:.1f} s. Snapshot: {told.snapshot_ref or 'none yet'}")
    show(["table", "rows"], [{"table": k, "rows": v} for k, v in sorted(tables.items())])


def upkeep(session: Session, *, json_out: bool) -> None:
    """Merge, expire, remove."""
    workspace = session.workspace
    with progress() as bars, workspace.enter(session.caller(), "lake:maintain", "lake", job=True) as permit:
        task = bars.add_task("Tables", total=None)
        if workspace.vault.settings.lake.engine == "spark" and reaches(permit, workspace.vault):
            compact(permit, workspace.vault)
        done = maintain.maintain(
            permit, workspace.vault, workspace.nouns, lambda at, of: bars.update(task, completed=at, total=of)
        )
    if json_out:
        answer(done.as_json())
        return
    note(f"{done.merged} files became {done.made}; {done.expired} snapshots expired, {done.removed} files removed.")


def name_it(session: Session, *, json_out: bool, name: str, as_of: str | None) -> None:
    """Tag a snapshot."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:tag", "lake") as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        asof.tag(permit, workspace.vault, workspace.nouns, name, snapshot)
    if json_out:
        answer({"name": name, "snapshot": snapshot.ref})
    else:
        note(f"{name} is {snapshot.ref}")


def tag_list(session: Session, *, json_out: bool) -> None:
    """Tags."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        found = asof.tags(permit, workspace.vault, workspace.nouns)
    if json_out:
        answer(found)
    else:
        show(["tag", "snapshot"], [{"tag": k, "snapshot": v} for k, v in sorted(found.items())])


_FORMS = ("table", "json", "csv", "arrow")


def ask(session: Session, *, json_out: bool, statement: str, as_of: str | None, fresh: bool, form: str) -> None:
    """Answer one SELECT."""
    form = "json" if json_out else form
    if form not in _FORMS:
        raise Invalid("apps.format", f"There is no such format; expected one of {', '.join(_FORMS)}.")
    if fresh:
        _sync(session)
    workspace = session.workspace
    with workspace.enter(session.caller(), "lake:query", "lake") as permit:
        snapshot = asof.as_of(permit, workspace.vault, workspace.nouns, as_of)
        found = query.sql(permit, workspace.vault, snapshot, statement)
    _print(found, form)


def _print(found: Any, form: str) -> None:
    if form == "json":
        answer(found.to_pylist())
    elif form == "table":
        show(found.column_names, found.to_pylist())
    elif form == "csv":
        from pyarrow import csv

        csv.write_csv(found, sys.stdout.buffer)
    else:
        import pyarrow as pa

        with pa.ipc.new_stream(sys.stdout.buffer, found.schema) as stream:
            stream.write_table(found)
