"""Worker processes that parse: results in the order of the batches, whatever the number of workers."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TypeVar

import msgspec

from carelake.core.errors import Unavailable
from carelake.core.shapes import decodable
from carelake.ingest.batches import Batch, Outcome
from carelake.ingest.parse import without_gc
from carelake.ingest.worker import Rules, work

__all__ = ["Pool"]

_AHEAD = 80
"""Batches under way, at least: more than a page of ten thousand, so that workers have work while one is committed."""

_AHEAD_BYTES = 32 << 20
"""Nor more text under way than this, but for one batch."""

T = TypeVar("T")


class _Worker:
    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.waiting = 0


class Pool:
    """Parses batches in ``count`` processes, or in this one for 0. Processes start at the first batch."""

    def __init__(self, count: int, rules: Rules) -> None:
        self._count = count
        self._rules = rules
        self._workers: list[_Worker] = []
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(decodable(Outcome)).decode

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def map(self, jobs: Iterable[tuple[T, Batch]]) -> Iterator[tuple[T, Outcome]]:
        """Outcomes in the order of the jobs, each with its job's tag.

        Raises:
            Unavailable: ``ingest.worker_died``.
        """
        return self._here(jobs) if self._count == 0 else self._there(jobs)

    def _here(self, jobs: Iterable[tuple[T, Batch]]) -> Iterator[tuple[T, Outcome]]:
        parser = self._rules.parser()
        for tag, batch in jobs:
            with without_gc():
                outcome = parser.parse(batch)
            yield tag, outcome

    def _there(self, jobs: Iterable[tuple[T, Batch]]) -> Iterator[tuple[T, Outcome]]:
        sent: deque[tuple[T, _Worker, int]] = deque()
        size, most = 0, max(_AHEAD, 2 * self._count)
        for tag, batch in jobs:
            self._start()
            worker = min(self._workers, key=lambda one: one.waiting)
            size += (sending := self._send(worker, batch))
            sent.append((tag, worker, sending))
            while sent and (len(sent) >= most or size > _AHEAD_BYTES):
                tag, worker, sending = sent.popleft()
                size -= sending
                yield tag, self._receive(worker)
        while sent:
            tag, worker, _ = sent.popleft()
            yield tag, self._receive(worker)

    def _send(self, worker: _Worker, batch: Batch) -> int:
        data = self._encode(batch)
        try:
            worker.connection.send_bytes(data)
        except OSError:
            raise _died(worker) from None
        worker.waiting += 1
        return len(data)

    def _receive(self, worker: _Worker) -> Outcome:
        try:
            data = worker.connection.recv_bytes()
        except (EOFError, OSError):
            raise _died(worker) from None
        worker.waiting -= 1
        return self._decode(data)

    def _start(self) -> None:
        if self._workers:
            return
        context = multiprocessing.get_context("spawn")
        for number in range(self._count):
            ours, theirs = context.Pipe(duplex=True)
            process = context.Process(
                target=work,
                args=(theirs, self._encode(self._rules)),
                name=f"carelake-ingest-{number}",
                daemon=True,
            )
            process.start()
            # Or the end of the process would not close the pipe, and waiting for it would never end.
            theirs.close()
            self._workers.append(_Worker(process, ours))

    def close(self) -> None:
        """End all processes: closing the pipe is their signal; one that does not listen is stopped."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(2.0)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers = []


def _died(worker: _Worker) -> Unavailable:
    worker.process.join(1.0)
    return Unavailable(
        "ingest.worker_died",
        "A worker process ended before its work was done (out of memory, or killed). What was committed is kept; "
        "run the same command again to go on, with fewer workers (ingest.workers) if memory is short.",
        exit_code=worker.process.exitcode,
    )
