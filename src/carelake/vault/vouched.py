"""What a row of ``object_version`` says, vouched for: who can edit rows (PostgreSQL) cannot exchange or forge unseen.

HMAC-SHA256 under a key derived (HKDF, RFC 5869) from ``security/reference``, which is never rotated, disabled or
destroyed, so that a row can be checked whatever became of its zone's key. It covers all that never changes or changes
by our hand alone; not which version is the current one, whether its bytes are gone, and its storage class. A row that
is deleted, or put back as it once was, is not noticed by it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, Row, bindparam, select, update

from carelake.core.errors import Corrupt
from carelake.vault.depot import Depot
from carelake.vault.tables import object_version
from carelake.vault.wrapping import KEY_BYTES, bind

__all__ = ["check_voucher", "vouch_all", "voucher"]

_T = object_version.c
_PAGE = 1000


def voucher(depot: Depot, row: Mapping[Any, Any]) -> bytes:
    """The voucher of a row, given by the names of its columns; 32 bytes."""
    told = bind(
        "carelake-voucher-1",
        depot.workspace,
        row["account"],
        row["zone"],
        row["name"],
        row["version"],
        row["object"],
        row["size"],
        row["sha256"],
        row["created"],
        row["tags"],
        row["parts"],
        int(row["form"] == "marker"),
        row["retain_mode"] or "",
        row["retain_until"] or "",
        int(row["held"]),
    )
    return hmac.digest(_derived(depot.keyring.inner("security/reference").secret), told, "sha256")


def check_voucher(depot: Depot, row: Row[Any]) -> None:
    """Let pass a row that says what was entered; `Corrupt` ``vault.row_altered`` otherwise."""
    if not hmac.compare_digest(voucher(depot, row._mapping), row.voucher or b""):
        raise Corrupt(
            "vault.row_altered",
            "The row of an object is not what was entered: its name, size, digest, tags or retention was altered. "
            "Restore it from a backup.",
        )


def vouch_all(depot: Depot, connection: Connection) -> None:
    """Vouch for the rows of a database that is being upgraded from a format that had no vouchers."""
    change = update(object_version).where(_T.seq == bindparam("in_seq")).values(voucher=bindparam("made"))
    query, seen = select(object_version).order_by(_T.seq).limit(_PAGE), -1
    while rows := connection.execute(query.where(_T.seq > seen, _T.voucher.is_(None))).all():
        connection.execute(change, [{"in_seq": row.seq, "made": voucher(depot, row._mapping)} for row in rows])
        seen = rows[-1].seq


@lru_cache(maxsize=4)
def _derived(secret: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"carelake-voucher-1").derive(secret)
