"""``import``: NDJSON into the record, with an outcome for each line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from carelake.apps.cli.bulk_folder import FolderSink
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.pipelines.imports import ACTION, Importer, ImportReport, begin, outcomes
from carelake.pipelines.imports_manifest import Inputs, inputs_of
from carelake.store.jobs import Jobs
from carelake.vault.disk import private_folder

__all__ = ["import_"]

_KIND = "load"
_MODES = ("incremental", "initial")


def import_(session: Session, *, json_out: bool, source: Path, mode: str | None, outcomes: Path | None) -> None:
    """Import, or go on with an import of the same."""
    if mode not in (None, *_MODES):
        raise Invalid("apps.import_mode", f"--mode is one of {', '.join(_MODES)}.")
    inputs = inputs_of(source)
    if mode is not None:
        inputs = dataclasses.replace(inputs, mode=mode)
    work = _Import(session, session.caller(), inputs, {"path": str(source.absolute()), "mode": inputs.mode})
    report = work.run(outcomes)
    _tell(report, json_out=json_out)


class _Import:
    """One run of the command."""

    def __init__(self, session: Session, caller: Any, inputs: Inputs, asked: dict[str, str]) -> None:
        self.workspace, self.caller, self.inputs, self.asked = session.workspace, caller, inputs, asked
        self.jobs = Jobs(self.workspace.vault)

    def run(self, folder: Path | None) -> ImportReport:
        workspace = self.workspace
        job = self._job()
        with progress() as bars:
            task = bars.add_task("Lines imported", total=None)
            importer = Importer(
                workspace.vault,
                workspace.resources,
                workspace.nouns,
                workspace.outbox,
                progress=lambda so_far: bars.update(task, completed=so_far.read),
                ending=lambda permit, job: self._write(permit, job, folder),
            )
            report = importer.carry_out(lambda: self._enter(job=True), job, lambda _told: self.inputs)
            bars.update(task, completed=report.read, total=report.read)
        return report

    def _write(self, permit: Permit, job: str, folder: Path | None) -> None:
        """Write the outcomes, a file for each status. Where nothing was done, those of an earlier run stay."""
        if folder is None:
            return
        private_folder(folder)
        sink = FolderSink(folder)
        with self.workspace.vault.database.reading(permit) as tx:
            told = self.jobs.parts(tx, job)
            for role in ("success", "failure"):
                if told or not (folder / f"{role}.ndjson").exists():
                    sink.commit(sink.write(permit, job, f"{role}.ndjson", self._outcomes(permit, tx, job, role)))

    def _outcomes(self, permit: Permit, tx: Any, job: str, role: str) -> Iterator[bytes]:
        return outcomes(self.workspace.vault, permit, tx, job, role)

    def _enter(self, *, job: bool = False) -> AbstractContextManager[Permit]:
        return self.workspace.enter(self.caller, ACTION, "record", job=job)

    def _job(self) -> str:
        """The job of this import: one that was broken off, or a new one."""
        with self._enter() as permit, self.workspace.vault.database.transaction(permit) as tx:
            self.jobs.sweep(permit, tx)
            found = [one for one in self.jobs.unfinished(permit, tx, _KIND) if one.asked == self.asked]
            if found:
                note("Going on with the import that was broken off.")
                return found[0].id
            return begin(self.workspace.vault, permit, tx, self.asked, _KIND)


def _tell(report: ImportReport, *, json_out: bool) -> None:
    if json_out:
        answer({**msgspec.to_builtins(report), "seconds": round(report.seconds, 3)})
        return
    rate = report.read / report.seconds if report.seconds else 0.0
    note(
        f"Read {report.read}: stored {report.stored}, unchanged {report.unchanged}, superseded {report.superseded}, "
        f"deleted {report.deleted}, failed {report.failed} in {report.seconds:.1f} s ({rate:,.0f}/s)."
    )
    if report.skipped:
        note(f"Passed over {report.skipped} files that are not FHIR JSON by their ending.")
    if report.failed:
        note("`carelake quarantine list` shows what was refused, and why; --outcomes DIR tells of each line.")
