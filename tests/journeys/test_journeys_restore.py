"""The restore drill, as users do it: real processes, another machine, and ``kill -9`` in the middle of it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

KILLED = -signal.SIGKILL
CORRUPT, UNAVAILABLE, CONFLICT = 6, 7, 5


def machine(home: Any, folder: Path, *, key: bool = True) -> Any:
    """Another machine: nothing of the first one but, as told, the root key's file."""
    folder.mkdir(parents=True)
    other = type(home)(folder)
    other.keys.mkdir()
    if key:
        for path in home.keys.glob("*.key"):
            shutil.copy(path, other.keys / path.name)
    return other


def rows(home: Any) -> dict[str, int]:
    """Rows of each table that only ever grows by what users do."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        count = "SELECT count(*) FROM "
        return {
            name: tx.exec_driver_sql(count + name).scalar_one()
            for name in ("resource_version", "index_string", "object_version", "noun", "patient_key")
            if name in _tables(tx)
        }


def _tables(tx: Any) -> set[str]:
    import sqlalchemy

    return set(sqlalchemy.inspect(tx).get_table_names())


def segments(home: Any) -> list[str]:
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        return [row[0] for row in tx.exec_driver_sql("SELECT digest FROM segment ORDER BY number").all()]


def restores(home: Any) -> list[Any]:
    acts = home.json("audit", "list", "--limit", "500")
    return [act for act in acts if act["action"] == "workspace:restore"]


def one_patient(home: Any) -> str:
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        return str(tx.exec_driver_sql("SELECT patient FROM patient_key ORDER BY patient").first()[0])


@pytest.fixture(scope="module")
def backed(once: Any, small: Any) -> Any:
    """A workspace that was backed up, written to, and backed up again. Never change it."""

    def build(folder: Path) -> None:
        home = small.read.copy(folder / "home")
        told = {"rows": [rows(home)], "points": [home.json("backup", folder / "out", "--label", "first")]}
        more = folder / "more"
        home.json("synth", "--patients", "20", "--seed", "99", "--out", more)
        home.json("ingest", more)
        told["rows"].append(rows(home))
        told["points"].append(home.json("backup", folder / "out"))
        (folder / "told.json").write_text(json.dumps(told))

    folder = once("backed", build)
    told = json.loads((folder / "told.json").read_text())
    return type("Backed", (), {"home": type(small.home)(folder / "home"), "out": folder / "out", **told})


def test_another_machine_gets_every_acknowledged_write(backed: Any, place: Path) -> None:
    new = machine(backed.home, place / "new")
    told = new.json("restore", backed.out, new.workspace)
    assert told["verified"]["intact"] is True
    assert told["digests"] is True
    assert told["point"] == backed.points[1]["point"]
    assert told["rpo"]["known"] is False  # the head was lost with the machine
    assert told["rpo"]["age_seconds"] >= 0
    assert told["rto_seconds"] > 0
    found = rows(new)
    found["object_version"] = backed.rows[1]["object_version"]  # segments were sealed since
    assert found == backed.rows[1]
    old = segments(backed.home)
    assert segments(new)[: backed.points[1]["segment"]] == old[: backed.points[1]["segment"]]
    verified = new.run("audit", "verify", expect=0)
    assert "restored on" in verified.err
    (act,) = restores(new)
    assert act["target"] == f"backup:{backed.points[1]['point']}"
    assert new.json("ingest", backed.out.parent / "more")["stored"] == 0
    assert {path.stat().st_mode & 0o777 for path in (new.workspace / "vault").rglob("*") if path.is_file()} == {0o600}


def test_the_same_machine_knows_what_it_lost(backed: Any, place: Path) -> None:
    """The head beside the root key is ahead of the copy: it is left behind, and that is told and signed."""
    home = backed.home.copy(place / "same")
    out = place / "out"
    shutil.copytree(backed.out, out)
    home.json("status")
    home.json("audit", "verify")
    shutil.rmtree(home.workspace)
    told = home.json("restore", out, home.workspace, "--point", backed.points[0]["point"])
    rpo = told["rpo"]
    assert rpo["known"] is True
    assert rpo["missing_acts"] > 3
    assert rpo["missing_seconds"] > 0
    assert told["verified"]["intact"] is True
    found = rows(home)
    found["object_version"] = backed.rows[0]["object_version"]
    assert found == backed.rows[0]
    (act,) = restores(home)
    last = backed.points[0]["acts"]
    assert act["counts"]["lost_first"] == last + 1
    assert act["counts"]["lost"] == rpo["missing_acts"] == act["counts"]["lost_last"] - last
    told = home.run("audit", "verify", expect=0)
    assert f"acts {last + 1} to" in told.err
    (record,) = [json.loads(line) for path in home.keys.glob("*.restores") for line in path.read_text().splitlines()]
    assert record["from"]["last"] == act["counts"]["lost_last"]
    # It goes on: it can be written to, backed up and restored again.
    home.json("backup", out)
    again = home.json("drill", out)
    assert again["verified"]["intact"] is True
    assert again["rpo"]["missing_acts"] <= 2  # the backup's own end


def test_a_copy_put_back_by_hand_is_still_refused(backed: Any, place: Path) -> None:
    """Only `restore` moves the head back; a record of an earlier restore excuses nothing else."""
    home = backed.home.copy(place / "same")
    shutil.rmtree(home.workspace)
    home.json("restore", backed.out, home.workspace)
    kept = place / "kept"
    shutil.copytree(home.workspace, kept)
    home.json("synth", "--patients", "2", "--seed", "5", "--out", place / "few")
    home.json("ingest", place / "few")
    shutil.rmtree(home.workspace)
    shutil.copytree(kept, home.workspace)
    assert home.run("audit", "verify").code == CORRUPT
    assert home.run("status").code == CORRUPT


def test_a_drill_leaves_no_mark_but_an_act(backed: Any, place: Path) -> None:
    home = backed.home.copy(place / "same")
    head = {path.name: path.read_bytes() for path in home.keys.iterdir()}
    away = type(home)(home.folder, {"CARELAKE_WORKSPACE": ""})
    told = away.json("restore", backed.out, "--drill")
    assert (told["drill"], told["verified"]["intact"], told["folder"]) == (True, True, "")
    assert {path.name: path.read_bytes() for path in home.keys.iterdir()} == head
    assert not list(home.temporary.iterdir())
    told = home.json("drill", backed.out, "--point", backed.points[0]["point"])
    assert told["act"] is True
    assert not list(home.temporary.iterdir())
    acts = [act for act in home.json("audit", "list") if act["action"] == "workspace:backup"]
    assert acts[0]["counts"]["drill"] == 1
    assert acts[0]["target"] == f"backup:{backed.points[0]['point']}"
    assert home.json("audit", "verify")["intact"] is True


def test_backups_while_others_write(new_home: Any, small: Any, place: Path) -> None:
    """Points that were taken in the middle of an ingest: each is a whole workspace of its moment."""
    out, made = place / "safe", []
    running = new_home.start([new_home.program, "ingest", str(small.sources), "--json"])
    while running.process.poll() is None:
        made.append(new_home.json("backup", out))
    assert running.wait(60).code == 0
    made.append(new_home.json("backup", out))
    assert len(made) >= 2
    assert max(one["writers_waited_seconds"] for one in made) < 2
    stored = []
    for number, one in enumerate(made[:2] + made[-2:]):
        new = machine(new_home, place / f"new{number}")
        told = new.json("restore", out, new.workspace, "--point", one["point"])
        assert told["verified"]["intact"] is True
        stored.append(rows(new)["resource_version"])
        new.remove()
    assert stored == sorted(stored)
    assert stored[-1] == rows(new_home)["resource_version"]


def moments(count: int, number: int) -> list[str]:
    """Some of them, the first and the last among them, before and after by turns."""
    picked = sorted({1 + (count - 1) * n // max(1, number - 1) for n in range(number)})
    return [f"{('before', 'after')[n % 2]}:{at}" for n, at in enumerate(picked)]


@pytest.mark.parametrize(("most", "by_clock"), [(5, 2), pytest.param(30, 10, marks=pytest.mark.soak)])
def test_a_backup_that_is_killed(backed: Any, small: Any, place: Path, most: int, by_clock: int) -> None:
    """At durable moments and by the clock: earlier points stay whole, and the next backup goes on."""
    home = backed.home.copy(place / "home")
    home.json("synth", "--patients", "10", "--seed", "3", "--out", place / "more")
    home.json("ingest", place / "more")
    start = place / "start"
    shutil.copytree(backed.out, start)
    whole = place / "whole"
    shutil.copytree(start, whole)
    counted = home.crash("count", "backup", str(whole), "--json")
    assert counted.code == 0, counted.err
    out = place / "out"
    shutil.copytree(start, out)
    for point in moments(int(counted.err.split()[-1]), most):
        before = home.json("backup", out, "--list")
        done = home.crash(point, "backup", str(out), "--json")
        assert done.code in (KILLED, 0), done.err
        after = home.json("backup", out, "--list")
        assert after[: len(before)] == before
    rng = random.Random(7)
    for _ in range(by_clock):
        running = home.start([home.program, "backup", str(out), "--json"])
        running.wait(60, kill_after=rng.uniform(0.3, 1.6))
    there = len(home.json("backup", out, "--list"))  # how many were whole before they were killed is up to the clock
    last = home.json("backup", out, "--keep", "4")
    assert not list((out / "pieces").rglob("*.tmp"))
    assert last["pruned"]["points_left"] == min(4, there + 1)
    for one in home.json("backup", out, "--list"):
        assert home.json("drill", out, "--point", one["point"])["verified"]["intact"] is True
    assert home.json("audit", "verify")["intact"] is True


@pytest.mark.parametrize("most", [5, pytest.param(30, marks=pytest.mark.soak)])
def test_a_restore_that_is_killed(backed: Any, place: Path, most: int) -> None:
    """The folder is no workspace until it is whole; the same command goes on; the trail tells of one restore."""
    new = machine(backed.home, place / "count")
    counted = new.crash("count", "restore", str(backed.out), str(new.workspace), "--json")
    assert counted.code == 0, counted.err
    killed = 0
    points = moments(int(counted.err.split()[-1]), most)
    for number, point in enumerate(points):
        new = machine(backed.home, place / str(number))
        done = new.crash(point, "restore", str(backed.out), str(new.workspace), "--json")
        # The last moments are not the same in each run: how many segments are sealed depends on the time.
        assert done.code in (KILLED, 0), (point, done.err)
        killed += done.code == KILLED
        whole = (new.workspace / "carelake.toml").exists()
        if not whole:
            assert new.run("status").code == 4
        again = new.run("restore", backed.out, new.workspace, "--json")
        assert again.code == (CONFLICT if whole else 0), (point, again.err)
        assert new.json("audit", "verify")["intact"] is True
        assert len(restores(new)) == 1
        assert len([line for path in new.keys.glob("*.restores") for line in path.read_text().splitlines()]) == 1
        found = rows(new)
        found["object_version"] = backed.rows[1]["object_version"]
        assert found == backed.rows[1]
        new.remove()
    assert killed >= len(points) - 2


def forget(home: Any, patient: str) -> None:
    """Erase a patient's key, as the erasure of a record will."""
    from carelake.core.permit import mint

    with home.opened() as workspace:
        vault = workspace.vault
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, "record:ingest", "record") as permit:
            eraser = mint(
                act=permit.act,
                principal=permit.principal,
                account=permit.account,
                purpose=permit.purpose,
                action=permit.action,
                target=permit.target,
                grants=("rows:read", "rows:write", "rows:erase"),
                scope=(),
                expires=vault.clock.now() + timedelta(minutes=1),
                log=permit.log,
            )
            with vault.database.transaction(eraser) as tx:
                assert vault.sealer.forget(eraser, tx, patient) == 1


def test_an_erased_patient_does_not_come_back(backed: Any, place: Path) -> None:
    home = backed.home.copy(place / "home")
    out = place / "out"
    shutil.copytree(backed.out, out)
    patient = one_patient(home)
    assert home.run("read", f"Patient/{patient}").code == 0
    forget(home, patient)
    gone = home.run("read", f"Patient/{patient}")
    assert gone.code == 4, gone.err
    old = backed.points[0]["point"]
    # On the same machine the list lies beside the root key.
    same = home.json("drill", out, "--point", old)
    assert same["erasures_replayed"] == 1
    # On another one, the newest point tells.
    home.json("backup", out)
    new = machine(home, place / "new")
    told = new.json("restore", out, new.workspace, "--point", old)
    assert told["erasures_replayed"] == 1
    assert told["verified"]["intact"] is True
    assert new.run("read", f"Patient/{patient}").code == 4
    assert rows(new)["patient_key"] == backed.rows[0]["patient_key"] - 1


def beside(home: Any) -> Any:
    """Where a copy is restored to: another workspace, the same key folder."""
    folder = home.folder / "beside"
    folder.mkdir()
    (folder / "keys").symlink_to(home.keys)
    return type(home)(folder)


def outside(home: Any, but: str = "nothing") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.keys.iterdir() if but not in path.name}


def grow(home: Any, seed: int) -> None:
    home.json("synth", "--patients", "2", "--seed", seed, "--out", home.folder / f"few{seed}")
    assert home.json("ingest", home.folder / f"few{seed}")["stored"] > 0


@pytest.mark.parametrize("anchor", ["", "worm/", "heads.jsonl"])
def test_beside_the_living_workspace(backed: Any, place: Path, anchor: str) -> None:
    """One key folder, two workspaces: both go on, each with a trail of its own, and none touches the other's."""
    home = backed.home.copy(place / "home")
    if anchor:
        (place / "worm").mkdir()
        anchored = str(place / anchor) + "/" * anchor.endswith("/")
        with (home.workspace / "carelake.toml").open("a") as settings:
            settings.write(f'\n[audit]\nanchor = "{anchored}"\nanchor_seconds = 0\n')
        grow(home, 21)
    out = place / "out"
    shutil.copytree(backed.out, out)
    home.json("backup", out)
    home.json("status")
    before = outside(home)
    copy = beside(home)
    copy.extra.update(home.extra)
    told = copy.json("restore", out, copy.workspace)
    assert told["verified"]["intact"] is True
    assert (told["rpo"]["known"], told["rpo"]["missing_acts"] <= 3) == (True, True)
    assert outside(home, told["copy"]) == before
    for number in (31, 32):
        grow(home, number)
        grow(copy, number + 10)
        for one in (home, copy):
            assert one.json("audit", "verify")["intact"] is True
    assert (len(restores(home)), len(restores(copy))) == (0, 1)
    if anchor:
        done = copy.run("audit", "export", "--format", "jsonl", "--out", place / "export", expect=0)
        assert done.code == 0
        checked = subprocess.run(
            [sys.executable, place / "export" / "verify.py", place / "export"], capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
    # Erased in one, it is there in the other; an older state of either is refused as ever.
    patient = one_patient(home)
    kept = place / "kept"
    shutil.copytree(copy.workspace, kept)
    forget(home, patient)
    assert home.run("read", f"Patient/{patient}").code == 4
    assert copy.run("read", f"Patient/{patient}").code == 0
    shutil.rmtree(copy.workspace)
    shutil.copytree(kept, copy.workspace)
    assert copy.run("status").code == CORRUPT
    assert home.json("audit", "verify")["intact"] is True


def test_the_name_of_the_copy_is_no_way_round(backed: Any, place: Path) -> None:
    """Somebody puts an old state in place, under another name: no head, no list of erasures, no trail to grow."""
    home = backed.home.copy(place / "home")
    patient = one_patient(home)
    old = place / "old"
    shutil.copytree(home.workspace, old)
    copy = beside(home)
    made = copy.json("restore", backed.out, copy.workspace)["copy"]
    forget(home, patient)
    home.json("status")
    before = outside(home)
    shutil.rmtree(home.workspace)
    shutil.copytree(old, home.workspace)
    config = home.workspace / "carelake.toml"
    text = config.read_text()
    for name in ("0123456789abcdef", made):
        config.write_text(f'copy = "{name}"\n{text}')
        for words in (("audit", "verify"), ("read", f"Patient/{patient}"), ("status",)):
            done = home.run(*words, "--json")
            assert done.code == CORRUPT
            assert "vault.copy_mismatch" in done.out + done.err
            assert "head of that one is missing" in done.out + done.err
    for name in ("../../x", "A" * 16, "0" * 17):
        config.write_text(f'copy = "{name}"\n{text}')
        done = home.run("status", "--json")
        assert (done.code, done.error["code"]) == (2, "apps.settings")
    # As the copy that it is not, key ring and all, the rows tell.
    config.write_text(f'copy = "{made}"\n{text}')
    shutil.copy(copy.workspace / "keyring.json", home.workspace / "keyring.json")
    done = home.run("read", f"Patient/{patient}", "--json")
    assert (done.code, done.error["code"]) == (CORRUPT, "vault.workspace_mismatch")
    assert outside(home) == before
    # The copy without its name, and without its head.
    lines = (copy.workspace / "carelake.toml").read_text()
    (copy.workspace / "carelake.toml").write_text(lines.replace(f'copy = "{made}"\n', ""))
    assert copy.run("status", "--json").error["code"] == "vault.copy_mismatch"
    (copy.workspace / "carelake.toml").write_text(lines)
    (home.keys / f"{config_id(text)}.{made}.head").unlink()
    done = copy.run("audit", "verify", "--json")
    assert done.code == CORRUPT
    assert done.json["first_bad"]["name"] == "head"
    assert copy.run("status", "--json").error["code"] == "audit.head_missing"
    assert not (home.keys / f"{config_id(text)}.{made}.head").exists()


def config_id(text: str) -> str:
    return str(tomllib.loads(text)["workspace"])


def test_what_is_wrong_is_named(backed: Any, place: Path) -> None:
    out = place / "out"
    shutil.copytree(backed.out, out)
    pieces = sorted((out / "pieces").glob("*/*"), key=lambda path: path.stat().st_size)
    for number, path in enumerate((pieces[-1], pieces[0])):
        data = path.read_bytes()
        for damaged in (data[:100] + bytes([data[100] ^ 1]) + data[101:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            new = machine(backed.home, place / f"new{number}{damaged is None}")
            asked = [("drill", out, "--point", one["point"], "--json") for one in backed.points]
            found = [one for one in (new.run(*words) for words in asked) if one.code != 0]
            assert found
            for one in found:
                assert (one.code, one.error["code"]) == (CORRUPT, "vault.backup_piece")
                assert path.name in one.error["message"]
        path.write_bytes(data)
    newest = sorted((out / "points").iterdir())[-1]
    data = newest.read_bytes()
    newest.write_bytes(data[: len(data) // 2])
    new = machine(backed.home, place / "new")
    broken = new.run("restore", out, new.workspace, "--json")
    assert (broken.code, broken.error["code"]) == (CORRUPT, "vault.backup_point")
    assert newest.stem in broken.error["message"]
    assert not (new.workspace / "carelake.toml").exists()
    older = new.json("restore", out, new.workspace, "--point", backed.points[0]["point"])
    assert older["verified"]["intact"] is True


def test_the_root_key_is_needed(backed: Any, place: Path) -> None:
    new = machine(backed.home, place / "new", key=False)
    found = new.run("restore", backed.out, new.workspace, "--json")
    assert (found.code, found.error["code"]) == (UNAVAILABLE, "vault.root_key_missing")
    (key,) = backed.home.keys.glob("*.key")
    assert key.name in found.error["message"]
    (new.keys / key.name).write_text(os.urandom(32).hex())
    found = new.run("restore", backed.out, new.workspace, "--json")
    assert (found.code, found.error["code"]) == (CORRUPT, "vault.wrong_key")
    shutil.copy(key, new.keys / key.name)
    assert new.json("restore", backed.out, new.workspace)["verified"]["intact"] is True
    found = new.run("restore", backed.out, new.workspace, "--json")
    assert (found.code, found.error["code"]) == (CONFLICT, "vault.restore_not_empty")


def test_nothing_of_a_patient_is_in_the_clear(backed: Any) -> None:
    """A name that is in the sources is nowhere in the backup, nor in the names of its files."""
    lines = [
        line for path in (backed.out.parent / "more").rglob("*.ndjson") for line in path.read_text().splitlines()
    ]
    person = next(one for one in map(json.loads, lines) if one["resourceType"] == "Patient")
    canaries = [person["id"], f'"{person["name"][0]["family"]}"', person["birthDate"], "resourceType", "0001.ndjson"]
    names = "\n".join(str(path.relative_to(backed.out)) for path in backed.out.rglob("*"))
    for path in backed.out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for canary in canaries:
                assert canary.encode() not in data, path
                assert canary not in names
    (key,) = backed.home.keys.glob("*.key")
    assert bytes.fromhex(key.read_text()) not in b"".join(
        p.read_bytes() for p in backed.out.rglob("*") if p.is_file()
    )


def test_two_backups_at_once(backed: Any, place: Path) -> None:
    home = backed.home.copy(place / "home")
    out = place / "out"
    running = [home.start([home.program, "backup", str(out), "--json"]) for _ in range(3)]
    done = [one.wait(120) for one in running]
    assert {one.code for one in done} <= {0, CONFLICT}
    assert sum(one.code == 0 for one in done) >= 1
    for one in done:
        assert one.code == 0 or one.error["code"] == "vault.backup_running"
    assert home.json("drill", out)["verified"]["intact"] is True
