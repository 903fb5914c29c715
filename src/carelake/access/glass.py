"""Break-glass: leave to see identified data in an emergency, for minutes, told aloud and reviewed by another.

A glass is broken for the purpose ETREAT in one account. Every act under it carries its id. It stays a finding until
another principal has reviewed it, and is overdue after some days.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from carelake.access.principals import Principal
from carelake.access.stamp import changed
from carelake.access.tables import access_break_glass as table
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused

__all__ = ["EMERGENCY", "VERDICTS", "BrokenGlass", "Glasses", "checked_reason"]

EMERGENCY = "ETREAT"
"""Emergency treatment (HL7 PurposeOfUse), the one purpose that a glass is broken for."""

VERDICTS = ("justified", "unjustified")
_LONGEST_REASON = 2000


@dataclass(frozen=True, slots=True)
class BrokenGlass:
    """One emergency access; its reason lies sealed in the table and is read on its own.

    Attributes:
        reason_ref: HMAC of the reason, which the trail names.
    """

    id: str
    principal: str
    account: str
    purpose: str
    reason_ref: str
    begun: datetime
    expires: datetime
    review_by: datetime
    ended: datetime | None = None
    reviewed_by: str | None = None
    reviewed: datetime | None = None
    verdict: str | None = None

    def active(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return self.ended is None and self.begun <= now < self.expires

    def state(self, now: datetime) -> str:
        """``active``, ``to review``, ``overdue`` or ``reviewed``."""
        if self.reviewed is not None:
            return "reviewed"
        if self.active(now):
            return "active"
        return "overdue" if now >= self.review_by else "to review"


class Glasses:
    """The table of broken glasses, within one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def smash(
        self,
        who: Principal,
        *,
        name: str,
        account: str,
        purpose: str,
        reason: str,
        minutes: int,
        most_minutes: int,
        review_days: int,
        now: datetime,
        reference: Callable[[bytes], str],
        seal: Callable[[str, str], bytes],
    ) -> BrokenGlass:
        """Begin an emergency access.

        Args:
            reference: the HMAC under the account's reference key that the trail names the reason by.
            seal: seals the reason, bound to the id.

        Raises:
            Invalid: ``access.break_glass``, ``access.reason``.
        """
        if purpose != EMERGENCY:
            raise Invalid("access.break_glass", f"A glass is broken for the purpose {EMERGENCY} only.")
        if not 0 < minutes <= most_minutes:
            raise Invalid(
                "access.break_glass",
                f"Emergency access lasts 1 to {most_minutes} minutes (access.glass_max_minutes).",
            )
        told = checked_reason(reason)
        expires = now + timedelta(minutes=minutes)
        glass = BrokenGlass(
            name,
            who.name,
            account,
            purpose,
            reference(told.encode()),
            now,
            expires,
            expires + timedelta(days=review_days),
        )
        self._connection.execute(
            insert(table).values(
                id=glass.id,
                principal=glass.principal,
                account=account,
                purpose=purpose,
                reason=seal(glass.id, told),
                reason_ref=glass.reason_ref,
                begun=iso(glass.begun),
                expires=iso(glass.expires),
                review_by=iso(glass.review_by),
            )
        )
        changed(self._connection)
        return glass

    def end(self, name: str, *, now: datetime) -> BrokenGlass:
        """End it before its time."""
        if self.get(name).active(now):
            self._set(name, ended=iso(now))
        return self.get(name)

    def close(self, name: str, by: Principal, verdict: str, *, account: str, now: datetime) -> BrokenGlass:
        """Record a review; an access that still runs ends with it.

        Raises:
            Refused: ``access.second_principal``, ``access.not_your_account``.
            Invalid: ``access.verdict``.
            Conflict: ``access.reviewed``.
        """
        found = self.get(name)
        if by.name == found.principal:
            raise Refused("access.second_principal", "Emergency access is reviewed by another than who had it.")
        if found.account != account:
            raise Refused("access.not_your_account", f"It was in account {found.account}; review it in that account.")
        if verdict not in VERDICTS:
            raise Invalid("access.verdict", f"Unknown verdict; expected one of {', '.join(VERDICTS)}.")
        if found.reviewed is not None:
            raise Conflict("access.reviewed", "This emergency access has been reviewed already.")
        ended = iso(now) if found.active(now) else None
        self._set(
            name, reviewed_by=by.name, reviewed=iso(now), verdict=verdict, **({"ended": ended} if ended else {})
        )
        return self.get(name)

    def get(self, name: str) -> BrokenGlass:
        """One of them; `NotFound` ``access.no_such_glass``."""
        row = self._connection.execute(select(table).where(table.c.id == name)).first()
        if row is None:
            raise NotFound("access.no_such_glass", "No such emergency access; `carelake access review list` has all.")
        return _glass(row)

    def sealed_reason(self, name: str) -> bytes:
        """The sealed reason of one that is there."""
        return bytes(self._connection.execute(select(table.c.reason).where(table.c.id == name)).scalar_one())

    def all(self) -> list[BrokenGlass]:
        """Every one, the oldest first."""
        return [_glass(row) for row in self._connection.execute(select(table).order_by(table.c.begun, table.c.id))]

    def of(self, principal: str) -> list[BrokenGlass]:
        """Those of a principal that were not ended; some may have expired."""
        query = select(table).where(table.c.principal == principal, table.c.ended.is_(None))
        return [_glass(row) for row in self._connection.execute(query.order_by(table.c.expires))]

    def _set(self, name: str, **values: Any) -> None:
        self._connection.execute(update(table).where(table.c.id == name).values(**values))
        changed(self._connection)


def checked_reason(text: str) -> str:
    """A reason that says something; `Invalid` ``access.reason`` otherwise."""
    told = " ".join(text.split())
    if not 10 <= len(told) <= _LONGEST_REASON:
        raise Invalid("access.reason", f"A reason has 10 to {_LONGEST_REASON} characters; say why it is needed.")
    return told


def _glass(row: Row[Any]) -> BrokenGlass:
    return BrokenGlass(
        row.id,
        row.principal,
        row.account,
        row.purpose,
        row.reason_ref,
        instant(row.begun),
        instant(row.expires),
        instant(row.review_by),
        None if row.ended is None else instant(row.ended),
        row.reviewed_by,
        None if row.reviewed is None else instant(row.reviewed),
        row.verdict,
    )
