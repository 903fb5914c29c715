"""`carelake upgrade`: the workspace of the first release, brought up whole, whatever happens on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tarfile
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import forked
from carelake.apps.wiring import Workspace, read_settings
from carelake.core.errors import Unsupported
from carelake.vault.database import scope_of
from carelake.vault.formats import FORMAT
from carelake.vault.upgrading import upgraded

RELEASED = Path(__file__).resolve().parents[1] / "fixtures" / "format-1.tar.gz"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The folder with ``workspace``, ``keys`` and ``expected.json`` of the release."""
    with tarfile.open(RELEASED) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "workspace").chmod(0o700)
    return tmp_path


def carelake(folder: Path, *arguments: str, code: int = 0, **environment: str) -> Any:
    """One command on the workspace; its JSON answer."""
    told = {"CARELAKE_KEY_DIR": str(folder / "keys"), **environment}
    done = forked.run("-w", str(folder / "workspace"), *arguments, "--json", env={**os.environ, **told})
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout if code in (0, 1) else done.stderr.splitlines()[-1])


def searched(folder: Path) -> dict[str, Any]:
    found = {}
    for query in json.loads((folder / "expected.json").read_text()):
        said = carelake(folder, "search", f"{query}&_total=accurate")
        resources = [entry["resource"] for entry in said.get("entry", [])]
        text = json.dumps(resources, sort_keys=True)
        found[query] = {"total": said["total"], "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return found


def bytes_of(folder: Path) -> dict[str, str]:
    """Digest of every sealed object's file."""
    files = [path for path in (folder / "workspace" / "vault").rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def runs_of_landings(folder: Path) -> list[Any]:
    """What lineage goes forward by, which the release did not keep."""
    workspace = Workspace.open(folder / "workspace", {"CARELAKE_KEY_DIR": str(folder / "keys")})
    try:
        with workspace.vault.database.ledger_reading() as connection:
            return list(connection.exec_driver_sql("SELECT origin, first, last FROM origin_run").all())
    finally:
        workspace.close()


@pytest.mark.slow
def test_a_released_workspace_is_brought_up_whole(released: Path) -> None:
    before = bytes_of(released)
    refused = carelake(released, "status", code=5)
    assert refused["error"]["code"] == "vault.upgrade_needed"
    planned = carelake(released, "upgrade", "--dry-run")
    assert (planned["from"], planned["to"], planned["done"]) == (1, FORMAT, False)
    assert carelake(released, "upgrade", "--dry-run") == planned
    done = carelake(released, "upgrade")
    assert done == {**planned, "done": True}
    again = carelake(released, "upgrade")
    assert (again["from"], again["done"], again["migrations"]) == (FORMAT, False, [])
    verdict = carelake(released, "audit", "verify")
    assert (verdict["intact"], verdict["problems"]) == (True, [])
    assert searched(released) == json.loads((released / "expected.json").read_text())
    assert before.items() <= bytes_of(released).items()
    (act,) = [a for a in carelake(released, "audit", "list", "--limit", "100") if a["action"] == "workspace:upgrade"]
    assert (act["principal"], act["phase"], act["from_format"], act["to_format"]) == ("operator", "done", 1, FORMAT)
    assert carelake(released, "lake", "sync")["behind_before"] == 0
    assert runs_of_landings(released)
    principals = {p["name"]: p for p in carelake(released, "principal", "list")}
    assert principals["bob"]["disabled"]
    assert not principals["alice"]["disabled"]


@pytest.mark.slow
def test_an_upgrade_goes_on_with_an_index_that_another_left(released: Path) -> None:
    carelake(released, "upgrade")
    workspace = Workspace.open(released / "workspace", {"CARELAKE_KEY_DIR": str(released / "keys")})
    try:
        with workspace.vault.database.ledger() as tx:
            tx.exec_driver_sql("UPDATE index_state SET state = 'building', position = 0")
    finally:
        workspace.close()
    assert carelake(released, "search", "Patient?gender=male", code=5)["error"]["code"] == "store.index_partial"
    assert not carelake(released, "upgrade")["done"]
    assert searched(released) == json.loads((released / "expected.json").read_text())


def test_settings_keep_what_else_they_say(released: Path) -> None:
    config = released / "workspace" / "carelake.toml"
    config.write_text(config.read_text() + "\n# mine\n[lake]\nthreads = 1  # format = 1\n")
    carelake(released, "upgrade")
    said = config.read_text()
    assert "# mine\n[lake]\nthreads = 1  # format = 1\n" in said
    assert f"format = {FORMAT}\n" in said
    assert read_settings(config.parent, {}).lake.threads == 1


def test_who_may_not_upgrade_changes_nothing(released: Path) -> None:
    config = released / "workspace" / "carelake.toml"
    before = config.read_bytes()
    refused = carelake(released, "--as", "alice", "upgrade", code=3)
    assert refused["error"]["code"] == "access.denied"
    assert config.read_bytes() == before
    assert len(carelake(released, "upgrade", "--dry-run")["migrations"]) == 6


def test_a_newer_workspace_names_the_version_it_needs(tmp_path: Path) -> None:
    (tmp_path / "carelake.toml").write_text(
        f'workspace = "w1"\nformat = {FORMAT + 1}\nversion = "7.1.0"\nunheard_of = 1\n'
    )
    with pytest.raises(Unsupported, match=r"7\.1\.0"):
        read_settings(tmp_path, {})


def test_it_is_refused_while_another_process_is_here(released: Path) -> None:
    import fcntl

    with (released / "workspace" / "vault" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        refused = carelake(released, "upgrade", code=5)
    assert refused["error"]["code"] == "vault.in_use"
    assert carelake(released, "upgrade")["done"]


KILLED = """
    import os, signal, sys
    import sqlalchemy
    from sqlalchemy import event
    from carelake.vault import upgrading

    left = int(sys.argv.pop(1))

    def moment(*_, **__):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(sqlalchemy.Engine, "before_cursor_execute", moment)
    event.listen(sqlalchemy.Engine, "after_cursor_execute", moment)
    event.listen(sqlalchemy.Engine, "commit", moment)
    written = upgrading.write_atomic

    def write(path, data):
        moment()
        written(path, data)
        moment()

    upgrading.write_atomic = write
    from carelake.apps.cli.main import main
    main()
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_what_the_next_upgrade_finishes(released: Path, tmp_path: Path) -> None:
    """Kills at moments ever further on, until one run ends by itself; each time the next upgrade must finish."""
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    step, moment, kills = 9, 5, 0
    while True:
        folder = tmp_path / f"moment-{moment}"
        folder.mkdir()
        subprocess.run(["cp", "-a", str(released / "workspace"), str(released / "keys"), str(folder)], check=True)
        environment = {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys")}
        words = (str(moment), "-w", str(folder / "workspace"), "upgrade", "--json")
        done = forked.run(str(script), *words, env=environment)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode == 0:
            break
        kills += 1
        carelake(folder, "upgrade")
        assert carelake(folder, "upgrade", "--dry-run")["from"] == FORMAT
        assert carelake(folder, "search", "Patient?gender=male")["resourceType"] == "Bundle"
        assert carelake(folder, "audit", "verify")["intact"]
        moment, step = moment + step, step * 2
    assert kills >= 4


def test_an_interrupt_after_the_commit_leaves_the_new_number(released: Path) -> None:
    config = released / "workspace" / "carelake.toml"
    before = config.read_bytes()
    environment = {"CARELAKE_KEY_DIR": str(released / "keys")}

    def interrupted(fault: BaseException, *, within: bool) -> None:
        workspace = Workspace.open(released / "workspace", environment, upgrading=True)
        try:
            with upgraded(workspace.vault, workspace.gate.upgrading(), config) as tx:
                if within:
                    raise fault
                scope_of(tx).after.append(partial(_raise, fault))
        finally:
            workspace.vault.close()

    with pytest.raises(KeyboardInterrupt):
        interrupted(KeyboardInterrupt(), within=True)
    assert config.read_bytes() == before
    with pytest.raises(KeyboardInterrupt):
        interrupted(KeyboardInterrupt(), within=False)
    assert f"format = {FORMAT}\n" in config.read_text()
    workspace = Workspace.open(released / "workspace", environment)
    with workspace.vault.database.ledger_reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM object_version WHERE voucher IS NULL").scalar() == 0
    workspace.close()


def _raise(fault: BaseException) -> None:
    raise fault
