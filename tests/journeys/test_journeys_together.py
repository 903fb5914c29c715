"""Two commands at once in one workspace: each does its work, or says that the other one does; nothing is doubled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CONFLICT = 5


def both(home: Any, *commands: tuple[str, ...]) -> list[Any]:
    """Run commands at the same time; how each ended."""
    running = [home.fork([home.program, *command, "--json"]) for command in commands]
    ended = [one.wait(240.0) for one in running]
    for one in ended:
        assert "Traceback" not in one.err
        assert one.code in (0, CONFLICT), one.err
    return ended


def test_two_readings_of_the_same_files(small: Any, place: Path) -> None:
    home = small.home.copy(place)
    command = ("ingest", str(small.sources))
    ended = both(home, command, command, command)
    assert 0 in [one.code for one in ended]
    resources = small.told["synth"]["resources"]
    assert sum(one.json["stored"] for one in ended if one.code == 0) <= resources
    last = home.json(*command)
    assert (last["read"], last["stored"] + last["unchanged"]) == (resources, resources)
    counts = small.told["synth"]["counts"]
    for kind in ("Patient", "Encounter"):
        assert home.json("search", f"{kind}?_summary=count")["total"] == counts[kind]
    assert set(versions(home).values()) == {1}
    assert home.json("audit", "verify")["intact"] is True


def versions(home: Any) -> dict[tuple[str, str], int]:
    """How many versions each resource has."""
    with home.opened() as workspace:
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, "record:ingest", "record") as permit:
            return Counter((c.type, c.id) for c in workspace.resources.changes(permit, 0, 1_000_000))


def test_two_syncs_and_a_reading_and_searches(small: Any, place: Path) -> None:
    home = small.read.copy(place)
    more = place.parent / "more.ndjson"
    more.write_text("\n".join(f'{{"resourceType":"Patient","id":"more-{n}"}}' for n in range(2000)))
    both(home, ("lake", "sync"), ("lake", "sync"), ("ingest", str(more)), ("search", "Patient?_count=1"), ("status",))
    last = home.json("lake", "sync")
    assert last["behind_after"] == 0
    with home.opened() as workspace:
        from carelake.lake import query

        with workspace.enter(workspace.local(None, None, None), "lake:query", "lake") as permit:
            snapshot = query.snapshot_of(permit, workspace.vault, workspace.nouns)
            rows = {name: table["rows"] for name, table in snapshot.body["tables"].items()}
    counts = dict(small.told["synth"]["counts"])
    counts["Patient"] += 2000
    assert rows == counts, "the lake holds each change once"
    assert home.json("audit", "verify")["intact"] is True


def test_two_runs(small: Any, place: Path) -> None:
    home = small.read.copy(place)
    ended = both(home, ("run", "readmission"), ("run", "readmission"))
    assert 0 in [one.code for one in ended]
    for one in ended:
        if one.code == CONFLICT:
            assert one.error["code"] in ("pipelines.running", "lake.concurrent")
    told = home.json("run", "readmission")
    assert {one.json["training_set"] for one in ended if one.code == 0} == {told["training_set"]}
    assert home.json("audit", "verify")["unfinished"] == 0
