"""Access keys for AWS Signature Version 4: an id and a secret, the secret sealed under the security account's key.

A signature is made with the secret itself, so it cannot be kept as a hash. It is shown once, when it is made.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from carelake.access.principals import Principal, Principals, within
from carelake.access.stamp import changed
from carelake.access.tables import access_key as table
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.settings import AccessSettings
from carelake.vault.workspace import Vault

__all__ = ["AccessKey", "AccessKeys", "aged", "stale_note"]

_LETTERS = string.ascii_uppercase + "234567"
_MOST = 2
_NOTED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One access key, without its secret.

    Attributes:
        purpose: what its requests are for; a signature has no place to say so.
        role: the one role of the principal's that it carries, "" for all.
        last_used: to the hour.
    """

    id: str
    principal: str
    account: str
    purpose: str
    role: str
    created: datetime
    last_used: datetime | None = None
    disabled: bool = False


class AccessKeys:
    """The table of access keys, within one transaction."""

    def __init__(self, vault: Vault, connection: Connection) -> None:
        self._vault = vault
        self._connection = connection

    def add(
        self, vouching: Permit, who: Principal, *, account: str, purpose: str, role: str, by: Principal | None
    ) -> tuple[AccessKey, str]:
        """A new key and its secret, which nobody can read again.

        Args:
            vouching: from ``gate.vouching()``.

        Raises:
            Refused: ``access.role_not_held``, ``access.not_your_account``.
            Conflict: ``access.too_many_keys``: two at most, so that one can follow the other.
        """
        within(who, by)
        if role and role not in who.roles:
            raise Refused("access.role_not_held", f"{who.name} does not hold the role {role}.")
        if sum(not key.disabled for key in self.of(who.name)) >= _MOST:
            raise Conflict("access.too_many_keys", f"A principal has at most {_MOST} keys in use; disable one first.")
        made = "AKCL" + "".join(secrets.choice(_LETTERS) for _ in range(16))
        secret = secrets.token_urlsafe(30)
        now = self._vault.clock.now()
        self._connection.execute(
            insert(table).values(
                id=made,
                principal=who.name,
                account=account,
                purpose=purpose,
                role=role,
                sealed=self._vault.sealer.seal(vouching, self._connection, "", _bound(made), secret.encode()),
                created=iso(now),
                disabled=False,
            )
        )
        return self.get(made), secret

    def disable(self, name: str, *, by: Principal | None) -> AccessKey:
        """End a key; it counts from the next request on."""
        found = self.get(name)
        within(Principals(self._connection).get(found.principal), by)
        self._connection.execute(update(table).where(table.c.id == name).values(disabled=True))
        changed(self._connection)  # what any process has kept of the key is void from this commit on
        return self.get(name)

    def get(self, name: str) -> AccessKey:
        """One key; `NotFound` ``access.no_such_key``."""
        row = self._connection.execute(select(table).where(table.c.id == name)).first()
        if row is None:
            raise NotFound(
                "access.no_such_key", "There is no such access key; `carelake access credentials` has all."
            )
        return _key(row)

    def sealed(self, name: str) -> bytes:
        """The secret of a key that is there, sealed."""
        return bytes(self._connection.execute(select(table.c.sealed).where(table.c.id == name)).scalar_one())

    def secret(self, vouching: Permit, name: str, sealed: bytes | None = None) -> str:
        """The secret of a key that is there.

        Args:
            sealed: as it was read before, so that it is not read again.
        """
        closed = self.sealed(name) if sealed is None else sealed
        return self._vault.sealer.open(vouching, self._connection, "", _bound(name), closed).decode()

    def decoy(self, vouching: Permit) -> None:
        """Take the time of `secret` for a key that is not there: open another's, and forget it."""
        other = self._connection.execute(select(table.c.id).limit(1)).scalar()
        if other is not None:
            self.secret(vouching, other)

    def of(self, principal: str) -> list[AccessKey]:
        """The keys of a principal, the oldest first."""
        query = select(table).where(table.c.principal == principal).order_by(table.c.created, table.c.id)
        return [_key(row) for row in self._connection.execute(query)]

    def all(self) -> list[AccessKey]:
        """Every key, the oldest first."""
        return [_key(row) for row in self._connection.execute(select(table).order_by(table.c.created, table.c.id))]

    def note_use(self, key: AccessKey) -> None:
        """Keep when it was used last, to the hour; `stale_note` tells whether there is something to keep."""
        now = iso(self._vault.clock.now())
        self._connection.execute(update(table).where(table.c.id == key.id).values(last_used=now))


def stale_note(key: AccessKey, now: datetime) -> bool:
    """Whether the kept time of the last use is an hour old."""
    return key.last_used is None or now - key.last_used >= _NOTED


def aged(key: AccessKey, settings: AccessSettings, now: datetime) -> str:
    """``ok``, ``old`` (replace it soon), ``expired`` (it is refused) or ``disabled``."""
    if key.disabled:
        return "disabled"
    days = (now - key.created) / timedelta(days=1)
    if days >= settings.key_max_days:
        return "expired"
    return "old" if days >= settings.key_warn_days else "ok"


def _bound(name: str) -> bytes:
    return b"access-key\x1f" + name.encode()


def _key(row: Row[Any]) -> AccessKey:
    used = None if row.last_used is None else instant(row.last_used)
    said = (row.id, row.principal, row.account, row.purpose, row.role, instant(row.created))
    return AccessKey(*said, used, bool(row.disabled))
