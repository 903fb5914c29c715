"""``ingest``, ``quarantine``, ``read``: the record. ``search`` is in `finding`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.fhir.definitions import is_resource
from carelake.ingest.quarantine import Quarantine
from carelake.pipelines.ingest import IngestReport
from carelake.pipelines.ingest import ingest as ingest_recipe

__all__ = ["ingest", "ingest_paths", "quarantine", "read", "report_json"]


def ingest(session: Session, *, json_out: bool, paths: list[Path]) -> None:
    """Read paths into the record."""
    report = ingest_paths(session, session.caller(), paths)
    if json_out:
        answer(report_json(report))
        return
    rate = report.read / report.seconds if report.seconds else 0.0
    note(
        f"Read {report.read}: stored {report.stored}, unchanged {report.unchanged}, quarantined {report.quarantined}"
        f" in {report.seconds:.1f} s ({rate:,.0f}/s)."
    )
    if report.skipped:
        note(f"Passed over {report.skipped} files that are not FHIR JSON by their ending.")
    if report.quarantined:
        note("`carelake quarantine list` shows what was refused, and why.")


def ingest_paths(session: Session, caller: Any, paths: list[Path], *, title: str = "Resources read") -> IngestReport:
    """Ingest with a progress bar."""
    workspace = session.workspace
    with progress() as bars, workspace.enter(caller, "record:ingest", "record", job=True) as permit:
        task = bars.add_task(title, total=None)
        report = ingest_recipe(
            workspace.vault,
            permit,
            paths,
            resources=workspace.resources,
            nouns=workspace.nouns,
            outbox=workspace.outbox,
            progress=lambda so_far: bars.update(task, completed=so_far.read),
        )
        bars.update(task, completed=report.read, total=report.read)
    return report


def report_json(report: IngestReport) -> dict[str, Any]:
    """The report as ``ingest --json`` prints it; ``landings`` are refs, since file names may be patients' names."""
    said: dict[str, Any] = msgspec.to_builtins(report)
    return {**said, "seconds": round(report.seconds, 3), "landings": [one.ref for one in report.landings]}


def quarantine(session: Session, *, json_out: bool, limit: int | None) -> None:
    """List what was refused."""
    workspace = session.workspace
    columns = ["source", "line", "path", "code", "message"]
    with workspace.enter(session.caller(), "quarantine:list", "quarantine") as permit:
        found = Quarantine(workspace.vault.database, workspace.vault.clock).list(permit, limit=limit or sys.maxsize)
    rows = [{name: getattr(one, name) for name in columns} for one in found]
    if json_out:
        answer(rows)
    else:
        show(columns, rows)


def read(session: Session, *, json_out: bool, reference: str) -> None:
    """Read one resource."""
    kind, slash, key = reference.partition("/")
    if not slash or not kind or not key:
        raise Invalid("apps.reference", "Expected TYPE/ID, for example Patient/123.")
    if not is_resource(kind):
        raise Invalid("apps.unknown_type", "FHIR R4 has no such resource type; expected for example Patient/123.")
    with session.workspace.enter(session.caller(), "record:read", kind) as permit:
        answer(_read(session, permit, kind, key))


def _read(session: Session, permit: Permit, kind: str, key: str) -> dict[str, Any]:
    resource: dict[str, Any] = session.workspace.resources.read(permit, kind, key)
    return resource
