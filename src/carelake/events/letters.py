"""Dead letters: events that a consumer could not take, with the reason's code and never a word of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from carelake.core.errors import Invalid, NotFound
from carelake.events.tables import dead

__all__ = ["Letter", "Letters"]


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.

    Attributes:
        state: ``dead``, or ``again`` when it is to be delivered once more.
    """

    consumer: str
    sequence: int
    type: str
    account: str
    id: str
    at: str
    reason: str
    attempts: int
    state: str


class Letters:
    """The dead letters of one consumer, in the caller's transaction."""

    def __init__(self, tx: Connection, consumer: str) -> None:
        self._tx = tx
        self._consumer = consumer

    def all(self, limit: int = 1000) -> list[Letter]:
        """The oldest, in order of sequence."""
        query = select(dead).where(dead.c.consumer == self._consumer).order_by(dead.c.seq).limit(limit)
        return [
            Letter(r.consumer, r.seq, r.type, r.account, r.id, r.at, r.reason, r.attempts, r.state)
            for r in self._tx.execute(query)
        ]

    def count(self) -> int:
        """How many there are."""
        query = select(func.count()).select_from(dead).where(dead.c.consumer == self._consumer)
        return int(self._tx.execute(query).scalar_one())

    def again(self, sequences: Iterable[int] | None) -> int:
        """Have some, or all, delivered once more, with all their tries before them; answers how many.

        Their streams have gone on meanwhile: they come late, and out of order.

        Raises:
            NotFound: ``events.no_such_letter``. Invalid: ``events.sequence``.
        """
        said = {"state": "again", "attempts": 0, "due": ""}
        return self._some(
            sequences, self._tx.execute(update(dead).where(self._own(sequences)).values(**said)).rowcount
        )

    def drop(self, sequences: Iterable[int] | None) -> int:
        """Give some, or all, up for good; answers how many.

        Raises:
            NotFound: ``events.no_such_letter``. Invalid: ``events.sequence``.
        """
        return self._some(sequences, self._tx.execute(delete(dead).where(self._own(sequences))).rowcount)

    def _own(self, sequences: Iterable[int] | None) -> ColumnElement[bool]:
        own = dead.c.consumer == self._consumer
        if sequences is None:
            return own
        wanted = list(sequences)
        if not all(0 < one < 2**63 for one in wanted):
            raise Invalid(
                "events.sequence", "Not a sequence; `carelake events dead list` shows those of its letters."
            )
        return own & dead.c.seq.in_(wanted)

    def _some(self, sequences: Iterable[int] | None, number: int) -> int:
        if sequences is not None and not number:
            raise NotFound("events.no_such_letter", "No such dead letter; `carelake events dead list` shows them.")
        return number
