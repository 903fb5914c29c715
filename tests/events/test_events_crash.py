"""``kill -9`` between any two durable moments, with several processes: nothing lost, nothing twice, in order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import SystemClock
from carelake.core.ids import RandomIds
from carelake.core.settings import Settings

CHILD = Path(__file__).with_name("events_crash_child.py")
KILLED = -9


@dataclass
class Farm:
    folder: Path
    process: subprocess.Popen[str]

    def run(self, *jobs: dict[str, Any]) -> list[int]:
        """Run processes side by side to their ends; their exit codes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        codes: list[int] = json.loads(self.process.stdout.readline())
        assert set(codes) <= {0, KILLED}, codes
        return codes

    def settle(self) -> None:
        assert self.run({"role": "deliver", "seconds": 120, "flaky": 0.0}) == [0]  # ends when idle

    def check(self) -> int:
        """Everything that was committed was had, in order; how many events that is."""
        from carelake.apps.wiring import import_tables
        from carelake.vault.workspace import Vault

        import_tables()
        said: Any = {"settings": Settings(workspace="w1"), "clock": SystemClock(), "ids": RandomIds()}
        with (
            Vault.open(self.folder / "ws", key_dir=self.folder / "keys", **said) as vault,
            vault.database.ledger_reading() as tx,
        ):
            published = [tuple(row) for row in tx.exec_driver_sql("SELECT seq, type FROM event ORDER BY seq")]
            here = [tuple(row) for row in tx.exec_driver_sql("SELECT seq, stream FROM a_childs_own ORDER BY n")]
            assert tx.exec_driver_sql("SELECT count(*) FROM event_dead").scalar_one() == 0
        file = self.folder / "outside"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        outside = list(dict.fromkeys((int(seq), kind) for seq, kind in lines))
        assert len(here) == len(set(here)), "an effect in the database was had twice"
        for name, came in (("here", here), ("outside", outside)):
            assert set(came) == set(published), f"lost {name}"
            for stream in {kind for _, kind in published}:
                own = [seq for seq, kind in came if kind == stream]
                assert own == sorted(own), f"out of order {name}"
        return len(published)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    made = Farm(tmp_path, process)
    try:
        assert made.run({"role": "init"}) == [0]
        yield made
    finally:
        process.kill()
        process.communicate()


def moments(farm: Farm, **job: Any) -> int:
    assert farm.run({**job, "point": "count"}) == [0]
    return int((farm.folder / "moments").read_text())


@pytest.mark.slow
def test_killed_at_each_moment_of_a_delivery(farm: Farm) -> None:
    farm.run({"role": "publish", "number": 6})
    counted = moments(farm, role="deliver", flaky=0.0)
    assert counted > 10
    killed = 0
    for number in range(1, counted + 1):
        farm.run({"role": "publish", "number": 6, "seed": number})
        point = f"{('before', 'after')[number % 2]}:{number}"
        killed += farm.run({"role": "deliver", "point": point, "flaky": 0.0}) == [KILLED]
    assert killed >= counted // 2
    farm.settle()
    assert farm.check() > 100


@pytest.mark.slow
def test_killed_at_each_moment_of_a_publishing(farm: Farm) -> None:
    counted = moments(farm, role="publish", number=8)
    for number in range(1, counted + 1):
        for word in ("before", "after"):
            assert farm.run({"role": "publish", "number": 8, "point": f"{word}:{number}"}) == [KILLED]
    farm.settle()
    farm.check()


@pytest.mark.slow
def test_many_processes_at_once_some_of_them_killed(farm: Farm) -> None:
    rng = random.Random(7)
    killed = 0
    for turn in range(4):
        jobs: list[dict[str, Any]] = [{"role": "publish", "number": 12, "seed": turn * 10 + n} for n in range(2)]
        for number in range(3):
            job = {"role": "deliver", "seconds": 1.5, "flaky": 0.2, "seed": turn * 10 + number}
            if number:
                job["point"] = f"{rng.choice(('before', 'after'))}:{rng.randrange(1, 40)}"
            jobs.append(job)
        killed += farm.run(*jobs).count(KILLED)
    assert killed
    farm.settle()
    assert farm.check() > 50


@pytest.mark.soak
def test_many_processes_for_long(farm: Farm) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(seed)
    try:
        for _ in range(40):
            jobs: list[dict[str, Any]] = [{"role": "publish", "number": 20, "seed": rng.random()} for _ in range(2)]
            for _ in range(4):
                point = f"{rng.choice(('before', 'after'))}:{rng.randrange(1, 60)}"
                jobs.append({"role": "deliver", "seconds": 1.5, "flaky": 0.2, "seed": rng.random(), "point": point})
            farm.run(*jobs)
        farm.settle()
        farm.check()
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
