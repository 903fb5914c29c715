"""The whole loop on PostgreSQL, with several processes at once: two ingests and a server that reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import forked
from carelake.core.settings import DatabaseSettings
from carelake.synth import generate

COMMAND = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]


class Place:
    """A workspace on PostgreSQL, and the commands on it."""

    def __init__(self, folder: Path, database: DatabaseSettings) -> None:
        self.root = folder / "workspace"
        self.environment = {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys")}
        said = {"CARELAKE_DATABASE__URL": database.url, "CARELAKE_DATABASE__PASSWORD_FILE": database.password_file}
        assert forked.run("init", str(self.root), env={**self.environment, **said}).returncode == 0

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "-w", str(self.root), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Any:
        done = forked.run("-w", str(self.root), *arguments, "--json", env=self.environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)


def answer(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out)


def shared(one: Path, two: Path) -> tuple[list[str], list[str], list[str]]:
    """Files of the same content, then those that only the first has, and those that only the second has."""
    contents = [{path.read_bytes(): str(path) for path in sorted(folder.iterdir())} for folder in (one, two)]
    both = contents[0].keys() & contents[1].keys()
    alone = [[path for data, path in each.items() if data not in both] for each in contents]
    return [contents[0][data] for data in both], alone[0], alone[1]


@pytest.mark.slow
def test_the_loop_on_postgres_with_several_processes(tmp_path: Path, postgres: DatabaseSettings) -> None:
    generate(tmp_path / "one", patients=40, seed=1, workers=1)
    generate(tmp_path / "two", patients=40, seed=2, workers=1)
    place = Place(tmp_path, postgres)
    token = place.start("token")
    said = token.communicate(timeout=60)[0].strip()
    server = place.start("serve", "--port", "0")
    try:
        assert server.stderr is not None
        address = ""
        for line in server.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                address = found[0]
                break
        # Both have the same hospital, and of two readers of one content the second is told to come again.
        hospital, ours, theirs = shared(tmp_path / "one" / "fhir", tmp_path / "two" / "fhir")
        place.run("ingest", *hospital)
        ingests = [place.start("ingest", *paths, "--json") for paths in (ours, theirs)]
        totals = []
        with httpx.Client(headers={"Authorization": f"Bearer {said}"}, timeout=30) as client:
            while any(one.poll() is None for one in ingests):
                shown = client.get(f"{address}/fhir/Patient?_summary=count")
                assert shown.status_code == 200, shown.text
                totals.append(shown.json()["total"])
                time.sleep(0.1)
            reports = [answer(one) for one in ingests]
            assert totals == sorted(totals)
            assert client.get(f"{address}/fhir/Patient?_summary=count").json()["total"] == 80
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert all(report["read"] == report["stored"] + report["unchanged"] for report in reports)
    again = place.run("ingest", str(tmp_path / "one" / "fhir"))
    assert again["stored"] == 0
    synced = place.run("lake", "sync")
    assert (synced["behind_after"], synced["tables"]["Patient"]) == (0, 80)
    women = place.run("search", "Patient?gender=female&_summary=count")["total"]
    men = place.run("search", "Patient?gender=male&_summary=count")["total"]
    assert 0 < women < women + men <= 80
    verdict = place.run("audit", "verify")
    assert verdict["intact"], verdict["problems"]
    assert not (place.root / "carelake.db").exists()
    for path in place.root.rglob("*"):
        if path.is_file() and path.suffix in (".toml", ".json"):
            assert "throw-away password" not in path.read_text()
