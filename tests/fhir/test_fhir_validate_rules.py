"""The level strict, part by part; references that lead nowhere; what validation costs when nothing is asked of it."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from carelake.fhir.path import compile
from carelake.fhir.rules import rules
from carelake.fhir.validate import Mode, checker, validate

Resource = dict[str, Any]


def errors(resource: Any) -> list[tuple[str, str]]:
    return [(i.code, i.expression) for i in validate(resource) if i.bad]


def test_what_is_not_asked_for_is_not_read() -> None:
    """Start-up: importing reads no definitions, and validation without profiles reads no profile."""
    code = """
import carelake.fhir.validate as v
from carelake.fhir import definitions, rules
from carelake.fhir.profiles.registry import shipped
read = lambda: [f.cache_info().currsize for f in (definitions._load, rules._load, shipped)]
assert read() == [0, 0, 0]
assert v.validate({"resourceType": "Patient"}, mode="structure") == [] and read() == [1, 0, 0]
assert v.validate({"resourceType": "Patient"}) == [] and read() == [1, 1, 0]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_text_of_white_space() -> None:
    blank = {
        "resourceType": "Patient",
        "name": [{"family": " "}, {"family": " x "}],
        "contact": [{"name": {"text": "\t"}}],
    }
    assert errors(blank) == [("value", "Patient.name[0].family"), ("value", "Patient.contact[0].name.text")]
    assert validate(blank, mode="structure") == []


def test_what_lies_in_extensions_and_references_is_asked_too() -> None:
    ends = {"start": "2021", "end": "2020"}
    odd = {
        "resourceType": "Patient",
        "birthDate": "2020",
        "_birthDate": {"extension": [{"url": "http://x.test", "valuePeriod": ends}]},
        "name": [
            {"given": ["a", "b"], "_given": [None, {"extension": [{"url": "http://x.test", "valuePeriod": ends}]}]}
        ],
        "managingOrganization": {"display": "x", "identifier": {"value": "1", "period": ends}},
    }
    assert errors(odd) == [
        ("invariant", "Patient.birthDate.extension[0].valuePeriod"),
        ("invariant", "Patient.name[0].given[1].extension[0].valuePeriod"),
        ("invariant", "Patient.managingOrganization.identifier.period"),
    ]


def test_links_inside_of_one_resource() -> None:
    def with_(contained: list[Resource], **more: Any) -> list[tuple[str, str]]:
        return errors({"resourceType": "Patient", "contained": contained, **more})

    ward: Resource = {"resourceType": "Organization", "id": "o", "name": "x"}
    unreferred = [("invariant", "Patient")]
    to_it = {"reference": "#o"}
    assert with_([ward], managingOrganization=to_it) == []
    assert with_([ward]) == unreferred
    assert with_([{k: v for k, v in ward.items() if k != "id"}]) == unreferred
    up = {"resourceType": "Provenance", "id": "p", "target": [{"reference": "#"}], "recorded": "2020-01-01T00:00:00Z"}
    up["agent"] = [{"who": {"display": "x"}}]
    assert with_([up]) == []
    by_uri = {"url": "http://x.test", "valueUri": "#o"}
    assert with_([ward], extension=[by_uri]) == []
    assert with_([ward], extension=[{"url": "http://x.test", "valueString": "#o"}]) == unreferred
    assert with_([{**ward, "partOf": {"reference": "#q"}}, {**ward, "id": "q"}], managingOrganization=to_it) == []
    assert errors({"resourceType": "Patient", "managingOrganization": {"reference": "#"}}) == [
        ("invariant", "Patient.managingOrganization")
    ]


def test_a_resource_of_a_bundle_has_its_own_contained_ones(synthea: list[Resource]) -> None:
    inner = next(r for r in synthea if "contained" in r)
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": "urn:uuid:x", "resource": inner}]}
    assert errors(bundle) == []
    lost = copy.deepcopy(bundle)
    lost["contained"] = lost["entry"][0]["resource"].pop("contained")  # type: ignore[index]
    assert {code for code, _ in errors(lost)} == {"structure"}
    del lost["contained"]
    assert {at.partition(".resource")[0] for _, at in errors(lost)} == {"Bundle.entry[0]"}


def test_references_that_lead_nowhere() -> None:
    asked: list[tuple[str, str]] = []

    def exists(kind: str, key: str) -> bool:
        asked.append((kind, key))
        return key == "there"

    observation: Resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    observation["subject"] = {"reference": "Patient/lost"}
    observation["performer"] = [
        {"reference": "Practitioner/there/_history/2"},
        {"reference": "http://x.test/Patient/1"},
    ]
    found = [("error", "not-found", "Observation.subject.reference")]
    for mode in ("strict", "structure"):
        issues = validate(observation, mode=mode, exists=exists)  # type: ignore[arg-type]
        assert [(i.severity, i.code, i.expression) for i in issues] == found
    assert set(asked) == {("Patient", "lost"), ("Practitioner", "there")}
    assert validate(observation) == validate(observation, mode="minimal", exists=exists) == []
    entries = [{"resource": observation}, {"resource": {"resourceType": "Patient", "id": "lost"}}]
    assert validate({"resourceType": "Bundle", "type": "collection", "entry": entries}, exists=exists) == []


def test_a_reference_that_is_of_two_types(observation: Resource) -> None:
    observation["subject"] = {"reference": "Patient/1", "type": "Group"}
    assert errors(observation) == [("structure", "Observation.subject")]
    observation["subject"]["type"] = "Patient"
    assert errors(observation) == []


def test_advice_never_hides_an_error() -> None:
    advice = {"resourceType": "ValueSet", "name": "not a name", "status": "draft"}
    entry = [{"resource": advice}] * 300 + [
        {"resource": {"resourceType": "Patient", "contact": [{"gender": "male"}]}}
    ]
    found = validate({"resourceType": "Bundle", "type": "collection", "entry": entry})
    assert (len(found), [i.expression for i in found if i.bad]) == (100, ["Bundle.entry[300].resource.contact[0]"])


@pytest.mark.parametrize("level", ["strict", "structure", "minimal"])
def test_the_checker_says_what_validation_says(examples: list[Resource], level: Mode) -> None:
    quick = checker(level)
    for resource in [*examples[::9], {"resourceType": "Patient", "contact": [{"gender": "male"}]}, {}, []]:
        bad = [issue for issue in validate(resource, mode=level) if issue.bad]
        assert quick(resource) == (bad[0] if bad else None)


def by_fhirpath(resource: Resource, key: str) -> bool:
    (rule,) = (rule for rule in rules(resource["resourceType"]) if rule.key == key)
    return compile(rule.expression).holds(resource, filters=True)


def by_us(resource: Resource, key: str) -> bool:
    return not any(f"({key})" in issue.message for issue in validate(resource))


def with_contained(resource: Resource, rng: random.Random) -> Iterator[Resource]:
    """The resource, and what may happen to its contained ones."""
    yield resource
    for n, inner in enumerate(resource["contained"]):
        for change in ("other", rng.choice("abc"), "#"):
            changed = copy.deepcopy(resource)
            if change == "#":
                changed["contained"][n]["extension"] = [
                    {"url": "http://x.test", "valueReference": {"reference": "#"}}
                ]
            changed["contained"][n]["id"] = change if change != "#" else inner["id"] + "x"
            yield changed


def test_links_are_told_as_fhirpath_tells_them(examples: list[Resource]) -> None:
    rng = random.Random(3)
    told: Counter[bool] = Counter()
    for resource in examples:
        for changed in with_contained(resource, rng) if "contained" in resource else ():
            if validate(changed, mode="structure") == []:
                verdict = by_us(changed, "dom-3")
                assert verdict == by_fhirpath(changed, "dom-3"), (changed["resourceType"], changed.get("id"))
                told[verdict] += 1
    assert min(told.values()) > 30


def test_codes_of_components_are_told_as_fhirpath_tells_them(examples: list[Resource]) -> None:
    told: Counter[bool] = Counter()
    for resource in (r for r in examples if r["resourceType"] == "Observation"):
        same = {"code": copy.deepcopy(resource["code"]), "valueBoolean": True}
        for parts in ([], [same], [{"code": {"text": "x"}}], [{**same, "code": {"coding": [{"code": "x"}]}}, same]):
            changed = {**resource, "component": [*resource.get("component", []), *parts]}
            if changed["component"]:
                verdict = by_us(changed, "obs-7")
                assert verdict == by_fhirpath(changed, "obs-7")
                told[verdict] += 1
    assert min(told.values()) > 10


def test_hostile_resources_take_linear_time() -> None:
    """Each takes well under a second; with a walk for each pair it would be minutes."""
    many = range(20_000)
    organizations = [{"resourceType": "Practitioner", "id": f"c{n}"} for n in many]
    links = [{"reference": f"#c{n}"} for n in many]
    patient = {"resourceType": "Patient", "contained": organizations, "generalPractitioner": links}
    codings = [{"system": "http://x.test", "code": str(n)} for n in many]
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": codings},
        "valueBoolean": True,
    }
    observation["component"] = [{"code": {"coding": [{"code": f"a{n}"}]}} for n in many]
    before = time.process_time()
    assert errors(patient) == errors(observation) == []
    observation["component"] += [{"code": {"coding": [codings[7]]}}]
    assert errors(observation) == [("invariant", "Observation")]
    assert time.process_time() - before < 15
