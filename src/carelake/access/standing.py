"""A principal's standing: what it holds at this moment, read anew whenever any right has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from threading import Lock

from sqlalchemy import Connection

from carelake.access.actions import actions
from carelake.access.glass import BrokenGlass, Glasses
from carelake.access.grants import Grant, Grants, covers
from carelake.access.groups import Groups
from carelake.access.policy import Request
from carelake.access.principals import Principal, Principals
from carelake.access.stamp import stamp_of
from carelake.core.errors import NotFound
from carelake.vault.workspace import Vault

__all__ = ["Register", "Standing"]

_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """A principal with the roles of its groups, and what it was given for a time."""

    principal: Principal
    grants: tuple[Grant, ...] = ()
    glasses: tuple[BrokenGlass, ...] = ()

    def as_known_by(self, who: Principal) -> Principal:
        """The principal as a caller carries it, less whatever was taken from it since.

        A caller may hold less than the principal (a token for one role), never more.
        """
        own = self.principal
        return replace(
            who,
            kind=own.kind,
            roles=tuple(role for role in who.roles if role in own.roles),
            holds=own.roles,
            groups=own.groups,
            accounts=tuple(account for account in who.accounts if account in own.accounts),
            disabled=who.disabled or own.disabled,
        )

    def request(self, who: Principal, action: str, account: str, purpose: str, now: datetime) -> Request:
        """The question to the policies, with what was given for a time and is good now."""
        if action not in actions():
            return Request(who, action, account, purpose)
        grants = tuple(grant for grant in self.grants if covers(grant, action, account, purpose, now))
        glass = next(
            (g for g in reversed(self.glasses) if g.account == account and g.purpose == purpose and g.active(now)),
            None,
        )
        ends = [grant.expires for grant in grants if grant.expires]
        return Request(
            who,
            action,
            account,
            purpose,
            grants=tuple(grant.id for grant in grants),
            glass=glass.id if glass else "",
            ends=max(ends, default=None),
            glass_ends=glass.expires if glass else None,
        )


class Register:
    """Standings by name. One small read tells whether a standing that is kept is still true."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: dict[str, tuple[str, Standing | None]] = {}
        self._lock = Lock()

    def standing(self, name: str) -> Standing | None:
        """The standing of a principal now, None when there is no such principal."""
        with self._vault.database.ledger_reading() as connection:
            return self.seen(connection, name)

    def seen(self, connection: Connection, name: str) -> Standing | None:
        """As `standing`, as a transaction that is open sees it."""
        stamp = stamp_of(connection)
        known = self._known.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        found = _read(connection, name)
        with self._lock:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[name] = (stamp, found)
        return found


def _read(connection: Connection, name: str) -> Standing | None:
    try:
        own = Principals(connection).get(name)
    except NotFound:
        return None
    groups = Groups(connection).of(name)
    roles = tuple(dict.fromkeys((*own.roles, *(role for group in groups for role in group.roles))))
    whole = replace(own, roles=roles, groups=tuple(group.name for group in groups))
    return Standing(whole, tuple(Grants(connection).of(name)), tuple(Glasses(connection).of(name)))
