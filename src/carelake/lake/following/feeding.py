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
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.clock import instant
from carelake.core.permit import Permit
from carelake.lake import rows
from carelake.store.columns import Columns, Page
from carelake.store.feed import Change

__all__ = ["Batch", "Feed", "Flush", "Paged", "changes_table", "flushes"]

_BATCH_ROWS = 20_000
_PAGE = 5_000
_FIRST_PAGE = 500
_WAIT = 0.1
_AHEAD = 3


class Feed(Protocol):
    """The record's change feed: what `store.Resources` offers."""

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        """Changes with a number beyond ``after``, in order, at most ``limit``."""
        ...

    def last_seq(self, permit: Permit) -> int:
        """The number of the newest change; 0 for none."""
        ...


@runtime_checkable
class Paged(Protocol):
    """A feed that tells its changes by columns too, which costs less."""

    def page(self, permit: Permit, after: int, limit: int) -> Page:
        """As `Feed.changes`."""
        ...


@dataclass(slots=True)
class Batch:
    """Changes of one type, as `rows.CHANGES`.

    Attributes:
        rows: how many.
    """

    parts: list[pa.Table] = field(default_factory=list)
    rows: int = 0

    def add(self, part: pa.Table) -> None:
        self.parts.append(part)
        self.rows += len(part)

    def table(self, after: int = 0) -> pa.Table:
        """All of them, without those that the table has already."""
        made = pa.concat_tables(self.parts) if self.parts else rows.CHANGES.empty_table()
        return made.slice(pc.sum(pc.less_equal(made.column("seq"), after)).as_py() or 0)


def _table(columns: Columns) -> pa.Table:
    """As `rows.CHANGES`."""
    # Another thread gives the memory back, which Arrow's own pool is slow at.
    pool = pa.system_memory_pool()
    updated = pa.array(columns.updated, pa.timestamp("ms", "UTC"), memory_pool=pool)
    made = {
        "seq": columns.seq,
        "id": columns.id,
        "version": columns.version,
        "patient": columns.owner,
        "deleted": columns.deleted,
        "replaced_seq": columns.previous,
        "body": columns.body,
    }
    arrays = {name: pa.array(made[name], rows.CHANGES.field(name).type, memory_pool=pool) for name in made}
    arrays["last_updated"] = updated.cast(rows.CHANGES.field("last_updated").type, memory_pool=pool)
    return pa.table(arrays).select(rows.CHANGES.names)


def changes_table(changes: Sequence[Change]) -> pa.Table:
    """Changes of one type as `rows.CHANGES`."""
    return _table(next(iter(_page_of(changes).types.values()), Columns()))


def _page_of(changes: Sequence[Change]) -> Page:
    page = Page(seq=changes[-1].seq if changes else 0)
    for one in changes:
        to = page.types.setdefault(one.type, Columns())
        to.seq.append(one.seq)
        to.id.append(one.id)
        to.version.append(one.version)
        to.updated.append(round(instant(one.last_updated).timestamp() * 1000))
        to.owner.append(one.owner or None)
        to.deleted.append(one.deleted)
        to.previous.append(one.previous or None)
        to.body.append(None if one.deleted else one.body)
        to.held += len(one.body)
        page.refs.append(one.ref)
    return page


@dataclass(slots=True)
class Flush:
    """What is taken together.

    Attributes:
        seq: the last change in it.
        count: of changes.
        held: bytes of their bodies.
    """

    batches: dict[str, Batch] = field(default_factory=dict)
    seq: int = 0
    count: int = 0
    held: int = 0

    def add(self, page: Page) -> None:
        for name, columns in page.types.items():
            self.batches.setdefault(name, Batch()).add(_table(columns))
            self.held += columns.held
        self.count += len(page.refs)
        self.seq = page.seq


def flushes(permit: Permit, feed: Feed, after: int, limit: int, lock: AbstractContextManager[Any]) -> Iterator[Flush]:
    """Changes after a seq, gathered to about ``limit`` bytes, the next ones while some are being written."""
    return _ahead(lambda: _gathered(permit, feed, after, limit, lock))


def _gathered(
    permit: Permit, feed: Feed, after: int, limit: int, lock: AbstractContextManager[Any]
) -> Iterator[Flush]:
    made, at_most = Flush(), _FIRST_PAGE
    while True:
        with lock:
            page = feed.page(permit, after, at_most) if isinstance(feed, Paged) else None
            page = _page_of(feed.changes(permit, after, at_most)) if page is None else page
        if not page.refs:
            break
        after = page.seq
        held = sum(one.held for one in page.types.values())
        # As many as there is room for, where the next ones are as large: bodies of megabytes come few at a time.
        at_most = min(_PAGE, max(1, limit * len(page.refs) // max(held, 1)))
        made.add(page)
        if made.held >= limit or made.count >= _BATCH_ROWS:
            yield made
            made = Flush()
    if made.count:
        yield made


def _ahead(source: Callable[[], Iterator[Flush]]) -> Iterator[Flush]:
    """The same items, each made by a thread of its own while the one before is used."""
    made: Queue[tuple[Flush | None, BaseException | None]] = Queue(_AHEAD)
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
