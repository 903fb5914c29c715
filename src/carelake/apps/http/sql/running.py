"""Statements that run in this process: each in a thread of its own, none longer than anybody wants it.

A statement is a job of the caller: its start is on the trail before it begins, its end before anything of its result
leaves. Its row in the table of jobs is seen by every process, so any of them can cancel it: who runs it looks. A
result that is small, and waited for, goes to who waits. Any other is kept as a sealed object until it expires.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock, Thread
from typing import Any

import anyio.to_thread
import pyarrow as pa
from starlette.responses import Response

from carelake.access.identity import Caller
from carelake.apps.asking import TARGET, Question, answered, bring_up
from carelake.apps.errors import code_of
from carelake.apps.http.ports import Door
from carelake.core.errors import CarelakeError, Conflict, Unavailable
from carelake.core.permit import Permit
from carelake.lake.statements.cursor import Answer, Stop
from carelake.store.jobs import Entry, Jobs
from carelake.vault.objects import ObjectWriter

__all__ = ["ACTION", "KIND", "LIMITED", "ZONE", "Found", "Statement", "Statements", "failed", "name_of"]

ACTION, KIND, ZONE = "lake:ask", "sql", "lake"
LIMITED = "limited"
"""The type of a result that ends at the limit of its rows."""

_AT_ONCE = 4
_HEAD_BYTES = 4 << 20
_LOOK_SECONDS = 0.25
_ENDING_SECONDS = 10.0
_RETRY = 2


def name_of(job: str) -> str:
    """The name of the object that keeps a result."""
    return f"bulk/{job}/rows.arrow"


@dataclass(frozen=True)
class Found:
    """A result.

    Attributes:
        head: its first batches; all of them unless it is kept.
        rows: how many it has.
        kept: whether it lies in the vault.
        more: whether there were more rows than the limit.
    """

    schema: pa.Schema
    head: list[pa.RecordBatch]
    rows: int
    kept: bool
    more: bool


@dataclass
class Statement:
    """One statement that was asked.

    Attributes:
        small: so many rows are answered without being kept, when somebody waits.
        answer: makes the answer for who waits, under the permit of the statement.
        id: of its job, "" until it has begun; ``act``: of its act.
        begun: set when it has an id, or has failed.
        done: the answer, or what the statement failed with; None where nobody waited any more.
    """

    caller: Caller
    question: Question
    small: int
    answer: Callable[[Permit, Statement, Found], Response]
    id: str = ""
    act: str = ""
    stop: Stop = field(default_factory=Stop)
    begun: Event = field(default_factory=Event)
    done: Future[Response | None] = field(default_factory=Future)
    _lock: Lock = field(default_factory=Lock)
    _waited: bool = True
    _direct: bool = False

    def wait(self, seconds: float) -> Response | None:
        """Wait for the answer; None when it is not there by then, and the result will be kept.

        Raises:
            What it failed with.
        """
        try:
            return self.done.result(seconds)
        except TimeoutError:
            with self._lock:
                self._waited = self._direct
            return self.done.result() if self._direct else None

    def hand_over(self) -> bool:
        """Whether somebody waits, who will have the answer from here however long it takes."""
        with self._lock:
            self._direct = self._waited
            return self._direct


class Statements:
    """The statements of one process."""

    def __init__(self, door: Door, log: Any) -> None:
        self._door, self._log = door, log
        self._jobs = Jobs(door.vault)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "sql")
        self._running: dict[str, Statement] = {}
        self._lock = Lock()
        self._ending = Event()
        self._looks = Event()
        self._looker = Thread(target=self._look, name="sql-look", daemon=True)

    def ask(self, one: Statement) -> None:
        """Begin a statement; it waits where too many run in this process."""
        self._pool.submit(self._run, one).add_done_callback(partial(_left, one))

    def cancel(self, job: str) -> None:
        """End it where it runs here; elsewhere its process sees that the job is gone."""
        if (one := self._running.get(job)) is not None:
            one.stop.cancel()

    @asynccontextmanager
    async def until_done(self) -> AsyncIterator[None]:
        """Look for who cancels while the block runs; what still runs when it ends is ended."""
        self._looker.start()
        try:
            yield
        finally:
            self._ending.set()
            self._looks.set()
            for one in list(self._running.values()):
                one.stop.cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)
            await anyio.to_thread.run_sync(self._looker.join, _ENDING_SECONDS)
            await anyio.to_thread.run_sync(self._pool.shutdown)

    # -- one statement --------------------------------------------------------------------------------------------

    def _run(self, one: Statement) -> None:
        try:
            one.done.set_result(self._answer(one))
        except BaseException as error:  # whoever waits is told; nobody else can be
            if not isinstance(error, CarelakeError):
                self._log.error("statement", code=code_of(error))
            one.done.set_exception(error)
        finally:
            with self._lock:
                self._running.pop(one.id, None)
            one.begun.set()

    def _answer(self, one: Statement) -> Response | None:
        one.stop.check()  # it waited here, and nobody waits for it any more
        with self._door.enter(one.caller, ACTION, TARGET, job=True) as permit:
            one.act = permit.act
            self._begin(permit, one)
            try:
                if one.question.fresh:
                    bring_up(self._door, one.caller)
                with answered(self._door, permit, one.question, one.stop) as answer:
                    found = self._kept(permit, one, answer)
                return one.answer(permit, one, found) if one.hand_over() else None
            except BaseException as error:
                self._failed(permit, one, error)
                raise

    def _begin(self, permit: Permit, one: Statement) -> None:
        most = self._door.settings.lake.statements
        with self._door.vault.database.transaction(permit) as tx:
            if self._jobs.running(permit, tx, KIND) >= most:
                raise Unavailable(
                    "lake.too_many",
                    f"{most} of your statements run already (lake.statements); wait for one, or cancel it.",
                    retry_after=_RETRY,
                )
            one.id = self._jobs.begin(permit, tx, KIND, {"scope": list(permit.scope)})
        with self._lock:
            self._running[one.id] = one
        self._looks.set()
        one.begun.set()

    def _kept(self, permit: Permit, one: Statement, answer: Answer) -> Found:
        head: list[pa.RecordBatch] = []
        for batch in answer:
            head.append(batch)
            if answer.size > _HEAD_BYTES or answer.rows > one.small:
                break
        else:
            if one.hand_over():
                with self._door.vault.database.transaction(permit) as tx:
                    self._jobs.hold(tx, one.id)
                    self._jobs.forget(permit, tx, one.id)
                return Found(answer.schema, head, answer.rows, kept=False, more=answer.more)
        writer = self._door.vault.objects.create(permit, ZONE, name_of(one.id))
        try:
            with pa.ipc.new_file(pa.PythonFile(_Lasting(writer), "w"), answer.schema) as sink:
                for batch in _all(head, answer):
                    sink.write_batch(batch)
            self._enter(permit, one, writer, answer)
        finally:
            writer.discard()
        return Found(answer.schema, head, answer.rows, kept=True, more=answer.more)

    def _enter(self, permit: Permit, one: Statement, writer: ObjectWriter, answer: Answer) -> None:
        """The object is there with its row; a statement that was cancelled meanwhile leaves neither."""
        with self._door.vault.database.transaction(permit) as tx:
            self._jobs.hold(tx, one.id)
            version = writer.commit()
            kind = LIMITED if answer.more else "all"
            part = Entry("output", kind, b"", version.size, name_of(one.id), lines=answer.rows, done=True)
            self._jobs.add(tx, one.id, [part])
            self._jobs.end(tx, one.id, seconds=self._door.settings.lake.keep_seconds)

    def _failed(self, permit: Permit, one: Statement, error: BaseException) -> None:
        """Leave word for who asks after it; nobody needs it of what was cancelled."""
        try:
            with self._door.vault.database.transaction(permit) as tx:
                seconds = self._door.settings.lake.keep_seconds
                self._jobs.end(tx, one.id, seconds=seconds, error=code_of(error))
        except CarelakeError as other:  # the job's holder is gone with it, which says as much
            self._log.error("statement", code=other.code)

    # -- who cancels elsewhere --------------------------------------------------------------------------------------

    def _look(self) -> None:
        while not self._ending.is_set():
            if not self._running:
                self._looks.wait()
                self._looks.clear()
            elif not self._ending.wait(_LOOK_SECONDS):
                try:
                    self._stop_dropped()
                except CarelakeError as error:  # a busy database; the next look tries again
                    self._log.error("no look at statements", code=error.code)

    def _stop_dropped(self) -> None:
        with self._lock:
            running = dict(self._running)
        with self._door.vault.database.reading(self._door.gate.polling()) as tx:
            living = self._jobs.living(tx, list(running))
        for job in running.keys() - living:
            running[job].stop.cancel()


class _Lasting:
    """A writer that the library which writes to it does not close: whether it is kept is decided after that."""

    closed = False

    def __init__(self, writer: ObjectWriter) -> None:
        self._writer = writer

    def write(self, data: Any) -> int:
        return self._writer.write(data)

    def tell(self) -> int:
        return self._writer.tell()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Left to `_enter`."""


def _left(one: Statement, ran: Future[None]) -> None:
    """The server ends before its turn came."""
    if ran.cancelled():
        one.done.set_exception(Unavailable("http.busy", "The server ends; ask again.", retry_after=_RETRY))
        one.begun.set()


def _all(head: list[pa.RecordBatch], answer: Answer) -> Iterator[pa.RecordBatch]:
    yield from head
    yield from answer


def failed(code: str) -> Conflict:
    """What is said of a statement that failed while nobody waited."""
    message = f"The statement ended with an error ({code}); ask it again."
    return Conflict("http.statement_failed", message, failed=code)
