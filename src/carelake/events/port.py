"""The door between the outbox and whoever takes events out of it; drivers are in ``drivers/``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sqlalchemy import Connection

from carelake.events.envelopes import Event

__all__ = ["DONE", "HELD", "Driver", "Outcome", "dead", "held_after", "retry"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one event.

    Attributes:
        state: ``done``; ``retry``: it failed and may succeed later; ``dead``: it failed and always will;
            ``held``: it was not tried, since one before it in its stream failed.
        reason: stable ``driver.reason`` code, never a word of the event or of an answer.
        after: seconds that the receiver asked to wait.
    """

    state: Literal["done", "retry", "dead", "held"]
    reason: str = ""
    after: float | None = None


DONE = Outcome("done")
HELD = Outcome("held")


def retry(reason: str, after: float | None = None) -> Outcome:
    """It failed and may succeed later."""
    return Outcome("retry", reason, after)


def dead(reason: str) -> Outcome:
    """It failed and always will."""
    return Outcome("dead", reason)


class Driver(Protocol):
    """Delivers events to one consumer.

    Attributes:
        batch: at most so many events are handed over at once.
        joins: it works in our database, in the transaction that settles the events: exactly one effect. The others
            get None for a transaction, and an event may reach them again after a crash.
    """

    @property
    def batch(self) -> int: ...

    @property
    def joins(self) -> bool: ...

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        """One outcome per event, in order. Raises nothing that an outcome can say."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def held_after(events: Sequence[Event], number: int, outcomes: list[Outcome]) -> bool:
    """Whether an event must be held since one before it in its stream was not settled."""
    stream = events[number].stream
    return any(
        earlier.stream == stream and outcome.state in ("retry", "held")
        for earlier, outcome in zip(events, outcomes, strict=False)
    )
