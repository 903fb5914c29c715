"""Processes that publish and deliver, killed at chosen moments: ``python events_crash_child.py FOLDER``.

Reads one JSON list of jobs per line, forks a process for each, waits for all, and answers with their exit codes (and,
for the point ``count``, how many moments there were). A moment is a commit that changed something, or an effect
outside that was made durable; ``before:N`` and ``after:N`` kill -9 there. Forked from one process that has no thread
and no open workspace, so that a job costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.engine.default import DefaultDialect

from carelake.apps.wiring import import_tables
from carelake.core.clock import SystemClock
from carelake.core.errors import Conflict
from carelake.core.ids import RandomIds
from carelake.core.permit import mint
from carelake.core.settings import Settings
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery
from carelake.events.drivers.local import Local
from carelake.events.envelopes import Event
from carelake.events.filters import Filter, start_of
from carelake.events.outbox import Outbox
from carelake.events.port import DONE, HELD, Outcome, held_after, retry
from carelake.events.subscriptions import Subscriptions
from carelake.vault.workspace import Vault

FOLDER = Path(sys.argv[1])
STREAMS = ("a", "b", "c")
effect = Table(
    "a_childs_own",
    MetaData(),
    Column("n", Integer, primary_key=True),
    Column("consumer", String(64)),
    Column("seq", Integer),
    Column("stream", String(64)),
)


class Moments:
    """Counts what becomes durable, and ends the process at one of them."""

    def __init__(self, point: str) -> None:
        self.kind, _, number = point.partition(":")
        self.at = int(number or 0)
        self.passed = 0
        self.changes: dict[int, int] = {}

    def durable(self, act: Callable[[], Any]) -> Any:
        self.passed += 1
        if self.kind == "before" and self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        done = act()
        if self.kind == "after" and self.passed == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def watch(self) -> None:
        commit = DefaultDialect.do_commit

        def watched(dialect: Any, connection: Any) -> None:
            now, before = connection.total_changes, self.changes.get(id(connection), 0)
            self.changes[id(connection)] = now
            if now == before:
                commit(dialect, connection)
            else:
                self.durable(lambda: commit(dialect, connection))

        DefaultDialect.do_commit = watched  # type: ignore[method-assign]


class Outside:
    """Another place: a file, one line per effect, durable at once. Sometimes it is down."""

    batch = 5
    joins = False

    def __init__(self, moments: Moments, flaky: float) -> None:
        self.moments = moments
        self.flaky = flaky

    def deliver(self, events: Sequence[Event], tx: Any) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for number, one in enumerate(events):
            if held_after(events, number, outcomes):
                outcomes.append(HELD)
            elif random.random() < self.flaky:
                outcomes.append(retry("x.down"))
            else:
                self.moments.durable(lambda one=one: self.write(one))
                outcomes.append(DONE)
        return outcomes

    def write(self, one: Event) -> None:
        handle = os.open(FOLDER / "outside", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, f"{one.seq} {one.type}\n".encode())
        os.close(handle)

    def close(self) -> None:
        pass


class Log:
    """Notes nothing."""

    ended = False

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_a, **_k: None


def opened(make: bool = False) -> Vault:
    said = {"settings": Settings(workspace="w1"), "key_dir": FOLDER / "keys", "clock": SystemClock()}
    return (Vault.create if make else Vault.open)(FOLDER / "ws", ids=RandomIds(), **said)


def permit_of(vault: Vault) -> Any:
    said = {
        "act": "a" * 32,
        "principal": "p",
        "account": "production",
        "purpose": "TREAT",
        "action": "t",
        "target": "t",
    }
    expires = vault.clock.now().replace(year=2100)
    return mint(grants=("rows:read", "rows:write"), scope=(), expires=expires, log=Log(), **said)


def init() -> None:
    with opened(make=True) as vault:
        with vault.database.ledger() as tx:
            effect.create(tx)
        for name, driver in (("out", "pull"), ("db", "local")):
            with vault.database.transaction(permit_of(vault)) as tx:
                told = Subscriptions(tx, vault.clock, vault.sealer)
                told.add(permit_of(vault), name, driver, Filter(), {}, start_of("beginning"))


def publish(vault: Vault, moments: Moments, number: int) -> None:
    outbox = Outbox(vault.clock, vault.ids, workspace="w1")
    for count in range(number):
        with vault.database.transaction(permit_of(vault)) as tx:
            for _ in range(1 + count % 3):
                outbox.publish(tx, "production", random.choice(STREAMS), "model:1", {"n": count})


def deliver(vault: Vault, moments: Moments, seconds: float, flaky: float) -> None:
    waits = Backoff(first=0.002, cap=0.02, tries=1000)
    making = {"out": Outside(moments, flaky), "db": Local(handle)}
    worker = Delivery(vault, lambda told, _: making[told.name], backoff=waits, lease_seconds=0.1)
    end = time.monotonic() + seconds
    quiet = 0
    while time.monotonic() < end and quiet < 30:
        idle = True
        for name in [told.name for told in worker.waiting()]:
            try:
                report = worker.turn(permit_of(vault), name, most=7)
            except Conflict:
                continue
            idle &= not report.busy and not (report.tally.delivered + report.tally.retried + report.tally.held)
        quiet = quiet + 1 if idle else 0
        time.sleep(0.005)


def handle(tx: Any, one: Event) -> None:
    tx.execute(insert(effect).values(consumer="db", seq=one.seq, stream=one.type))


def work(job: dict[str, Any]) -> None:
    random.seed(job.get("seed", 0))
    moments = Moments(job.get("point", ""))
    if job["role"] == "init":
        init()
        return
    with opened() as vault:
        moments.watch()
        if job["role"] == "publish":
            publish(vault, moments, job.get("number", 10))
        else:
            deliver(vault, moments, job.get("seconds", 5.0), job.get("flaky", 0.1))
    if moments.kind == "count":
        (FOLDER / "moments").write_text(str(moments.passed))


def fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(job)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    import_tables()
    for line in sys.stdin:
        pids = [fork(job) for job in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
