"""The permit: the one capability that opens bytes and rows (decision D2).

`access.gate` mints it, `vault` checks it before it unwraps a key, opens a zone or starts a transaction. The seal is
a MAC (BLAKE2b with a key, RFC 7693) under a secret that lives in this process only, so a permit cannot be made up,
altered or carried elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from carelake.core.errors import Refused

__all__ = ["ActLog", "Permit", "check", "mint"]

_SECRET = secrets.token_bytes(32)


class ActLog(Protocol):
    """What a permit's holder did; it becomes the act in the audit trail."""

    def read(self, *refs: str) -> None:
        """Note nouns that were read."""
        ...

    def wrote(self, *refs: str) -> None:
        """Note nouns that were written."""
        ...

    def patients(self, *refs: str) -> None:
        """Note whose records were touched, as ``patient:HEX``; `audit.patients` makes these from ids."""
        ...

    def count(self, **numbers: int) -> None:
        """Add to the act's counters, for example ``stored=1000``."""
        ...

    def key(self, name: str) -> None:
        """Note the use of a key."""
        ...

    def note(self, **facts: str | list[str]) -> None:
        """Note what was changed, in closed words, ids and refs: ``change="add-role", role="auditor"``."""
        ...

    def flush(self, connection: Any) -> None:
        """Write what was noted as an act, on the connection whose transaction is about to commit."""
        ...


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to do one action on one target for one purpose, until it expires.

    Attributes:
        act: id of the act that this permit is accounted under; also the correlation id shown to callers.
        grants: what the vault may open for it: ``ZONE:read``, ``ZONE:write``, ``rows:read``, ``rows:write``.
        scope: names of tested predicates that store and lake AND into their SQL (decision D10).
    """

    act: str
    principal: str
    account: str
    purpose: str
    action: str
    target: str
    grants: frozenset[str]
    scope: tuple[str, ...]
    expires: datetime
    log: ActLog = field(compare=False, repr=False)
    seal: bytes = field(repr=False, default=b"")


def _seal(permit: Permit) -> bytes:
    said = "\x1f".join(
        (
            permit.act,
            permit.principal,
            permit.account,
            permit.purpose,
            permit.action,
            permit.target,
            _in_order(permit.grants),
            "\x1e".join(permit.scope),
            permit.expires.isoformat(),
            str(id(permit.log)),
        )
    )
    return hashlib.blake2b(said.encode(), key=_SECRET, digest_size=32).digest()


@lru_cache(1024)
def _in_order(grants: frozenset[str]) -> str:
    return "\x1e".join(sorted(grants))


def mint(
    *,
    act: str,
    principal: str,
    account: str,
    purpose: str,
    action: str,
    target: str,
    grants: Iterable[str],
    scope: tuple[str, ...],
    expires: datetime,
    log: ActLog,
) -> Permit:
    """Make a sealed permit. Only `access.gate` may call this; a test of the architecture holds it to that."""
    permit = Permit(act, principal, account, purpose, action, target, frozenset(grants), scope, expires, log)
    object.__setattr__(permit, "seal", _seal(permit))
    return permit


def check(permit: Permit, grant: str, *, now: datetime, account: str | None = None) -> None:
    """Let pass a genuine, unexpired permit that covers ``grant`` in ``account``.

    Raises:
        Refused: ``permit.forged``, ``permit.ended``, ``permit.expired``, ``permit.account`` or ``permit.grant``.
    """
    if not isinstance(permit, Permit) or not hmac.compare_digest(permit.seal, _seal(permit)):
        raise Refused("permit.forged", "This permit was not made by the gate of this process.")
    # The log is bound by the seal; the gate marks it when the block is left, and its act has been told by then.
    if getattr(permit.log, "ended", False):
        raise Refused("permit.ended", "The permit was for one act, which is over; enter the gate again.")
    if now >= permit.expires:
        raise Refused("permit.expired", "The permit has expired; enter the gate again.", action=permit.action)
    if account is not None and account != permit.account:
        raise Refused("permit.account", "The permit is for another account.", action=permit.action)
    if grant not in permit.grants:
        raise Refused(
            "permit.grant",
            f"A permit for {permit.action} does not open {grant}; enter the gate for an action that does.",
            action=permit.action,
            grant=grant,
        )
