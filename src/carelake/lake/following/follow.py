"""The lake stays right behind the record: small flushes as changes come, merged and thinned beside.

A turn looks whether there is something new, which is cheap and no act, and then syncs under a permit of its own. What
is waiting is written every ``seconds``; more makes a flush larger, not later. There may be several followers: who
finds that another one moved the lake stands by until it stands still. So nothing has to be elected, and no
lease runs out; two who try at once are told apart by the commit, as any two syncs are. A follower that is killed
leaves what a killed sync leaves: the next one begins at the position.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event

from pyiceberg.exceptions import CommitFailedException

from carelake.audit.nouns import Nouns
from carelake.core.errors import CarelakeError, Conflict, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.lake.following.feeding import Feed
from carelake.lake.following.fresh import Freshness
from carelake.lake.following.sync import SyncReport, sync
from carelake.lake.upkeep.maintain import tidy
from carelake.lake.upkeep.thinning import thin
from carelake.vault.workspace import Vault

__all__ = ["Follower", "Following"]

_POLL_SECONDS = 0.2
_STAND_BY_SECONDS = 2.0
_LONG = 50_000
"""Changes behind that make a job with acts of its own pages, not one act."""
_TIDY_SECONDS = 2.0
_THIN_SECONDS = 60.0
_LONGEST_REST = 30.0
_EXPIRED = "permit.expired"
"""Of a turn that took longer than its permit lasts: what it flushed is written, and the next one goes on."""


@dataclass(slots=True)
class Following:
    """What a follower did so far.

    Attributes:
        synced: changes. lost: turns that another writer was faster in. failed: turns that ended with an error.
    """

    turns: int = 0
    synced: int = 0
    merged: int = 0
    thinned: int = 0
    lost: int = 0
    failed: int = 0


@dataclass(slots=True)
class Follower:
    """Follows for one account.

    Attributes:
        enter: a permit as `sync` wants it, of a job where it is told so.
        look: how far the lake is behind.
        seconds: between two flushes, while changes come.
        failed: told of an error that a turn ended with; the next one is tried after a rest.
    """

    vault: Vault
    feed: Feed
    nouns: Nouns
    enter: Callable[[bool], AbstractContextManager[Permit]]
    look: Callable[[], Freshness]
    seconds: float
    failed: Callable[[CarelakeError], None] = lambda error: None
    done: Following = field(default_factory=Following)
    _seq: int | None = None
    _touched: dict[str, None] = field(default_factory=dict)
    _thins: bool = False
    _tidied: float = field(default_factory=time.monotonic)
    _thinned: float = field(default_factory=time.monotonic)
    _rest: float = 0.0

    def run(self, stop: Event) -> Following:
        """Follow until ``stop``; what has begun is finished, or left where the next one goes on.

        Raises:
            Refused: the caller may not sync the lake any more.
        """
        while not stop.is_set():
            began = time.monotonic()
            wait = self.turn(stop)
            stop.wait(max(0.0, wait - (time.monotonic() - began)))
        return self.done

    def turn(self, stop: Event) -> float:
        """One turn; seconds from its beginning to the next one's."""
        try:
            wait = self._turn(stop)
            self._rest = 0.0
        except (Conflict, CommitFailedException):
            self.done.lost += 1
            self._seq = -1
            wait = _STAND_BY_SECONDS
        except Exception as error:  # whatever it is: a thread that ends unsaid leaves the lake behind for good
            if isinstance(error, Refused) and error.code != _EXPIRED:
                raise
            self.done.failed += 1
            self.failed(error if isinstance(error, CarelakeError) else _unforeseen(error))
            wait = self._rest = min(_LONGEST_REST, max(1.0, 2 * self._rest))
        return wait

    def _turn(self, stop: Event) -> float:
        found = self.look()
        before, self._seq = self._seq, found.seq
        if before not in (None, found.seq):
            return _STAND_BY_SECONDS
        if not found.behind and not self._untidy():
            return _POLL_SECONDS
        with self.enter(found.behind > _LONG) as permit:
            if found.behind:
                self._seq = self._synced(sync(permit, self.vault, self.feed, self.nouns, stop=stop.is_set))
            if not stop.is_set():
                self._keep_house(permit)
        return self.seconds if found.behind else _POLL_SECONDS

    def _synced(self, report: SyncReport) -> int:
        self.done.turns += 1
        self.done.synced += sum(report.tables.values())
        self._touched |= dict.fromkeys(report.tables)
        self._thins = True
        return self.look().seq

    def _keep_house(self, permit: Permit) -> None:
        """Merge and thin from time to time, one table at a time: changes wait meanwhile."""
        if self._thins and time.monotonic() - self._thinned >= _THIN_SECONDS:
            self._thinned, self._thins = time.monotonic(), False
            self.done.thinned += thin(permit, self.vault, self.nouns)
        elif self._untidy():
            self._tidied = time.monotonic()
            name = next(iter(self._touched))
            del self._touched[name]
            if tidy(permit, self.vault, self.nouns, (name,), 1):
                self.done.merged += 1
                self._touched[name] = None  # behind the others: there may be more of it

    def _untidy(self) -> bool:
        """Whether a table that was written may have files to merge, and it is time to look."""
        return bool(self._touched) and time.monotonic() - self._tidied >= _TIDY_SECONDS


def _unforeseen(error: Exception) -> Unavailable:
    """Its kind alone: a message may name files or hold what was read."""
    return Unavailable("lake.follow", f"A turn of the follower ended with {type(error).__name__}; it is tried again.")
