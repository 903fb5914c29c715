"""``ingest``, ``quarantine``, ``search``, ``read``: the record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.fhir.bundle import searchset
from carelake.fhir.definitions import is_resource
from carelake.fhir.query import parse_text
from carelake.ingest.quarantine import Quarantine
from carelake.pipelines.ingest import IngestReport
from carelake.pipelines.ingest import ingest as ingest_recipe

__all__ = ["ingest", "ingest_paths", "quarantine", "read", "report_json", "search"]


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


def search(session: Session, *, json_out: bool, query: str) -> None:
    """Search the record. All matches, page by page; with ``_count`` one page, and a link to the next."""
    name, page = _paged(query)
    parsed = parse_text(name)
    workspace = session.workspace
    with workspace.enter(session.caller(), "record:search", parsed.type) as permit:
        found = workspace.resources.search(permit, parsed, page)
        resources, following = list(found.resources), found.next
        while following and parsed.count is None:
            more = workspace.resources.search(permit, parsed, following)
            resources, following = resources + more.resources, more.next
    links = {"self": query} | ({"next": _with_page(name, following)} if following else {})
    if json_out:
        answer(searchset(resources, total=found.total, links=links))
        return
    show(["resource"], [{"resource": f"{r['resourceType']}/{r['id']}"} for r in resources])
    note(f"{found.total if found.total is not None else len(resources)} matches; --json shows them whole.")
    if following:
        note(f"The next page: {links['next']}")


def _paged(query: str) -> tuple[str, str]:
    """The search and the page of it that is asked for (``_page``, as the next link gives it)."""
    name, _, rest = query.partition("?")
    pairs = [pair for pair in rest.split("&") if pair]
    pages = [pair.partition("=")[2] for pair in pairs if pair.startswith("_page=")]
    kept = [pair for pair in pairs if not pair.startswith("_page=")]
    if len(pages) > 1:
        raise Invalid("apps.page", "Give _page once; the next link of a search holds it.")
    return name + ("?" + "&".join(kept) if kept else ""), pages[0] if pages else ""


def _with_page(query: str, page: str) -> str:
    return f"{query}{'&' if '?' in query else '?'}_page={page}"


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
