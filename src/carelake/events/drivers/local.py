"""Functions of this process as consumers, and a pipe.

A handler works in the transaction that settles its events, each in a savepoint of its own: what it did and that it
was done are kept together or not at all, and an event whose effect was had is not given to it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError, Invalid
from carelake.events.envelopes import Event
from carelake.events.port import DONE, HELD, Outcome, dead, held_after, retry

__all__ = ["Handler", "Local", "Pull"]

Handler = Callable[[Connection, Event], None]
"""Has the effect of one event, on the connection given and nowhere else."""


class Local:
    """One function."""

    batch = 100
    joins = True

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        """Call the function for each; `Invalid` is for good, anything else may pass."""
        if tx is None:
            raise Invalid("events.transaction", "A local consumer works in the transaction that settles its events.")
        outcomes: list[Outcome] = []
        for number, one in enumerate(events):
            outcomes.append(HELD if held_after(events, number, outcomes) else self._call(tx, one))
        return outcomes

    def _call(self, tx: Connection, one: Event) -> Outcome:
        try:
            with tx.begin_nested():
                self._handler(tx, one)
        except Invalid as error:
            return dead(error.code)
        except CarelakeError as error:
            return retry(error.code)
        except Exception as error:
            # Its text may hold anything; its type tells where to look.
            return retry(f"local.{type(error).__name__}"[:64])
        return DONE

    def close(self) -> None:
        """Nothing to let go of."""


class Pull:
    """Whoever reads: each event is handed to a function that has it written before it returns."""

    batch = 100
    joins = False

    def __init__(self, write: Callable[[dict[str, Any]], None], source: str) -> None:
        self._write = write
        self._source = source

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        """Write them. An error of writing is the caller's: nothing is settled."""
        for one in events:
            self._write(one.cloudevent(self._source))
        return [DONE] * len(events)

    def close(self) -> None:
        """Nothing to let go of."""
