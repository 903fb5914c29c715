"""Validation and extraction on the official examples and on Synthea's records."""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.fhir import compartment, references, search
from carelake.fhir.definitions import element, is_primitive
from carelake.fhir.primitives import json_kind
from carelake.fhir.shapes import shape
from carelake.fhir.structure import _walk, check, issues

Resource = dict[str, Any]
GAPS = Path(__file__).resolve().parents[1] / "conformance" / "fhir_examples_gaps.toml"


def name_of(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource.get('id', '')}"


def test_official_examples_are_valid_but_for_known_ones(examples: list[Resource]) -> None:
    known = {
        (name, gap["expression"], gap["code"])
        for name, gaps in tomllib.loads(GAPS.read_text()).items()
        for gap in gaps
    }
    found = {(name_of(r), issue.expression, issue.code) for r in examples for issue in issues(r)}
    assert found - known == set()
    assert known - found == set(), "fixed: take it off the list"


def test_the_walk_agrees_with_the_quick_yes(examples: list[Resource]) -> None:
    plain = 0
    for resource in examples[::2]:
        if shape("Resource")(resource, 100):
            plain += 1
            assert _walk(resource, 100, 5) == []
    assert plain > 150


def test_synthea_is_valid(synthea: list[Resource]) -> None:
    assert len(synthea) > 1500
    assert [issue for resource in synthea if (issue := check(resource))] == []


Site = tuple[Any, Any, str]
"""An object or array, a key in it, and the FHIR type of what is there."""


def sites(value: Any, type_name: str) -> Iterator[Site]:
    """Every element of a valid resource that the definitions know."""
    known = {key: (e, kind) for e in element(type_name).values() for key, kind in e.keys.items()}
    for key in value:
        if key not in known:
            continue
        kind = known[key][1]
        entries: list[tuple[Any, Any]] = [(value, key)]
        if isinstance(value[key], list):
            entries = [(value[key], n) for n in range(len(value[key]))]
        for owner, place in entries:
            yield owner, place, kind
            if not is_primitive(kind) and kind != "Resource":
                yield from sites(owner[place], kind)


def _wrong_kind(kind: str) -> Any:
    return {"boolean": "true", "number": "1", "string": 1}[json_kind(kind)]


DAMAGE: dict[str, Callable[[Any, Any, str], Any]] = {
    "unknown element": lambda owner, key, kind: {**owner[key], "notAnElement": "x"},
    "wrong JSON type of a primitive": lambda owner, key, kind: _wrong_kind(kind),
    "text for an object": lambda owner, key, kind: "text",
    "object for a primitive": lambda owner, key, kind: {"value": "x"},
    "null": lambda owner, key, kind: None,
    "empty object": lambda owner, key, kind: {},
    "empty array": lambda owner, key, kind: [],
    "empty text": lambda owner, key, kind: "",
    "array in place of a value": lambda owner, key, kind: [owner[key]],
    "control character": lambda owner, key, kind: "a\x01b",
    "day that does not exist": lambda owner, key, kind: "2021-02-30",
    "number too large": lambda owner, key, kind: 2**40,
    "text that is no base64": lambda owner, key, kind: "A",
    "uri with a space": lambda owner, key, kind: "a b\n",
}
COMPLEX = {"unknown element", "text for an object"}
ANY = {"null", "empty object", "empty array", "array in place of a value"}
KINDS = {
    "control character": {"string", "markdown", "code", "id"},
    "day that does not exist": {"date", "dateTime", "instant"},
    "number too large": {"integer", "positiveInt", "unsignedInt"},
    "text that is no base64": {"base64Binary"},
    "uri with a space": {"uri", "url", "canonical"},
}


def fits(damage: str, kind: str) -> bool:
    if damage in ANY:
        return True
    if damage in COMPLEX:
        return not is_primitive(kind) and kind != "Resource"
    return kind in KINDS.get(damage, {kind}) and is_primitive(kind)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_in_every_example_it_is_done_to(examples: list[Resource], damage: str) -> None:
    dice = random.Random(damage)
    gaps = tomllib.loads(GAPS.read_text())
    done = 0
    for resource in dice.sample(examples, 60):
        if name_of(resource) in gaps or len(str(resource)) > 60_000:
            continue
        damaged = copy.deepcopy(resource)
        places = [site for site in sites(damaged, damaged["resourceType"]) if fits(damage, site[2])]
        if not places:
            continue
        owner, key, kind = dice.choice(places)
        owner[key] = DAMAGE[damage](owner, key, kind)
        assert check(damaged) is not None, (name_of(resource), key, kind)
        done += 1
    assert done > (0 if damage == "text that is no base64" else 10)


def test_required_elements_that_are_cut_are_missed(examples: list[Resource]) -> None:
    done = 0
    for resource in examples[::3]:
        for item in element(resource["resourceType"]).values():
            if item.min and not item.choice and item.name in resource:
                cut = {key: value for key, value in resource.items() if key != item.name}
                assert (f"{resource['resourceType']}.{item.name}") in [issue.expression for issue in issues(cut)]
                done += 1
    assert done > 50


def test_extraction_works_on_every_example(examples: list[Resource]) -> None:
    rows = 0
    for resource in examples:
        before = repr(resource)
        index = search.extract(resource)
        compartment.owner(resource)
        references.outgoing(resource)
        assert repr(resource) == before
        sources = search.BASE.sources(resource["resourceType"])
        offered = {name + side for name in sources for side in ("", ":text", ":identifier", ":of-type")}
        for kind in ("tokens", "strings", "dates", "quantities", "references", "uris"):
            values = getattr(index, kind)
            assert len(set(values)) == len(values)
            assert {row[0] for row in values} <= offered
            rows += len(values)
        assert all(low < high for _, low, high in index.dates)
        assert all(low <= high for _, low, high, _, _ in index.quantities)
    assert rows > 3000


def test_every_synthea_clinical_record_has_its_owner(synthea: list[Resource]) -> None:
    whose = {"Observation", "Encounter", "Condition", "Claim", "Procedure", "Immunization", "MedicationRequest"}
    for resource in copy.deepcopy([r for r in synthea if r["resourceType"] in whose][:500]):
        mapping = dict.fromkeys(references.outgoing(resource), "Patient/p1")
        references.rewrite(resource, mapping)
        assert compartment.owner(resource) == "p1"
