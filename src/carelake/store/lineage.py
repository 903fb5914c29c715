"""Where a version came from: the landing and the bytes of it, as a noun of the chain."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.store.keep import DIGEST_BYTES
from carelake.store.scopes import version_scope
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource, resource_version

__all__ = ["resolver"]

_HEX = 16 + 2 * DIGEST_BYTES


def resolver(permit: Permit, symbols: Symbols) -> Callable[[Connection, str], Noun | None]:
    """A function that finds the noun of a resource's ref in the permit's account and scope, or None.

    The noun's body has type, version, and the byte range and line in the landing it was made from; no id, which is a
    patient's identifier. Its state is ``current``, ``superseded`` or ``deleted``.
    """

    def resolve(tx: Connection, ref: str) -> Noun | None:
        seq = _seq(ref)
        if seq is None:
            return None
        row = resource_version.c
        kinds = {key: text for text, key in symbols.everything(tx, kinds_of(permit.account)).items()}
        query = select(resource_version).where(
            row.seq == seq, row.kind.in_(list(kinds)), version_scope(permit, tx, symbols)
        )
        found = tx.execute(query).first()
        if found is None or found.digest.hex() != ref[-2 * DIGEST_BYTES :]:
            return None
        newest = tx.execute(select(resource.c.seq).where(resource.c.kind == found.kind, resource.c.id == found.id))
        state = "deleted" if found.deleted else "current" if newest.scalar() == seq else "superseded"
        origin = symbols.texts(tx, (found.origin,)).get(found.origin, "")
        body = {
            "type": kinds[found.kind],
            "version": found.version,
            "offset": found.offset,
            "length": found.length,
            "line": found.line,
        }
        return Noun(ref, permit.account, state, found.act, (origin,) if origin else (), body)

    return resolve


def _seq(ref: str) -> int | None:
    kind, _, digits = ref.partition(":")
    if kind != "resource" or len(digits) != _HEX:
        return None
    try:
        seq = int(digits[:16], 16)
    except ValueError:
        return None
    return seq if seq < 1 << 63 else None
