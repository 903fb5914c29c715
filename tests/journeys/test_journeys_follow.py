"""``lake sync --follow`` under writes, killed at any moment and begun again: each change once, readers right."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

COUNT = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {}_history"
KINDS: dict[str, dict[str, Any]] = {
    "Observation": {"status": "final", "code": {"text": "Pulse"}, "valueQuantity": {"value": 71, "unit": "/min"}},
    "Encounter": {"status": "finished", "class": {"code": "AMB"}},
}
KILLS = 2


class Writer(threading.Thread):
    """Writes resources until it is told to stop."""

    def __init__(self, workspace: Any) -> None:
        super().__init__()
        self.workspace, self.over, self.written = workspace, threading.Event(), 0

    def run(self) -> None:
        caller = self.workspace.local(None, None, None)
        database, resources = self.workspace.vault.database, self.workspace.resources
        while not self.over.wait(0.01):
            kind = list(KINDS)[self.written % 2]
            resource = {"resourceType": kind, "subject": {"reference": "Patient/p"}, **KINDS[kind]}
            with self.workspace.enter(caller, "record:write", "record") as permit, database.transaction(permit) as tx:
                resources.create(permit, tx, resource)
            self.written += 1


def counts(workspace: Any) -> list[tuple[int, int]]:
    """Rows and ids of each table, as a reader sees the newest snapshot."""
    from carelake.lake import query

    caller, vault = workspace.local(None, None, None), workspace.vault
    with workspace.enter(caller, "lake:query", "lake") as permit:
        snapshot = query.snapshot_of(permit, vault, workspace.nouns)
        told = [query.sql(permit, vault, snapshot, COUNT.format(one)).to_pylist()[0] for one in KINDS]
    return [(one["n"], one["ids"]) for one in told]


def follow(home: Any) -> Any:
    """A follower that has begun to follow."""
    running = home.start([home.program, "lake", "sync", "--follow", "--json"])
    while "Following" not in running.err.read_text():
        assert running.process.poll() is None, running.err.read_text()
        time.sleep(0.02)
    return running


def reached(workspace: Any, least: int) -> None:
    """Wait until the lake has so many rows."""
    until = time.monotonic() + 60
    while sum(n for n, _ in counts(workspace)) < least:
        assert time.monotonic() < until, "the lake is not followed"
        time.sleep(0.05)


def test_a_follower_that_is_killed_at_any_moment(new_home: Any, small: Any, tmp_path: Path) -> None:
    rng = random.Random(11)
    new_home.json("ingest", small.sources)
    new_home.json("lake", "sync")
    with new_home.opened() as workspace:
        first = seen = [n for n, _ in counts(workspace)]
        writer = Writer(workspace)
        writer.start()
        try:
            for _ in range(KILLS):
                running = follow(new_home)
                reached(workspace, sum(seen) + 1)
                time.sleep(rng.uniform(0.0, 0.6))
                running.kill()
                running.process.wait()
                now = counts(workspace)
                assert all(n == ids for n, ids in now)
                assert all(n >= before for (n, _), before in zip(now, seen, strict=True))
                seen = [n for n, _ in now]
            running = follow(new_home)
            reached(workspace, sum(seen) + 1)
        finally:
            writer.over.set()
            writer.join()
        reached(workspace, sum(first) + writer.written)
        running.kill(signal.SIGTERM)
        done = running.wait(30.0)
        assert done.code == 0, done.err
        assert json.loads(done.out)["failed"] == 0
        assert [n == ids for n, ids in counts(workspace)] == [True, True]
        assert sum(n for n, _ in counts(workspace)) == sum(first) + writer.written
    told = new_home.json("audit", "verify")
    assert told["intact"] is True
    new_home.json("lake", "maintain")
