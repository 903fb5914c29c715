"""Landings: the content of a source as one sealed object, known by its hash, with how far it has been read.

A source is hashed as it lies on disk first, so that a file that was read before costs one pass and no unpacking.
Its content is then streamed once into the vault. The same content under another name, or packed, is the same landing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, delete, insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Unavailable
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.ingest.batches import Mark
from carelake.ingest.inflate import BLOCK, Content
from carelake.ingest.parse import VERSION
from carelake.ingest.shape import HELD, Shape, shape
from carelake.ingest.sources import Source
from carelake.ingest.tables import landing as table
from carelake.ingest.tables import quarantine
from carelake.vault.objects import ObjectWriter
from carelake.vault.workspace import Vault

__all__ = ["ERASED", "ZONE", "Landing", "Landings", "landing_of"]

ZONE = "landing"
DONE = "done"
ERASED = "erased"
"""Everything in it was erased, and its object is gone. The same content is known, and is not read again."""
_LANDED = "landed"


@dataclass(frozen=True, slots=True)
class Landing:
    """One content.

    Attributes:
        id: "" where the source could not be read at all, so that there is nothing but a refusal.
        ref: of the noun: an HMAC of the content's hash (and its fault).
        sha256: of the content, in hex; missing ids are derived from it.
        format: `ingest.shape.Shape`.
        fault: "" or what ended the content early.
        finished: every entry is committed.
        mark: how far it is committed.
        again: it was read to the end before, under other rules.
        refused: of the entries up to the mark, those that are in quarantine.
    """

    id: str
    ref: str
    sha256: str
    source: str
    object: str
    size: int
    format: Shape
    fault: str
    finished: bool
    mark: Mark
    again: bool = False
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Draft:
    """A new content in the vault, not yet entered."""

    landing: Landing
    packed: str
    out: ObjectWriter
    source: Source


class Landings:
    """Lands sources, and remembers how far each landing has been read."""

    def __init__(self, vault: Vault, nouns: Nouns) -> None:
        self._vault = vault
        self._nouns = nouns
        bounds = vault.settings.ingest
        self._rules = f"{VERSION}/{bounds.max_line_bytes}/{bounds.max_document_bytes}/{bounds.max_depth}"
        if bounds.validation != "structure":
            self._rules += f"/{bounds.validation}"

    def land(self, permit: Permit, sources: Sequence[Source]) -> list[Landing]:
        """The landings of sources: those that are there, or new ones, which appear together.

        Raises:
            Unavailable: ``ingest.workspace_disk``, the workspace's disk takes no more.
        """
        drafts: list[Landing | _Draft] = []
        try:
            for source in sources:
                drafts.append(self._draft(permit, source))
            if any(isinstance(draft, _Draft) for draft in drafts):
                with self._vault.database.transaction(permit) as tx:
                    return [
                        self._record(permit, tx, draft) if isinstance(draft, _Draft) else draft for draft in drafts
                    ]
            return [draft for draft in drafts if isinstance(draft, Landing)]
        except OSError:
            # Of the source's own errors none comes here.
            raise Unavailable(
                "ingest.workspace_disk", "The workspace's disk refused a write; make room and run this again."
            ) from None
        finally:
            for draft in drafts:
                if isinstance(draft, _Draft):
                    draft.out.discard()

    def open(self, permit: Permit, landing: Landing) -> BinaryIO:
        """The content, seekable."""
        return self._vault.objects.open(permit, ZONE, landing.object)

    def advance(
        self, tx: Connection, landing: Landing, mark: Mark, *, finished: bool, before: Mark, **counts: int
    ) -> None:
        """Move the mark, in the transaction of what was read.

        Args:
            before: the mark this reading started from; another reader of the same landing is found out by it.
            counts: numbers to add to ``stored``, ``unchanged`` and ``quarantined``.

        Raises:
            Conflict: ``ingest.overtaken``, another process reads the same landing.
        """
        if not landing.id:
            return
        row = table.c
        values: dict[str, Any] = {"entries": mark.entries, "offset": mark.offset, "line": mark.line}
        values |= {name: row[name] + number for name, number in counts.items()}
        values["state"] = DONE if finished else "parsing"
        moved = tx.execute(
            update(table).where(row.id == landing.id, row.entries == before.entries, row.state != DONE).values(values)
        )
        if moved.rowcount != 1:
            raise Conflict(
                "ingest.overtaken",
                "Another process is reading the same content; run the command again when it is done.",
            )
        if finished:
            self._nouns.set_state(tx, landing.ref, DONE)

    def unfinished(self, tx: Connection, account: str) -> list[str]:
        """Sources whose reading was broken off: reading them again goes on where it stopped."""
        row = table.c
        query = select(row.source).where(row.account == account, row.state.not_in((DONE, ERASED))).order_by(row.at)
        return list(tx.execute(query).scalars())

    def _draft(self, permit: Permit, source: Source) -> Landing | _Draft:
        """A landing that is known by its bytes on disk, or the content sealed and not yet entered."""
        try:
            packed = self._packed(permit, _digest_of(source))
            stream = source.open()
        except OSError:
            return Landing("", "", "", source.name, "", 0, "empty", "ingest.unreadable", False, Mark())
        with stream:
            with self._vault.database.reading(permit) as tx:
                known = self._known(permit, tx, table.c.packed == packed, table.c.fault == "")
            if known is not None and (known.rules == self._rules or known.state == ERASED):
                return landing_of(known)
            content = Content(stream, self._vault.settings.ingest.max_ratio)
            name = self._vault.ids.new()
            out = self._vault.objects.create(permit, ZONE, name)
            try:
                for block in content:
                    out.write(block)
            except BaseException:
                out.discard()
                raise
        # The file may have changed since it was hashed: what is entered is the digest of what was sealed.
        packed = self._packed(permit, content.raw_sha256)
        told = content.sha256 + content.fault.encode()
        ref = self._vault.keyring.reference(permit, "landing", told)
        sha256, fault = content.sha256.hex(), content.fault
        made = Landing(name, ref, sha256, source.name, name, content.size, "empty", fault, False, Mark())
        return _Draft(made, packed, out, source)

    def _packed(self, permit: Permit, digest: bytes) -> str:
        return self._vault.keyring.reference(permit, "packed", digest)

    def _record(self, permit: Permit, tx: Connection, draft: _Draft) -> Landing:
        """Enter a new landing: object, row and noun. Content that is known is not kept twice."""
        known = self._known(permit, tx, table.c.ref == draft.landing.ref)
        if known is not None:
            return self._reopened(permit, tx, known)
        draft.out.commit()
        made = replace(draft.landing, format=self._shape(permit, draft))
        tx.execute(
            insert(table).values(
                id=made.id,
                account=permit.account,
                ref=made.ref,
                packed=draft.packed,
                sha256=made.sha256,
                source=made.source,
                object=made.object,
                size=made.size,
                format=made.format,
                fault=made.fault,
                rules=self._rules,
                again=False,
                state=_LANDED,
                at=iso(self._vault.clock.now()),
                **_START,
            )
        )
        body = {"landing": made.id, "object": made.object, "size": made.size, "format": made.format}
        self._nouns.write(tx, Noun(made.ref, permit.account, _LANDED, permit.act, (), body))
        permit.log.wrote(made.ref)
        return made

    def _shape(self, permit: Permit, draft: _Draft) -> Shape:
        bounds = self._vault.settings.ingest
        with self.open(permit, draft.landing) as stream:
            return shape(
                stream,
                size=draft.landing.size,
                max_line=bounds.max_line_bytes,
                max_document=min(bounds.max_document_bytes, HELD),
                named_lines=draft.source.lines,
            )

    def _known(self, permit: Permit, tx: Connection, *conditions: Any) -> Row[Any] | None:
        query = select(table).where(table.c.account == permit.account, *conditions).order_by(table.c.at)
        return tx.execute(query).first()

    def _reopened(self, permit: Permit, tx: Connection, row: Row[Any]) -> Landing:
        """A landing that is there; to be read from its start if it was read under other rules."""
        if row.rules == self._rules or row.state == ERASED:
            return landing_of(row)
        anew = {"rules": self._rules, "again": True, "state": _LANDED, **_START}
        tx.execute(update(table).where(table.c.id == row.id).values(anew))
        tx.execute(delete(quarantine).where(quarantine.c.account == permit.account, quarantine.c.landing == row.id))
        return replace(landing_of(row), finished=False, mark=Mark(), again=True, refused=0)


def landing_of(row: Row[Any]) -> Landing:
    """The landing of a row."""
    mark = Mark(row.entries, row.offset, row.line)
    told = (row.id, row.ref, row.sha256, row.source, row.object, row.size, row.format, row.fault)
    return Landing(*told, row.state in (DONE, ERASED), mark, row.again, row.quarantined)


_START = {"entries": 0, "offset": 0, "line": 1, "stored": 0, "unchanged": 0, "quarantined": 0}


def _digest_of(source: Source) -> bytes:
    digest = hashlib.sha256()
    with source.open() as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.digest()
