"""What an answer holds: includes, and resources cut to what was asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from carelake.core import canonical

SUBSETTED = "SUBSETTED"


@pytest.fixture
def filled(record: Any) -> Any:
    people = [
        {"resourceType": "Patient", "id": str(n), "gender": "male", "name": [{"family": "A"}]} for n in range(3)
    ]
    chain = [
        {"resourceType": "Organization", "id": "a", "name": "A"},
        {"resourceType": "Organization", "id": "b", "name": "B", "partOf": {"reference": "Organization/a"}},
        {"resourceType": "Organization", "id": "c", "name": "C", "partOf": {"reference": "Organization/b"}},
    ]
    people[0]["managingOrganization"] = {"reference": "Organization/c"}
    people[1]["managingOrganization"] = {"reference": "Organization/c"}
    people[2]["managingOrganization"] = {"reference": "Organization/gone"}
    seen = [
        {
            "resourceType": "Observation",
            "id": f"o{n}",
            "status": "final",
            "code": {"coding": [{"code": "x", "display": "X"}], "text": "x"},
            "subject": {"reference": f"Patient/{n % 2}"},
            "valueQuantity": {"value": canonical.load(b"1.10"), "unit": "mg"},
            "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>told</div>"},
            "note": [{"text": "n"}],
        }
        for n in range(4)
    ]
    record.keep(*chain, *people, *seen)
    return record


def names(resources: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{one['resourceType']}/{one['id']}" for one in resources)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Patient?_include=Patient:organization", ["Organization/c"]),
        ("Patient?_include=Patient:organization:Organization", ["Organization/c"]),
        ("Patient?_include=Patient:*", ["Organization/c"]),
        ("Patient?_include=*", ["Organization/c"]),
        (
            "Patient?_include=Patient:organization&_include:iterate=Organization:partof",
            ["Organization/a", "Organization/b", "Organization/c"],
        ),
        ("Patient?_include=Patient:organization&_include=Patient:general-practitioner", ["Organization/c"]),
        ("Observation?_id=o1&_include=Observation:subject", ["Patient/1"]),
        ("Observation?_id=o1&_include=Observation:subject:Group", []),
        (
            "Observation?_id=o1&_include=Observation:subject&_include:iterate=Patient:organization",
            ["Organization/c", "Patient/1"],
        ),
        ("Patient?_id=0&_revinclude=Observation:subject", ["Observation/o0", "Observation/o2"]),
        ("Patient?_id=0&_revinclude=Observation:patient", ["Observation/o0", "Observation/o2"]),
        ("Patient?_id=2&_revinclude=Observation:subject", []),
        ("Organization?_id=c&_revinclude=*", ["Patient/0", "Patient/1"]),
        (
            "Organization?_id=c&_revinclude=Patient:organization&_revinclude:iterate=Observation:subject",
            ["Observation/o0", "Observation/o1", "Observation/o2", "Observation/o3", "Patient/0", "Patient/1"],
        ),
        ("Organization?_id=b,c&_include=Organization:partof", ["Organization/a"]),
    ],
)
def test_what_comes_along(filled: Any, text: str, wanted: list[str]) -> None:
    result = filled.search(text)
    assert names(result.included) == wanted
    assert not result.cut


def test_canonicals_are_followed(record: Any) -> None:
    asked = {"resourceType": "Questionnaire", "id": "q", "status": "active", "url": "http://q/1", "title": "Pain"}
    other = {**asked, "id": "q2", "url": "http://q/2", "title": "Sleep"}
    told = {"resourceType": "QuestionnaireResponse", "id": "r", "status": "completed"}
    record.keep(asked, other, {**told, "questionnaire": "http://q/1|2.0"}, {**told, "id": "r2"})
    assert record.ids("QuestionnaireResponse?questionnaire.title=pain") == ["r"]
    assert record.ids("QuestionnaireResponse?questionnaire:Questionnaire.title=sleep") == []
    assert record.ids("Questionnaire?_has:QuestionnaireResponse:questionnaire:status=completed") == ["q"]
    forth = record.search("QuestionnaireResponse?_include=QuestionnaireResponse:questionnaire")
    assert names(forth.included) == ["Questionnaire/q"]
    back = record.search("Questionnaire?_revinclude=QuestionnaireResponse:questionnaire")
    assert names(back.included) == ["QuestionnaireResponse/r"]


def test_what_is_left_out_is_told(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filled.resources._searches, "_included", 2)
    result = filled.search("Patient?_revinclude=Observation:subject")
    assert len(result.included) == 2
    assert result.cut


def test_deleted_ones_do_not_come_along(filled: Any) -> None:
    with filled.vault.database.transaction(filled.permit) as tx:
        filled.resources.delete(filled.permit, tx, "Organization", "c")
    assert filled.search("Patient?_include=Patient:organization").included == []
    assert filled.ids("Patient?organization.name=c") == []


def test_elements_and_what_must_be_there(filled: Any) -> None:
    (one,) = filled.search("Observation?_id=o1&_elements=subject").matches
    assert set(one) == {"resourceType", "id", "meta", "subject", "status", "code"}
    assert [tag["code"] for tag in one["meta"]["tag"]] == [SUBSETTED]
    (one,) = filled.search("Observation?_id=o1&_elements=value").matches
    assert "valueQuantity" in one


def test_summaries(filled: Any) -> None:
    (one,) = filled.search("Observation?_id=o1&_summary=true").matches
    assert {"status", "code", "subject", "valueQuantity"} <= set(one)
    assert not {"note", "text"} & set(one)
    (one,) = filled.search("Observation?_id=o1&_summary=text").matches
    assert set(one) == {"resourceType", "id", "meta", "text", "status", "code"}
    (one,) = filled.search("Observation?_id=o1&_summary=data").matches
    assert "text" not in one
    assert "note" in one
    assert one["meta"]["tag"][0]["code"] == SUBSETTED
    (one,) = filled.search("Observation?_id=o1").matches
    assert "tag" not in one["meta"]


def test_answers_encode_without_being_parsed(filled: Any) -> None:
    result = filled.search("Observation?_id=o1&_include=Observation:subject")
    raw = result.found[0].raw
    assert isinstance(raw["valueQuantity"], msgspec.Raw)
    encoded = canonical.dump({"entry": [{"resource": raw}]})
    assert b'"value":1.10' in encoded
    assert canonical.load(encoded)["entry"][0]["resource"] == result.matches[0]
    assert list(raw)[:3] == ["resourceType", "id", "meta"]
    assert result.matches[0] == filled.resources.read(filled.permit, "Observation", "o1")
    assert result.included == [filled.resources.read(filled.permit, "Patient", "1")]
