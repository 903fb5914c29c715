"""The ground through its commands, as an operator would walk it: objects, keys, people, trail, backup and restore."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

REFUSED = 3
TIERS = ("application", "development", "administrator", "compliance")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small: Any) -> Any:
    made = small.read.copy(tmp_path_factory.mktemp("ground") / "home", CARELAKE_OBJECTS__INLINE_BYTES="16384")
    for tier in TIERS:
        told = made.json("principal", "add", f"one-{tier}", "--role", tier)
        assert told["roles"] == [tier]
    yield made
    made.remove()


def test_objects(home: Any, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"first")
    large.write_bytes(os.urandom(3 << 20))
    first = home.json("object", "put", "landing/a/small", str(small))
    assert first["sha256"] == hashlib.sha256(b"first").hexdigest()
    small.write_bytes(b"second")
    second = home.json("object", "put", str(small), "landing/a/small")  # the order of cp
    home.json("object", "put", "landing/a/large", str(large))
    assert {one["name"] for one in home.json("object", "ls", "landing/a/")} == {"a/small", "a/large"}
    assert home.run("object", "get", "landing/a/small", expect=0).out == "second"
    assert home.run("object", "get", "landing/a/small", "--version", first["version"], expect=0).out == "first"
    home.json("object", "get", "landing/a/large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert home.run("object", "get", "landing/a/large", "--range", "0-0", expect=0).out is not None

    assert home.json("object", "rm", "landing/a/small")["marker"]
    assert home.run("object", "get", "landing/a/small").code == 4
    assert (
        home.json("object", "restore", "landing/a/small", "--version", first["version"])["sha256"] == first["sha256"]
    )
    assert home.run("object", "get", "landing/a/small", expect=0).out == "first"
    versions = home.json("object", "versions", "landing/a/small")
    assert {first["version"], second["version"]} <= {one["version"] for one in versions}

    assert home.json("object", "tag", "landing/a/small", "ward=7")["tags"] == {"ward": "7"}
    assert home.json("object", "hold", "landing/a/small", "on")["held"] is True
    held = home.run("object", "purge", "landing/a/small", "--yes", "--json")
    assert held.code == REFUSED
    home.json("object", "hold", "landing/a/small", "off")
    home.json("object", "purge", "landing/a/small", "--yes")
    assert home.run("object", "get", "landing/a/small").code == 4
    assert home.run("object", "get", "landing/a/large", "--as", "one-administrator", "--json").code == REFUSED
    assert home.run("object", "get", "landing/a/large", "--as", "one-development", "--json").code == REFUSED


def test_keys(home: Any) -> None:
    before = {key["name"] for key in home.json("key", "list")}
    assert {"root", "production", "production/clinical", "production/patient"} <= before
    found = home.json("search", "Patient?_count=1")["entry"][0]["resource"]
    (rotated,) = home.json("key", "rotate", "production/clinical")
    assert rotated["version"] == 2
    home.json("key", "rotate", "production/patient")
    assert home.json("read", f"Patient/{found['id']}") == found

    home.json("key", "disable", "production/patient")
    refused = home.run("read", f"Patient/{found['id']}", "--json")
    assert (refused.code, refused.error["code"]) == (REFUSED, "vault.key_disabled")
    home.json("key", "enable", "production/patient")
    assert home.json("read", f"Patient/{found['id']}") == found

    asked = home.json("key", "destroy", "production/features")
    assert asked["state"] == "asked"
    assert home.run("key", "confirm", "production/features", "--json").code == REFUSED  # by the one who asked
    home.json("key", "confirm", "production/features", "--as", "one-administrator")
    assert home.json("key", "cancel", "production/features")
    assert home.run("key", "rotate", "production/clinical", "--as", "one-compliance", "--json").code == REFUSED


def test_who_may(home: Any) -> None:
    def explain(who: str, action: str, target: str, purpose: str) -> bool:
        return bool(home.json("access", "explain", who, action, target, purpose)["allowed"])

    assert explain("one-application", "record:read", "Patient", "TREAT")
    assert not explain("one-application", "audit:read", "trail", "TREAT")
    assert not explain("one-application", "record:read", "Patient", "HRESCH")
    assert not explain("one-development", "record:read", "Patient", "TREAT")
    assert explain("one-development", "object:read", "zone/deidentified", "HRESCH")
    assert not explain("one-development", "object:read", "zone/clinical", "HRESCH")
    assert not explain("one-administrator", "record:search", "Patient", "HOPERAT")
    assert explain("one-administrator", "key:manage", "keys", "HSYSADMIN")
    assert explain("one-compliance", "audit:read", "trail", "HOPERAT")
    assert not explain("one-compliance", "record:read", "Patient", "TREAT")
    assert not explain("one-compliance", "key:manage", "keys", "HSYSADMIN")

    assert home.json("token", "--as", "one-application", "--role", "application", "--purpose", "TREAT")["token"]
    assert (
        home.run("token", "--as", "one-application", "--role", "administrator", "--purpose", "TREAT").code == REFUSED
    )
    assert home.run("search", "Patient", "--as", "one-compliance").code == REFUSED
    assert home.json("search", "Patient?_count=1", "--as", "one-application", "--purpose", "TREAT")["entry"]
    refusals = home.json(
        "audit", "list", "--phase", "refused", "--principal", "one-compliance", "--as", "one-compliance"
    )
    assert any(act["action"] == "record:search" for act in refusals)


def test_the_trail_goes_out_and_stands_alone(home: Any, tmp_path: Path) -> None:
    for form in ("jsonl", "auditevent", "ocsf"):
        told = home.json("audit", "export", "--format", form, "--out", str(tmp_path / form))
        assert told["acts"] > 20
        assert list((tmp_path / form).iterdir())
    verifier = tmp_path / "jsonl" / "verify.py"
    assert len(verifier.read_text().splitlines()) < 200
    alone = [sys.executable, "-I", str(verifier), str(tmp_path / "jsonl")]
    assert subprocess.run(alone, capture_output=True, check=False).returncode == 0
    lines = max((tmp_path / "jsonl").rglob("*.jsonl"), key=lambda path: path.stat().st_size)
    data = bytearray(lines.read_bytes())
    data[len(data) // 2] ^= 1
    lines.write_bytes(data)
    assert subprocess.run(alone, capture_output=True, check=False).returncode != 0


def test_backup_and_restore_beside_the_living(home: Any, tmp_path: Path) -> None:
    home.json("backup", str(tmp_path / "out"))
    told = home.json("restore", str(tmp_path / "out"), str(tmp_path / "copy"))
    assert told["verified"]["intact"] is True
    assert told["rto_seconds"] > 0
    assert told["rpo"]["age_seconds"] >= 0
    copied = home.run("-w", str(tmp_path / "copy"), "search", "Patient?_summary=count", "--json", expect=0).json
    assert copied["total"] == home.json("search", "Patient?_summary=count")["total"] > 0
    for where in (home.workspace, tmp_path / "copy"):
        verdict = home.run("-w", str(where), "audit", "verify", "--json", expect=0).json
        assert verdict["intact"] is True, verdict


def test_it_is_well(home: Any) -> None:
    told = home.json("doctor")
    assert told
    assert home.json("upgrade")["done"] is False
