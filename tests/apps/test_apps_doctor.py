"""`carelake doctor`: each thing that can be wrong is found by name, also when the workspace cannot be opened."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.access.principals import Principal, Principals
from carelake.apps.cli import checkup as app
from carelake.apps.cli.checkup import examine
from carelake.apps.cli.session import Options, Session
from carelake.apps.wiring import Workspace
from carelake.audit.acts import ActHeader, write
from carelake.core.clock import FixedClock, SystemClock, iso
from carelake.vault.checkup import Check
from carelake.vault.database import schema_version
from carelake.vault.formats import SCHEMA
from carelake.vault.places import ACCOUNTS

Found = dict[str, Check]
Doctor = Callable[..., Found]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    keys = tmp_path / "keys"
    for name in [name for name in os.environ if name.startswith("CARELAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CARELAKE_KEY_DIR", str(keys))
    return {"CARELAKE_KEY_DIR": str(keys)}


@pytest.fixture
def root(tmp_path: Path, environment: dict[str, str]) -> Path:
    Workspace.create(tmp_path / "ws", environment).close()
    return tmp_path / "ws"


@pytest.fixture
def doctor(root: Path, environment: dict[str, str]) -> Doctor:
    def call(**more: str) -> Found:
        return {one.check: one for one in examine(root, {**environment, **more}, Options(root))}

    return call


def failed(found: Found) -> set[str]:
    return {name for name, one in found.items() if one.state == "fail"}


def test_a_healthy_workspace_is_healthy(doctor: Doctor) -> None:
    found = doctor()
    assert failed(found) == set()
    wanted = {
        "python",
        "libraries",
        "settings",
        "disk",
        "memory",
        "permissions",
        "processes",
        "leftovers",
        "root key",
    }
    wanted |= {"key folder", "objects", "opening", "schema", "integrity", "encryption", "clock", "sealing", "head"}
    assert wanted | {"jobs", "principal"} == set(found)
    assert all(one.do for one in found.values() if one.state != "ok")
    assert failed(doctor()) == set()


def test_without_the_root_key_it_still_works(doctor: Doctor, tmp_path: Path) -> None:
    (key,) = (tmp_path / "keys").glob("*.key")
    aside = key.rename(tmp_path / "aside")
    found = doctor()
    assert failed(found) == {"root key", "opening"}
    assert "vault.root_key_missing" in found["opening"].found
    aside.rename(key)
    key.chmod(0o644)
    assert failed(doctor()) == {"root key"}
    key.chmod(0o600)
    key.write_text("0" * 64)
    assert failed(doctor()) == {"opening"}


def test_a_key_folder_open_to_others_or_inside(doctor: Doctor, tmp_path: Path, root: Path) -> None:
    (tmp_path / "keys").chmod(0o750)
    assert failed(doctor()) == {"key folder"}
    (tmp_path / "keys").chmod(0o700)
    (tmp_path / "keys").rename(root / "keys")
    found = doctor(CARELAKE_KEY_DIR=str(root / "keys"))
    assert found["key folder"].state == "fail"


def test_settings_that_cannot_be_read(doctor: Doctor, root: Path) -> None:
    config = root / "carelake.toml"
    good = config.read_text()
    config.write_text(good + "\nunheard_of = 1\n")
    assert failed(doctor()) == {"settings"}
    config.write_text(good + "\nnot toml")
    assert failed(doctor()) == {"settings"}
    config.unlink()
    assert failed(doctor()) == {"settings"}
    config.write_text(good.replace("format = 2", "format = 1"))
    assert failed(doctor()) == {"settings"}
    config.write_text(good + "\n[ingest]\nworkers = 4000\n")
    assert doctor()["settings"].state == "warn"
    config.write_text(good + '\n[lake]\nmemory_limit = "900TB"\n')
    assert doctor()["memory"].state == "warn"
    config.write_text(good + '\n[lake]\nmemory_limit = "much"\n')
    assert failed(doctor()) == {"memory"}


def test_files_that_are_open_or_left(doctor: Doctor, root: Path, tmp_path: Path) -> None:
    (root / "carelake.db").chmod(0o640)
    found = doctor()
    assert failed(found) == {"permissions"}
    assert "carelake.db" in found["permissions"].found
    (root / "carelake.db").chmod(0o600)
    left = root / ".keyring.json.aabbccddeeff.tmp"
    left.write_bytes(b"")
    left.chmod(0o600)
    assert doctor()["leftovers"].state == "ok"  # somebody may be writing it
    old = time.time() - 3600
    os.utime(left, (old, old))
    assert doctor()["leftovers"].state == "warn"
    left.unlink()
    mark = root / "vault" / ".open-0011223344556677"
    mark.write_bytes(b"")
    mark.chmod(0o600)
    assert doctor()["processes"].state == "warn"
    assert doctor()["processes"].state == "ok"  # the opening in between has swept


def test_a_damaged_or_missing_database(doctor: Doctor, root: Path) -> None:
    path = root / "carelake.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = doctor()
    assert "integrity" in failed(found) or "opening" in failed(found) or "database" in failed(found)
    path.unlink()
    found = doctor()
    assert failed(found) == {"opening"}
    assert "vault.database_missing" in found["opening"].found


def test_a_schema_that_is_behind_or_not_what_it_says(doctor: Doctor, root: Path, environment: dict[str, str]) -> None:
    workspace = Workspace.open(root, environment)
    with workspace.vault.database.ledger() as tx:
        tx.exec_driver_sql("UPDATE schema_version SET version_num = '0001'")
    workspace.vault.close()
    found = doctor()
    assert failed(found) == {"schema"}
    assert "carelake upgrade" in found["schema"].do
    workspace = Workspace.open(root, environment, upgrading=True)
    with workspace.vault.database.ledger() as tx:
        tx.execute(schema_version.update().values(version_num=SCHEMA))
        tx.exec_driver_sql("ALTER TABLE segment DROP COLUMN peaks")
    workspace.vault.close()
    found = doctor()
    assert failed(found) == {"schema"}
    assert "segment.peaks" in found["schema"].found


def test_a_clock_that_was_set_back(doctor: Doctor, clock: FixedClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SystemClock", lambda: clock)
    found = doctor()
    assert failed(found) == {"clock"}
    assert "ahead" in found["clock"].found


def test_nobody_learns_from_it_of_another_account(root: Path, environment: dict[str, str]) -> None:
    """Acts and jobs are counted for who belongs to all accounts, and for anybody else in the permit's account."""
    workspace = Workspace.open(root, environment)
    ahead = FixedClock(SystemClock().now() + timedelta(hours=1))
    with workspace.vault.database.ledger() as tx:
        for name, accounts in (("ann", ("research",)), ("all", ACCOUNTS)):
            Principals(tx).add(Principal(name, "person", ("administrator",), accounts))
        for account, clock in (("production", ahead), ("production", ahead), ("research", SystemClock())):
            header = ActHeader(workspace.vault.ids.new(), "pipeline", account, "HOPERAT", "pipeline:run", "run")
            write(tx, header, "start", clock, {"process": {"host": "another", "pid": 1}})
    workspace.vault.close()

    def look(name: str) -> Found:
        session = Session(Options(root, name, "HSYSADMIN", "research"))
        try:
            return {one.check: one for one in app._rows(session, SystemClock())}
        finally:
            session.workspace.vault.close()  # and nothing is sealed, so acts wait

    found = look("ann")
    assert found["jobs"].found == "1 jobs run"
    assert found["clock"].state == "ok"
    assert found["sealing"].found == "1 acts wait to be sealed"
    found = look("all")
    assert found["jobs"].found == "3 jobs run"
    assert found["clock"].state == "fail"
    assert int(found["sealing"].found.split()[0]) > 3


def test_acts_that_wait_and_a_head_that_is_gone(
    doctor: Doctor, tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert app._unsealed(clock.now(), 3, iso(clock.now())).state == "ok"
    clock.move(hours=2)
    assert app._unsealed(clock.now(), 3, "2026-01-02T03:04:05.000Z").state == "fail"
    assert app._unsealed(clock.now(), 0, None).state == "ok"
    for head in (tmp_path / "keys").glob("*.head"):
        head.unlink()
    assert "head" in failed(doctor())


def test_the_command_answers_json_and_its_exit_code(
    root: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    from carelake.apps.cli.upkeep import doctor

    assert doctor(Options(root), json_out=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"]
    assert {"check", "state", "found", "do"} == set(said["checks"][0])
    (root / "keyring.json").unlink()
    assert doctor(Options(root), json_out=True) == 1
    assert not json.loads(capsys.readouterr().out)["healthy"]
    assert doctor(Options(root / "nowhere"), json_out=True) == 1
    capsys.readouterr()


def test_postgres_is_told_of(
    tmp_path: Path, environment: dict[str, str], postgres: Any, postgres_server: Any
) -> None:
    said = {"CARELAKE_DATABASE__URL": postgres.url, "CARELAKE_DATABASE__PASSWORD_FILE": postgres.password_file}
    root = tmp_path / "pg"
    Workspace.create(root, {**environment, **said}).close()
    assert postgres_server.password not in (root / "carelake.toml").read_text()

    def look(**more: str) -> Found:
        return {one.check: one for one in examine(root, {**environment, **more}, Options(root))}

    found = look()
    assert failed(found) == {"durability"}  # the tests' server does not flush
    assert (found["encryption"].state, found["transport"].state) == ("warn", "ok")
    assert "encrypted_volume" in found["encryption"].do
    assert look(CARELAKE_DATABASE__ENCRYPTED_VOLUME="true")["encryption"].state == "ok"
    with_password = postgres.url.replace("carelake@", "carelake:secret@")
    found = look(CARELAKE_DATABASE__URL=with_password)
    assert found["password"].state == "warn"
    assert "secret@" not in str(found)
    wrong = tmp_path / "wrong"
    wrong.write_text("not the password")
    found = look(CARELAKE_DATABASE__PASSWORD_FILE=str(wrong))
    assert "vault.database_login" in found["opening"].found
    found = look(CARELAKE_DATABASE__URL="postgresql://carelake@127.0.0.1:1/x")
    assert "vault.database_down" in found["opening"].found
