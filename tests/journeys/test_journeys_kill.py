"""``kill -9`` at any moment of any command: the next one goes on, and in the end all is as if nothing had happened.

Moments are told in two ways: by what has become durable (each commit, each file's final name), and by the clock.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import signal
import threading
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from carelake.audit.readings import Acts

pytestmark = pytest.mark.slow

KILLED = -signal.SIGKILL
JOBS = ("record:ingest", "lake:sync", "pipeline:run")
# Of a check's finding and of a signed approval: when it was made, and under which act.
NOT_THE_SAME = frozenset({"approval", "finding"})


@dataclass(frozen=True)
class Work:
    """A command to be killed, where it starts from, and what it comes to when it is left alone.

    Attributes:
        moments: how many durable moments it has.
        leave: kinds of nouns that doing it twice makes more of.
    """

    start: Any
    command: tuple[str, ...]
    moments: int
    answer: Any
    end: Any
    leave: tuple[str, ...] = ()


def state(home: Any) -> dict[str, Any]:
    """What readers see of a workspace, without what differs between any two runs: times, acts and random ids."""
    with home.opened() as workspace:
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, "record:ingest", "record") as permit:
            feed = workspace.resources.changes(permit, 0, 1_000_000)
            with workspace.vault.database.reading(permit) as tx:
                nouns = tx.exec_driver_sql("SELECT ref, kind, state FROM noun ORDER BY ref").all()
                refused = tx.exec_driver_sql("SELECT source, line, code FROM quarantine ORDER BY number").all()
        return {
            "record": digest((c.seq, c.type, c.id, c.version, c.deleted, c.owner, c.body) for c in feed),
            "changes": len(feed),
            "nouns": [[ref, word] for ref, kind, word in nouns if kind not in NOT_THE_SAME],
            "quarantine": [list(row) for row in refused],
            "lake": lake(workspace, caller),
        }


def lake(workspace: Any, caller: Any) -> dict[str, str]:
    """A digest of the rows of each view of the newest snapshot; empty before the first sync."""
    from carelake.core.errors import NotFound
    from carelake.lake import query

    with workspace.enter(caller, "lake:query", "lake") as permit:
        try:
            snapshot = query.snapshot_of(permit, workspace.vault, workspace.nouns)
        except NotFound:
            return {}
        tables = query.views(permit, workspace.vault, snapshot)
    return {name: digest(sorted(map(repr, table.to_pylist()))) for name, table in tables.items()}


def digest(rows: Any) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(repr(row).encode() + b"\n")
    return found.hexdigest()


def work(once: Any, start: Any, name: str, *command: str) -> Work:
    """Do a command undisturbed, and count its moments."""

    def build(folder: Path) -> None:
        home = start.copy(folder / "copy")
        done = home.crash("count", *command, "--json")
        assert done.code == 0, done.err
        said = {"moments": int(done.err.split()[-1]), "answer": lasting(done.json), "end": state(home)}
        (folder / "told.json").write_text(json.dumps(said))
        home.remove()

    return Work(start, command, **json.loads((once(name, build) / "told.json").read_text()))


def lasting(answer: Any) -> Any:
    """An answer without what differs between two runs."""
    if isinstance(answer, dict):
        said = {
            k: lasting(v) for k, v in answer.items() if k not in ("seconds", "run", "resumed_at", "finding", "at")
        }
        # A second reading says of what the first one has settled that it is unchanged; the sum stays.
        for name in ("stored", "quarantined", "unchanged"):
            said.pop(name, None)
        return {k: v for k, v in said.items() if k not in ("behind_before", "tables", "window", "until")}
    return [lasting(one) for one in answer] if isinstance(answer, list) else answer


def check(home: Any, wanted: Work) -> Any:
    """The command again, to its end; then nothing tells that it was ever killed, but for the trail."""
    answer = home.json(*wanted.command)
    assert lasting(answer) == wanted.answer
    now = state(home)
    for name, value in wanted.end.items():
        assert without(now[name], wanted.leave) == without(value, wanted.leave), name
    told = home.json("audit", "verify")
    assert told["intact"] is True, told
    assert told["unfinished"] == 0
    check_acts(trail(home))
    check_files(home)
    return answer


def without(value: Any, kinds: tuple[str, ...]) -> Any:
    return [row for row in value if not str(row[0]).startswith(kinds)] if kinds and isinstance(value, list) else value


def trail(home: Any) -> list[dict[str, Any]]:
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        return list(Acts(connection).after(0))


def check_acts(acts: list[dict[str, Any]]) -> None:
    """Each job that began has one end, and no more."""
    ends = Counter(act["correlation"] for act in acts if act["phase"] in ("done", "failed", "interrupted"))
    begun = {act["correlation"] for act in acts if act["phase"] == "start"}
    assert {correlation: ends[correlation] for correlation in begun} == dict.fromkeys(begun, 1)


def check_files(home: Any) -> None:
    """No file without a row, and no row without a file: what a killed process left is swept."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        query = "SELECT account, zone, object FROM object_version WHERE NOT deleted AND form = 'file'"
        rows = {f"{account}/{zone}/{name[:2]}/{name}" for account, zone, name in tx.exec_driver_sql(query)}
    folder = home.workspace / "vault"
    files = {str(path.relative_to(folder)) for path in folder.glob("*/*/*/*") if path.is_file()}
    assert files == rows
    left = [*home.workspace.glob(".*.tmp"), *home.keys.glob(".*.tmp")]
    for path in left:
        os.utime(path, (0, 0))  # what is younger than a minute may still be written
    if left:
        home.json("status")
    assert not [path for path in left if path.exists()]
    assert {path.name for path in home.workspace.iterdir()} <= {
        "carelake.db",
        "carelake.toml",
        "keyring.json",
        "policies",
        "vault",
    }


def spread(moments: int, how_many: int) -> list[str]:
    """Moments from the first to nearly the last (their number varies a little), before and after by turns."""
    numbers = sorted({1 + round(n * (0.95 * moments - 2) / max(how_many - 1, 1)) for n in range(how_many)})
    return [f"{('before', 'after')[n % 2]}:{number}" for n, number in enumerate(numbers)]


def crashed(wanted: Work, folder: Path, point: str) -> tuple[Any, Any]:
    """A copy in which the command was killed at a point; one that lies beyond the end is taken nearer to the start,
    since the sealer, which works by the clock, makes more moments of a run that takes longer."""
    when, number = point.split(":")
    for nearer in (1.0, 0.9, 0.8, 0.7):
        home = wanted.start.copy(folder)
        done = home.crash(f"{when}:{max(1, int(int(number) * nearer))}", *wanted.command, "--json")
        assert done.code in (0, KILLED), (point, done.err)
        if done.code == KILLED or nearer == 0.7:
            break
        home.remove()
    return home, done


def kill_at_moments(wanted: Work, place: Path, points: list[str]) -> None:
    killed = interrupted = 0
    for number, point in enumerate(points):
        home, done = crashed(wanted, place / str(number), point)
        try:
            check(home, wanted)
        except AssertionError as error:
            error.add_note(f"killed at {point} of {wanted.moments}")
            raise
        killed += done.code == KILLED
        interrupted += any(act["phase"] == "interrupted" and act["action"] in JOBS for act in trail(home))
        home.remove()
    spared = max(1, len(points) // 10) if len(points) > 2 else 0
    assert killed >= len(points) - spared
    if wanted.command[0] in ("ingest", "lake", "run") and len(points) > 2:
        assert interrupted >= len(points) // 2, "the trail does not tell that it was interrupted"


def kill_by_the_clock(wanted: Work, place: Path, shares: list[float]) -> None:
    """``kill -9`` of the whole process group after a share of the time that the command takes."""
    home = wanted.start.copy(place / "whole")
    seconds = home.run(*wanted.command, "--json", expect=0).seconds
    home.remove()
    for number, share in enumerate(shares):
        home = wanted.start.copy(place / str(number))
        running = home.fork([home.program, *wanted.command, "--json"])
        done = running.wait(240.0, kill_after=seconds * share)
        assert done.code in (0, KILLED), done.err
        try:
            check(home, wanted)
        except AssertionError as error:
            error.add_note(f"killed after {share:.3f} of {seconds:.2f} s")
            raise
        home.remove()


def kill_again_and_again(wanted: Work, place: Path, step: int) -> None:
    """Each process is killed somewhat later than the one before it, until one gets through."""
    home = wanted.start.copy(place / "again")
    for moment in range(step, 100 * step, step):
        done = home.crash(f"after:{moment}", *wanted.command, "--json")
        if done.code == 0:
            break
        assert done.code == KILLED, done.err
    assert done.code == 0
    check(home, wanted)
    home.remove()


@pytest.fixture(scope="module")
def ingest(small: Any, once: Any) -> Work:
    def build(folder: Path) -> None:
        (folder / "refused.ndjson").write_text('{"resourceType":"Starship"}\nnonsense\n')

    bad = once("refused", build) / "refused.ndjson"
    return work(once, small.home, "ingest", "ingest", str(bad), str(small.sources))


@pytest.fixture(scope="module")
def sync(small: Any, once: Any) -> Work:
    return work(once, small.read, "sync", "lake", "sync")


@pytest.fixture(scope="module")
def run(loop: Any, once: Any) -> Work:
    made = work(once, loop.read, "run", "run", "readmission")
    assert made.answer == lasting(loop.told["run"])
    return made


@pytest.fixture(scope="module")
def stop(small: Any, once: Any) -> Work:
    """A run that ends early, with too few cases."""
    return work(once, small.read, "stop", "run", "readmission")


@pytest.fixture(scope="module")
def listed(loop: Any, once: Any) -> Work:
    # The second list's sync takes in the assessments that the first one wrote.
    made = work(once, loop.home, "listed", "predict", "readmission", "--days", "120")
    return replace(made, leave=("snapshot:", "view:"))


@pytest.fixture(scope="module")
def monitored(loop: Any, once: Any) -> Work:
    return work(once, loop.home, "monitored", "monitor", "check", "readmission")


def test_ingest(ingest: Work, place: Path) -> None:
    assert len(ingest.end["quarantine"]) == 2
    kill_at_moments(ingest, place, spread(ingest.moments, 5))


def test_ingest_by_the_clock(ingest: Work, place: Path) -> None:
    kill_by_the_clock(ingest, place, [0.6, 0.85])


def test_ingest_again_and_again(ingest: Work, place: Path) -> None:
    kill_again_and_again(ingest, place, 4)


def test_lake_sync(sync: Work, place: Path) -> None:
    kill_at_moments(sync, place, spread(sync.moments, 3))


@pytest.mark.soak
def test_lake_sync_again_and_again(sync: Work, place: Path) -> None:
    kill_again_and_again(sync, place, sync.moments // 4)


def test_a_run_that_ends_early(stop: Work, place: Path) -> None:
    assert stop.answer["model_version"] is None
    kill_at_moments(stop, place, [f"after:{stop.moments // 2}"])


def test_a_run_resumes_at_its_step(run: Work, place: Path) -> None:
    """In each of its steps; what was made before is not made anew."""
    resumed = set()
    for number, share in enumerate((0.86, 0.95)):
        home = killed_late(run, place / str(number), share)
        resumed.add(check(home, run)["resumed_at"])
        home.remove()
    assert resumed - {None}, resumed


def killed_late(wanted: Work, place: Path, share: float) -> Any:
    """A workspace whose command was killed about that far on.

    A quick run seals fewer segments of acts than the one that was counted, and so has fewer moments: a command that
    got through before its moment came is done again, and killed somewhat earlier.
    """
    for earlier in range(6):
        home = wanted.start.copy(place / str(earlier))
        point = f"after:{int(wanted.moments * (share - 0.06 * earlier))}"
        if home.crash(point, *wanted.command, "--json").code == KILLED:
            return home
        home.remove()
    pytest.fail(f"never killed, at shares from {share} down")


def test_the_morning_list(listed: Work, place: Path) -> None:
    assert len(listed.answer) > 10
    kill_at_moments(listed, place, [f"before:{int(listed.moments * 0.85)}"])


def test_the_server(loop: Any, place: Path) -> None:
    """Killed with a prediction on its way: it was kept whole or not at all, and the next server gives it."""
    home = loop.home.copy(place)
    before = changes(home)
    patient = loop.told["list"][-1]["patient"]
    token = home.json("token")["token"]
    running, url = home.serve()
    body = json.dumps({"patient": patient}).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/predict/readmission", data=body, headers=headers)
    asking = threading.Thread(target=quietly, args=(request,))
    asking.start()
    running.wait(60.0, kill_after=time.monotonic() - running.began + 0.3)
    asking.join()
    running, url = home.serve()
    request.full_url = f"{url}/predict/readmission"
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read())["patient"] == patient
    running.kill(signal.SIGTERM)
    assert running.wait(30.0).code == 0
    assert 0 <= changes(home) - before <= 1
    assert home.json("audit", "verify")["intact"] is True
    check_files(home)


def changes(home: Any) -> int:
    """How many versions of resources there are."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        return int(tx.exec_driver_sql("SELECT count(*) FROM resource_version").scalar_one())


def quietly(request: urllib.request.Request) -> None:
    with suppress(OSError, http.client.HTTPException), urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def test_monitor_check(monitored: Work, place: Path) -> None:
    kill_at_moments(monitored, place, [f"after:{monitored.moments // 2}"])


def test_init(place: Path, small: Any) -> None:
    """A folder whose ``init`` was killed is no workspace, says so, and can be cleared away and made again."""
    whole = type(small.home)(place / "whole")
    moments = int(whole.crash("count", "init", str(whole.workspace), "--json").err.split()[-1])
    for number, point in enumerate(spread(moments, 5)):
        home = type(small.home)(place / str(number))
        done = home.crash(point, "init", str(home.workspace), "--json")
        assert done.code == KILLED
        told = home.run("status", "--json")
        if (home.workspace / "carelake.toml").exists():
            assert told.code == 0, (point, told.err)
            assert home.json("audit", "verify")["intact"] is True
        else:
            assert told.code == 4, (point, told.err)
            assert told.error["code"] == "apps.no_workspace"


@pytest.mark.soak
def test_every_moment_of_ingest(ingest: Work, place: Path) -> None:
    kill_at_moments(ingest, place, [f"{w}:{n}" for n in range(1, ingest.moments + 1) for w in ("before", "after")])


@pytest.mark.soak
def test_many_moments_of_a_run(run: Work, place: Path) -> None:
    early = range(1, int(run.moments * 0.7), 40)
    # Not to the very last: how many there are depends a little on how long the sealer had (as in `spread`).
    late = range(int(run.moments * 0.7), int(run.moments * 0.93), 3)
    kill_at_moments(run, place, [f"{('before', 'after')[n % 2]}:{n}" for n in (*early, *late)])


@pytest.mark.soak
def test_many_moments_of_a_sync(sync: Work, place: Path) -> None:
    kill_at_moments(sync, place, [f"{('before', 'after')[n % 2]}:{n}" for n in range(1, sync.moments - 3, 5)])


@pytest.mark.soak
def test_many_moments_of_a_list_and_a_check(listed: Work, monitored: Work, place: Path) -> None:
    for number, wanted in enumerate((listed, monitored)):
        kill_at_moments(wanted, place / f"w{number}", spread(wanted.moments, 9))


@pytest.mark.soak
def test_random_times(ingest: Work, sync: Work, run: Work, listed: Work, place: Path) -> None:
    rng = random.Random()
    seed = rng.randrange(1 << 32)
    rng.seed(seed)
    try:
        for number, wanted in enumerate((ingest, sync, run, listed)):
            kill_by_the_clock(wanted, place / f"r{number}", [rng.uniform(0.1, 1.0) for _ in range(20)])
    except AssertionError as error:
        error.add_note(f"seed {seed}; {json.dumps(wanted.command)}")
        raise
