"""``carelake key`` as it is typed: each command a process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import forked

pytestmark = pytest.mark.slow


class Typed:
    """One workspace, and what is typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.workspace = folder / "ws"

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        own = {name: text for name, text in os.environ.items() if not name.startswith("CARELAKE_")}
        own |= {"CARELAKE_KEY_DIR": str(self.keys), "CARELAKE_WORKSPACE": str(self.workspace)}
        done = forked.run(*words, env=own)
        assert done.returncode == code, done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def refused(self, *words: str, code: int = 3) -> str:
        done = self.run(*words, "--json", code=code)
        return str(json.loads(done.stderr.strip().splitlines()[-1])["error"]["code"])


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    made = Typed(tmp_path_factory.mktemp("keys"))
    assert made.json("init", str(made.workspace))["root"] == "file"
    made.json("principal", "add", "second", "--role", "operator", "--account", "production")
    return made


def states(typed: Typed, name: str) -> dict[int, str]:
    return {key["version"]: key["state"] for key in typed.json("key", "list") if key["name"] == name}


def test_rotate_list_and_use(typed: Typed, tmp_path: Path) -> None:
    typed.json("key", "rotate", "production/landing")
    assert states(typed, "production/landing") == {1: "retired", 2: "active"}
    assert typed.json("key", "rotate", "--due") == []
    assert typed.refused("key", "rotate", code=2) == "apps.key_rotate"
    assert typed.refused("key", "rotate", "production/reference") == "vault.key_not_rotated"
    (found,) = (key for key in typed.json("key", "list") if key["key"] == "production/landing/v2")
    assert {"age_days", "rotates_at", "due", "last_used", "uses", "policy", "destruction", "stale"} <= set(found)


def test_disable_and_policy_refuse_what_uses_the_key(typed: Typed) -> None:
    typed.json("key", "disable", "production/lake")
    assert states(typed, "production/lake") == {1: "disabled"}
    typed.json("key", "enable", "production/lake")
    assert states(typed, "production/lake") == {1: "active"}
    typed.json("key", "policy", "production/lake", "--allow-purpose", "TREAT")
    assert typed.json("key", "policy", "production/lake")["policy"]["purposes"] == ["TREAT"]
    typed.json("key", "policy", "production/lake", "--clear")
    assert typed.json("key", "policy", "production/lake")["policy"] is None
    assert typed.refused("key", "policy", "production/lake", "--allow-action", "no:such", code=2) == "apps.key_policy"
    assert typed.refused("key", "disable", "security/database") == "vault.key_kept"


def test_a_name_that_is_no_key_changes_nothing(typed: Typed, tmp_path: Path) -> None:
    before = (typed.workspace / "keyring.json").read_bytes()
    for words in ((), ("--all",)):
        assert typed.refused("key", "rotate", "", *words, code=2) == "vault.key_name"
    assert typed.refused("key", "policy", "production/nosuch", code=4) == "vault.no_such_key"
    assert typed.json("key", "policy", "root")["policy"] is None
    assert typed.refused("key", "root", "move", "--to", "passphrase", code=2) == "apps.new_passphrase"
    assert "CARELAKE_NEW_PASSPHRASE" in typed.run("key", "root", "move", "--to", "passphrase", code=2).stderr
    file = tmp_path / "file"
    file.write_bytes(b"")
    kit = ("key", "kit", "make", "--shares", "3", "--threshold", "2", "--out", str(file))
    assert typed.refused(*kit, code=2) == "vault.kit_folder"
    assert (typed.workspace / "keyring.json").read_bytes() == before


def test_two_persons_destroy(typed: Typed) -> None:
    counted = typed.json("key", "destroy", "production/features", "--dry-run")["impact"]
    assert counted["keys"] == ["production/features/v1"]
    assert typed.json("key", "destroy", "production/features", "--days", "7")["state"] == "asked"
    assert typed.refused("key", "confirm", "production/features") == "vault.key_two_persons"
    assert typed.json("--as", "second", "key", "confirm", "production/features")["due"]
    assert states(typed, "production/features") == {1: "pending"}
    assert typed.json("key", "destroy", "--due") == {"destroyed": []}
    typed.json("key", "cancel", "production/features")
    assert states(typed, "production/features") == {1: "active"}
    assert typed.refused("--as", "auditor", "key", "destroy", "production/features") == "access.denied"


def test_root_and_kit(typed: Typed, tmp_path: Path) -> None:
    moved = typed.json("key", "root", "rotate", "--forget-old")
    assert (moved["provider"], moved["version"], moved["old_kept"]) == ("file", 2, False)
    kit = typed.json("key", "kit", "make", "--shares", "3", "--threshold", "2", "--out", str(tmp_path / "kit"))
    (key,) = typed.keys.glob("*.key*")
    lost = key.rename(tmp_path / "lost")
    assert typed.refused("key", "list", code=7) == "vault.root_key_missing"
    assert typed.refused("key", "kit", "restore", kit["files"][0], code=2) == "vault.kit_share"
    assert typed.json("key", "kit", "restore", *kit["files"][1:])["root_key"] == str(key)
    assert key.read_text() == lost.read_text()
    acts = typed.json("audit", "list", "--action", "key:manage")
    assert any(act.get("counts", {}).get("kits") == 1 for act in acts)


def test_changed_settings_are_told_at_each_start_and_by_verify(typed: Typed) -> None:
    path = typed.workspace / "carelake.toml"
    path.write_text(path.read_text() + "\n[approval]\nlocal = false\n")
    assert "carelake.toml was changed" in typed.run("key", "list").stderr
    found = typed.json("audit", "verify", "--trail-only")
    assert [one["name"] for one in found["findings"]] == ["carelake.toml"]
    typed.json("settings", "accept")
    assert typed.json("settings", "show") == []
    assert "changed" not in typed.run("key", "list").stderr
