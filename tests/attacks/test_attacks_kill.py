"""``kill -9`` at write points of the commands of the ground: done again, nothing tells that it was ever killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
KILLED = -9

Command = tuple[str, ...]

# Each is harmless to do twice; what it needs is in the workspace already.
COMMANDS: dict[str, Command] = {
    "put": ("object", "put", "landing/new", "{folder}/ws/keyring.json"),
    "replace": ("object", "put", "landing/a", "{folder}/ws/keyring.json"),
    "tag": ("object", "tag", "landing/b", "k=v"),
    "hold": ("object", "hold", "landing/b", "on"),
    "rotate": ("key", "rotate", "production/landing"),
    "backup": ("backup", "{folder}/kept"),
    "principal": ("principal", "add-role", "dr-who", "reviewer"),
    "export": ("audit", "export", "--format", "jsonl", "--out", "{folder}/trail-{point}"),
    "consumer": ("events", "add", "lab-{point}", "--start", "beginning"),
}


def filled(command: Command, home: Any, point: str) -> list[str]:
    return [word.format(folder=home.folder, point=point.replace(":", "-")) for word in command]


def check(home: Any) -> None:
    told = home.json("audit", "verify")
    assert told["intact"] is True, told
    assert told["unfinished"] == 0
    assert {one["name"] for one in home.json("object", "ls", "landing")} >= {"a", "b", "small"}
    for name in ("b", "small"):
        out = home.folder / "out" / f"got-{name}"
        home.json("object", "get", f"landing/{name}", out, "--force")
        assert out.read_bytes() == (home.folder.parent / "source" / name).read_bytes()


def points(moments: int, most: int) -> list[str]:
    """From the first to the last, before and after by turns; all of them where they are few."""
    step = max(1, moments // most)
    return [f"{('before', 'after')[n // step % 2]}:{n}" for n in range(1, moments + 1, step)]


def kill(prey: Any, place: Path, name: str, most: int) -> None:
    for one in ("b", "small"):
        (place / "source").mkdir(parents=True, exist_ok=True)
        (place / "source" / one).write_bytes((prey.mine.folder / one).read_bytes())
    command = COMMANDS[name]
    counting = prey.mine.copy(place / "count")
    done = counting.crash("count", *filled(command, counting, "count"), "--json")
    assert done.code == 0, done.err
    moments = int(done.err.split()[-1])
    counting.remove()
    # One workspace for all: what a killed process left is met by the next one.
    home = prey.mine.copy(place / "home")
    killed = 0
    for point in points(moments, most):
        words = filled(command, home, point)
        code = home.crash(point, *words, "--json").code
        assert code in (0, KILLED), (point, code)
        killed += code == KILLED
        again = home.run(*words, "--json")
        # 5: it had been done, as it turns out; nothing is done twice.
        assert again.code in (0, 5), (point, again.err)
    assert killed >= max(1, len(points(moments, most)) // 2), (killed, moments)
    check(home)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_killed_at_some_write_points(prey: Any, place: Path, name: str) -> None:
    kill(prey, place, name, 3)


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_killed_at_every_write_point(prey: Any, place: Path, name: str) -> None:
    kill(prey, place, name, 1_000)
