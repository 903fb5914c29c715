"""The recipe that joins `ingest` and `store`: a page's resources, refusals, progress, act and event commit together.

What a killed run has committed is whole pages; the next run of the same paths goes on after them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

import msgspec
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.fhir.search import Registry
from carelake.ingest import Page, Part, Reader, expand
from carelake.ingest.parse import without_gc
from carelake.store import Resources
from carelake.vault.workspace import Vault

__all__ = ["IngestReport", "LandingReport", "ingest"]


_COLLECT = 100
"""Pages between collections of cycles, which are rare here, while each automatic one walks all that is held."""


class LandingReport(msgspec.Struct):
    """What became of one source. ``source`` is PHI when it is a patient's name: for the holder of the permit only."""

    ref: str
    source: str
    format: str
    size: int
    read: int = 0
    stored: int = 0
    unchanged: int = 0
    quarantined: int = 0


class IngestReport(msgspec.Struct):
    """What became of all: ``read == stored + unchanged + quarantined``.

    Attributes:
        unchanged: equal to the current version, or committed by an earlier run.
        quarantined: refused, by this run or by an earlier one of the same content; each is in quarantine once.
        skipped: files in folders that are not FHIR JSON by their ending.
    """

    read: int = 0
    stored: int = 0
    unchanged: int = 0
    quarantined: int = 0
    skipped: int = 0
    seconds: float = 0.0
    sources: int = 0
    landings: list[LandingReport] = []


def ingest(
    vault: Vault,
    permit: Permit,
    paths: Iterable[Path | str],
    *,
    resources: Resources,
    nouns: Nouns,
    outbox: Outbox,
    progress: Callable[[IngestReport], None] = lambda report: None,
) -> IngestReport:
    """Read paths into the record.

    Args:
        progress: called after each committed page with the report so far; ``sources`` is how many there are in all.

    Raises:
        Invalid: ``ingest.no_such_path``, ``ingest.not_a_file``, ``ingest.nothing``.
        Conflict: ``ingest.overtaken``. Unavailable: ``ingest.worker_died``.
    """
    started = monotonic()
    found = expand(paths)
    report = IngestReport(skipped=found.skipped, sources=len(found.sources))
    registry = resources.registry(permit)
    with Reader(vault, nouns, registry) as reader, without_gc():
        for number, page in enumerate(reader.pages(permit, found), 1):
            with vault.database.transaction(permit) as tx:
                counted = [_commit(permit, tx, part, reader, resources, registry) for part in page]
                _publish(permit, tx, page, outbox, sum(one.stored for one in counted))
            for one in counted:
                _add(report, one)
            report.seconds = monotonic() - started
            progress(report)
            if number % _COLLECT == 0:
                gc.collect()
    report.seconds = monotonic() - started
    return report


def _commit(
    permit: Permit, tx: Connection, part: Part, reader: Reader, resources: Resources, registry: Registry
) -> LandingReport:
    landing = part.landing
    kept = resources.keep(permit, tx, landing.ref, part.parsed, again=landing.again, registry=registry)
    reader.commit(permit, tx, part, stored=kept.stored, unchanged=kept.unchanged)
    permit.log.count(quarantined=len(part.rejected))
    return LandingReport(
        landing.ref,
        landing.source,
        landing.format,
        landing.size,
        len(part) + part.already,
        kept.stored,
        kept.unchanged + part.already - part.refused,
        len(part.rejected) + part.refused,
    )


def _publish(permit: Permit, tx: Connection, page: Page, outbox: Outbox, stored: int) -> None:
    if stored:
        subject = page[-1].landing.ref
        outbox.publish(tx, permit.account, "record.changed", subject, {"stored": stored, "landings": len(page)})


def _add(report: IngestReport, one: LandingReport) -> None:
    last = report.landings[-1] if report.landings else None
    if last is None or (last.ref, last.source) != (one.ref, one.source):
        last = LandingReport(one.ref, one.source, one.format, one.size)
        report.landings.append(last)
    for target in (report, last):
        target.read += one.read
        target.stored += one.stored
        target.unchanged += one.unchanged
        target.quarantined += one.quarantined
