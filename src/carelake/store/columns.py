"""The change feed by columns: for a follower that takes everything, and has no use for an object of each change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.errors import Gone
from carelake.core.permit import Permit
from carelake.fhir.compartment import patients, tells_of_patients
from carelake.store import bodies
from carelake.store.keep import ref_of
from carelake.store.symbols import Symbols
from carelake.vault.workspace import Vault

__all__ = ["Columns", "Page", "opened"]


@dataclass(slots=True)
class Columns:
    """Versions of one type in the order of their seq, a list for each column; as `feed.Change` but for these.

    Attributes:
        updated: milliseconds since 1970 UTC.
        owner: None for nobody.
        previous: None for none.
        body: None when deleted or erased.
    """

    seq: list[int] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    updated: list[int] = field(default_factory=list)
    owner: list[str | None] = field(default_factory=list)
    deleted: list[bool] = field(default_factory=list)
    previous: list[int | None] = field(default_factory=list)
    body: list[bytes | None] = field(default_factory=list)
    held: int = 0
    """Bytes of the bodies."""

    def __len__(self) -> int:
        return len(self.seq)


@dataclass(slots=True)
class Page:
    """Some of the feed.

    Attributes:
        types: versions by type.
        seq: the last one in it; 0 where it is empty.
        refs: of all of them, in order.
    """

    types: dict[str, Columns] = field(default_factory=dict)
    seq: int = 0
    refs: list[str] = field(default_factory=list)


def opened(
    permit: Permit, tx: Connection, vault: Vault, symbols: Symbols, query: Select[Any], said: dict[str, Any]
) -> Page:
    """What a query for `rows.COLUMNS` and the seq before gives, opened; whose it is is noted for the permit's act."""
    with closing(tx.execute(query, said)) as result:
        rows: Sequence[tuple[Any, ...]] = result.cursor.fetchall()
    texts = symbols.texts(tx, {row[1] for row in rows} | {row[5] for row in rows})
    owners = {texts.get(key, "") for key in {row[5] for row in rows}}
    open_ = vault.sealer.keys_for(permit, tx, owners, create=False).open
    note(permit, vault.keyring, owners)
    context, unpack = bodies.context, bodies.unpack
    page = Page(seq=rows[-1][0] if rows else 0)
    refs, types = page.refs, page.types
    for seq, kind, key, version, deleted, owner_key, updated, digest, body, previous in rows:
        type_, owner = texts[kind], texts.get(owner_key, "")
        text: bytes | None = None
        try:
            packed = open_(owner, context(type_, key, version), body)
            text = None if deleted else unpack(packed)
        except Gone:
            pass
        if not owner and text and tells_of_patients(type_):
            note(permit, vault.keyring, patients(canonical.load(text)))
        to = types.get(type_)
        if to is None:
            to = types[type_] = Columns()
        to.seq.append(seq)
        to.id.append(key)
        to.version.append(version)
        to.updated.append(updated // 1000)
        to.owner.append(owner or None)
        to.deleted.append(text is None)
        to.previous.append(previous or None)
        to.body.append(text)
        if text is not None:
            to.held += len(text)
        refs.append(ref_of(seq, digest))
    return page
