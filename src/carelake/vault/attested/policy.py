"""What a sandbox must prove, as data: one row an endpoint and model version, vouched for by the key ring.

A row that was altered or put in by who can write to the database fails its check and releases nothing. One that was
deleted releases nothing either. One that was closed stays, with nothing that it allows: what it was for is not to be
opened anywhere else instead.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, delete, insert, select

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.vault.attested.document import TRUST
from carelake.vault.attested.tables import release_policy as table
from carelake.vault.depot import Depot
from carelake.vault.wrapping import KEY_BYTES, bind

__all__ = ["Rule", "allow", "close", "find", "known", "withdraw"]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """To whom the data keys of some objects are released.

    Attributes:
        subject: ref of the endpoint; ``model``: of the model version.
        objects: by the file's name: the object's name in the zone, and the SHA-256 of its plaintext.
        allow: measurements by `document.PCRS`; one of these sets must be met whole. None where it was closed.
        trust: words of which a document's must be one.
        seconds: how old a document may be.
    """

    subject: str
    model: str
    zone: str
    objects: dict[str, tuple[str, str]]
    allow: list[dict[str, str]]
    trust: tuple[str, ...] = (TRUST,)
    seconds: int = 60
    format: int = 1


def allow(depot: Depot, permit: Permit, tx: Connection, rule: Rule) -> None:
    """Set what is asked of an endpoint's sandbox, in place of what was."""
    withdraw(permit, tx, rule.subject)
    said, at = canonical.dump(msgspec.to_builtins(rule)).decode(), iso(depot.clock.now())
    told = {"account": permit.account, "subject": rule.subject, "said": said, "at": at, "act": permit.act}
    tx.execute(insert(table).values(**told, voucher=_voucher(depot, told)))


def withdraw(permit: Permit, tx: Connection, subject: str) -> bool:
    """Release nothing to that endpoint any more; answers whether there was something to withdraw."""
    own = (table.c.account == permit.account, table.c.subject == subject)
    return bool(tx.execute(delete(table).where(*own)).rowcount)


def close(depot: Depot, permit: Permit, tx: Connection, subject: str) -> bool:
    """Release nothing to that endpoint any more, whatever its row says; answers whether something was."""
    own = (table.c.account == permit.account, table.c.subject == subject)
    if tx.execute(select(table.c.subject).where(*own)).first() is None:
        return False
    try:
        rule = find(depot, tx, permit.account, subject)
    except Corrupt:
        rule = None  # an altered row is closed, too
    if rule is not None and not rule.allow:
        return False
    allow(depot, permit, tx, Rule(subject, rule.model if rule is not None else "", "", {}, []))
    return True


def known(tx: Connection, account: str, subjects: Iterable[str]) -> set[str]:
    """Those of some endpoints of which something is said."""
    own = (table.c.account == account, table.c.subject.in_(sorted(subjects)))
    return set(tx.scalars(select(table.c.subject).where(*own)))


def find(depot: Depot, tx: Connection, account: str, subject: str) -> Rule | None:
    """What is asked of an endpoint's sandbox; None where it has none.

    Raises:
        Corrupt: ``vault.release_policy_altered``.
    """
    row = tx.execute(select(table).where(table.c.account == account, table.c.subject == subject)).mappings().first()
    if row is None:
        return None
    told = {name: row[name] for name in ("account", "subject", "said", "at", "act")}
    if not hmac.compare_digest(_voucher(depot, told), row["voucher"]):
        raise Corrupt(
            "vault.release_policy_altered",
            "What a sandbox must prove was altered in the database, so nothing is released to it; deploy the "
            "endpoint again, and look into who changed it.",
        )
    return msgspec.json.decode(row["said"], type=decodable(Rule))


def _voucher(depot: Depot, told: dict[str, Any]) -> bytes:
    parts = bind("carelake-release-policy-1", depot.workspace, *(told[name] for name in sorted(told)))
    return hmac.digest(_derived(depot.keyring.inner("security/reference").secret), parts, "sha256")


@lru_cache(maxsize=4)
def _derived(secret: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"carelake-release-policy-1").derive(secret)
