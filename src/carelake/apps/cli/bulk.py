"""``export`` and ``import``: the record out of a workspace and into one, as NDJSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from carelake.apps.cli.bulk_folder import Folder, FolderSink
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress
from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.fhir.definitions import is_resource
from carelake.pipelines.export import ACTION, Asked, begin, carry_out, manifest
from carelake.store.jobs import Jobs

__all__ = ["export", "micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KIND = "dump"


def export(
    session: Session,
    *,
    json_out: bool,
    out: Path,
    types: str | None,
    since: str | None,
    until: str | None,
    filters: Sequence[str],
    elements: str | None,
    patients: bool,
) -> None:
    """Export into a folder, or go on with an export into it."""
    started = monotonic()
    asked = Asked(
        request="carelake export",
        types=_types(types),
        since=micros(since, "--since"),
        until=micros(until, "--until"),
        filters=tuple(filters),
        elements=_listed(elements),
        within=patients,
    )
    caller = session.caller()
    folder = Folder(out.absolute())
    told = _Export(session, caller, folder, asked).run()
    size = folder.size(told)
    folder.finish()
    _tell(told, size, monotonic() - started, json_out=json_out)


class _Export:
    """One run of the command."""

    def __init__(self, session: Session, caller: Any, folder: Folder, asked: Asked) -> None:
        self.workspace, self.caller, self.folder, self.asked = session.workspace, caller, folder, asked
        self.jobs = Jobs(self.workspace.vault)

    def run(self) -> dict[str, Any]:
        """Write every file and the manifest; answers that."""
        job = self._going_on() or self._new()
        told = self.folder.written() or self._write(job)
        with self.enter("record") as permit, self.workspace.vault.database.transaction(permit) as tx:
            self.jobs.drop(permit, tx, job, "expired")
        return told

    def _write(self, job: str) -> dict[str, Any]:
        with progress() as bars:
            task = bars.add_task("Resources exported", total=None)
            done = carry_out(
                self.workspace.vault,
                self.enter,
                self.workspace.resources,
                job,
                FolderSink(self.folder.path),
                progress=lambda so_far, of: bars.update(task, completed=so_far, total=of),
            )
        with self.enter("record") as permit, self.workspace.vault.database.reading(permit) as tx:
            told = dict(manifest(done, self.jobs.parts(tx, job), lambda part: part.object, token=False))
        self.folder.write(told)
        return told

    def enter(self, target: str) -> AbstractContextManager[Permit]:
        """Pass the gate."""
        return self.workspace.enter(self.caller, ACTION, target)

    def _new(self) -> str:
        self.folder.clear()
        first = next(iter(self.asked.types), "record")
        with self.enter(first) as permit:
            job = begin(
                self.workspace.vault, self.workspace.gate, permit, self.workspace.resources, self.asked, kind=_KIND
            )
        self.folder.mark(job, self._digest())
        return job

    def _going_on(self) -> str:
        """The job that the folder is of, with what is missing of it to be made again; "" for none."""
        job, asked = self.folder.job()
        if not job:
            return ""
        if asked != self._digest():
            raise Conflict(
                "apps.other_export", "The folder has another export that is not at its end; name an empty folder."
            )
        if self.folder.written():
            return job
        database = self.workspace.vault.database
        with self.enter("record") as permit, database.transaction(permit) as tx:
            try:
                found = self.jobs.get(permit, tx, job)
            except NotFound:
                return ""
            if found.state == "done":
                self.jobs.reopen(tx, job)
            elif found.state == "failed":
                return ""
            for part in self.jobs.parts(tx, job):
                if part.done and not self.folder.has(part.object, part.size):
                    self.jobs.advance(tx, job, part.number, done=False)
        note("Going on with the export that was broken off.")
        return job

    def _digest(self) -> str:
        return canonical.digest(msgspec.to_builtins(self.asked))


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(one for one in (text or "").split(",") if one)


def _types(text: str | None) -> tuple[str, ...]:
    named = _listed(text)
    if not all(map(is_resource, named)) or (text is not None and not named):
        raise Invalid("apps.unknown_type", "FHIR R4 has no such resource type; expected for example Patient.")
    return tuple(dict.fromkeys(named))


def micros(text: str | None, name: str) -> int | None:
    """Microseconds since 1970 of an instant or a date.

    Raises:
        Invalid: ``apps.date``.
    """
    if text is None:
        return None
    try:
        return (instant(text) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        raise Invalid("apps.date", f"{name} is not an instant; expected for example 2026-11-22T08:00:00Z.") from None


def _tell(told: dict[str, Any], size: int, seconds: float, *, json_out: bool) -> None:
    counts: Counter[str] = Counter()
    for one in told["output"]:
        counts[one["type"]] += one["count"]
    deleted = sum(one["count"] for one in told["deleted"])
    files = sum(len(told[role]) for role in ("output", "deleted", "error"))
    if json_out:
        said = {"resources": counts.total(), "deletions": deleted, "types": dict(sorted(counts.items()))}
        answer({**told, **said, "bytes": size, "seconds": round(seconds, 3)})
        return
    rate = counts.total() / seconds if seconds else 0.0
    note(
        f"Exported {counts.total()} resources and {deleted} deletions into {files} files in {seconds:.1f} s "
        f"({rate:,.0f}/s)."
    )
    if told["error"]:
        note("Types that may not be exported were left out; the error file names them.")
