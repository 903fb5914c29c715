"""Many who write and read at once, over HTTP, on each database; the server is killed under them.

No update is lost, no read is torn, versions have no hole, reads see what was written before they began, and what was
acknowledged survives ``kill -9``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.apps.fleet import Fleet, Served
from tests.apps.served import admit, bearer, database_of, own_workspace

SOAK = float(os.environ.get("SOAK_SECONDS", "300"))


@pytest.fixture(params=["sqlcipher", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[int], Fleet]]:
    """A fleet before a server of so many workers."""
    told = database_of(request)
    with own_workspace(tmp_path, **told) as workspace:
        admit(workspace, "service", writer="application")
        token = bearer(workspace, "writer")["Authorization"].removeprefix("Bearer ")
    environment = {**os.environ, "CARELAKE_KEY_DIR": str(tmp_path / "keys"), **told}
    served: list[Served] = []

    def of(workers: int) -> Fleet:
        served.append(Served(tmp_path / "workspace", environment, workers))
        served[-1].start()
        made = Fleet(served[-1], token)
        made.prepare()
        return made

    try:
        yield of
    finally:
        for one in served:
            one.end()


@pytest.mark.slow
def test_together_and_killed(request: pytest.FixtureRequest, fleet: Callable[[int], Fleet]) -> None:
    made = fleet(1 if "postgres" in request.node.name else 2)
    made.run(4.0, kills=1)
    made.check()
    assert min(made.told.values()) > 0
    assert made.done["_transfer"] > 0


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_together_for_long(fleet: Callable[[int], Fleet], workers: int) -> None:
    made = fleet(workers)
    made.run(SOAK / 2, kills=0)
    made.check()


@pytest.mark.soak
def test_killed_again_and_again(fleet: Callable[[int], Fleet]) -> None:
    made = fleet(2)
    made.run(SOAK / 2, kills=max(2, int(SOAK / 20)))
    made.check()
