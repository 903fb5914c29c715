"""``carelake audit`` as it is typed: whose acts it tells, its filters, and input that is none."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import forked
from carelake.apps.cli.arguments import GLOBAL_WITH_VALUE
from carelake.apps.cli.main import app
from carelake.core.clock import instant


def _options(command: Any, path: str = "") -> Iterator[tuple[str, str]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from ((f"{path} {name}", option) for parameter in one.params for option in parameter.opts)
        yield from _options(one, f"{path} {name}")


def test_no_command_has_an_option_of_a_global_ones_name() -> None:
    declared = list(_options(typer.main.get_command(app)))
    assert len(declared) > 100
    assert [(command, option) for command, option in declared if option in GLOBAL_WITH_VALUE] == []


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "yesterday"])
def test_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        instant(text)


class Typed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "ws"

    def run(self, *words: str | bytes, code: int = 0) -> subprocess.CompletedProcess[str]:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        own |= {"CARELAKE_KEY_DIR": str(self.folder / "keys"), "CARELAKE_WORKSPACE": str(self.workspace)}
        done = forked.run(*words, env=own)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    made = Typed(tmp_path_factory.mktemp("trail"))
    made.run("init", str(made.workspace))
    made.json("principal", "add", "comp", "--role", "compliance", "--in", "research", "--in", "security")
    made.json("principal", "add-role", "comp", "auditor")
    made.json("principal", "link", "comp", "https://idp.example", "jane-doe")
    made.json("nouns", "--account", "research", "--purpose", "HPAYMT")
    return made


@pytest.mark.slow
def test_the_trail_is_bound_to_the_account(typed: Typed, tmp_path: Path) -> None:
    mine = ("--as", "comp", "--account", "research")
    assert {one["account"] for one in typed.json("audit", "list", *mine)} == {"research"}
    assert {one["account"] for one in typed.json("audit", "list", "--as", "comp", "--account", "security")} <= {
        "security"
    }
    everything = typed.json("audit", "list", "--limit", "1000")
    assert {"production", "research", "security"} <= {one["account"] for one in everything}
    other = next(one for one in everything if one["account"] == "production")
    typed.run("audit", "show", str(other["seq"]), *mine, code=4)
    typed.run("audit", "show", other["correlation"], *mine, code=4)
    assert typed.json("audit", "show", str(other["seq"]))["act"] == other["correlation"]
    typed.run("audit", "list", "--in-account", "production", *mine, code=3)

    told = typed.json("audit", "export", "--format", "jsonl", "--out", str(tmp_path / "mine"), *mine)
    assert told["mode"] == "proofs"
    acts = [
        json.loads(json.loads(line)["act"]) for line in (tmp_path / "mine" / "acts.jsonl").read_text().splitlines()
    ]
    assert {one["account"] for one in acts} == {"research"}
    told = typed.json("audit", "export", "--format", "jsonl", "--out", str(tmp_path / "all"))
    assert (told["mode"], told["acts"] >= len(everything)) == ("whole", True)


@pytest.mark.slow
def test_filters_and_what_a_change_of_rights_says(typed: Typed) -> None:
    found = typed.json("audit", "list", "--for-purpose", "HPAYMT", "--in-account", "research")
    assert {(one["purpose"], one["account"]) for one in found} == {("HPAYMT", "research")}
    changes = [
        one["changed"] for one in typed.json("audit", "list", "--target", "principal/comp") if "changed" in one
    ]
    assert [one["change"] for one in changes] == ["link", "add-role", "add"]
    assert changes[1]["role"] == "auditor"
    assert changes[2]["roles"] == ["compliance"]
    assert changes[0]["subject"].startswith("subject:")
    assert "jane-doe" not in json.dumps(typed.json("audit", "list", "--limit", "1000"))


@pytest.mark.slow
def test_input_that_is_none(typed: Typed) -> None:
    for words in (
        ("audit", "list", "--since", "0001-01-01T00:00:00+23:00"),
        ("audit", "list", "--until", "9999-12-31T23:59:59-23:00"),
        ("audit", "list", "--limit", "99999999999999999999"),
        ("audit", "list", "--principal", b"\xff\xfe"),
    ):
        typed.run(*words, code=2)
    folder = typed.workspace / "policies" / "x.cedar"
    folder.mkdir(parents=True)
    typed.json("nouns")
    folder.rmdir()
