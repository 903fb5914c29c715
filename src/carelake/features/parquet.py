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
from carelake.features.proof import digest
from carelake.vault.workspace import Vault

__all__ = ["ERASED", "keep", "objects_of", "read", "read_proof"]

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
    *,
    proof: pa.Table | None = None,
) -> Noun:
    """Keep a table and its noun, or find them.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
        body: facts for the noun, beside ``rows``, ``object`` and ``sha256``.
        proof: of the table (`features.proof`), kept beside it; ``proof`` in the body then tells its object.
    """
    data = _bytes(table)
    name = vault.keyring.reference(permit, kind, data)
    place = f"{kind}/{name.partition(':')[2]}"
    said = {**body, "rows": len(table), **_told(f"{place}.parquet", data)}
    beside = None if proof is None else _bytes(proof)
    if proof is not None and beside is not None:
        sources = [one.removesuffix("__event_time") for one in proof.column_names if one.endswith("__event_time")]
        said["proof"] = {
            **_told(f"{place}.proof.parquet", beside),
            "digest": digest(proof, vault.keyring.referrer(permit, "proof")),
            "sources": sources,
        }
    made = Noun(name, permit.account, "built", permit.act, tuple(made_from), said)
    with vault.database.transaction(permit) as tx:
        try:
            return nouns.get(tx, name)
        except NotFound:
            vault.objects.put(permit, _ZONE, said["object"], data)
            if beside is not None:
                vault.objects.put(permit, _ZONE, said["proof"]["object"], beside)
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
    permit.log.read(noun.ref)
    return _opened(permit, vault, noun.body)


def read_proof(permit: Permit, vault: Vault, noun: Noun) -> pa.Table | None:
    """The proof that was kept beside a table, None where there is none; raises as `read`."""
    told = noun.body.get("proof")
    return None if told is None else _opened(permit, vault, told)


def objects_of(noun: Noun) -> list[str]:
    """Names of what a noun keeps in the zone."""
    told = noun.body.get("proof")
    return [str(noun.body["object"]), *([str(told["object"])] if told else [])]


def _opened(permit: Permit, vault: Vault, told: Mapping[str, Any]) -> pa.Table:
    data = vault.objects.get(permit, _ZONE, told["object"])
    if hashlib.sha256(data).hexdigest() != told["sha256"]:
        raise Corrupt("features.altered", "A feature table's bytes are not those it was named by; build it again.")
    return pq.read_table(io.BytesIO(data))


def _told(place: str, data: bytes) -> dict[str, Any]:
    return {"object": place, "sha256": hashlib.sha256(data).hexdigest()}


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=65_536)
    return sink.getvalue()
