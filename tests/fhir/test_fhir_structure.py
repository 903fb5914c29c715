"""Structural validation, on resources of our own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.canonical import load
from carelake.fhir.shapes import shape
from carelake.fhir.structure import MAX_ISSUES, _walk, check, issues

Resource = dict[str, Any]


def only(resource: Any) -> tuple[str, str]:
    """Code and expression of the one issue."""
    (issue,) = issues(resource)
    assert check(resource) == issue
    assert issue.severity == "error"
    return issue.code, issue.expression


def test_valid_resources(patient: Resource, observation: Resource, encounter: Resource) -> None:
    for resource in (patient, observation, encounter):
        assert issues(resource) == []
        assert check(resource) is None


def _set(*path: Any) -> Callable[[Resource], None]:
    *steps, last, value = path

    def change(resource: Any) -> None:
        for step in steps:
            resource = resource[step]
        resource[last] = value

    return change


DAMAGE: list[tuple[str, Callable[[Resource], None], str, str]] = [
    ("unknown element", _set("nickname", "x"), "structure", "Patient.nickname"),
    ("wrong case", _set("birthdate", "2020"), "structure", "Patient.birthdate"),
    ("odd name is not shown", _set("Zaphod B", 1), "structure", "Patient"),
    ("unknown in a part", _set("contact", 0, "sex", "x"), "structure", "Patient.contact[0].sex"),
    ("text for a boolean", _set("active", "true"), "value", "Patient.active"),
    ("number for a text", _set("name", 0, "family", 7), "value", "Patient.name[0].family"),
    ("object for a primitive", _set("gender", {"a": 1}), "value", "Patient.gender"),
    ("array for one", _set("gender", ["male"]), "structure", "Patient.gender"),
    ("one for an array", _set("name", {"family": "x"}), "structure", "Patient.name"),
    ("text for an object", _set("maritalStatus", "M"), "structure", "Patient.maritalStatus"),
    ("null", _set("gender", None), "structure", "Patient.gender"),
    ("null in an array", _set("name", [None]), "structure", "Patient.name[0]"),
    ("empty array", _set("name", []), "structure", "Patient.name"),
    ("empty object", _set("name", [{}]), "structure", "Patient.name[0]"),
    ("empty text", _set("name", 0, "family", ""), "value", "Patient.name[0].family"),
    ("two types of a choice", _set("deceasedDateTime", "2020"), "structure", "Patient.deceased"),
    ("type not of the choice", _set("deceasedString", "x"), "structure", "Patient.deceasedString"),
    ("code not of the list", _set("contact", 0, "gender", "f"), "code-invalid", "Patient.contact[0].gender"),
    ("no real day", _set("birthDate", "2021-02-30"), "value", "Patient.birthDate"),
    ("bad id", _set("id", "a b"), "value", "Patient.id"),
    ("control character", _set("name", 0, "given", ["a\x00"]), "value", "Patient.name[0].given[0]"),
    ("narrative without div", _set("text", "div", "plain"), "value", "Patient.text.div"),
    ("required missing", _set("text", {"status": "empty"}), "required", "Patient.text.div"),
    ("required missing in a list", _set("link", [{"type": "refer"}]), "required", "Patient.link[0].other"),
    ("extension without url", _set("extension", [{"valueString": "x"}]), "required", "Patient.extension[0].url"),
    ("extension without value", _set("extension", [{"url": "http://x"}]), "invariant", "Patient.extension[0]"),
    ("extension of a complex", _set("_name", [{"id": "x"}]), "structure", "Patient._name"),
    ("other resource type", _set("resourceType", "Observations"), "not-supported", ""),
    ("contained of no type", _set("contained", [{"id": "x"}]), "required", "Patient.contained[0]"),
    (
        "contained in a contained",
        _set("contained", [{"resourceType": "Basic", "contained": [{"resourceType": "Basic"}]}]),
        "structure",
        "Patient.contained[0].contained",
    ),
    ("integer beyond 32 bit", _set("multipleBirthInteger", 2**31), "value", "Patient.multipleBirthInteger"),
]


@pytest.mark.parametrize(("change", "code", "at"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_damage_is_found(patient: Resource, change: Callable[[Resource], None], code: str, at: str) -> None:
    change(patient)
    assert only(patient) == (code, at)


def test_messages_hold_no_value(patient: Resource) -> None:
    secret = "Zaphodbeeblebrox"
    patient["gender"] = patient["birthDate"] = secret
    patient["id"] = f"{secret}!"
    patient["name"][0]["use"] = secret
    patient[secret] = patient["name"][0][f"{secret} {secret}"] = secret
    patient["contained"] = [{"resourceType": secret}]
    said = " ".join(f"{issue.expression} {issue.message}" for issue in issues(patient))
    assert len(issues(patient)) == 7
    assert secret not in said


@pytest.mark.parametrize("value", [None, 1, "x", [], [{}], {}, {"resourceType": 1}, {"resourceType": ["Patient"]}])
def test_what_is_no_resource(value: Any) -> None:
    assert check(value) is not None
    assert len(issues(value)) == 1


def test_extensions_of_primitives(patient: Resource) -> None:
    note = {"extension": [{"url": "http://x.test", "valueCode": "masked"}]}
    patient["_birthDate"] = note
    patient["name"][0]["given"] = ["Ada", None]
    patient["name"][0]["_given"] = [None, note]
    assert issues(patient) == []
    patient["name"][0]["_given"] = [None, note, note]
    assert only(patient) == ("structure", "Patient.name[0].given")
    patient["name"][0]["_given"] = [note, None]
    assert {issue.expression for issue in issues(patient)} == {"Patient.name[0].given[1]"}


def test_an_extension_can_stand_for_a_required_value(observation: Resource) -> None:
    del observation["status"]
    assert only(observation) == ("required", "Observation.status")
    observation["_status"] = {"extension": [{"url": "http://x.test", "valueCode": "unknown"}]}
    assert issues(observation) == []


def test_choices_exclude_each_others_extensions(observation: Resource) -> None:
    observation["_valueString"] = {"id": "x"}
    assert only(observation) == ("structure", "Observation.value")


def test_ids_and_urls_of_extensions_have_no_extensions(patient: Resource) -> None:
    patient["extension"][0]["extension"][0]["_url"] = {"id": "a"}
    assert only(patient) == ("structure", "Patient.extension[0].extension[0]._url")


def nested(levels: int) -> Resource:
    inner: Any = {"url": "http://x.test", "valueString": "x"}
    for _ in range(levels):
        inner = {"url": "http://x.test", "extension": [inner]}
    return {"resourceType": "Patient", "extension": [inner]}


def test_depth_is_limited() -> None:
    assert issues(nested(48)) == []  # 1 resource, 49 arrays, 49 extensions: 99 levels
    assert issues(nested(49)) != []
    assert check(nested(49)).message.startswith("Nested more deeply")  # type: ignore[union-attr]
    assert check(nested(49), max_depth=110) is None
    assert check(nested(5000)) is not None
    assert check(nested(5000), max_depth=10**6) is not None  # a limit beyond what Python follows


def test_issues_are_bounded(patient: Resource) -> None:
    patient["name"] = [{"family": 1} for _ in range(1000)]
    assert len(issues(patient)) == MAX_ISSUES


def test_unknown_names_are_not_remembered(patient: Resource) -> None:
    for n in range(10):
        patient[f"x{n}"] = 1
    issues(patient)
    assert "x1" not in str([cell.cell_contents for cell in shape("Patient").__closure__ or ()])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "final", "2020-01-01", "a b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["url", "id", "value", "x"]), inner),
    max_leaves=6,
)


OBSERVED = ["status", "code", "valueString", "_valueString", "valueInteger", "note", "_status", "contained", "id"]
OBSERVED += ["x", "extension", "issued", "_issued", "hasMember"]


@given(
    st.dictionaries(
        st.sampled_from(OBSERVED),
        json_values,
        max_size=5,
    )
)
def test_the_quick_yes_and_the_walk_agree(parts: Resource) -> None:
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **parts}
    found = _walk(copy.deepcopy(resource), 100, MAX_ISSUES)
    if shape("Resource")(resource, 100):
        assert found == []
    assert (check(resource) is None) == (found == [])


def test_a_json_text_of_a_damaged_number() -> None:
    resource = load(b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueInteger":1.0}')
    assert only(resource) == ("value", "Observation.valueInteger")
