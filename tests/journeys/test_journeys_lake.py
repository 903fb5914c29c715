"""``kill -9`` of ``carelake lake maintain``: readers see the same rows, and the next run is whole."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

# One bucket is full soon, and what nobody needs goes at once: so a run merges, expires and removes.
EAGER = {
    "CARELAKE_LAKE__BUCKETS": "1",
    "CARELAKE_LAKE__KEEP_DAYS": "0",
    "CARELAKE_LAKE__GRACE_SECONDS": "0",
}
TABLES = ("Observation", "Encounter", "Patient_history", "Condition")
KILLS = 4


def rows(home: Any) -> dict[str, Any]:
    return {name: home.json("sql", f"SELECT id, version, last_updated FROM {name} ORDER BY ALL") for name in TABLES}


@pytest.fixture(scope="module")
def synced(small: Any, once: Any) -> Any:
    """A home whose lake was synced, and merged once, so that there are snapshots to expire."""

    def build(folder: Path) -> None:
        home = small.read.copy(folder / "synced")
        told = home.json("lake", "sync")
        assert set(told) == {"behind_before", "behind_after", "seconds", "tables"}
        status = home.json("lake", "status")
        assert (status["behind"], status["seconds_behind"], status["tables"]) == (0, 0.0, told["tables"])

    return type(small.read)(once("lake-synced", build) / "synced")


def test_maintain_is_killed_and_readers_are_right(synced: Any, place: Path) -> None:
    whole = synced.copy(place / "whole", **EAGER)
    wanted = rows(whole)
    done = whole.crash("count", "lake", "maintain", "--json")
    assert done.code == 0, done.err
    moments = int(done.err.split()[-1])
    assert json.loads(done.out)["merged"] > 0
    assert rows(whole) == wanted
    for number in range(KILLS):
        home = synced.copy(place / str(number), **EAGER)
        # The sealer works by the clock, so a run has a few moments more or less.
        point = 1 + round(number * 0.7 * (moments - 3) / (KILLS - 1))
        when = ("before", "after")[number % 2]
        assert home.crash(f"{when}:{point}", "lake", "maintain", "--json").code == -signal.SIGKILL
        assert rows(home) == wanted, (when, point)
        home.json("lake", "maintain")
        again = home.json("lake", "maintain")
        assert again["merged"] == 0
        assert rows(home) == wanted
        assert home.json("audit", "verify")["intact"] is True
        home.remove()
