"""Taking resources out of landings (decision D4): their ranges are blanked, and the rest still verifies.

Each landing is read again as it was read at first, entry by entry, so that also what was never kept is found:
entries that were unchanged, that were refused, and that only name what is erased. A blanked range is an empty object
and white space: the same length and lines, so that ranges, lines and positions of all others stay what they are.

The manifest of a landing holds a SHA-256 of each stretch between blanked ranges, made while the content was still the
one that the landing is named by: what is left is proved to be what came. A landing that held nothing else goes whole.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import msgspec
import zstandard
from sqlalchemy import Connection, Row, delete, insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Corrupt
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.gone import Gone
from carelake.fhir.references import rewrite
from carelake.fhir.unlink import without
from carelake.ingest.batches import Entry, Mark
from carelake.ingest.blanking import BLOCK, Span, blocks, copy, is_blank, joined, meets
from carelake.ingest.entries import entries_of
from carelake.ingest.landing import ERASED, ZONE, Landing, landing_of
from carelake.ingest.tables import landing as table
from carelake.ingest.tables import landing_manifest, quarantine
from carelake.vault.workspace import Vault

__all__ = ["Landed", "LandingEraser"]

_OVERLAP = 256
_SHORTEST = len(b"Aaa/1")
"""Fewer bytes than this between two entries name nobody."""
_PATIENT = re.compile(rb'"resourceType"\s*:\s*"Patient"')
_L, _Q = table.c, quarantine.c


class _Manifest(msgspec.Struct, frozen=True, array_like=True):
    """Of one landing. ``ranges``: offset, length, and SHA-256 of what stays there, "" where it was blanked."""

    landing: str
    size: int
    ranges: list[tuple[int, int, str]]


@dataclass(slots=True)
class Landed:
    """What became of landings.

    Attributes:
        seen: read. blanked: rewritten. removed: held nothing else, and went whole. ranges: blanked in them.
        refused: rows of quarantine that went.
    """

    seen: int = 0
    blanked: int = 0
    removed: int = 0
    ranges: int = 0
    bytes: int = 0
    refused: int = 0
    manifests: list[str] | None = None

    def add(self, other: Landed) -> None:
        """Count another's too."""
        for name in ("seen", "blanked", "removed", "ranges", "bytes", "refused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class _Found:
    """What is to be blanked in a landing.

    Attributes:
        entries: all of its entries. left: those that stay.
        patients: Patients among those that go. others: Patients among those that stay.
    """

    spans: list[Span] = field(default_factory=list)
    entries: int = 0
    left: int = 0
    patients: int = 0
    others: int = 0

    @property
    def theirs(self) -> bool:
        """Whether it was the file of the erased, so that its name may be their name."""
        return bool(self.patients and not self.others)


class LandingEraser:
    """See the module."""

    def __init__(self, vault: Vault, nouns: Nouns) -> None:
        self._vault = vault
        self._nouns = nouns

    def held(self, permit: Permit, refs: Iterable[str]) -> int:
        """How many of these landings may not be touched: under a legal hold, or retained."""
        now = self._vault.clock.now()
        count = 0
        for row in self._rows(permit, set(refs)):
            if row.object:
                for one in self._vault.objects.versions(permit, ZONE, row.object):
                    count += one.held or bool(one.retain_until and one.retain_until > iso(now))
        return count

    def erase(
        self,
        permit: Permit,
        gone: Gone,
        ranges: Iterable[tuple[str, int, int]],
        *,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Landed:
        """Take it out of every landing of the account; one act and one transaction for each that has some of it.

        Args:
            ranges: known places: ref of the landing, offset and length.

        Raises:
            Refused: ``vault.held``, ``vault.retained``: a landing may not be touched; those before it are done.
        """
        known: dict[str, set[Span]] = defaultdict(set)
        for ref, offset, length in ranges:
            known[ref].add((offset, offset + length))
        rows = self._rows(permit)
        told = Landed(seen=len(rows), manifests=[])
        for number, row in enumerate(rows, 1):
            if row.object:
                self._one(permit, row, gone, known.get(row.ref, set()), told)
            progress(number, len(rows))
        self._unlanded(permit, gone, told)
        return told

    def _rows(self, permit: Permit, refs: set[str] | None = None) -> list[Row[Any]]:
        query = select(table).where(_L.account == permit.account).order_by(_L.at, _L.id)
        with self._vault.database.reading(permit) as tx:
            return [row for row in tx.execute(query) if refs is None or row.ref in refs]

    # -- one landing ----------------------------------------------------------------------------------------------

    def _one(self, permit: Permit, row: Row[Any], gone: Gone, known: set[Span], told: Landed) -> None:
        landing = replace(landing_of(row), mark=Mark(), finished=False)
        with self._vault.objects.open(permit, ZONE, row.object) as stream:
            found = self._find(stream, landing, gone, known)
            if not found.spans:
                return
            if not found.left:
                self._remove(permit, row, told)
                return
            self._blank(permit, row, stream, found, told)

    def _find(self, stream: BinaryIO, landing: Landing, gone: Gone, known: set[Span]) -> _Found:
        found, outside, at = _Found(), list[Span](), 0
        for page in _pages(entries_of(stream, landing, self._vault.settings.ingest)):
            near = set(gone.may_be_in([entry.data for entry in page]))
            for number, entry in enumerate(page):
                start, end = entry.offset, entry.offset + len(entry.data)
                if start - at >= _SHORTEST:
                    outside.append((at, start))
                at = max(at, end)
                if is_blank(entry.data):
                    continue
                found.entries += 1
                is_patient = _PATIENT.search(entry.data) is not None
                if (start, end) in known or _names(entry, gone, near=number in near):
                    found.spans.append((start, end))
                    found.patients += is_patient
                else:
                    found.left += 1
                    found.others += is_patient
        for start, end in [*outside, (at, landing.size)]:
            found.spans += _in_bytes(stream, start, end, gone)
        found.spans = sorted(set(found.spans))
        return found

    def _remove(self, permit: Permit, row: Row[Any], told: Landed) -> None:
        with self._vault.database.transaction(permit) as tx:
            self._vault.objects.keeping.purge(permit, ZONE, row.object)
            values = {"state": ERASED, "source": "", "object": "", "sha256": ""}
            tx.execute(update(table).where(_L.id == row.id).values(values))
            tx.execute(delete(landing_manifest).where(landing_manifest.c.landing == row.id))
            gone = tx.execute(delete(quarantine).where(_Q.account == permit.account, _Q.landing == row.id)).rowcount
            self._nouns.set_state(tx, row.ref, ERASED)
            permit.log.wrote(row.ref)
            permit.log.count(landings_removed=1)
        told.add(Landed(removed=1, bytes=row.size, refused=gone))

    def _blank(self, permit: Permit, row: Row[Any], stream: BinaryIO, found: _Found, told: Landed) -> None:
        spans, before = found.spans, self._manifest(permit, row.id)
        old = [(at, at + length) for at, length, digest in before.ranges if not digest] if before else []
        blanks = joined([*spans, *old])
        out = self._vault.objects.create(permit, ZONE, row.object)
        try:
            made = _Manifest(row.ref, row.size, copy(stream, row.size, blanks, set(old), out.write))
            packed = zstandard.compress(msgspec.json.encode(made))
            name = self._vault.keyring.reference(permit, "manifest", msgspec.json.encode(made))
            with self._vault.database.transaction(permit) as tx:
                # The same name: the noun knows the content by it. Nothing of what was there stays, row or bytes.
                self._vault.objects.keeping.purge(permit, ZONE, row.object)
                out.commit()
                refused = self._settle(permit, tx, row, spans)
                if found.theirs:
                    self._unname(tx, row)
                tx.execute(delete(landing_manifest).where(landing_manifest.c.landing == row.id))
                tx.execute(insert(landing_manifest).values(landing=row.id, digest=name, ranges=packed))
                permit.log.wrote(row.ref)
                permit.log.count(landings_blanked=1, ranges_blanked=len(spans))
        finally:
            out.discard()
        told.add(Landed(blanked=1, ranges=len(spans), bytes=sum(b - a for a, b in spans), refused=refused))
        if told.manifests is not None:
            told.manifests.append(name)

    @staticmethod
    def _settle(permit: Permit, tx: Connection, row: Row[Any], spans: Sequence[Span]) -> int:
        """Delete the refusals of what was blanked."""
        whole = joined(spans)
        query = select(_Q.number, _Q.offset, _Q.length).where(_Q.account == permit.account, _Q.landing == row.id)
        over = [one.number for one in tx.execute(query) if meets(whole, one.offset, one.offset + one.length)]
        for start in range(0, len(over), 500):
            tx.execute(delete(quarantine).where(_Q.number.in_(over[start : start + 500])))
        return len(over)

    @staticmethod
    def _unname(tx: Connection, row: Row[Any]) -> None:
        """Forget the path of a file that was theirs, though it held what stays: it may be their name."""
        tx.execute(update(table).where(_L.id == row.id).values(source=""))
        tx.execute(update(quarantine).where(_Q.account == row.account, _Q.landing == row.id).values(source=""))

    def _unlanded(self, permit: Permit, gone: Gone, told: Landed) -> None:
        """Names of files: a path can be a patient's name and id; and refusals of what never landed."""
        with self._vault.database.transaction(permit) as tx:
            for one, key in ((table, _L.id), (quarantine, _Q.number)):
                query = select(key, one.c.source).where(one.c.account == permit.account, one.c.source != "")
                for number, source in tx.execute(query).all():
                    if gone.in_path(source.encode("utf-8", "surrogateescape")):
                        tx.execute(update(one).where(key == number).values(source=""))
                        permit.log.count(sources_blanked=1)

    # -- proof ----------------------------------------------------------------------------------------------------

    def _manifest(self, permit: Permit, landing: str) -> _Manifest | None:
        with self._vault.database.reading(permit) as tx:
            row = tx.execute(select(landing_manifest).where(landing_manifest.c.landing == landing)).first()
        if row is None:
            return None
        text = zstandard.decompress(row.ranges)
        if self._vault.keyring.reference(permit, "manifest", text) != row.digest:
            raise Corrupt("ingest.manifest", "The manifest of a landing was altered; restore it from a backup.")
        return msgspec.json.decode(text, type=decodable(_Manifest))

    def verify(self, permit: Permit) -> int:
        """Compare every blanked landing with its manifest; answers how many there are.

        Raises:
            Corrupt: ``ingest.manifest``: what stays is not what came, or what was blanked is not blank.
        """
        count = 0
        for row in self._rows(permit):
            made = self._manifest(permit, row.id) if row.object else None
            if made is None:
                continue
            count += 1
            with self._vault.objects.open(permit, ZONE, row.object) as stream:
                for offset, length, digest in made.ranges:
                    told, bare = hashlib.sha256(), True
                    for block in blocks(stream, offset, offset + length):
                        told.update(block)
                        bare = bare and not block.strip(b"{} \n0-")
                    if digest not in ("", told.hexdigest()) or (not digest and not bare):
                        raise Corrupt(
                            "ingest.manifest", "A blanked landing is not as its manifest says; restore a backup."
                        )
        return count

    def residue(
        self, permit: Permit, gone: Gone, *, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> int:
        """Entries of landings that still name what is gone, or bytes between them."""
        count = 0
        rows = self._rows(permit)
        for number, row in enumerate(rows, 1):
            if row.object:
                landing = replace(landing_of(row), mark=Mark(), finished=False)
                with self._vault.objects.open(permit, ZONE, row.object) as stream:
                    count += len(self._find(stream, landing, gone, set()).spans)
            progress(number, len(rows))
        with self._vault.database.reading(permit) as tx:
            for one in (table, quarantine):
                query = select(one.c.source).where(one.c.account == permit.account, one.c.source != "")
                count += sum(gone.in_path(s.encode("utf-8", "surrogateescape")) for s in tx.scalars(query))
        return count


def _names(entry: Entry, gone: Gone, *, near: bool) -> bool:
    """Whether an entry is erased, or names what is; ``near`` tells that its text may."""
    said = set(entry.mapping.values())
    if not said.isdisjoint(gone.resources):
        return True
    if not near and not gone.has_id(entry.given_id):
        return False
    try:
        body = canonical.load(entry.data)
    except (CarelakeError, RecursionError, ArithmeticError):
        return gone.named_in(entry.data)
    if not isinstance(body, dict):
        return gone.named_in(entry.data)
    kind, key = body.get("resourceType"), body.get("id", entry.given_id)
    if f"{kind}/{key}" in gone.resources:
        return True
    if entry.mapping:
        rewrite(body, entry.mapping)
    try:
        return without(body, gone) != body
    except (CarelakeError, RecursionError, KeyError, TypeError, AttributeError):
        return gone.named_in(entry.data)  # it was refused: its shape may be anything


def _pages(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Entries that have a text, some at a time: what has none is looked at as bytes."""
    page: list[Entry] = []
    size = 0
    for entry in entries:
        if entry.data:
            page.append(entry)
            size += len(entry.data)
        if size >= BLOCK:
            yield page
            page, size = [], 0
    if page:
        yield page


def _in_bytes(stream: BinaryIO, start: int, end: int, gone: Gone) -> Iterator[Span]:
    """Ids in what stands between entries: addresses of entries, broken text."""
    at, held = start, b""
    for block in blocks(stream, start, end):
        text = held + block
        for first, last in gone.places(text):
            yield at - len(held) + first, at - len(held) + last
        at += len(block)
        held = text[-_OVERLAP:]
