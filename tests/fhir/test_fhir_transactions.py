"""Transactions as data: what entries ask, their order, and links by the types of elements."""

from __future__ import annotations

import json
from typing import Any

import pytest

from carelake.core.errors import Invalid
from carelake.fhir.transactions import (
    at_entry,
    conditional_references,
    in_order,
    links_of,
    no_overlap,
    rewrite_links,
    steps,
)

URN = "urn:uuid:1"
HTTP = "http://example.org/fhir/Patient/1"
BASES = ("http://us/fhir", "/fhir")


def entry(method: str, url: Any, resource: Any = None, **more: Any) -> dict[str, Any]:
    whole = {"resource": resource} if resource is not None else {}
    return {**whole, "request": {"method": method, "url": url}, **more}


def bundle(*entries: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        ("Patient/1", ("Patient", "1"), ""),
        ("/Patient/1", ("Patient", "1"), ""),
        ("http://us/fhir/Patient/1", ("Patient", "1"), ""),
        ("/fhir/Patient/1", ("Patient", "1"), ""),
        ("Patient?identifier=http://x|1", ("Patient",), "identifier=http://x|1"),
        ("?_type=Patient", (), "_type=Patient"),
        ("http://us/fhir?_type=Patient", (), "_type=Patient"),
        ("Patient/1/_history/2", ("Patient", "1", "_history", "2"), ""),
    ],
)
def test_addresses(url: str, path: tuple[str, ...], query: str) -> None:
    (step,) = steps(bundle(entry("GET", url)), 5, bases=BASES)
    assert (step.path, step.query) == (path, query)


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        {},
        {"request": 7},
        entry("GET", 7),
        entry("FETCH", "Patient"),
        entry("GET", "Patient", {"resourceType": "Patient"}),
        entry("POST", "Patient"),
        entry("POST", "Patient", []),
        entry("GET", "http://other/fhir/Patient/1"),
        entry("GET", "http://us/fhirish/Patient/1"),
        entry("GET", "Patient#x"),
        entry("GET", "Patient?" + "x" * 20_000),
        entry("GET", "Patient", fullUrl=7),
        {"request": {"method": "GET", "url": "Patient", "ifMatch": 7}},
    ],
)
def test_wrong_entries_are_named(wrong: Any) -> None:
    with pytest.raises(Invalid) as error:
        steps(bundle(entry("GET", "Patient"), wrong), 5, bases=BASES)
    assert error.value.facts["expression"] == "Bundle.entry[1]"
    assert error.value.message.startswith("Bundle.entry[1]: ")


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(Invalid):
        steps(bundle(*[entry("GET", "Patient")] * 3), 2)


def test_the_standards_order() -> None:
    patient = {"resourceType": "Patient"}
    listed = steps(
        bundle(
            entry("GET", "Patient"),
            entry("PATCH", "Patient/1", patient),
            entry("POST", "Patient", patient),
            entry("PUT", "Patient/2", patient),
            entry("DELETE", "Patient/3"),
        ),
        9,
    )
    assert [step.method for step in in_order(listed)] == ["DELETE", "POST", "PATCH", "PUT", "GET"]


def test_overlaps_and_full_urls_are_told_by_their_second_entry() -> None:
    with pytest.raises(Invalid) as error:
        no_overlap([(4, "Patient/1"), (2, "Patient/2"), (7, "Patient/1")])
    assert error.value.facts["expression"] == "Bundle.entry[7]"
    assert "Patient/1" not in error.value.message
    listed = steps(bundle(*[entry("POST", "Patient", {"resourceType": "Patient"}, fullUrl=URN)] * 2), 5)
    with pytest.raises(Invalid) as error:
        links_of((step, "Patient/9") for step in listed)
    assert error.value.facts["expression"] == "Bundle.entry[1]"


def test_links_are_rewritten_by_the_types_of_elements() -> None:
    resource: dict[str, Any] = {
        "resourceType": "Composition",
        "text": {"div": f'<div><a href="{URN}">{URN}</a><img src=\'{HTTP}\'/><a href="urn:uuid:2"/></div>'},
        "subject": {"reference": URN, "display": URN},
        "identifier": {"system": URN, "value": URN},
        "author": [{"reference": HTTP}, {"reference": "Patient/1"}, {"reference": "Patient/2"}, {"reference": "#a"}],
        "contained": [
            {"resourceType": "Observation", "id": "a", "subject": {"reference": URN}, "instantiatesCanonical": [URN]},
            {"resourceType": "DocumentReference", "content": [{"attachment": {"url": HTTP, "title": HTTP}}]},
            {"resourceType": "StructureDefinition", "url": HTTP, "description": URN},
        ],
        "title": URN,
        "extension": [
            {"url": "http://x", "valueReference": {"reference": URN}},
            {"url": "http://y", "valueCanonical": URN},
            {"url": "http://z", "valueUri": HTTP},
            {"url": "http://z", "valueUrl": URN},
            {"url": "http://z", "valueOid": "urn:oid:1"},
        ],
        "_title": {"extension": [{"url": "http://x", "valueReference": {"reference": URN}}]},
        "nosuch": {"reference": URN},
    }
    before = json.dumps(resource)
    links = {URN: "Patient/9", HTTP: "Patient/8"}
    rewrite_links(resource, links, "http://example.org/fhir/Composition/1")
    assert resource["subject"] == {"reference": "Patient/9", "display": URN}
    assert [one["reference"] for one in resource["author"]] == ["Patient/8", "Patient/8", "Patient/2", "#a"]
    assert resource["text"]["div"] == (
        f'<div><a href="Patient/9">{URN}</a><img src=\'Patient/8\'/><a href="urn:uuid:2"/></div>'
    )
    assert resource["identifier"] == {"system": "Patient/9", "value": URN}
    inner = resource["contained"]
    assert (inner[0]["subject"]["reference"], inner[0]["instantiatesCanonical"]) == ("Patient/9", [URN])
    assert inner[1]["content"][0]["attachment"] == {"url": "Patient/8", "title": HTTP}
    assert inner[2]["url"] == HTTP  # the name of a definition
    told = resource["extension"]
    assert [list(one.values())[1] for one in told] == [
        {"reference": "Patient/9"},
        URN,
        HTTP,
        "Patient/9",
        "urn:oid:1",
    ]
    assert resource["_title"]["extension"][0]["valueReference"]["reference"] == "Patient/9"
    assert resource["title"] == URN
    again = json.loads(before)
    rewrite_links(again, links)  # an entry that has no address of its own: relative references are this server's
    assert again["author"][1]["reference"] == "Patient/1"


def test_data_that_is_not_valid_is_passed_by() -> None:
    for resource in (
        {"resourceType": 7, "subject": {"reference": URN}},
        {"resourceType": "Observation", "subject": [[{"reference": URN}]], "text": 7, "_text": [None, 7]},
        {"resourceType": "Observation", "subject": {"reference": [URN, 7]}, "contained": [7, {"resourceType": []}]},
        {},
    ):
        rewrite_links(resource, {URN: "Patient/1"})
        assert conditional_references(resource) == []


def test_conditional_references() -> None:
    resource = {
        "resourceType": "Observation",
        "subject": {"reference": "Patient?identifier=a"},
        "performer": [{"reference": "Practitioner?identifier=b"}, {"reference": "Patient?identifier=a"}],
        "encounter": {"reference": "Nosuch?identifier=c"},
        "focus": [{"reference": "Patient/1"}, {"reference": "http://x/Patient?identifier=a"}],
        "note": [{"text": "Patient?identifier=a"}],
    }
    found = conditional_references(resource)
    assert sorted(found) == [("Patient", "Patient?identifier=a"), ("Practitioner", "Practitioner?identifier=b")]
    rewrite_links(resource, {}, "", {"Patient?identifier=a": "Patient/5"})
    assert resource["subject"] == {"reference": "Patient/5"}
    assert resource["note"] == [{"text": "Patient?identifier=a"}]


def test_an_error_keeps_its_kind_and_gets_its_place() -> None:
    error = at_entry(3, Invalid("store.invalid_resource", "wrong.", expression="Patient.name[0].use", reason="x"))
    assert isinstance(error, Invalid)
    assert error.facts == {"reason": "x", "expression": "Bundle.entry[3].resource.name[0].use"}
    assert error.message == "Bundle.entry[3]: wrong."
    assert at_entry(5, error) is error
