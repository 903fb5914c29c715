"""Whoever can write every file of the workspace, but has no key: refused, or found out by name."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import Corrupt

pytestmark = pytest.mark.slow
NAMES = ("carelake.db", "carelake.db-wal", "carelake.db-shm")


def verdict(home: Any) -> Any:
    done = home.run("audit", "verify", "--json")
    assert done.code == (0 if done.json["intact"] else 6)
    return done.json


def stored(home: Any, name: str) -> Path:
    """The file in which the current version of an object lies."""
    zone, _, key = name.partition("/")
    account = "production"
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as tx:
        query = "SELECT object FROM object_version WHERE zone = '{}' AND name = '{}' AND current"
        opaque = tx.exec_driver_sql(query.format(zone, key)).scalar_one()
    return home.workspace / "vault" / account / zone / opaque[:2] / opaque


def get(home: Any, name: str) -> Any:
    out = home.folder / "out" / "got"
    out.unlink(missing_ok=True)
    return home.run("object", "get", name, out, "--json")


def refused(home: Any, name: str) -> None:
    """An object cannot be had, nothing of it is left where it should have gone, and the verdict names it."""
    done = get(home, name)
    assert done.code == 6, (done.code, done.err)
    assert done.error["code"].startswith("vault.")
    assert not (home.folder / "out" / "got").exists(), "bytes that failed their check were left in the clear"
    found = [one["name"] for one in verdict(home)["problems"]]
    assert name.partition("/")[2] in found


def test_another_workspaces_root_key_opens_nothing(prey: Any, mine: Any) -> None:
    [key] = mine.keys.glob("*.key")
    [other] = prey.theirs.keys.glob("*.key")
    shutil.copy(other, key)
    for command in (("status",), ("object", "ls", "landing"), ("search", "Patient"), ("key", "list")):
        done = mine.run(*command, "--json", expect=6)
        assert done.error["code"] == "vault.wrong_key"
        assert done.out == ""
    assert verdict(mine)["first_bad"]["name"] == "vault.wrong_key"


@pytest.mark.parametrize(
    ("name", "other"),
    [("landing/a", "landing/b"), ("landing/a", "deidentified/a")],
    ids=["names", "zones"],
)
def test_objects_that_change_places(mine: Any, name: str, other: str) -> None:
    here, there = stored(mine, name), stored(mine, other)
    keep = here.read_bytes()
    here.write_bytes(there.read_bytes())
    there.write_bytes(keep)
    refused(mine, name)
    refused(mine, other)


def test_an_older_version_in_place_of_the_newer(prey: Any, mine: Any) -> None:
    older = stored(prey.before, "landing/a")
    stored(mine, "landing/a").write_bytes(older.read_bytes())
    refused(mine, "landing/a")


def test_an_object_of_another_workspace(prey: Any, mine: Any) -> None:
    stored(mine, "landing/a").write_bytes(stored(prey.theirs, "landing/a").read_bytes())
    refused(mine, "landing/a")


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "nothing"])
def test_something_else_in_place_of_an_object(prey: Any, mine: Any, what: str) -> None:
    """A link to the very bytes, a pipe that never answers: none is followed, none waited for."""
    path = stored(mine, "landing/a")
    path.rename(mine.folder / "moved")
    if what == "link":
        path.symlink_to(mine.folder / "moved")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    done = mine.fork([mine.program, "object", "get", "landing/a", str(mine.folder / "got"), "--json"]).wait(30)
    assert done.code == 6, (done.code, done.err)
    assert not (mine.folder / "got").exists()
    found = mine.fork([mine.program, "audit", "verify", "--json"]).wait(60)
    assert "a" in [one["name"] for one in found.json["problems"]]


@pytest.mark.parametrize(
    ("name", "code"),
    [("keyring.json", "vault.workspace_mismatch"), ("carelake.toml", "vault."), ("carelake.db", "vault.database")],
)
def test_a_file_of_another_workspace(prey: Any, mine: Any, name: str, code: str) -> None:
    if name == "carelake.db":
        for each in NAMES:
            (mine.workspace / each).unlink(missing_ok=True)
    shutil.copy(prey.theirs.workspace / name, mine.workspace / name)
    done = mine.run("object", "ls", "landing", "--json")
    assert done.code in (6, 7), (done.code, done.err)
    assert done.error["code"].startswith(code)
    assert verdict_of_closed(mine)["problems"][0]["name"].startswith(code.rstrip("."))


def verdict_of_closed(home: Any) -> Any:
    done = home.run("audit", "verify", "--json")
    assert done.code in (6, 7)
    return done.json if done.code == 6 else {"problems": [{"name": done.error["code"]}]}


def test_an_old_copy_of_everything_is_not_written_to(prey: Any, mine: Any) -> None:
    """The head lies beside the key and has gone on: nothing grows on the old copy, and the verdict says head."""
    shutil.rmtree(mine.workspace)
    shutil.copytree(prey.before.workspace, mine.workspace)
    done = mine.run("object", "put", "landing/new", mine.folder / "ws" / "carelake.toml", "--json")
    assert done.code == 6, (done.code, done.err)
    assert done.error["code"] == "audit.rolled_back"
    assert verdict(mine)["first_bad"]["kind"] == "head"


def test_an_old_database_beside_newer_segments_and_objects(prey: Any, mine: Any) -> None:
    for each in NAMES:
        (mine.workspace / each).unlink(missing_ok=True)
        if (prey.before.workspace / each).exists():
            shutil.copy(prey.before.workspace / each, mine.workspace / each)
    assert verdict(mine)["first_bad"]["kind"] == "head"
    assert get(mine, "landing/b").code == 6, "closing seals, and is refused too"


def test_segments_that_change_places_or_are_a_strangers(prey: Any, mine: Any) -> None:
    def segments(home: Any) -> list[Path]:
        folder = home.workspace / "vault" / "security" / "audit"
        return sorted(
            (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns
        )

    first, second, *_ = segments(mine)
    keep = first.read_bytes()
    for forged in (second.read_bytes(), segments(prey.theirs)[0].read_bytes(), b"{}\n" * 40, b""):
        first.chmod(0o600)
        first.write_bytes(forged)
        found = verdict(mine)
        assert found["first_bad"]["name"] == "segment 1"
    first.write_bytes(keep)
    assert verdict(mine)["intact"] is True


def test_a_row_that_was_edited_and_a_tail_that_was_cut_in_the_database(mine: Any) -> None:
    """By somebody who can write the database: the rows are compared with what was sealed, and that with the head."""
    edit(mine, "UPDATE act SET target = 'lake' WHERE seq = 3")
    assert verdict(mine)["first_bad"]["name"] == "act 3"
    last = "(SELECT max(number) FROM segment)"
    edit(mine, f"DELETE FROM act WHERE seq >= (SELECT first FROM segment WHERE number = {last})")
    found = verdict(mine)
    assert {one["name"].split()[0] for one in found["problems"]} >= {"act"}
    edit(mine, "DELETE FROM segment WHERE number > 2", "DELETE FROM act WHERE seq > (SELECT max(last) FROM segment)")
    assert "head" in {one["kind"] for one in verdict(mine)["problems"]}


def edit(home: Any, *statements: str) -> None:
    """Change rows; that closing seals, or refuses to, is no concern of who attacks."""
    with suppress(Corrupt), home.opened() as workspace, workspace.vault.database.ledger() as tx:
        for statement in statements:
            tx.exec_driver_sql(statement)


def test_names_of_objects_lead_nowhere(mine: Any) -> None:
    """What looks like a path is a name, and lies where all names lie; what is no zone is none."""
    source = mine.folder / "ws" / "carelake.toml"
    for name in ("landing/../clinical/x", "landing/../../../../x", "landing//etc/passwd", "landing/a/../b"):
        done = mine.run("object", "put", name, source, "--json")
        assert done.code in (0, 2), (name, done.err)
    assert not list(mine.folder.glob("x")) + list(mine.workspace.glob("x"))
    assert mine.json("object", "ls", "clinical") == []
    for name in (
        "../landing/a",
        "/etc/passwd",
        "audit/segments/000000000001",
        "nowhere/x",
        "landing",
        "landing/",
        "",
    ):
        done = mine.run("object", "put", name, source, "--json")
        assert done.code in (2, 3), (name, done.code, done.err)
    done = mine.run("object", "put", "landing/long" + "x" * 5000, source, "--json", expect=2)
    assert "xxxxx" not in done.err
    assert verdict(mine)["intact"] is True


def test_what_is_got_overwrites_nothing_and_follows_no_link(mine: Any) -> None:
    victim = mine.folder / "victim"
    victim.write_text("precious")
    link = mine.folder / "link"
    link.symlink_to(victim)
    dangling = mine.folder / "dangling"
    dangling.symlink_to(mine.folder / "not-there")
    for out in (victim, link, dangling):
        done = mine.run("object", "get", "landing/small", out, "--json")
        assert done.code in (2, 5), (out, done.code, done.err)
    assert victim.read_text() == "precious"
    assert not (mine.folder / "not-there").exists()
    done = mine.run("object", "get", "landing/small", link, "--force", "--json", expect=0)
    assert victim.read_text() == "precious", "forced, it replaces the link and not what it leads to"


def test_policies_and_settings_that_were_widened_are_told(mine: Any) -> None:
    folder = mine.workspace / "policies"
    folder.mkdir(exist_ok=True)
    (folder / "mine.cedar").write_text('@id("all")\n@scope("account")\npermit (principal, action, resource);\n')
    done = mine.run("audit", "verify", "--json")
    shown = mine.run("settings", "show", "--json")
    assert "mine.cedar" in shown.out + done.out
