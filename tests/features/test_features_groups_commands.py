"""``carelake features``: through the gate, with an act for each step and nothing of a patient in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from carelake.apps.cli.main import app
from carelake.apps.wiring import Workspace

Run = Callable[..., Any]
CANARY = "Qz7canary"
LINES = [
    {"resourceType": "Patient", "id": CANARY},
    {"resourceType": "Patient", "id": "other"},
    *(
        {
            "resourceType": "Encounter",
            "id": f"{CANARY}-{number}",
            "status": "finished",
            "class": {"code": "EMER", "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode"},
            "subject": {"reference": f"Patient/{who}"},
            "period": {"start": f"2026-01-0{number + 1}T00:00:00Z", "end": f"2026-01-0{number + 1}T01:00:00Z"},
        }
        for number, who in enumerate([CANARY, CANARY, "other"])
    ),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CARELAKE_KEY_DIR", str(tmp_path / "keys"))
    root = tmp_path / "ws"
    Workspace.create(root, {"CARELAKE_KEY_DIR": str(tmp_path / "keys")}).close()

    def command(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["-w", str(root), *words, "--json"])
        assert done.exit_code == code, done.output
        assert CANARY not in done.stderr
        return json.loads(done.stdout) if code == 0 else done.stderr

    return command


@pytest.mark.slow
def test_from_a_declaration_to_an_erasure(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in.ndjson"
    source.write_text("".join(json.dumps(one) + "\n" for one in LINES))
    run("ingest", str(source))
    run("lake", "sync")
    run("features", "create", "patient-utilisation")
    [done] = run("features", "compute")
    assert (done["group"], done["patients"]) == ("patient-utilisation", 2)
    [told] = run("features", "list")
    assert (told["name"], told["subject"], told["computed"]) == ("patient-utilisation", "subject_id", True)
    found = {
        one["FeatureName"]: one["ValueAsString"] for one in run("features", "get", told["name"], CANARY)["Record"]
    }
    assert found["last_class"] == "EMER"
    out = tmp_path / "out.parquet"
    assert run("features", "offline", told["name"], "--out", str(out))["rows"] == done["records"]
    assert out.stat().st_mode & 0o077 == 0
    run("erase", "--patient", CANARY, "--reason", "asked for")
    assert run("features", "get", told["name"], CANARY) == {}
    assert run("features", "records", told["name"])["RecordIdentifiers"] == ["other"]
    assert CANARY not in json.dumps(run("audit", "list", "--limit", "500"))


@pytest.mark.slow
def test_who_may(run: Run, tmp_path: Path) -> None:
    request = {
        "FeatureGroupName": "g",
        "RecordIdentifierFeatureName": "subject_id",
        "EventTimeFeatureName": "at",
        "FeatureDefinitions": [{"FeatureName": name, "FeatureType": "String"} for name in ("subject_id", "at", "x")],
        "OnlineStoreConfig": {"EnableOnlineStore": True},
        "OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://bucket"}},
    }
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    run("features", "create", str(file))
    run("features", "put", "g", f"subject_id={CANARY}", "at=2026-01-01T00:00:00Z", f"x={CANARY}")
    assert run("features", "flush") == {"g": 1}
    run("--as", "reviewer", "features", "get", "g", CANARY, code=3)
    run("--as", "endpoint", "features", "offline", "g", "--out", str(tmp_path / "x"), code=3)  # reads, takes none out
    assert not (tmp_path / "x").exists()
    assert "features.value" in run("features", "offline", "g", "--out", "-", code=2)
    told = CliRunner().invoke(app, ["-w", str(tmp_path / "ws"), "features", "offline", "g", "--out", "-"])
    assert pq.read_table(pa.BufferReader(told.stdout_bytes)).column("x").to_pylist() == [CANARY]
    out = tmp_path / "docs.json"
    told = CliRunner().invoke(app, ["-w", str(tmp_path / "ws"), "features", "docs", "--out", str(out), "--json"])
    assert (told.exit_code, told.stdout) == (0, "")
    assert json.loads(out.read_text())["g"][0]["name"] == "subject_id"
    assert run("--as", "reviewer", "features", "list")[0]["name"] == "g"
    assert run("--as", "endpoint", "features", "get", "g", CANARY)["Record"]
    run("--as", "endpoint", "features", "drop", "g", code=3)
    bad = ("at=2026-01-02", f"subject_id={CANARY}")
    assert "features.validation" in run("features", "put", "g", *bad, code=2)


def test_a_declaration_that_is_no_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe")
    assert "features.declaration" in run("features", "create", str(path), code=2)
    # One in Python is not run here, whatever it says.
    path = tmp_path / "a.py"
    path.write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    assert "python FILE.py" in run("features", "create", str(path), code=2)
    assert not (tmp_path / "ran").exists()
