"""Which events a consumer follows, and from where."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, literal, or_, select

from carelake.core.clock import iso
from carelake.core.errors import Gone, Invalid
from carelake.core.nouns import KINDS
from carelake.events.envelopes import Event
from carelake.events.tables import event, stream
from carelake.vault.places import account_of

__all__ = ["Filter", "Start", "start_of"]

_TYPE = re.compile(r"[a-z0-9_.]{1,128}")
PREFIX = "carelake."


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a consumer follows; an empty part means everything.

    Attributes:
        types: prefixes of the type, at the borders of its words: ``model`` is ``carelake.model.*``.
        accounts: names of accounts.
        kinds: kinds of subjects, for example ``landing``.
    """

    types: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, types: tuple[str, ...], accounts: tuple[str, ...], kinds: tuple[str, ...]) -> Filter:
        """A filter, checked.

        Raises:
            Invalid: ``events.filter``, ``vault.account``.
        """
        full = tuple(one if one.startswith(PREFIX) else PREFIX + one for one in types)
        if not all(_TYPE.fullmatch(one) for one in full):
            raise Invalid("events.filter", "A type is words with dots, for example model.state.")
        if not set(kinds) <= set(KINDS):
            raise Invalid("events.filter", f"Unknown kind of subject; expected some of {', '.join(KINDS)}.")
        return cls(full, tuple(account_of(one) for one in accounts), kinds)

    def streams(self) -> ColumnElement[bool]:
        """The condition on ``event_stream``."""
        said: list[ColumnElement[bool]] = [literal(1) == 1]
        if self.accounts:
            said.append(stream.c.account.in_(self.accounts))
        if self.types:
            words = [
                or_(
                    stream.c.type == one.rstrip("."), stream.c.type.startswith(one.rstrip(".") + ".", autoescape=True)
                )
                for one in self.types
            ]
            said.append(or_(*words))
        return and_(*said)

    def takes(self, one: Event) -> bool:
        """Whether an event of a followed stream is meant."""
        return not self.kinds or one.kind in self.kinds


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin: ``now``, ``beginning``, at a sequence, or at a time."""

    at: str | int | datetime

    def before(self, tx: Connection, row: Any) -> int:
        """The sequence after which to begin in a stream.

        Raises:
            Gone: ``events.trimmed``, when what was asked for is no longer kept.
        """
        own = (event.c.account == row.account) & (event.c.type == row.type)
        newest = func.coalesce(select(func.max(event.c.seq)).where(own).scalar_subquery(), row.trimmed)
        if self.at == "beginning":
            return 0
        if self.at == "now":
            return int(tx.execute(select(newest)).scalar_one())
        if isinstance(self.at, int):
            if self.at <= row.trimmed:
                raise _trimmed()
            return self.at - 1
        moment = iso(self.at) if isinstance(self.at, datetime) else self.at
        if row.trimmed_time and moment <= row.trimmed_time:
            raise _trimmed()
        first = tx.execute(select(func.min(event.c.seq)).where(own, event.c.time >= moment)).scalar()
        return int(tx.execute(select(newest)).scalar_one()) if first is None else int(first) - 1


def start_of(text: str) -> Start:
    """A start from what was typed: ``now``, ``beginning``, a sequence, or an instant with its offset.

    Raises:
        Invalid: ``events.start``.
    """
    if text in ("now", "beginning"):
        return Start(text)
    if text.isascii() and text.isdigit() and len(text) < 19:
        return Start(int(text))
    with suppress(ValueError, OverflowError):  # at the ends of the calendar, UTC is out of it
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return Start(moment.astimezone(UTC))
    raise Invalid(
        "events.start",
        "Not a place to start from; expected now, beginning, a sequence such as 1200, or an instant such as "
        "2026-11-22T08:00:00Z.",
    )


def _trimmed() -> Gone:
    return Gone(
        "events.trimmed", "Events from there on are no longer kept; start from `beginning` for all that there are."
    )
