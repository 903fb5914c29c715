"""What a consumer is to be given next, and what is kept of how that went.

Each stream has its own cursor. An event that fails holds up its stream until it is delivered or dead; the other
streams go on. What was done ahead of a cursor (a batch that failed in part) is kept by id, and not done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from carelake.core.clock import iso
from carelake.events.backoff import Backoff
from carelake.events.envelopes import Event, event_of
from carelake.events.port import DONE, Outcome
from carelake.events.port import dead as died
from carelake.events.subscriptions import Subscription
from carelake.events.tables import cursor, dead, event, settled, stream

__all__ = ["Due", "Tally", "due_now", "settle"]


@dataclass(frozen=True, slots=True)
class Due:
    """One event that is next.

    Attributes:
        attempts: how often it was tried.
        again: it was a dead letter.
        known: it needs no delivery: not meant by the filter, or its effect was had already.
    """

    event: Event
    attempts: int
    again: bool = False
    known: bool = False


@dataclass
class Tally:
    """How many events went which way."""

    delivered: int = 0
    retried: int = 0
    dead: int = 0
    known: int = 0
    held: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, due: Due, outcome: Outcome) -> None:
        """Count one."""
        if due.known:
            self.known += 1
            return
        name = {"done": "delivered", "retry": "retried", "dead": "dead", "held": "held"}[outcome.state]
        setattr(self, name, getattr(self, name) + 1)
        if outcome.reason:
            self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1

    @property
    def moved(self) -> int:
        """How many are settled for good."""
        return self.delivered + self.dead + self.known


def due_now(tx: Connection, told: Subscription, now: datetime, limit: int) -> list[Due]:
    """At most ``limit`` events that are next, in order within each stream; dead letters asked for come first."""
    found = list(_again(tx, told.name, iso(now), limit))
    coming: list[tuple[Row[Any], int]] = []
    for row in _streams(tx, told, iso(now)):
        own = (event.c.account == row.account) & (event.c.type == row.type)
        query = select(event).where(own, event.c.seq > (row.seq or 0)).order_by(event.c.seq).limit(limit)
        coming += [(each, (row.attempts or 0) if not number else 0) for number, each in enumerate(tx.execute(query))]
    coming.sort(key=lambda pair: pair[0].seq)
    coming = coming[: max(0, limit - len(found))]
    had = _settled(tx, told.name, [row.id for row, _ in coming])
    for row, attempts in coming:
        one = event_of(row)
        found.append(Due(one, attempts, known=one.id in had or not told.filter.takes(one)))
    return found


def _again(tx: Connection, name: str, now: str, limit: int) -> Iterator[Due]:
    joined = dead.join(event, event.c.seq == dead.c.seq)
    query = select(event, dead.c.attempts).select_from(joined).order_by(event.c.seq).limit(limit)
    wanted = (dead.c.consumer == name) & (dead.c.state == "again") & (dead.c.due <= now)
    for row in tx.execute(query.where(wanted)):
        yield Due(event_of(row), row.attempts, again=True)


def _streams(tx: Connection, told: Subscription, now: str) -> Sequence[Any]:
    same = (cursor.c.account == stream.c.account) & (cursor.c.type == stream.c.type)
    joined = stream.outerjoin(cursor, same & (cursor.c.consumer == told.name))
    ready = cursor.c.due.is_(None) | (cursor.c.due <= now)
    query = select(stream.c.account, stream.c.type, cursor.c.seq, cursor.c.attempts).select_from(joined)
    return tx.execute(query.where(told.filter.streams(), ready)).all()


def _settled(tx: Connection, name: str, ids: list[str]) -> set[str]:
    query = select(settled.c.id).where(settled.c.consumer == name, settled.c.id.in_(ids))
    return set(tx.execute(query).scalars()) if ids else set()


def settle(
    tx: Connection,
    told: Subscription,
    dues: Sequence[Due],
    outcomes: Mapping[str, Outcome],
    now: datetime,
    backoff: Backoff,
) -> Tally:
    """Keep what became of events that were due: move cursors, note failures, bury the dead.

    Args:
        outcomes: by the event's id; what is known needs none.
    """
    tally = Tally()
    keeper = _Keeper(tx, told, now, backoff, tally)
    for due in dues:
        if due.again:
            keeper.again(due, outcomes[due.event.id])
    plain = sorted((due for due in dues if not due.again), key=lambda due: (due.event.stream, due.event.seq))
    for key, group in groupby(plain, key=lambda due: due.event.stream):
        keeper.stream(key, [(due, DONE if due.known else outcomes[due.event.id]) for due in group])
    return tally


@dataclass
class _Keeper:
    tx: Connection
    told: Subscription
    now: datetime
    backoff: Backoff
    tally: Tally

    def again(self, due: Due, outcome: Outcome) -> None:
        """A dead letter that was tried again."""
        own = (dead.c.consumer == self.told.name) & (dead.c.seq == due.event.seq)
        outcome, when = self._verdict(outcome, due.attempts + 1)
        self.tally.add(due, outcome)
        if outcome.state == "done":
            self.tx.execute(delete(dead).where(own))
            if self.told.driver == "local":
                self._remember([due.event])
        elif outcome.state != "held":
            state = "again" if outcome.state == "retry" else "dead"
            said = {"state": state, "attempts": due.attempts + 1, "due": when, "reason": outcome.reason}
            self.tx.execute(update(dead).where(own).values(**said, at=iso(self.now)))

    def stream(self, key: tuple[str, str], pairs: Iterable[tuple[Due, Outcome]]) -> None:
        """Events of one stream, in order."""
        moved, waits = 0, (0, "", "")
        whole = True
        ahead: list[Event] = []
        passed: list[str] = []
        effects: list[Event] = []
        for due, outcome in pairs:
            when, attempts = "", due.attempts + 1
            if whole or outcome.state == "dead":
                outcome, when = self._verdict(outcome, attempts)
            self.tally.add(due, outcome)
            if outcome.state in ("retry", "held"):
                if whole and outcome.state == "retry":
                    waits = (attempts, when, outcome.reason)
                whole = False
                continue
            if outcome.state == "dead":
                self._bury(due.event, outcome.reason, attempts)
            if outcome.state == "done" and not due.known and self.told.driver == "local":
                effects.append(due.event)
            elif not whole and not due.known:
                ahead.append(due.event)
            if whole:
                moved = due.event.seq
                passed += [due.event.id] if due.known else []
        self._remember(ahead + effects)
        self._forget(passed)
        self._move(key, moved, waits)

    def _verdict(self, outcome: Outcome, attempts: int) -> tuple[Outcome, str]:
        """A retry with the time of the next one, or what it is once the last try is done."""
        if outcome.state != "retry":
            return outcome, ""
        seconds = self.backoff.seconds(attempts, outcome.after)
        if seconds is None:
            return died(outcome.reason), ""
        return outcome, iso(self.now + timedelta(seconds=seconds))

    def _bury(self, one: Event, reason: str, attempts: int) -> None:
        own = (dead.c.consumer == self.told.name) & (dead.c.seq == one.seq)
        self.tx.execute(delete(dead).where(own))
        said = {"consumer": self.told.name, "seq": one.seq, "account": one.account, "type": one.type, "id": one.id}
        told = {"at": iso(self.now), "reason": reason, "attempts": attempts, "state": "dead", "due": ""}
        self.tx.execute(insert(dead).values(**said, **told))

    def _remember(self, events: list[Event]) -> None:
        rows = [{"consumer": self.told.name, "id": one.id, "seq": one.seq} for one in events]
        if rows:
            self.tx.execute(insert(settled), rows)

    def _forget(self, ids: list[str]) -> None:
        # A local consumer's are kept: they are what a replay goes by.
        if ids and self.told.driver != "local":
            own = (settled.c.consumer == self.told.name) & settled.c.id.in_(ids)
            self.tx.execute(delete(settled).where(own))

    def _move(self, key: tuple[str, str], seq: int, waits: tuple[int, str, str]) -> None:
        if not seq and not waits[0]:
            return
        account, kind = key
        attempts, due, reason = waits
        own = (cursor.c.consumer == self.told.name) & (cursor.c.account == account) & (cursor.c.type == kind)
        said: dict[str, Any] = {"attempts": attempts, "due": due, "reason": reason}
        if seq:
            said["seq"] = seq
        if not self.tx.execute(update(cursor).where(own).values(**said)).rowcount:
            name = {"consumer": self.told.name, "account": account, "type": kind}
            self.tx.execute(insert(cursor).values(**{**name, "seq": 0, **said}))
