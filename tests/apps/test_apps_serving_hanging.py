"""Workers that are all gone, hang, or cannot take what comes: who connects meanwhile waits, and is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from selectors import DefaultSelector

import httpx
import pytest
from tests.apps.crews import Served, gone, wait_for

from carelake.apps.http.channel import Follower, Worker
from carelake.apps.http.crew import Crew, _Place
from carelake.apps.wiring import Workspace

SILENT = 4.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hanging")
    environment = {"CARELAKE_KEY_DIR": str(folder / "keys")}
    Workspace.create(folder / "workspace", environment).close()
    made = Served(environment, folder / "log", CARELAKE_SERVE__SILENT_SECONDS=str(SILENT))
    yield made
    made.end()


def ask(served: Served) -> int:
    """One connection of its own."""
    with httpx.Client(base_url=served.url, timeout=90) as client:
        return client.get("/healthz").status_code


def asked(served: Served, many: int, between: Callable[[], None]) -> list[int]:
    """What so many clients are answered that connect while something happens."""
    with ThreadPoolExecutor(many) as threads:
        found = []
        for number in range(many):
            if number == many // 2:
                between()
            found.append(threads.submit(ask, served))
            time.sleep(0.02)
        return [one.result() for one in found]


def wait_until_whole(served: Served, without: list[int]) -> None:
    """Until there are two workers that take connections, none of them of those."""

    def whole() -> bool:
        lost, come = (sum(text in line for line in served.lines()) for text in ("another one begins", "takes conn"))
        workers = served.workers()
        return len(workers) == 2 and not set(workers) & set(without) and lost == come

    wait_for(whole)


@pytest.mark.slow
def test_who_connects_while_there_is_no_worker_is_answered_by_the_next_one(served: Served) -> None:
    before = served.workers()
    assert len(before) == 2
    for one in before:
        os.kill(one, signal.SIGKILL)
    assert asked(served, 12, lambda: wait_for(lambda: all(map(gone, before)))) == [200] * 12
    wait_until_whole(served, before)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_nobody_who_connects_meanwhile_is_lost(served: Served) -> None:
    wait_until_whole(served, [])
    one = served.workers()[0]
    os.kill(one, signal.SIGSTOP)
    assert asked(served, 12, lambda: time.sleep(SILENT)) == [200] * 12
    wait_until_whole(served, [one])
    assert any("said nothing for 4 s" in line for line in served.lines())


@pytest.mark.slow
def test_all_workers_hang(served: Served) -> None:
    wait_until_whole(served, [])
    before = served.workers()
    for one in before:
        os.kill(one, signal.SIGSTOP)
    assert asked(served, 12, lambda: time.sleep(SILENT / 2)) == [200] * 12
    wait_until_whole(served, before)


@pytest.mark.slow
def test_a_parent_that_did_not_run_blames_nobody(served: Served) -> None:
    wait_until_whole(served, [])
    before = served.workers()
    for one in (*before, served.process.pid):  # as when a machine is put to sleep
        os.kill(one, signal.SIGSTOP)
    time.sleep(SILENT * 2)
    for one in (served.process.pid, *before):
        os.kill(one, signal.SIGCONT)
        time.sleep(0.2)
    assert ask(served) == 200
    time.sleep(SILENT)
    assert sorted(served.workers()) == sorted(before)


def test_where_no_process_can_begin_the_parent_lives_and_tries_again() -> None:
    told: list[str] = []
    crew = Crew(["/nowhere/python"], 1, False, told.append)
    crew._places = [_Place()]
    waker, wakened = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, DefaultSelector() as selector, waker, wakened:
        crew._select = selector
        files = len(os.listdir("/proc/self/fd"))
        crew._turn(wakened, listener)
        crew._turn(wakened, listener)
        assert len(os.listdir("/proc/self/fd")) == files
    assert told == ["Worker 0 could not begin; it is tried again."]
    assert crew._places[0].rest == 1.0


# -- the channel ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[Worker, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with ours, theirs:
        yield Worker(0, process, ours, 0.0), theirs


@pytest.fixture
def line() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_who_closes_its_workspace_may_be_silent_for_longer(ends: tuple[Worker, socket.socket]) -> None:
    worker, theirs = ends
    crew = Crew(["/nowhere/python"], 1, False, lambda _text: None)
    crew.silent_seconds = 4.0
    theirs.send(b"rq")
    worker.hear()
    assert not worker.able(1.0)
    crew._watch(worker, 0.0, 39.0)
    assert not worker.condemned
    crew._watch(worker, 0.0, 1.0)
    assert worker.condemned  # but not for ever


def test_what_was_given_and_not_taken_comes_back_when_a_worker_ends(
    ends: tuple[Worker, socket.socket], line: socket.socket
) -> None:
    worker, theirs = ends
    given = [line.dup() for _ in range(3)]
    assert all(map(worker.give, given))
    for word in (b"r", b"t"):
        theirs.send(word)
    socket.recv_fds(theirs, 1, 1)
    theirs.close()
    assert worker.close() == given[1:]
    assert given[0].fileno() == -1  # taken, and told so with its last word
    for one in given[1:]:
        one.close()


def test_a_worker_that_takes_nothing_is_given_no_more_than_it_may_hold(
    ends: tuple[Worker, socket.socket], line: socket.socket
) -> None:
    worker, theirs = ends
    theirs.send(b"r")
    assert worker.hear()
    many = 0
    while worker.able(1.0):
        assert worker.give(line.dup())
        many += 1
    assert many == 64
    for _ in range(3):
        _, (handle,), _, _ = socket.recv_fds(theirs, 1, 1)
        os.close(handle)
    theirs.send(b"ttn")
    assert worker.hear()
    assert (len(worker.given), len(worker.refused), worker.lines) == (61, 1, 63)
    assert not worker.able(1.0)  # it has no descriptors left
    theirs.send(b"b")
    assert worker.hear()
    assert worker.able(1.0)
    for one in worker.close():
        one.close()


def test_a_full_channel_is_no_lost_connection(ends: tuple[Worker, socket.socket], line: socket.socket) -> None:
    worker, theirs = ends
    theirs.send(b"r")
    assert worker.hear()
    with suppress(BlockingIOError):
        while True:
            worker.channel.send(b"c")
    one = line.dup()
    assert not worker.give(one)
    assert not worker.able(1.0)
    assert one.fileno() >= 0
    one.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_begins_nothing_before_its_parent_knows_and_forgets_no_end(
    ends: tuple[Worker, socket.socket], line: socket.socket, loop: str
) -> None:
    """The way back is full: what is said waits, and so does the connection."""
    worker, theirs = ends
    begun: list[socket.socket] = []
    many = 1000

    async def follow() -> None:
        over = asyncio.Event()
        follower = Follower(theirs, begun.append, over.set, 0.0)
        follower.start()
        for _ in range(many):
            follower.ended()
        assert worker.give(line.dup())
        await asyncio.sleep(0.05)
        assert not begun
        worker.lines += many
        while worker.lines > 1 or worker.given:
            await asyncio.sleep(0)
            assert worker.hear()
        await asyncio.sleep(0.05)
        assert len(begun) == 1
        worker.channel.close()
        await asyncio.wait_for(over.wait(), 10)

    made = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=made) as runner:
        runner.run(follow())
    assert worker.ready
    begun[0].close()


def test_a_worker_without_descriptors_gives_a_connection_back(
    ends: tuple[Worker, socket.socket], line: socket.socket
) -> None:
    """In a process of its own, whose limit is lowered."""
    worker, theirs = ends
    child = (
        "import asyncio, os, resource, socket, sys\n"
        "from carelake.apps.http.channel import Follower\n"
        "async def follow():\n"
        "    over = asyncio.Event()\n"
        "    follower = Follower(socket.socket(fileno=int(sys.argv[1])), lambda one: None, over.set, 0.0)\n"
        "    most = max(int(one) for one in os.listdir('/proc/self/fd')) + 1\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n"
        "    full = []\n"
        "    try:\n"
        "        while True:\n"
        "            full.append(os.dup(0))\n"
        "    except OSError:\n"
        "        follower.start()\n"
        "    await over.wait()\n"
        "asyncio.run(follow())\n"
    )
    command = [sys.executable, "-c", child, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL) as process:
        theirs.close()
        given = line.dup()
        assert worker.give(given)
        wait_for(lambda: worker.hear() and worker.refused, 30)
        assert list(worker.refused) == [given]
        assert worker.ready
        assert given.fileno() >= 0
        worker.channel.close()
        assert process.wait(30) == 0
    given.close()
