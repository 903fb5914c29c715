"""Links to what is erased, taken out of any resource: nothing names it, the rest is as it was and valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.fhir.gone import Gone
from carelake.fhir.unlink import without
from carelake.fhir.validate import validate

LONG = "0f3581d8-4cb4-4316-a2e0-a2369381ab37"
GONE = Gone(["Patient/p1", "Observation/o1", f"Patient/{LONG}", "Binary/b1"], [("urn:mrn", "12345")])

THEIRS: list[dict[str, Any]] = [
    {"reference": "Patient/p1"},
    {"reference": "Patient/p1/_history/2", "display": "A Name"},
    {"reference": f"http://server/fhir/Patient/{LONG}"},
    {"reference": f"urn:uuid:{LONG}"},
    {"reference": "Observation/o1"},
    {"identifier": {"system": "urn:mrn", "value": "12345"}},
]
OTHERS: list[dict[str, Any]] = [
    {"reference": "Patient/p2"},
    {"reference": "http://server/fhir/Patient/p1"},
    {"reference": "Patient/p11"},
    {"identifier": {"system": "urn:other", "value": "12345"}},
    {"display": "A Name"},
    {"reference": "#p1"},
]


@given(st.lists(st.sampled_from([*THEIRS, *OTHERS]), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_members_of_a_group(links: list[dict[str, Any]]) -> None:
    group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True}
    made = without({**group, "member": [{"entity": one} for one in links]}, GONE)
    assert made is not None
    left = [{"entity": one} for one in links if one in OTHERS]
    assert made == ({**group, "member": left} if left else group)


@pytest.mark.parametrize("link", THEIRS)
def test_each_way_to_name_one(link: dict[str, Any]) -> None:
    base = {"resourceType": "Account", "id": "a", "status": "active"}
    coverage = {
        "resourceType": "Coverage",
        "id": "c",
        "status": "active",
        "beneficiary": link,
        "payor": [{"display": "x"}],
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
    }
    assert without({**base, "subject": [link]}, GONE) == base
    made = without(coverage, GONE)
    assert made is not None
    assert made["beneficiary"]["extension"][0]["valueCode"] == "masked"
    assert "text" not in made
    assert not [one for one in validate(made, mode="structure") if one.bad]


@pytest.mark.parametrize("link", OTHERS)
def test_nobody_elses_link_is_touched(link: dict[str, Any]) -> None:
    told = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "finished",
        "class": {"code": "IMP"},
        "subject": link,
        "text": {"status": "generated", "div": "<div/>"},
        "extension": [{"url": "http://x", "valueReference": link}],
        "_status": {"extension": [{"url": "http://x", "valueReference": link}]},
    }
    assert without(told, GONE) == told


def test_what_was_about_nobody_else_is_none() -> None:
    told = {"resourceType": "Provenance", "id": "p", "recorded": "2020-01-01T00:00:00Z", "agent": [{"who": {}}]}
    assert without({**told, "target": [THEIRS[4]]}, GONE) is None
    made = without({**told, "agent": [{"who": OTHERS[0]}], "target": [THEIRS[4], OTHERS[0]]}, GONE)
    assert made is not None
    assert made["target"] == [OTHERS[0]]


@pytest.mark.parametrize("context", ["Patient/p1", "Observation/o1"])
def test_a_content_goes_with_whom_it_is_about(context: str) -> None:
    told = {"resourceType": "Binary", "id": "b", "contentType": "application/pdf", "data": "JVBERi0="}
    assert without({**told, "securityContext": {"reference": context}}, GONE) is None
    assert without({**told, "securityContext": {"reference": "Patient/p2"}}, GONE) is not None


def test_contained_extensions_addresses_and_texts() -> None:
    told = {
        "resourceType": "Basic",
        "id": "b",
        "code": {"text": f"of {LONG}, not of {LONG}0"},
        "contained": [{"resourceType": "Observation", "id": "x", "status": "final", "subject": THEIRS[0]}],
        "extension": [{"url": "http://x", "valueReference": THEIRS[0]}, {"url": "http://y", "valueUrl": "Binary/b1"}],
        "_language": {"extension": [{"url": "http://x", "valueReference": THEIRS[1]}]},
    }
    made = without(told, GONE)
    assert made is not None
    said = canonical.dump(made)
    assert not GONE.named_in(said.replace(f"{LONG}0".encode(), b""))
    assert f"{LONG}0".encode() in said
    assert made["contained"] == [{"resourceType": "Observation", "id": "x", "status": "final"}]


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read(text: str) -> None:
    assert GONE.masked(text) == text or GONE.named_in(text.encode("utf-8", "surrogatepass"))
    list(GONE.places(text.encode("utf-8", "surrogatepass")))


WORDS = st.sampled_from([
    LONG, "p1", "o1", "p11", "Patient/", "Observation/", "urn:uuid:", "http://s/", "/", ".", "-", " ", '"', "\\u00e9",
    "x" * 48, "x" * 64, "A1b2", '"identifier"', '"value": "12345"', '"value":"1234"', "\n",
])  # fmt: skip


@given(st.lists(st.lists(WORDS, max_size=8).map("".join), max_size=9))
@settings(max_examples=400, deadline=None)
def test_the_quick_look_misses_nothing(texts: list[str]) -> None:
    """Whatever a text names, it is among those that are worth to be parsed, whatever stands beside it."""
    told = [text.encode() for text in texts]
    near = GONE.may_be_in(told)
    assert near == sorted(set(near))
    for at, text in enumerate(told):
        value = b'"identifier"' in text and (b'"value": "12345"' in text or b'"value":"12345"' in text)
        if GONE.named_in(text) or GONE.told_in(text) or value:
            assert at in near
        if at in near:
            assert GONE.may_be_in([text]) == [0]  # each alone as among others


@pytest.mark.parametrize(
    ("path", "theirs"),
    [
        (f"in/{LONG}.json", True),
        (f"Jane_Doe_{LONG}.json.gz", True),
        (f"{LONG}/bundle.json", True),
        (f"fhir/Patient/{LONG}", True),
        ("fhir/Patient/p1", True),
        ("p1.json", False),
        (f"x{LONG}.json", False),
        (f"{LONG[:-1]}.json", False),
    ],
)
def test_names_of_files(path: str, theirs: bool) -> None:
    assert GONE.in_path(path.encode()) is theirs
