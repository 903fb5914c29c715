"""Worker processes: the same records in the same order, and a clear error when one dies."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import subprocess
import sys
from typing import Any

import pytest

from carelake.core.errors import Unavailable
from carelake.ingest import reader, worker
from carelake.ingest.batches import Batch, Entry
from carelake.ingest.worker import Rules
from carelake.ingest.workers import Pool


def jobs(count: int) -> list[tuple[int, Batch]]:
    text = b'{"resourceType":"Patient","id":"p%d"}'
    return [
        (n, Batch("00", [Entry(text % (n * 10 + i) if i != 3 else b"bad", 0, i, i) for i in range(10)]))
        for n in range(count)
    ]


def told(workers: int, count: int) -> list[Any]:
    with Pool(workers, Rules(100)) as pool:
        return [(tag, list(outcome.items())) for tag, outcome in pool.map(iter(jobs(count)))]


def test_any_number_of_workers_gives_the_same() -> None:
    wanted = told(0, 40)
    assert [tag for tag, _ in wanted] == list(range(40))
    assert told(1, 40) == wanted
    assert told(2, 40) == wanted
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_an_error_and_no_hang() -> None:
    pool = Pool(2, Rules(100))
    running = pool.map(iter(jobs(10_000)))
    next(running)
    victim = multiprocessing.active_children()[0]
    assert victim.pid
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(Unavailable) as caught:
        list(running)
    assert caught.value.code == "ingest.worker_died"
    pool.close()
    assert not multiprocessing.active_children()


def test_workers_do_not_die_of_the_terminal() -> None:
    with Pool(1, Rules(100)) as pool:
        running = pool.map(iter(jobs(200)))
        next(running)
        for child in multiprocessing.active_children():
            assert child.pid
            os.kill(child.pid, signal.SIGINT)
        assert len(list(running)) == 199


class _Starved:
    """A pipe's end in a process that has no memory left."""

    def recv_bytes(self) -> bytes:
        raise MemoryError


_STARVED = """
import queue
from carelake.ingest.worker import _give

class Starved:
    def send_bytes(self, data):
        raise MemoryError

done = queue.SimpleQueue()
done.put(b"x")
_give(Starved(), done)
"""


def test_a_thread_that_runs_out_of_memory_ends_its_process() -> None:
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with pytest.raises(MemoryError):
        worker._take(_Starved(), waiting)  # type: ignore[arg-type]
    assert waiting.get_nowait() is None
    ended = subprocess.run([sys.executable, "-c", _STARVED], timeout=60, check=False)
    assert ended.returncode == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_page_is_bounded_by_its_text(
    bench_with: Any, patient: Any, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(reader, "_PAGE_BYTES", 300_000)
    div = {"status": "empty", "div": "<div>" + "x" * 100_000 + "</div>"}
    bench = bench_with(workers=workers)
    file = bench.file("a.ndjson", "".join(patient(f"p{i}", text=div) + "\n" for i in range(30)))
    first = bench.read(file, stop_after=1)
    assert 3 <= len(first.parsed) <= 6
    rest = bench.read(file)
    assert [*first.ids, *rest.ids] == [f"Patient/p{i}" for i in range(30)]


def test_a_broken_off_reading_ends_its_workers(bench_with: Any, patient: Any) -> None:
    bench = bench_with(workers=2)
    text = "".join(
        patient(f"p{i}", text={"status": "empty", "div": "<div>" + "x" * 900 + "</div>"}) + "\n" for i in range(3000)
    )
    told = bench.read(bench.file("a.ndjson", text), stop_after=1)
    assert len(told.parsed) + len(told.rejected) >= 1000
    assert not multiprocessing.active_children()
