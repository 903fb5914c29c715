"""The reader: sources in, pages of parsed and refused entries out, in the order of path and position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.core.records import Parsed, Rejected
from carelake.fhir.search import BASE, Registry
from carelake.ingest.batches import Batch, Mark, Outcome, group
from carelake.ingest.entries import entries_of, unreadable
from carelake.ingest.landing import Landing, Landings
from carelake.ingest.quarantine import Quarantine
from carelake.ingest.sources import Found, Source
from carelake.ingest.worker import Rules
from carelake.ingest.workers import Pool
from carelake.vault.workspace import Vault

__all__ = ["Page", "Part", "Reader"]

_PAGE_BYTES = 64 << 20
"""No more text than this is on a page, but for one batch: what is parsed is held until the page is committed."""
_PARTS = 200
_SMALL = 2 << 20
_RATIO = 12
_TOGETHER = 32
_TOGETHER_BYTES = 1 << 20


@dataclass(slots=True)
class Part:
    """Consecutive entries of one landing.

    Attributes:
        before, mark: the landing's mark when these are not committed yet, and when they are.
        finished: the landing ends with these.
        settled: nothing to commit: an earlier run, or another source of this one, has read this content.
        already: entries that were committed before; told with the landing's first part.
        refused: those of them that are in quarantine.
    """

    landing: Landing
    before: Mark
    mark: Mark
    finished: bool
    settled: bool = False
    already: int = 0
    refused: int = 0
    parsed: list[Parsed] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.parsed) + len(self.rejected)


Page = list[Part]
"""What is committed in one transaction."""


class _Tag(NamedTuple):
    landing: Landing
    bundles: list[int]
    mark: Mark
    first: bool
    last: bool
    settled: bool = False


class Reader:
    """Reads sources into landings and landings into pages; ends its workers when it is left.

    Args:
        registry: what index values are extracted by.
    """

    def __init__(self, vault: Vault, nouns: Nouns, registry: Registry = BASE) -> None:
        self._registry = registry
        self._bounds = vault.settings.ingest
        self._quarantine = Quarantine(vault.database, vault.clock)
        self.landings = Landings(vault, nouns)
        self._pools: list[Pool] = []

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.close()

    def pages(self, permit: Permit, found: Found) -> Iterator[Page]:
        """Pages of about ``ingest.page`` entries or 64 MiB of text; a page may hold parts of several landings.

        Do not hold a transaction while asking for the next page: landing a source makes its own.
        """
        told = (self._bounds.max_depth, self._bounds.validation, self._registry.custom, self._registry.content)
        pool = Pool(self._workers(found), Rules(*told))
        self._pools.append(pool)
        seen = _Told()
        page: Page = []
        size = text = 0
        for tag, outcome in pool.map(self._jobs(permit, found.sources)):
            part = _part(tag, outcome, seen)
            if page and _continues(page[-1], part):
                _join(page[-1], part)
            else:
                page.append(part)
            size += len(part)
            text += sum(one.length for one in part.parsed)
            if size >= self._bounds.page or text >= _PAGE_BYTES or len(page) >= _PARTS:
                yield page
                page, size, text = [], 0, 0
        if page:
            yield page

    def commit(self, permit: Permit, tx: Connection, part: Part, *, stored: int, unchanged: int) -> None:
        """Keep the part's refusals and move its landing's mark, in the transaction that keeps its resources."""
        if part.settled:
            return
        self._quarantine.keep(permit, tx, part.landing, part.rejected)
        counts = {"stored": stored, "unchanged": unchanged, "quarantined": len(part.rejected)}
        self.landings.advance(tx, part.landing, part.mark, finished=part.finished, before=part.before, **counts)

    def _workers(self, found: Found) -> int:
        size = sum(s.size * (_RATIO if s.path.name.lower().endswith(".gz") else 1) for s in found.sources)
        return 0 if size < _SMALL else self._bounds.workers

    def _jobs(self, permit: Permit, sources: Iterable[Source]) -> Iterator[tuple[_Tag, Batch]]:
        begun: set[str] = set()
        for landing in self._landed(permit, sources):
            if landing.finished or landing.id in begun:
                yield _Tag(landing, [], landing.mark, True, True, True), Batch("", [])
            elif not landing.id:
                yield _Tag(landing, [0], Mark(1), True, True), Batch("", [unreadable(landing)])
            else:
                begun.add(landing.id)
                yield from self._batches(permit, landing)

    def _landed(self, permit: Permit, sources: Iterable[Source]) -> Iterator[Landing]:
        """Small sources are landed several at a time: one transaction for them costs as much as one for each."""
        held: list[Source] = []
        for source in sources:
            held.append(source)
            if len(held) >= _TOGETHER or sum(one.size for one in held) >= _TOGETHER_BYTES:
                yield from self.landings.land(permit, held)
                held = []
        if held:
            yield from self.landings.land(permit, held)

    def _batches(self, permit: Permit, landing: Landing) -> Iterator[tuple[_Tag, Batch]]:
        with self.landings.open(permit, landing) as stream:
            entries = entries_of(stream, landing, self._bounds)
            first, done = True, landing.mark.entries if landing.format == "lines" else 0
            for batch, last in _with_last(group(landing.sha256, entries), Batch(landing.sha256, [])):
                done += len(batch.entries)
                tail = batch.entries[-1].next if batch.entries else (landing.mark.offset, landing.mark.line)
                mark = Mark(max(done, landing.mark.entries), *tail)
                yield _Tag(landing, [entry.bundle for entry in batch.entries], mark, first, last), batch
                first = False


def _with_last(batches: Iterator[Batch], nothing: Batch) -> Iterator[tuple[Batch, bool]]:
    held = next(batches, nothing)
    for batch in batches:
        yield held, False
        held = batch
    yield held, True


class _Told:
    """What has come out so far: entries of each landing, and the ids of the Bundle at hand."""

    def __init__(self) -> None:
        self._entries: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._bundle: tuple[str, int] = ("", 0)
        # Hashes of 64 bits for both: a Bundle may have millions of entries.
        self._digests: dict[int, int] = {}

    def total(self, landing: Landing) -> int:
        """Entries of a landing that were committed before, or came out of another source with the same content."""
        # What could not be read has no landing, so nothing of it was committed before.
        return max(landing.mark.entries, self._entries.get(landing.id, 0)) if landing.id else 0

    def refused(self, landing: Landing) -> int:
        """Those of `total` that were refused."""
        return max(landing.refused, self._refused.get(landing.id, 0)) if landing.id else 0

    def refuse(self, landing: Landing) -> None:
        """Count one refusal that was not committed before."""
        self._refused[landing.id] = self._refused.get(landing.id, landing.refused) + 1

    def committed(self, landing: Landing) -> bool:
        """Count one entry; whether an earlier run has committed it."""
        # Lines go on at the mark, documents start again.
        start = landing.mark.entries if landing.format == "lines" else 0
        count = self._entries[landing.id] = self._entries.get(landing.id, start) + 1
        return count <= landing.mark.entries

    def clash(self, landing: Landing, bundle: int, record: Parsed) -> Rejected | None:
        """The refusal of a record whose Bundle has the same id with another body: it contradicts itself."""
        if not bundle:
            return None
        if self._bundle != (landing.id, bundle):
            self._bundle = (landing.id, bundle)
            self._digests = {}
        digest = int.from_bytes(record.digest[:8], "big")
        if self._digests.setdefault(hash(f"{record.type}/{record.id}"), digest) == digest:
            return None
        return Rejected(
            record.offset,
            record.length,
            record.line,
            record.position,
            "Bundle.entry.resource.id",
            "ingest.duplicate_in_bundle",
            "Another entry of the same Bundle has this id with another body; the first one was kept.",
        )


def _part(tag: _Tag, outcome: Outcome, told: _Told) -> Part:
    landing = tag.landing
    part = Part(landing, Mark(), tag.mark, tag.last, tag.settled)
    if tag.first:
        part.already, part.refused = told.total(landing), told.refused(landing)
    for bundle, record in zip(tag.bundles, outcome.items(), strict=True):
        if isinstance(record, Parsed):
            record = told.clash(landing, bundle, record) or record
        if told.committed(landing):
            continue
        if isinstance(record, Parsed):
            part.parsed.append(record)
        else:
            part.rejected.append(record)
            told.refuse(landing)
    part.before = Mark(tag.mark.entries - len(part), 0, 1)
    return part


def _continues(first: Part, second: Part) -> bool:
    return (
        bool(second.landing.id) and first.landing.id == second.landing.id and not first.settled and not second.settled
    )


def _join(first: Part, second: Part) -> None:
    first.parsed += second.parsed
    first.rejected += second.rejected
    first.mark, first.finished = second.mark, second.finished
    first.already += second.already
    first.refused += second.refused
