"""Grants: one action, in one account, for one purpose, for some days; asked for by one and approved by another.

A grant is how a principal gets at what its roles do not give it, above all in an account that it does not belong to.
Guardrails stand above grants. Grants are attributes of a decision, not policies: policies name ``context.granted``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from carelake.access.actions import actions, groups
from carelake.access.principals import Principal, Principals
from carelake.access.stamp import changed
from carelake.access.tables import access_grant
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.vault.places import ACCOUNTS

__all__ = ["Grant", "Grants", "covers", "grantable"]


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant, approved or not.

    Attributes:
        action: an action, an action without its zone, or a policy group of ``actions.toml``.
        expires: None until it is approved.
    """

    id: str
    principal: str
    action: str
    account: str
    purpose: str
    days: int
    requested_by: str
    requested: datetime
    approved_by: str | None = None
    approved: datetime | None = None
    expires: datetime | None = None
    revoked_by: str | None = None
    revoked: datetime | None = None

    def state(self, now: datetime) -> str:
        """``requested``, ``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is None:
            return "requested"
        return "active" if now < self.expires else "expired"


def covers(grant: Grant, action: str, account: str, purpose: str, now: datetime) -> bool:
    """Whether a grant is good now for this action in this account for this purpose."""
    if grant.state(now) != "active" or grant.account != account or grant.purpose != purpose:
        return False
    return grant.action in (action, action.partition("@")[0]) or grant.action in groups(action)


def grantable() -> frozenset[str]:
    """What a grant may name."""
    known = set(actions())
    return frozenset(known | {name.partition("@")[0] for name in known} | {g for name in known for g in groups(name)})


class Grants:
    """The table of grants, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, grant: Grant, *, most_days: int, seal: Callable[[str], bytes]) -> None:
        """Keep a request. It gives nothing until another principal approves it.

        Args:
            seal: makes the sealed reason out of the grant's id, which it is bound to.

        Raises:
            Invalid: ``access.grant``, ``access.unknown_account``.
            NotFound: ``access.no_such_principal``.
        """
        if grant.action not in grantable():
            raise Invalid(
                "access.grant", "A grant names an action or a group of actions of `carelake access actions`."
            )
        if grant.account not in ACCOUNTS:
            raise Invalid("access.unknown_account", f"Unknown account; the accounts are {', '.join(ACCOUNTS)}.")
        if not 0 < grant.days <= most_days:
            raise Invalid("access.grant", f"A grant lasts 1 to {most_days} days (access.grant_max_days).")
        Principals(self._connection).get(grant.principal)
        self._connection.execute(
            insert(access_grant).values(
                id=grant.id,
                principal=grant.principal,
                action=grant.action,
                account=grant.account,
                purpose=grant.purpose,
                reason=seal(grant.id),
                days=grant.days,
                requested_by=grant.requested_by,
                requested=iso(grant.requested),
            )
        )

    def approve(self, name: str, by: Principal, *, account: str, now: datetime) -> Grant:
        """Approve a request, in the account that it opens.

        Raises:
            Refused: ``access.second_principal``, when it was asked for by the approver or would be theirs.
            Conflict: ``access.grant_state``.
        """
        found = self.get(name)
        if by.name in (found.requested_by, found.principal):
            raise Refused(
                "access.second_principal", "A grant is approved by another than who asked for it or who gets it."
            )
        self._in_account(found, account)
        if found.state(now) != "requested":
            raise Conflict(
                "access.grant_state", f"The grant is {found.state(now)}; only a requested one is approved."
            )
        expires = now + timedelta(days=found.days)
        self._set(name, approved_by=by.name, approved=iso(now), expires=iso(expires))
        return self.get(name)

    def revoke(self, name: str, by: Principal, *, account: str, now: datetime) -> Grant:
        """End a grant; it counts from the next decision on, in every process."""
        found = self.get(name)
        self._in_account(found, account)
        if found.revoked is not None:
            raise Conflict("access.grant_state", "The grant is revoked already.")
        self._set(name, revoked_by=by.name, revoked=iso(now))
        return self.get(name)

    def get(self, name: str) -> Grant:
        """One grant; `NotFound` ``access.no_such_grant``."""
        row = self._connection.execute(select(access_grant).where(access_grant.c.id == name)).first()
        if row is None:
            raise NotFound("access.no_such_grant", "There is no such grant; `carelake access grant list` shows them.")
        return _grant(row)

    def sealed_reason(self, name: str) -> bytes:
        """The sealed reason of a grant that is there."""
        found = select(access_grant.c.reason).where(access_grant.c.id == name)
        return bytes(self._connection.execute(found).scalar_one())

    def all(self) -> list[Grant]:
        """Every grant, the oldest first."""
        return [
            _grant(row) for row in self._connection.execute(select(access_grant).order_by(access_grant.c.requested))
        ]

    def of(self, principal: str) -> list[Grant]:
        """The grants of a principal that were approved and not revoked; some may have ended."""
        query = select(access_grant).where(
            access_grant.c.principal == principal,
            access_grant.c.expires.is_not(None),
            access_grant.c.revoked.is_(None),
        )
        return [_grant(row) for row in self._connection.execute(query.order_by(access_grant.c.id))]

    def _in_account(self, grant: Grant, account: str) -> None:
        if grant.account != account:
            raise Refused(
                "access.not_your_account", f"The grant is for account {grant.account}; decide on it in that account."
            )

    def _set(self, name: str, **values: Any) -> None:
        self._connection.execute(update(access_grant).where(access_grant.c.id == name).values(**values))
        changed(self._connection)


def _grant(row: Row[Any]) -> Grant:
    return Grant(
        row.id,
        row.principal,
        row.action,
        row.account,
        row.purpose,
        row.days,
        row.requested_by,
        instant(row.requested),
        row.approved_by,
        _moment(row.approved),
        _moment(row.expires),
        row.revoked_by,
        _moment(row.revoked),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else instant(text)
