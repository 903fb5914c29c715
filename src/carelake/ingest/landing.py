"""Landings: the content of a source as one sealed object, known by its hash, with how far it has been read.

A source is hashed as it lies on disk first, so that a file that was read before costs one pass and no unpacking.
Its content is then streamed once into the vault. The same content under another name, or packed, is the same landing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, delete, insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core.clock import iso
from carelake.core.errors import Conflict
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

__all__ = ["ZONE", "Landing", "Landings"]

ZONE = "landing"
DONE = "done"
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


class Landings:
    """Lands sources, and remembers how far each landing has been read."""

    def __init__(self, vault: Vault, nouns: Nouns) -> None:
        self._vault = vault
        self._nouns = nouns
        bounds = vault.settings.ingest
        self._rules = f"{VERSION}/{bounds.max_line_bytes}/{bounds.max_document_bytes}/{bounds.max_depth}"

    def land(self, permit: Permit, source: Source) -> Landing:
        """The landing of a source: the one that is there, or a new one."""
        try:
            packed = self._vault.keyring.reference(permit, "packed", _digest_of(source))
            known = self._known(permit, table.c.packed == packed, table.c.fault == "")
            return self._reopen(permit, known) if known else self._store(permit, source, packed)
        except OSError:
            return Landing("", "", "", source.name, "", 0, "empty", "ingest.unreadable", False, Mark())

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
        query = select(table.c.source).where(table.c.account == account, table.c.state != DONE).order_by(table.c.at)
        return list(tx.execute(query).scalars())

    def _store(self, permit: Permit, source: Source, packed: str) -> Landing:
        name = self._vault.ids.new()
        out = self._vault.objects.create(permit, ZONE, name)
        try:
            with source.open() as stream:
                content = Content(stream, self._vault.settings.ingest.max_ratio)
                for block in content:
                    out.write(block)
            ref = self._vault.keyring.reference(permit, "landing", content.sha256 + content.fault.encode())
            known = self._known(permit, table.c.ref == ref)
            if known is not None:
                return self._reopen(permit, known)
            made = Landing(
                name,
                ref,
                content.sha256.hex(),
                source.name,
                name,
                content.size,
                "empty",
                content.fault,
                False,
                Mark(),
            )
            return self._record(permit, made, packed, out, source)
        finally:
            out.discard()

    def _record(self, permit: Permit, made: Landing, packed: str, out: ObjectWriter, source: Source) -> Landing:
        """Object, row and noun appear together, or not at all."""
        with self._vault.database.transaction(permit) as tx:
            out.commit()
            made = replace(made, format=self._shape(permit, made, source))
            tx.execute(
                insert(table).values(
                    id=made.id,
                    account=permit.account,
                    ref=made.ref,
                    packed=packed,
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

    def _shape(self, permit: Permit, made: Landing, source: Source) -> Shape:
        bounds = self._vault.settings.ingest
        with self.open(permit, made) as stream:
            return shape(
                stream,
                size=made.size,
                max_line=bounds.max_line_bytes,
                max_document=min(bounds.max_document_bytes, HELD),
                named_lines=source.lines,
            )

    def _known(self, permit: Permit, *conditions: Any) -> Row[Any] | None:
        with self._vault.database.reading(permit) as tx:
            query = select(table).where(table.c.account == permit.account, *conditions).order_by(table.c.at)
            return tx.execute(query).first()

    def _reopen(self, permit: Permit, row: Row[Any]) -> Landing:
        """A landing that is there; read from its start again if it was read under other rules."""
        mark, finished = Mark(row.entries, row.offset, row.line), row.state == DONE
        if row.rules != self._rules:
            mark, finished = Mark(), False
            with self._vault.database.transaction(permit) as tx:
                anew = {"rules": self._rules, "again": True, "state": _LANDED, **_START}
                tx.execute(update(table).where(table.c.id == row.id).values(anew))
                tx.execute(
                    delete(quarantine).where(quarantine.c.account == permit.account, quarantine.c.landing == row.id)
                )
        return Landing(
            row.id,
            row.ref,
            row.sha256,
            row.source,
            row.object,
            row.size,
            row.format,
            row.fault,
            finished,
            mark,
            row.again or row.rules != self._rules,
        )


_START = {"entries": 0, "offset": 0, "line": 1, "stored": 0, "unchanged": 0, "quarantined": 0}


def _digest_of(source: Source) -> bytes:
    digest = hashlib.sha256()
    with source.open() as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.digest()
