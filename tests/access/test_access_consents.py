"""Consents as users meet them: in bulk, at every door of the command line, erased, backed up and put back."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

_JOURNEYS = Path(__file__).parents[1] / "journeys" / "conftest.py"
_spec = importlib.util.spec_from_file_location("consent_journeys", _JOURNEYS)
assert _spec is not None
assert _spec.loader is not None
_journeys: Any = importlib.util.module_from_spec(_spec)
sys.modules["consent_journeys"] = _journeys
_spec.loader.exec_module(_journeys)

SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"


def hospital(folder: Path) -> Path:
    """Patients 0 to 5, who deny research when their number is even; 4 denies treatment too."""
    folder.mkdir()
    found: dict[str, list[dict[str, Any]]] = {"Patient": [], "Observation": [], "Consent": []}
    for n in range(6):
        found["Patient"].append({"resourceType": "Patient", "id": f"p{n}"})
        told = {"status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/p{n}"}}
        found["Observation"].append({"resourceType": "Observation", "id": f"o{n}", **told})
        purposes = [{"system": REASON, "code": one} for one in (("HRESCH", "TREAT") if n == 4 else ("HRESCH",))]
        head = {"status": "active", "scope": {"coding": [{"system": SCOPE, "code": "patient-privacy"}]}}
        about = {
            "category": [{"text": "any"}],
            "patient": {"reference": f"Patient/p{n}"},
            "policyRule": {"text": "o"},
        }
        rule = {"provision": {"type": "permit" if n % 2 else "deny", "purpose": purposes}}
        found["Consent"].append({"resourceType": "Consent", "id": f"c{n}", **head, **about, **rule})
    for name, listed in found.items():
        (folder / f"{name}.ndjson").write_text("\n".join(map(json.dumps, listed)), encoding="utf-8")
    return folder


def seen(home: Any, *told: str) -> set[str]:
    """Ids of the Observations that are found."""
    return {one["resource"]["id"] for one in home.json("search", "Observation", *told).get("entry", [])}


@pytest.mark.slow
def test_consents_hold_at_every_door_and_go_with_their_patients(tmp_path: Path) -> None:
    home = _journeys.Home(tmp_path / "home")
    home.json("init", home.workspace)
    home.json("import", hospital(tmp_path / "in"))
    everybody = {f"o{n}" for n in range(6)}
    assert seen(home) == everybody
    assert seen(home, "--purpose", "TREAT") == everybody - {"o4"}
    assert seen(home, "--purpose", "ETREAT") == everybody
    assert seen(home, "--purpose", "HRESCH") == {"o1", "o3", "o5"}
    assert home.run("read", "Observation/o0", "--purpose", "HRESCH", "--json").code == 4
    home.json("export", "--out", tmp_path / "out", "--purpose", "HRESCH")
    left = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.ndjson"))
    assert '"o1"' in left
    assert '"o0"' not in left
    assert "p4" not in left
    told = home.json("access", "consents")
    assert (told["consents"], told["denials"], told["permissions"], told["projected"]) == (6, 3, 3, True)
    assert home.json("access", "consents", "--verify")["missing"] == 0

    home.json("backup", tmp_path / "kept")
    home.json("erase", "--patient", "p0", "--reason", "asked for it")
    assert home.json("access", "consents")["consents"] == 5
    shutil.rmtree(home.workspace)
    home.json("restore", tmp_path / "kept", home.workspace)
    assert home.json("access", "consents", "--verify")["consents"] == 5
    assert seen(home, "--purpose", "HRESCH") == {"o1", "o3", "o5"}
    home.json("access", "consents", "--rebuild")
    assert seen(home, "--purpose", "HRESCH") == {"o1", "o3", "o5"}
