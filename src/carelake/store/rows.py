"""Versions read in numbers: rows, seals and packing, with as little work for each as can be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, select

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.errors import Gone, Invalid
from carelake.core.permit import Permit
from carelake.fhir.compartment import patients, tells_of_patients
from carelake.store import bodies
from carelake.store.symbols import Symbols
from carelake.store.tables import resource_version
from carelake.vault.workspace import Vault

__all__ = ["COLUMNS", "Version", "of_a_page", "open_rows", "read_versions"]

_V = resource_version.c
_CHUNK = 500
PAGE_BYTES = 256 << 20
"""Of the texts on one page: fifty of the largest resources that the door takes by default fit."""

COLUMNS = (_V.seq, _V.kind, _V.id, _V.version, _V.deleted, _V.owner, _V.updated, _V.digest, _V.body)
"""Columns that `open_rows` takes, in this order."""

_BY_SEQ = select(*COLUMNS).where(_V.seq.in_(bindparam("seqs", expanding=True)))


class Version(NamedTuple):
    """One version, opened.

    Attributes:
        kind, owner_key: symbols; `type` and `owner` are their texts.
        updated: microseconds since 1970 UTC.
        text: canonical JSON as it came; b"" when deleted.
        erased: the patient's key is gone, and so is the text.
    """

    seq: int
    kind: int
    type: str
    id: str
    version: int
    deleted: bool
    owner_key: int
    owner: str
    updated: int
    digest: bytes
    text: bytes
    erased: bool


def open_rows(
    permit: Permit, tx: Connection, vault: Vault, symbols: Symbols, rows: Sequence[Any]
) -> Iterator[Version]:
    """Open rows of `COLUMNS`, in their order; whose they are is noted for the permit's act."""
    texts = symbols.texts(tx, {symbol for row in rows for symbol in (row[1], row[5])})
    owners = {texts.get(row[5], "") for row in rows}
    open_ = vault.sealer.keys_for(permit, tx, owners, create=False).open
    note(permit, vault.keyring, owners)
    context, unpack = bodies.context, bodies.unpack
    for seq, kind, key, version, deleted, owner_key, updated, digest, body in rows:
        type_, owner = texts[kind], texts.get(owner_key, "")
        erased, text = False, b""
        try:
            packed = open_(owner, context(type_, key, version), body)
            text = b"" if deleted else unpack(packed)
        except Gone:
            erased = True
        if not owner and text and tells_of_patients(type_):
            note(permit, vault.keyring, patients(canonical.load(text)))
        yield Version(seq, kind, type_, key, version, bool(deleted), owner_key, owner, updated, digest, text, erased)


def of_a_page(versions: Iterable[Version]) -> Iterator[Version]:
    """The versions of one answer, which is held in memory whole: a thousand large bodies pack into little.

    Raises:
        Invalid: ``store.page_too_large``: more than `PAGE_BYTES`.
    """
    left = PAGE_BYTES
    for one in versions:
        left -= len(one.text)
        if left < 0:
            raise Invalid(
                "store.page_too_large",
                f"The page would hold more than {PAGE_BYTES >> 20} MiB; ask for fewer resources with _count.",
            )
        yield one


def read_versions(
    permit: Permit, tx: Connection, vault: Vault, symbols: Symbols, seqs: Sequence[int], query: Select[Any] = _BY_SEQ
) -> Iterator[Version]:
    """Versions by seq, in the order asked for; a seq that is not there is left out."""
    for start in range(0, len(seqs), _CHUNK):
        chunk = list(seqs[start : start + _CHUNK])
        found = {row[0]: row for row in tx.execute(query, {"seqs": chunk})}
        yield from open_rows(permit, tx, vault, symbols, [found[seq] for seq in chunk if seq in found])
