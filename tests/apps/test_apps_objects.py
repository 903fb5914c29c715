"""``carelake object``: the commands, on a workspace, as typed; a killed upload of a large file goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from carelake.apps.cli.arguments import hoist

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]
MIB = 1 << 20


class Home:
    """A workspace and its commands, called in this process: a new one costs a second for each."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "ws"
        self.environment = {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys")}
        assert self.run("init", str(self.workspace), bare=True).returncode == 0

    def run(self, *words: str, bare: bool = False, given: bytes = b"", **more: str) -> Any:
        from carelake.apps.cli.main import app

        where = [] if bare else ["-w", str(self.workspace)]
        out, err = io.BytesIO(), io.StringIO()
        shown = io.TextIOWrapper(out, write_through=True)  # kept: it closes what it wraps when it goes
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (self.environment | more).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
            patch.setattr(sys, "stdout", shown)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as done:
                app(args=hoist([*where, *words]))
        shown.flush()
        return subprocess.CompletedProcess(words, int(done.value.code or 0), out.getvalue(), err.getvalue())

    def json(self, *words: str, **more: Any) -> Any:
        done = self.run(*words, "--json", **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def code(self, *words: str) -> tuple[int, str]:
        done = self.run(*words, "--json")
        return done.returncode, json.loads(done.stderr.splitlines()[-1])["error"]["code"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("objects"))


def test_the_life_of_an_object(home: Home, tmp_path: Path) -> None:
    one, out = tmp_path / "one", tmp_path / "out"
    one.write_bytes(b"0123456789")
    first = home.json("object", "put", "landing/Zebulon.bin", str(one), "--tag", "kind=note")
    assert (first["size"], first["tags"]) == (10, {"kind": "note"})
    home.json("object", "put", "landing/Zebulon.bin", "-", given=b"second")
    assert home.code("object", "put", "landing/Zebulon.bin", str(one), "--if-none-match")[0] == 5
    assert home.run("object", "get", "landing/Zebulon.bin", "-").stdout == b"second"
    for span, data in (("2-4", b"234"), ("7-", b"789"), ("-2", b"89")):
        got = home.run("object", "get", "landing/Zebulon.bin", "-", "--version", first["version"], "--range", span)
        assert got.stdout == data
    assert home.code("object", "get", "landing/Zebulon.bin", str(out), "--range", "90-99") == (2, "apps.range")
    assert not out.exists()
    home.json("object", "get", "landing/Zebulon.bin", str(out))
    assert out.read_bytes() == b"second"
    assert out.stat().st_mode & 0o077 == 0
    assert home.code("object", "get", "landing/Zebulon.bin", str(out)) == (5, "apps.file_exists")
    assert len(home.json("object", "versions", "landing/Zebulon.bin")) == 2
    home.json("object", "rm", "landing/Zebulon.bin")
    assert home.code("object", "get", "landing/Zebulon.bin", "-")[0] == 4
    assert home.json("object", "ls", "landing") == []
    home.json("object", "restore", "landing/Zebulon.bin")
    assert [each["name"] for each in home.json("object", "ls", "landing/Zeb")] == ["Zebulon.bin"]
    assert home.json("object", "tag", "landing/Zebulon.bin", "a=b")["tags"] == {"a": "b"}
    assert home.json("object", "verify", "landing/Zebulon.bin") == {"intact": True, "reason": None}
    home.json("object", "hold", "landing/Zebulon.bin", "on")
    assert home.code("object", "purge", "landing/Zebulon.bin", "--yes") == (3, "vault.held")
    home.json("object", "hold", "landing/Zebulon.bin", "off")
    home.json("object", "retain", "landing/Zebulon.bin", "--days", "9")
    assert home.code("object", "purge", "landing/Zebulon.bin", "--yes") == (3, "vault.retained")
    home.json("object", "retain", "landing/Zebulon.bin", "--lift")
    assert home.code("object", "purge", "landing/Zebulon.bin") == (2, "apps.purge")
    usage = home.json("object", "usage")
    assert [row["zone"] for row in usage["zones"]] == ["audit", "landing"] or usage["zones"]
    assert "Zebulon" not in json.dumps(usage)
    assert len(home.json("object", "inventory", "landing")) == 4
    home.json("object", "inventory", "landing", "--into", "inventories/1")
    assert home.run("object", "get", "landing/inventories/1", "-").stdout.count(b"\n") == 4
    assert home.json("object", "lifecycle", "--dry-run")["dry_run"] is True
    assert home.json("object", "purge", "landing/Zebulon.bin", "--yes") == {"purged": 3}
    assert home.code("object", "versions", "landing/Zebulon.bin")[0] == 4
    assert home.json("audit", "verify")["intact"] is True
    told = home.run("audit", "list", "--json").stdout
    assert b"Zebulon" not in told
    assert b"zone/landing" in told


def test_wrong_paths_and_rights(home: Home, tmp_path: Path) -> None:
    for path in ("landing", "landing/", "/x", "nozone/a", ""):
        assert home.code("object", "versions", path)[0] in (2, 3), path
    assert home.code("object", "get", "audit/segments/1", "-")[0] in (2, 3)
    assert home.run("object", "ls", "landing", "--as", "reviewer").returncode == 3
    assert home.run("object", "ls", "landing", "--account", "development").returncode == 3


def test_what_is_mistyped_is_told_and_does_nothing(home: Home, tmp_path: Path) -> None:
    one, folder = tmp_path / "one", tmp_path / "folder"
    one.write_bytes(b"1")
    folder.mkdir()
    home.json("object", "put", "landing/mistyped", str(one))
    assert home.code("object", "put", "landing/d", str(folder)) == (2, "apps.no_such_path")
    assert home.code("object", "get", "landing/mistyped", str(folder)) == (5, "apps.file_exists")
    assert home.code("object", "get", "landing/mistyped", str(folder), "--force") == (2, "apps.no_such_path")
    retain = ("object", "retain", "landing/mistyped")
    for words in (("--days", "99999999"), ("--days", "36526"), ("--until", "9999-12-31"), ("--until", "9999-99-99")):
        assert home.code(*retain, *words) == (2, "apps.retain")
        assert home.code(*retain, *words, "--mode", "compliance", "--yes") == (2, "apps.retain")
    assert home.code(*retain, "--days", "1", "--mode", "compliance") == (2, "apps.retain_yes")
    (told,) = home.json("object", "ls", "vault://landing/mistyped")
    assert (told["name"], told["retained"]) == ("mistyped", "")
    assert home.json(*retain, "--days", "1", "--mode", "compliance", "--yes")["retain_mode"] == "compliance"
    inside = home.workspace.parent / "keys"
    for out in (inside, inside / "backup", home.workspace / "backup", home.workspace.parent):
        assert home.code("backup", str(out)) == (2, "vault.backup_inside")
    for target in (one, one / "x", one / "x" / "y"):
        assert home.run("restore", str(tmp_path), str(target), bare=True).returncode == 2
    assert (home.workspace / "carelake.toml").stat().st_mode & 0o777 == 0o600


def test_a_killed_upload_goes_on_where_it_was(home: Home, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        for number in range(40):
            file.write(hashlib.sha256(str(number).encode()).digest() * (MIB // 32))
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    small = {"CARELAKE_OBJECTS__PART_BYTES": str(MIB)}
    words = [*COMMAND, "-w", str(home.workspace), "object", "put", "lake/big", str(big), "--json"]
    running = subprocess.Popen(words, env=home.environment | small, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    folder = home.workspace / "vault" / "production" / "lake"
    for _ in range(2000):
        if len(list(folder.glob("*/*"))) >= 8 or running.poll() is not None:
            break
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    (left,) = home.json("object", "uploads", "lake")
    assert left["parts"] >= 6
    assert home.json("object", "ls", "lake") == []
    told = home.json("object", "put", "lake/big", str(big), **small)
    assert told["resumed_parts"] == left["parts"]
    assert (told["size"], told["parts"]) == (40 * MIB, 40)
    got = home.run("object", "get", "lake/big", "-").stdout
    assert hashlib.sha256(got).hexdigest() == digest
    assert home.json("object", "uploads", "lake") == []
    assert home.json("audit", "verify")["intact"] is True
    assert len(list(folder.glob("*/*"))) == 40
