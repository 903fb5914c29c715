"""The record's changes on their way to the tables: read ahead in a thread, gathered by type.

Opening bodies keeps Python busy, parsing and writing them keep DuckDB and Arrow busy, which do not hold the
interpreter: so one thread reads while another writes. They share one permit, whose act is no thing for two threads at
a time: what notes on it, takes the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import Any, Protocol

import pyarrow as pa

from carelake.core.permit import Permit
from carelake.lake import rows
from carelake.store.feed import Change

__all__ = ["Batch", "Feed", "Flush", "changes_table", "flushes"]

_BATCH_ROWS = 20_000
_PAGE = 5_000
_WAIT = 0.1
_SENT_AS = {"body": pa.binary(), "last_updated": pa.string()}


class Feed(Protocol):
    """The record's change feed: what `store.Resources` offers."""

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        """Changes with a number beyond ``after``, in order, at most ``limit``."""
        ...

    def last_seq(self, permit: Permit) -> int:
        """The number of the newest change; 0 for none."""
        ...


@dataclass(slots=True)
class Batch:
    """Changes of one type."""

    changes: list[Change] = field(default_factory=list)

    def table(self, after: int = 0) -> pa.Table:
        """As `rows.CHANGES`, without those that the table has already."""
        return changes_table([one for one in self.changes if one.seq > after])


def changes_table(changes: Sequence[Change]) -> pa.Table:
    """Changes of one type as `rows.CHANGES`."""
    columns: dict[str, list[Any]] = {
        "seq": [one.seq for one in changes],
        "id": [one.id for one in changes],
        "version": [one.version for one in changes],
        "last_updated": [one.last_updated for one in changes],
        "patient": [one.owner or None for one in changes],
        "deleted": [one.deleted for one in changes],
        "replaced_seq": [one.previous or None for one in changes],
        "body": [None if one.deleted else one.body for one in changes],
    }
    made = [
        pa.array(columns[wanted.name], _SENT_AS.get(wanted.name, wanted.type)).cast(wanted.type)
        for wanted in rows.CHANGES
    ]
    return pa.table(made, schema=rows.CHANGES)


@dataclass(slots=True)
class Flush:
    """What is written together.

    Attributes:
        seq: the last change in it.
        count: of changes.
    """

    batches: dict[str, Batch] = field(default_factory=dict)
    seq: int = 0
    count: int = 0
    held: int = 0

    def add(self, change: Change) -> None:
        self.batches.setdefault(change.type, Batch()).changes.append(change)
        self.held += len(change.body)
        self.count += 1
        self.seq = change.seq


def flushes(permit: Permit, feed: Feed, after: int, limit: int, lock: AbstractContextManager[Any]) -> Iterator[Flush]:
    """Changes after a seq, gathered to flushes of about ``limit`` bytes, the next one while one is being written."""
    return _ahead(lambda: _gathered(permit, feed, after, limit, lock))


def _gathered(
    permit: Permit, feed: Feed, after: int, limit: int, lock: AbstractContextManager[Any]
) -> Iterator[Flush]:
    made = Flush()
    while True:
        with lock:
            page = feed.changes(permit, after, _PAGE)
        if not page:
            break
        after = page[-1].seq
        for change in page:
            made.add(change)
            if made.held >= limit or made.count >= _BATCH_ROWS:
                yield made
                made = Flush()
    if made.count:
        yield made


def _ahead(source: Callable[[], Iterator[Flush]]) -> Iterator[Flush]:
    """The same items, each made by a thread of its own while the one before is used."""
    made: Queue[tuple[Flush | None, BaseException | None]] = Queue(1)
    ended = threading.Event()

    def hand_over(item: Flush | None, error: BaseException | None = None) -> bool:
        while not ended.is_set():
            try:
                made.put((item, error), timeout=_WAIT)
            except Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for one in source():
                if not hand_over(one):
                    return
            hand_over(None)
        except BaseException as error:
            hand_over(None, error)

    thread = threading.Thread(target=work, name="lake-feed", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        ended.set()
        thread.join()
