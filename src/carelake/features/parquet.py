"""Feature tables as Parquet objects in zone ``features``, named by an HMAC of their bytes (they hold PHI, D4).

The same rows give the same bytes and so the same noun: what was built before is found, not built twice.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carelake.audit.nouns import Nouns
from carelake.core.errors import Corrupt, Gone, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["ERASED", "keep", "read"]

ERASED = "erased"
"""State of a table that somebody was in who was erased."""

_ZONE = "features"


def keep(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    kind: str,
    table: pa.Table,
    made_from: Sequence[str],
    body: Mapping[str, Any],
) -> Noun:
    """Keep a table and its noun, or find them.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
        body: facts for the noun, beside ``rows``, ``object`` and ``sha256``.
    """
    data = _bytes(table)
    name = vault.keyring.reference(permit, kind, data)
    place = f"{kind}/{name.partition(':')[2]}.parquet"
    said = {**body, "rows": len(table), "object": place, "sha256": hashlib.sha256(data).hexdigest()}
    made = Noun(name, permit.account, "built", permit.act, tuple(made_from), said)
    with vault.database.transaction(permit) as tx:
        try:
            return nouns.get(tx, name)
        except NotFound:
            vault.objects.put(permit, _ZONE, place, data)
            nouns.write(tx, made)
            permit.log.wrote(name)
    return made


def read(permit: Permit, vault: Vault, noun: Noun) -> pa.Table:
    """The table of a noun, as it was kept; needs the grant ``features:read``.

    Raises:
        Gone: ``features.erased``: somebody in it was erased; the rest is another noun, made from this one.
        Corrupt: ``features.altered``, when the object's bytes are not those that the noun names.
    """
    if noun.state == ERASED:
        raise Gone("features.erased", "Somebody in this table was erased; read the one that was made of the rest.")
    data = vault.objects.get(permit, _ZONE, noun.body["object"])
    if hashlib.sha256(data).hexdigest() != noun.body["sha256"]:
        raise Corrupt("features.altered", "A feature table's bytes are not those it was named by; build it again.")
    permit.log.read(noun.ref)
    return pq.read_table(io.BytesIO(data))


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=65_536)
    return sink.getvalue()
