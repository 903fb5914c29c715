"""Bulk import: the recipe of `ingest`, as a job, with an outcome for each line, and older versions kept out.

A page's resources, refusals, progress and outcomes commit together, so a run that was killed goes on after whole
pages and tells of every line once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import msgspec
import zstandard
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.core.records import Parsed, Rejected
from carelake.events.outbox import Outbox
from carelake.fhir.definitions import is_resource
from carelake.fhir.search import Registry
from carelake.ingest import Page, Part, Reader
from carelake.ingest.lines import lines
from carelake.ingest.parse import without_gc
from carelake.ingest.sources import Source
from carelake.pipelines.imports_manifest import Inputs
from carelake.pipelines.job_parts import give_back
from carelake.store import Resources
from carelake.store.import_order import age_of
from carelake.store.jobs import Entry, Job, Jobs
from carelake.store.write import tombstone
from carelake.vault.workspace import Vault

__all__ = ["ACTION", "ImportReport", "Importer", "begin", "outcomes", "packed_outcomes", "unpacked", "unpacked_size"]

ACTION = "record:import"
_COLLECT = 100
_DELETIONS = 1000
_MOST = 1 << 30
_CONFLICT = "pipelines.import_conflict"
_SAID = {
    _CONFLICT: "The line says to be the version that is there, with other content; it was refused.",
    "superseded": "A newer version is there; this one was not stored.",
    "unchanged": "Equal to the version that is there.",
}

Enter = Callable[[], AbstractContextManager[Permit]]
"""Pass the gate for `ACTION`, as a job."""


class ImportReport(msgspec.Struct):
    """What became of all lines: ``read == stored + unchanged + superseded + failed``.

    Attributes:
        unchanged: equal to the current version, or committed before, by this job or another one.
        superseded: older than the current version; not stored.
        failed: refused; each is in quarantine once, and in the job's failures.
        deleted: deletions that were carried out.
    """

    job: str = ""
    read: int = 0
    stored: int = 0
    unchanged: int = 0
    superseded: int = 0
    failed: int = 0
    deleted: int = 0
    files: int = 0
    skipped: int = 0
    seconds: float = 0.0


def begin(
    vault: Vault, permit: Permit, tx: Connection, asked: Mapping[str, Any], kind: str, *, most: int | None = None
) -> str:
    """A new job, to be taken up; answers its id. Args and errors are those of `Jobs.begin`."""
    jobs = Jobs(vault)
    job = jobs.begin(permit, tx, kind, asked, most=most)
    jobs.release(tx, job)
    return job


@dataclass
class Importer:
    """Carries imports out.

    Args:
        stop: asked between pages.
        progress: called after each committed page with the report so far.
        ending: called with the permit and the job when all is imported, before the job is at its end.
    """

    vault: Vault
    resources: Resources
    nouns: Nouns
    outbox: Outbox
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[ImportReport], None] = lambda report: None
    ending: Callable[[Permit, str], None] = lambda permit, job: None

    def carry_out(self, enter: Enter, job: str, inputs: Callable[[Job], Inputs]) -> ImportReport:
        """Import what is not imported yet.

        Args:
            inputs: the files of the job.

        Raises:
            Conflict: ``store.job_running``, ``store.job_cancelled``, ``pipelines.stopped``, ``ingest.overtaken``.
        """
        started = monotonic()
        self.jobs = Jobs(self.vault)
        claimed = False
        try:
            with enter() as permit:
                with self.vault.database.transaction(permit) as tx:
                    told = self.jobs.claim(permit, tx, job)
                    permit.log.note(job=job, change="begun")
                claimed = True
                report = self._all(permit, told, inputs(told))
                self.ending(permit, job)
                with self.vault.database.transaction(permit) as tx:
                    self.jobs.end(tx, job, seconds=self.vault.settings.bulk.keep_seconds)
                    permit.log.note(job=job, change="done")
        except Exception as error:
            if claimed:
                with enter() as permit:  # the first one may have run out
                    give_back(self.vault, permit, job, error)
            raise
        report.seconds = monotonic() - started
        return report

    def _all(self, permit: Permit, job: Job, inputs: Inputs) -> ImportReport:
        self.job, self.inputs = job, inputs
        self.numbers = {one.name: number for number, one in enumerate(inputs.found.sources, 1)}
        self.report = ImportReport(job.id, files=len(inputs.found.sources), skipped=inputs.found.skipped)
        registry = self.resources.registry(permit)
        with Reader(self.vault, self.nouns, registry) as reader, without_gc():
            for number, page in enumerate(reader.pages(permit, inputs.found), 1):
                self._page(permit, page, reader, registry)
                self.progress(self.report)
                if number % _COLLECT == 0:
                    gc.collect()
        for source in inputs.deleted:
            self._deletions(permit, source)
        return self.report

    # -- pages ----------------------------------------------------------------------------------------------------

    def _page(self, permit: Permit, page: Page, reader: Reader, registry: Registry) -> None:
        if self.stop():
            raise _stopped()
        told: list[dict[str, Any]] = []
        added = ImportReport()
        with self.vault.database.transaction(permit) as tx:
            for part in page:
                told += self._part(permit, tx, part, reader, registry, added)
            self._keep(permit, tx, told)
            if added.stored:
                subject = page[-1].landing.ref
                body = {"stored": added.stored, "landings": len(page)}
                self.outbox.publish(tx, permit.account, "record.changed", subject, body)
        self._add(added)

    def _part(
        self, permit: Permit, tx: Connection, part: Part, reader: Reader, registry: Registry, added: ImportReport
    ) -> list[dict[str, Any]]:
        number = self.numbers.get(part.landing.source, 0)
        parsed, verdicts = part.parsed, ["stored"] * len(part.parsed)
        if self.inputs.mode == "incremental" and not part.settled:
            order = self.resources.order
            parsed = order.ordered(parsed)
            verdicts = list(order.verdicts(permit, tx, parsed))
        part.rejected += [
            _refused(one) for one, verdict in zip(parsed, verdicts, strict=True) if verdict == "conflict"
        ]
        page = [one for one, verdict in zip(parsed, verdicts, strict=True) if verdict == "stored"]
        kept = self.resources.keep(permit, tx, part.landing.ref, page, again=part.landing.again, registry=registry)
        superseded = verdicts.count("superseded")
        unchanged = verdicts.count("unchanged") + kept.unchanged
        reader.commit(permit, tx, part, stored=kept.stored, unchanged=unchanged + superseded)
        permit.log.count(quarantined=len(part.rejected))
        before = part.already - part.refused
        added.read += len(parsed) + len(part.rejected) - verdicts.count("conflict") + part.already
        added.stored += kept.stored
        added.unchanged += unchanged + before
        added.superseded += superseded
        added.failed += len(part.rejected) + part.refused
        versions = self.resources.versions_between(permit, tx, kept.first, kept.last)
        found = [
            _outcome(number, one, verdict, versions)
            for one, verdict in zip(parsed, verdicts, strict=True)
            if verdict != "conflict"
        ]
        return found + [_failure(number, one) for one in part.rejected]

    def _keep(self, permit: Permit, tx: Connection, told: Sequence[Mapping[str, Any]]) -> None:
        """Keep outcomes as parts of the job."""
        entries = []
        for role, status in (("success", "SUCCESS"), ("failure", "FAILURE")):
            some = [one for one in told if one["status"] == status]
            if some:
                text = b"".join(msgspec.json.encode(one) + b"\n" for one in some)
                packed = zstandard.compress(text)
                sealed = self.vault.sealer.seal(permit, tx, "", _context(self.job.id, role), packed)
                entries.append(
                    Entry(role, "OperationOutcome", sealed, len(some), f"{role}.ndjson", len(some), done=True)
                )
        self.jobs.hold(tx, self.job.id)
        self.jobs.add(tx, self.job.id, entries)

    def _add(self, added: ImportReport) -> None:
        for name in ("read", "stored", "unchanged", "superseded", "failed", "deleted"):
            setattr(self.report, name, getattr(self.report, name) + getattr(added, name))

    # -- deletions ------------------------------------------------------------------------------------------------

    def _deletions(self, permit: Permit, source: Source) -> None:
        number = len(self.numbers) + 1 + self.inputs.deleted.index(source)
        held: list[tuple[int, str, str, Any]] = []
        for one in _deletions_of(source, self.vault.settings.ingest.max_line_bytes):
            held.append(one)
            if len(held) >= _DELETIONS:
                self._delete(permit, number, held)
                held = []
        if held:
            self._delete(permit, number, held)

    def _delete(self, permit: Permit, number: int, some: Sequence[tuple[int, str, str, Any]]) -> None:
        if self.stop():
            raise _stopped()
        added = ImportReport(read=len(some))
        told, page = [], []
        with self.vault.database.transaction(permit) as tx:
            ages = self.resources.order.ages(permit, tx, [(kind, key) for _, kind, key, _ in some if kind])
            for line, kind, key, meta in some:
                there = ages.get((kind, key))
                at = age_of(meta) or (_micros(self.inputs.time), -1)
                if not kind:
                    added.failed += 1
                    told.append(_said(number, line, "FAILURE", 400, "invalid", "pipelines.deletion", _NO_DELETION))
                elif there is None or there[2]:
                    added.unchanged += 1
                    told.append(_said(number, line, "SUCCESS", 204, "informational", "unchanged", "There is none."))
                elif self.inputs.mode == "incremental" and there[0][0] > at[0]:
                    added.superseded += 1
                    told.append(
                        _said(number, line, "SUCCESS", 200, "informational", "superseded", _SAID["superseded"])
                    )
                else:
                    page.append(tombstone(kind, key, there[1]))
                    told.append({**_head(number, line, "SUCCESS", 204), "resource": f"{kind}/{key}"})
            added.deleted = self.resources.keep(permit, tx, "", page).stored
            added.unchanged += len(page) - added.deleted
            added.read = added.unchanged + added.superseded + added.failed
            self._keep(permit, tx, told)
        self._add(added)
        self.progress(self.report)


_NO_DELETION = "The line is no Bundle with a DELETE of Type/id."


def outcomes(vault: Vault, permit: Permit, tx: Connection, job: str, role: str) -> Iterator[bytes]:
    """The outcomes of a job's lines, in blocks of whole lines; ``role``: success or failure."""
    yield from map(unpacked, packed_outcomes(vault, permit, tx, job, role))


def packed_outcomes(vault: Vault, permit: Permit, tx: Connection, job: str, role: str) -> Iterator[bytes]:
    """As `outcomes`, each block for `unpacked`: of a large import all of them at once are too much."""
    jobs = Jobs(vault)
    for part in jobs.parts(tx, job, role):
        sealed = jobs.source(tx, job, part.number)
        yield vault.sealer.open(permit, tx, "", _context(job, role), sealed)


def unpacked(block: bytes) -> bytes:
    """The lines of a block."""
    return zstandard.decompress(block, max_output_size=_MOST)


def unpacked_size(block: bytes) -> int:
    """Bytes of the lines of a block."""
    return zstandard.frame_content_size(block)


def _context(job: str, role: str) -> bytes:
    return f"bulk|{job}|{role}".encode()


def _stopped() -> Conflict:
    return Conflict("pipelines.stopped", "The process is ending; the job goes on with the next one.")


def _refused(one: Parsed) -> Rejected:
    return Rejected(one.offset, one.length, one.line, one.position, "meta", _CONFLICT, _SAID[_CONFLICT])


def _head(number: int, line: int, status: str, code: int) -> dict[str, Any]:
    return {"file": number, "lineId": line, "status": status, "statusCode": code}


def _said(
    number: int, line: int, status: str, code: int, issue: str, text: str, words: str, path: str = ""
) -> dict[str, Any]:
    told: dict[str, Any] = {"severity": "error" if status == "FAILURE" else "information", "code": issue}
    told |= {"details": {"text": text}, "diagnostics": words, **({"expression": [path]} if path else {})}
    return {**_head(number, line, status, code), "outcome": {"resourceType": "OperationOutcome", "issue": [told]}}


def _outcome(number: int, one: Parsed, verdict: str, versions: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    version = versions.get((one.line, one.offset))
    where = f"{one.type}/{one.id}"
    if verdict == "stored" and version is not None:
        told = _head(number, one.line, "SUCCESS", 201 if version == 1 else 200)
        return {**told, "resource": f"{where}/_history/{version}"}
    words = "superseded" if verdict == "superseded" else "unchanged"
    told = _said(number, one.line, "SUCCESS", 200, "informational", words, _SAID[words])
    return {**told, "resource": where}


def _failure(number: int, one: Rejected) -> dict[str, Any]:
    code = 409 if one.code == _CONFLICT else 422
    issue = "conflict" if one.code == _CONFLICT else "invalid"
    return _said(number, one.line, "FAILURE", code, issue, one.code, one.message, one.path)


def _deletions_of(source: Source, limit: int) -> Iterator[tuple[int, str, str, Any]]:
    """Line, type, id and meta of each deletion in a file; a type "" for a line that is none."""
    with source.open() as file:
        for line in lines(file, limit):
            try:
                bundle = canonical.load(line.data)
                entries = [(one["request"]["method"], one["request"]["url"]) for one in bundle["entry"]]
                meta = bundle.get("meta")
            except (Invalid, KeyError, TypeError, AttributeError):
                entries, meta = [("", "")], None
            for method, url in entries:
                kind, _, key = str(url).partition("/")
                good = method == "DELETE" and is_resource(kind) and 0 < len(key) <= 64 and "/" not in key
                yield line.number, kind if good else "", key, meta


def _micros(text: str) -> int:
    try:
        return int(instant(text).timestamp() * 1_000_000) if text else 1 << 62
    except ValueError:
        return 1 << 62
