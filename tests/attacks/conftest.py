"""A workspace worth attacking, and one of a stranger; each test copies what it spoils."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_JOURNEYS = Path(__file__).parents[1] / "journeys" / "conftest.py"
_spec = importlib.util.spec_from_file_location("attacks_journeys", _JOURNEYS)
assert _spec is not None
assert _spec.loader is not None
_journeys: Any = importlib.util.module_from_spec(_spec)
__import__("sys").modules["attacks_journeys"] = _journeys
_spec.loader.exec_module(_journeys)

once = _journeys.once
place = _journeys.place
BIG = 200_000


@dataclass(frozen=True)
class Prey:
    """Two workspaces of different people, made once. Copy them; never change them.

    Attributes:
        mine: has patients, a clinician, and in ``landing`` and ``deidentified`` the objects ``a`` (two versions)
            and ``b``, each of `BIG` bytes and so in a file of its own, and ``small``.
        theirs: another one, made the same way.
        before: ``mine`` as it was before the second version of ``a``, an act or two ago.
    """

    mine: Any
    theirs: Any
    before: Any


@pytest.fixture(scope="session")
def prey(once: Any) -> Prey:
    folder = once("prey", _prey)
    return Prey(*(_journeys.Home(folder / name) for name in ("mine", "theirs", "before")))


def _prey(folder: Path) -> None:
    for name in ("theirs", "mine"):
        home = _journeys.Home(folder / name)
        home.json("init", home.workspace)
        for one in ("a", "b", "small"):
            (home.folder / one).write_bytes(os.urandom(100 if one == "small" else BIG))
        source = home.folder / "patients.ndjson"
        source.write_text("".join(json.dumps({"resourceType": "Patient", "id": f"p{n}"}) + "\n" for n in range(3)))
        home.json("ingest", source)
        home.json("principal", "add", "dr-who", "--role", "clinician")
        for zone in ("landing", "deidentified"):
            for one in ("a", "b", "small"):
                home.json("object", "put", f"{zone}/{one}", home.folder / one)
        if name == "mine":
            home.copy(folder / "before")
            (home.folder / "a2").write_bytes(os.urandom(BIG))
            home.json("object", "put", "landing/a", home.folder / "a2")
    (folder / "mine" / "tmp").mkdir(exist_ok=True)


@pytest.fixture
def mine(prey: Prey, place: Path) -> Iterator[Any]:
    """A copy to spoil."""
    return prey.mine.copy(place)
