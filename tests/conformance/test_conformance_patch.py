"""The official patch cases for R4: every one passes, JSON Patch (RFC 6902's appendix) and FHIRPath Patch."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from carelake.core.canonical import dump, load
from carelake.core.errors import Invalid
from carelake.fhir.patch import fhirpath_patch, json_patch

_FILE = Path(__file__).resolve().parents[1] / "fhir" / "test_fhir_path_official.py"
_spec = importlib.util.spec_from_file_location("conformance_xml", _FILE)
assert _spec is not None
assert _spec.loader is not None
_official: Any = importlib.util.module_from_spec(_spec)
sys.modules["conformance_xml"] = _official
_spec.loader.exec_module(_official)


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    found = shared_data / "fhir-test-cases-r4" / "patch"
    if not found.is_dir():
        pytest.skip("the official patch cases are not here")
    return found


def test_every_json_patch_case_passes(folder: Path) -> None:
    cases = load((folder / "json-patch-tests.json").read_bytes())
    wrong = [case["comment"] for case in cases if not json_passes(case)]
    assert wrong == []
    assert len(cases) == 16


def json_passes(case: dict[str, Any]) -> bool:
    before = dump(case["doc"])
    try:
        made = json_patch(case["doc"], case["patch"])
    except Invalid as error:
        return "error" in case and error.code.startswith("fhir.patch") and dump(case["doc"]) == before
    return "expected" in case and dump(made) == dump(case["expected"]) and dump(case["doc"]) == before


def test_every_fhirpath_patch_case_passes(folder: Path) -> None:
    cases = list(_official.parsed((folder / "fhir-patch-tests.xml").read_text(encoding="utf-8")).iter("case"))
    wrong = [case.get("name") for case in cases if not path_passes(case)]
    assert wrong == []
    assert len(cases) == 33


def path_passes(case: ET.Element) -> bool:
    resource, patch, expected = (part(case, name) for name in ("input", "diff", "output"))
    assert resource is not None
    assert patch is not None
    before = dump(resource)
    try:
        made = fhirpath_patch(resource, patch)
    except Invalid as error:
        return case.find("error") is not None and error.code.startswith("fhir.patch") and dump(resource) == before
    return expected is not None and same(made, expected) and dump(resource) == before


def part(case: ET.Element, name: str) -> dict[str, Any] | None:
    found = case.find(name)
    if found is None:
        return None
    made: dict[str, Any] = _official.resource_json(found[0])
    return made


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal but for white space in narratives, which the suite's own XML and the text of its patch lay out apart."""
    return bool(json.loads(flat(one)) == json.loads(flat(other)))


def flat(resource: dict[str, Any]) -> str:
    text = resource.get("text", {})
    div = {"div": " ".join(text["div"].replace("&#10;", "\n").replace("><", "> <").split())} if "div" in text else {}
    return dump({**resource, "text": {**text, **div}}).decode()
