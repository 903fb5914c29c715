"""Terminology operations on a real server: what ships, what is loaded, who sees it, and hostile input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import acts_of, admit, fill, outcome, own_workspace, wrong

from carelake.apps.wiring import Workspace
from carelake.fhir.validate import validate

POLICY = """
@id("interns see no code systems")
forbid (principal, action, resource)
when { principal.name == "intern" && context.type == "CodeSystem" };
"""
GENDER = "http://hl7.org/fhir/administrative-gender"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"
ROLES = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
TO_V3 = "http://hl7.org/fhir/ConceptMap/cm-administrative-gender-v3"
V3_GENDER = "http://terminology.hl7.org/CodeSystem/v3-AdministrativeGender"
ANIMALS = {
    "resourceType": "CodeSystem",
    "id": "animals",
    "url": "http://a.example/animals",
    "version": "3",
    "name": "Animals",
    "status": "active",
    "content": "complete",
    "caseSensitive": True,
    "hierarchyMeaning": "is-a",
    "property": [{"code": "legs", "type": "integer"}, {"code": "status", "type": "code"}],
    "concept": [
        {
            "code": "cat",
            "display": "Cat",
            "definition": "A small tiger",
            "designation": [{"language": "de", "value": "Katze"}],
            "property": [{"code": "legs", "valueInteger": 4}],
            "concept": [
                {"code": "lynx", "display": "Lynx"},
                {"code": "tabby", "display": "Tabby", "property": [{"code": "status", "valueCode": "retired"}]},
            ],
        },
        {"code": "eel", "display": "Eel (long fish)"},
        {"code": "any", "display": "Any", "property": [{"code": "notSelectable", "valueBoolean": True}]},
    ],
}
PETS = {
    "resourceType": "ValueSet",
    "id": "pets",
    "url": "http://a.example/pets",
    "status": "active",
    "compose": {
        "include": [
            {
                "system": "http://a.example/animals",
                "filter": [{"property": "concept", "op": "is-a", "value": "cat"}],
            },
            {"system": "http://a.example/animals", "concept": [{"code": "eel", "display": "Slippery"}]},
        ]
    },
}
BITES = {
    "resourceType": "ConceptMap",
    "id": "bites",
    "url": "http://a.example/bites",
    "status": "active",
    "group": [
        {
            "source": "http://a.example/animals",
            "target": "http://a.example/bite",
            "element": [
                {"code": "cat", "target": [{"code": "scratch", "equivalence": "wider"}]},
                {"code": "eel", "target": [{"equivalence": "unmatched"}]},
            ],
        }
    ],
}
SEEN = {
    "resourceType": "Observation",
    "id": "lynx",
    "status": "final",
    "code": {"coding": [{"system": "http://a.example/animals", "code": "lynx"}]},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("terms"), POLICY) as made:
        admit(made, "person", doctor="clinician", intern="clinician")
        fill(made, ANIMALS, PETS, BITES, SEEN)
        yield made


@pytest.fixture
def client(address: str, token: Callable[..., dict[str, str]]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{address}/fhir", timeout=30, headers=token()) as made:
        yield made


def sent(**values: Any) -> dict[str, Any]:
    """Parameters: ``url__uri="..."``, ``coding__Coding={...}``, ``valueSet__resource={...}``."""
    listed = []
    for name, value in values.items():
        name, _, kind = name.partition("__")
        key = kind if kind == "resource" else "value" + kind[0].upper() + kind[1:]
        listed.append({"name": name.replace("_", "-"), key: value})
    return {"resourceType": "Parameters", "parameter": listed}


def valid(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    resource: dict[str, Any] = answer.json()
    assert not [issue for issue in validate(resource) if issue.bad]
    return resource


def told(answer: httpx.Response) -> dict[str, Any]:
    """The parameters of an answer, the first of each name."""
    found: dict[str, Any] = {}
    for one in valid(answer)["parameter"]:
        found.setdefault(one["name"], next((one[key] for key in one if key.startswith("value")), one.get("part")))
    return found


def codes(answer: httpx.Response) -> list[str]:
    return [one["code"] for one in valid(answer)["expansion"].get("contains", [])]


# -- $expand ---------------------------------------------------------------------------------------------------------


def test_what_ships_is_expanded(client: httpx.Client) -> None:
    answer = client.get("/ValueSet/$expand", params={"url": GENDERS})
    assert codes(answer) == ["male", "female", "other", "unknown"]
    said = answer.json()
    assert (said["url"], said["version"], said["name"]) == (GENDERS, "4.0.1", "AdministrativeGender")
    assert said["expansion"]["total"] == 4
    assert said["expansion"]["parameter"] == [{"name": "version", "valueUri": f"{GENDER}|4.0.1"}]
    assert said["expansion"]["contains"][0] == {"system": GENDER, "code": "male", "display": "Male"}
    assert said["expansion"]["timestamp"]
    assert "compose" not in said


def test_loaded_ones_are_expanded_at_every_address(client: httpx.Client) -> None:
    expected = ["eel", "cat", "lynx", "tabby"]
    assert codes(client.get("/ValueSet/$expand", params={"url": PETS["url"]})) == expected
    assert codes(client.get("/ValueSet/pets/$expand")) == expected
    assert codes(client.post("/ValueSet/pets/$expand", json=sent(filter__string="eel"))) == ["eel"]
    assert codes(client.post("/ValueSet/$expand", json=sent(url__uri=PETS["url"]))) == expected
    assert codes(client.post("/ValueSet/$expand", json=sent(valueSet__resource=PETS))) == expected
    assert codes(client.post("/ValueSet/$expand", json=PETS)) == expected
    entry = client.get("/ValueSet/pets/$expand").json()["expansion"]["contains"]
    assert entry[0]["display"] == "Slippery"
    assert entry[3] == {"system": "http://a.example/animals", "inactive": True, "code": "tabby", "display": "Tabby"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"filter": "LYN"}, ["lynx"]),
        ({"filter": "fish long"}, ["eel"]),
        ({"filter": "(.*)*$"}, []),
        ({"filter": "katze"}, ["cat"]),
        ({"activeOnly": "true"}, ["eel", "cat", "lynx"]),
        ({"offset": "1", "count": "2"}, ["cat", "lynx"]),
        ({"count": "0"}, []),
        ({"offset": "99"}, []),
        ({"exclude-system": "http://a.example/animals"}, []),
        ({"excludeNested": "true", "includeDefinition": "true"}, ["eel", "cat", "lynx", "tabby"]),
        ({"force-system-version": "http://a.example/animals|3"}, ["eel", "cat", "lynx", "tabby"]),
    ],
)
def test_how_it_is_expanded(client: httpx.Client, asked: dict[str, str], expected: list[str]) -> None:
    answer = client.get("/ValueSet/pets/$expand", params=asked)
    assert codes(answer) == expected
    said = answer.json()
    named = {one["name"] for one in said["expansion"].get("parameter", ())}
    assert set(asked) - {"excludeNested", "includeDefinition"} <= named
    assert ("offset" in said["expansion"]) == bool({"offset", "count"} & set(asked))
    if {"offset", "count"} & set(asked):
        assert said["expansion"]["total"] == 4
    assert ("compose" in said) == ("includeDefinition" in asked)


def test_designations_and_languages(client: httpx.Client) -> None:
    answer = client.get("/ValueSet/pets/$expand", params={"includeDesignations": "true", "displayLanguage": "de-AT"})
    cat = next(one for one in valid(answer)["expansion"]["contains"] if one["code"] == "cat")
    assert (cat["display"], cat["designation"]) == ("Katze", [{"language": "de", "value": "Katze"}])
    answer = client.get("/ValueSet/pets/$expand", params={"designation": "urn:ietf:bcp:47|fr"})
    assert all("designation" not in one for one in valid(answer)["expansion"]["contains"])


def test_abstract_codes_are_marked_or_left_out(client: httpx.Client) -> None:
    whole = {**PETS, "compose": {"include": [{"system": ANIMALS["url"]}]}}
    answer = client.post("/ValueSet/$expand", json=whole)
    assert [one["code"] for one in valid(answer)["expansion"]["contains"] if one.get("abstract")] == ["any"]
    shown = sent(valueSet__resource=whole, excludeNotForUI__boolean=True)
    assert "any" not in codes(client.post("/ValueSet/$expand", json=shown))


def test_a_large_expansion_is_asked_for_in_pages(client: httpx.Client) -> None:
    listed = [{"code": f"c{n}"} for n in range(5001)]
    big = {**PETS, "compose": {"include": [{"system": "http://a.example/big", "concept": listed}]}}
    answer = client.post("/ValueSet/$expand", json=big)
    outcome(answer, 422, "terminology.too_costly")
    assert answer.json()["issue"][0]["code"] == "too-costly"
    asked = sent(valueSet__resource=big, offset__integer=4999, count__integer=10)
    assert codes(client.post("/ValueSet/$expand", json=asked)) == ["c4999", "c5000"]


@pytest.mark.parametrize(
    ("path", "asked", "expected"),
    [
        ("/ValueSet/$expand", {"url": "http://none.example"}, (404, "terminology.no_such_value_set")),
        ("/ValueSet/$expand", {"url": f"{GENDERS}|9"}, (404, "terminology.no_such_value_set")),
        ("/ValueSet/none/$expand", {}, (404, "store.no_such_resource")),
        ("/ValueSet/$expand", {}, (400, "http.parameter")),
        ("/ValueSet/$expand", {"url": GENDERS, "x": "1"}, (400, "http.unknown_parameter")),
        ("/ValueSet/$expand", {"url": GENDERS, "count": "-1"}, (400, "http.parameter")),
        ("/ValueSet/$expand", {"url": GENDERS, "count": "many"}, (400, "http.parameter")),
        ("/ValueSet/$expand", {"url": GENDERS, "date": "2020"}, (422, "terminology.date")),
        ("/ValueSet/$expand", {"url": "http://hl7.org/fhir/ValueSet/observation-codes"},
         (422, "terminology.unknown_code_system")),
        ("/ValueSet/$expand", {"url": GENDERS, "system-version": f"{GENDER}|9"}, (422, "terminology.version")),
        ("/CodeSystem/$lookup", {"system": "http://none.example", "code": "x"}, (404, "terminology.no_such_system")),
        ("/CodeSystem/$lookup", {"system": GENDER, "code": "x"}, (404, "terminology.no_such_code")),
        ("/CodeSystem/$lookup", {"code": "x"}, (400, "http.parameter")),
        ("/CodeSystem/$subsumes", {"system": ROLES, "codeA": "FAMMEMB"}, (400, "http.parameter")),
        ("/CodeSystem/$validate-code", {"url": "http://none.example", "code": "x"},
         (404, "terminology.no_such_system")),
        ("/ValueSet/$validate-code", {"url": GENDERS, "code": "male"}, (400, "http.parameter")),
        ("/ConceptMap/$translate", {"url": "http://none.example", "system": GENDER, "code": "male"},
         (404, "terminology.no_such_map")),
        ("/ConceptMap/$translate", {"url": TO_V3, "code": "male"}, (400, "http.parameter")),
    ],
)  # fmt: skip
def test_what_is_refused(client: httpx.Client, path: str, asked: dict[str, str], expected: tuple[int, str]) -> None:
    assert wrong(client.get(path, params=asked)) == expected


# -- $validate-code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "result", "display"),
    [
        ({"url": GENDERS, "system": GENDER, "code": "male"}, True, "Male"),
        ({"url": GENDERS, "system": GENDER, "code": "male", "display": " MALE "}, True, "Male"),
        ({"url": GENDERS, "system": GENDER, "code": "male", "display": "Man"}, False, "Male"),
        ({"url": GENDERS, "system": GENDER, "code": "MALE"}, False, None),
        ({"url": GENDERS, "system": "http://loinc.org", "code": "male"}, False, None),
        ({"url": GENDERS, "system": GENDER, "code": "male", "systemVersion": "1"}, False, "Male"),
        ({"url": PETS["url"], "system": ANIMALS["url"], "code": "lynx"}, True, "Lynx"),
        ({"url": PETS["url"], "system": ANIMALS["url"], "code": "eel"}, True, "Slippery"),
        ({"url": PETS["url"], "system": ANIMALS["url"], "code": "tabby"}, True, "Tabby"),
        ({"url": PETS["url"], "system": ANIMALS["url"], "code": "any"}, False, None),
        ({"url": "http://hl7.org/fhir/ValueSet/observation-codes", "system": "http://loinc.org", "code": "1-8"},
         False, None),
    ],
)  # fmt: skip
def test_codes_in_value_sets(client: httpx.Client, asked: dict[str, str], result: bool, display: str | None) -> None:
    said = told(client.get("/ValueSet/$validate-code", params=asked))
    assert (said["result"], said.get("display")) == (result, display)
    assert result or said["message"]


def test_codings_and_concepts(client: httpx.Client) -> None:
    good, bad = {"system": GENDER, "code": "female"}, {"system": GENDER, "code": "femmale"}
    asked = sent(url__uri=GENDERS, coding__Coding=good)
    assert told(client.post("/ValueSet/$validate-code", json=asked))["result"] is True
    asked = sent(url__uri=GENDERS, codeableConcept__CodeableConcept={"coding": [bad, good]})
    assert told(client.post("/ValueSet/$validate-code", json=asked)) == {"result": True, "display": "Female"}
    asked = sent(url__uri=GENDERS, codeableConcept__CodeableConcept={"text": "?"})
    assert told(client.post("/ValueSet/$validate-code", json=asked))["result"] is False
    asked = sent(url__uri=GENDERS, coding__Coding={"code": "male"})
    assert told(client.post("/ValueSet/$validate-code", json=asked))["result"] is False
    asked = sent(url__uri=GENDERS, coding__Coding=good, code__code="male", system__uri=GENDER)
    outcome(client.post("/ValueSet/$validate-code", json=asked), 400, "http.parameter")


def test_one_part_that_is_not_here_does_not_hide_another(client: httpx.Client) -> None:
    parts = [{"system": "http://snomed.info/sct"}, {"system": GENDER}]
    mixed = {"resourceType": "ValueSet", "status": "active", "compose": {"include": parts}}
    asked = sent(valueSet__resource=mixed, code__code="male", system__uri=GENDER)
    assert told(client.post("/ValueSet/$validate-code", json=asked))["result"] is True
    asked = sent(valueSet__resource=mixed, code__code="22298006", system__uri="http://snomed.info/sct")
    said = told(client.post("/ValueSet/$validate-code", json=asked))
    assert (said["result"], "cannot be told" in said["message"]) == (False, True)


@pytest.mark.parametrize(
    ("path", "asked", "result"),
    [
        ("/CodeSystem/$validate-code", {"url": GENDER, "code": "male"}, True),
        ("/CodeSystem/$validate-code", {"url": GENDER, "code": "man"}, False),
        ("/CodeSystem/$validate-code", {"url": GENDER, "code": "male", "version": "9"}, False),
        ("/CodeSystem/animals/$validate-code", {"code": "cat"}, True),
        ("/CodeSystem/animals/$validate-code", {"code": "cat", "version": "3"}, True),
        ("/CodeSystem/animals/$validate-code", {"code": "any"}, False),
        ("/CodeSystem/animals/$validate-code", {"code": "any", "abstract": "true"}, True),
    ],
)
def test_codes_in_code_systems(client: httpx.Client, path: str, asked: dict[str, str], result: bool) -> None:
    said = told(client.get(path, params=asked))
    assert (said["result"], "message" in said) == (result, not result)


# -- $lookup, $subsumes ----------------------------------------------------------------------------------------------


def properties(answer: httpx.Response) -> list[tuple[Any, Any]]:
    found = []
    for one in valid(answer)["parameter"]:
        if one["name"] == "property":
            parts = {part["name"]: next(part[k] for k in part if k.startswith("value")) for part in one["part"]}
            found.append((parts["code"], parts["value"]))
    return found


def test_a_code_is_looked_up(client: httpx.Client) -> None:
    answer = client.get("/CodeSystem/$lookup", params={"system": ANIMALS["url"], "code": "cat"})
    said = told(answer)
    assert (said["name"], said["version"], said["display"]) == ("Animals", "3", "Cat")
    assert {"name": "value", "valueString": "Katze"} in said["designation"]
    assert properties(answer) == [
        ("url", ANIMALS["url"]),
        ("definition", "A small tiger"),
        ("inactive", False),
        ("child", "lynx"),
        ("child", "tabby"),
        ("legs", 4),
    ]
    answer = client.get("/CodeSystem/$lookup", params={"system": ROLES, "code": "NSIS", "property": ["parent", "x"]})
    assert properties(answer) == [("parent", "NSIB"), ("parent", "SIS")]
    asked = sent(coding__Coding={"system": ANIMALS["url"], "code": "cat"}, displayLanguage__code="de")
    assert told(client.post("/CodeSystem/$lookup", json=asked))["display"] == "Katze"
    assert wrong(client.get("/CodeSystem/animals/$lookup", params={"code": "cat"}))[0] == 404


@pytest.mark.parametrize(
    ("a", "b", "outcome"),
    [("cat", "cat", "equivalent"), ("cat", "lynx", "subsumes"), ("lynx", "cat", "subsumed-by"),
     ("eel", "cat", "not-subsumed"), ("lynx", "tabby", "not-subsumed")],
)  # fmt: skip
def test_subsumption(client: httpx.Client, a: str, b: str, outcome: str) -> None:
    asked = {"codeA": a, "codeB": b}
    assert told(client.get("/CodeSystem/animals/$subsumes", params=asked)) == {"outcome": outcome}
    asked["system"] = str(ANIMALS["url"])
    assert told(client.get("/CodeSystem/$subsumes", params=asked)) == {"outcome": outcome}
    both = sent(
        codingA__Coding={"system": asked["system"], "code": a}, codingB__Coding={"system": asked["system"], "code": b}
    )
    assert told(client.post("/CodeSystem/$subsumes", json=both)) == {"outcome": outcome}


# -- $translate ------------------------------------------------------------------------------------------------------


def matches(answer: httpx.Response) -> list[tuple[Any, ...]]:
    found = []
    for one in valid(answer)["parameter"]:
        if one["name"] == "match":
            parts = {part["name"]: next(part[k] for k in part if k.startswith("value")) for part in one["part"]}
            coding = parts.get("concept", {})
            found.append((parts["equivalence"], coding.get("system"), coding.get("code"), parts.get("source")))
    return found


def test_codes_are_translated(client: httpx.Client) -> None:
    answer = client.get("/ConceptMap/$translate", params={"url": TO_V3, "system": GENDER, "code": "male"})
    assert (told(answer)["result"], matches(answer)) == (True, [("equal", V3_GENDER, "M", TO_V3)])
    asked = {"system": GENDER, "code": "male"}
    every = matches(client.get("/ConceptMap/$translate", params=asked))
    assert ("equal", V3_GENDER, "M", TO_V3) in every
    assert len(every) > 1
    one = client.get("/ConceptMap/$translate", params={**asked, "targetsystem": V3_GENDER})
    assert matches(one) == [("equal", V3_GENDER, "M", TO_V3)]
    back = {"url": TO_V3, "system": V3_GENDER, "code": "M", "reverse": "true"}
    assert matches(client.get("/ConceptMap/$translate", params=back)) == [("equal", GENDER, "male", TO_V3)]
    none = client.get("/ConceptMap/$translate", params={"url": TO_V3, "system": GENDER, "code": "x"})
    assert (told(none)["result"], matches(none)) == (False, [])


def test_loaded_maps(client: httpx.Client) -> None:
    asked = {"system": ANIMALS["url"], "code": "cat"}
    expected = [("wider", "http://a.example/bite", "scratch", BITES["url"])]
    assert matches(client.get("/ConceptMap/$translate", params=asked)) == expected
    assert matches(client.get("/ConceptMap/bites/$translate", params=asked)) == expected
    sending = sent(conceptMap__resource=BITES, coding__Coding=asked)
    assert matches(client.post("/ConceptMap/$translate", json=sending)) == expected
    unmatched = client.get("/ConceptMap/bites/$translate", params={**asked, "code": "eel"})
    assert (told(unmatched)["result"], matches(unmatched)) == (False, [("unmatched", None, None, BITES["url"])])
    back = {"system": "http://a.example/bite", "code": "scratch", "reverse": "true"}
    assert matches(client.get("/ConceptMap/bites/$translate", params=back)) == [
        ("narrower", ANIMALS["url"], "cat", BITES["url"])
    ]


# -- who, and what is never written down -----------------------------------------------------------------------------


def test_what_the_caller_may_not_see_is_not_used(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    intern = token("intern")
    answer = client.get("/ValueSet/pets/$expand", headers=intern)
    outcome(answer, 422, "terminology.unknown_code_system")
    asked = {"system": ANIMALS["url"], "code": "cat"}
    assert client.get("/CodeSystem/$lookup", params=asked, headers=intern).status_code == 403
    assert codes(client.get("/ValueSet/$expand", params={"url": GENDERS}, headers=intern))


def test_searches_use_what_is_loaded_for_who_may_see_it(
    client: httpx.Client, token: Callable[..., dict[str, str]]
) -> None:
    for modifier, value, expected in (
        ("in", PETS["url"], ["lynx"]),
        ("below", f"{ANIMALS['url']}|cat", ["lynx"]),
        ("above", f"{ANIMALS['url']}|lynx", ["lynx"]),
        ("not-in", PETS["url"], []),
        ("below", f"{ANIMALS['url']}|eel", []),
    ):
        answer = client.get("/Observation", params={f"code:{modifier}": value})
        assert [one["resource"]["id"] for one in valid(answer).get("entry", [])] == expected, modifier
        refused = client.get("/Observation", params={f"code:{modifier}": value}, headers=token("intern"))
        assert refused.status_code == 403


def test_nobody_is_refused_and_each_is_one_act(client: httpx.Client, workspace: Workspace, address: str) -> None:
    assert httpx.get(f"{address}/fhir/ValueSet/$expand", params={"url": GENDERS}).status_code == 401
    answer = client.get("/CodeSystem/$lookup", params={"system": "urn:Qwxyz", "code": "Qwxyz"})
    assert "Qwxyz" not in answer.text
    found = acts_of(workspace, answer)
    assert [(one["action"], one["target"], one["phase"]) for one in found] == [
        ("record:search", "CodeSystem", "failed")
    ]
    assert "Qwxyz" not in str(found)


def test_the_terminology_is_described(client: httpx.Client) -> None:
    answer = client.get("/metadata", params={"mode": "terminology"})
    said = valid(answer)
    assert said["resourceType"] == "TerminologyCapabilities"
    assert GENDER in {one["uri"] for one in said["codeSystem"]}
    assert not {"http://snomed.info/sct", "http://loinc.org"} & {one["uri"] for one in said["codeSystem"]}


# -- hostile ---------------------------------------------------------------------------------------------------------


def test_bombs_are_bounded(client: httpx.Client) -> None:
    loop = {**PETS, "compose": {"include": [{"valueSet": [PETS["url"]]}]}}
    assert wrong(client.post("/ValueSet/$expand", json=loop))[0] == 422
    role = {
        "system": ROLES,
        "filter": [{"property": "concept", "op": "is-a", "value": "_PersonalRelationshipRoleType"}],
    }
    wide = {**PETS, "compose": {"include": [role] * 20_000}}
    outcome(client.post("/ValueSet/$expand", json=wide), 422, "terminology.too_many")
    regex = {"system": ROLES, "filter": [{"property": "code", "op": "regex", "value": "(a+)+$"}]}
    slow = {**PETS, "compose": {"include": [regex]}}
    outcome(client.post("/ValueSet/$expand", json=slow), 422, "terminology.filter")
    concept: dict[str, Any] = {"code": "x"}
    for n in range(60):
        concept = {"code": f"x{n}", "concept": [concept]}
    deep = {**ANIMALS, "concept": [concept]}
    answer = client.post("/CodeSystem/$validate-code", json=sent(codeSystem__resource=deep, code__code="x"))
    assert answer.status_code in (400, 422)
    group = {"source": GENDER, "target": "http://t", "element": [{"code": "z"}],
             "unmapped": {"mode": "other-map", "url": BITES["url"]}}  # fmt: skip
    circle = {**BITES, "group": [group] * 500}
    asked = sent(conceptMap__resource=circle, code__code="male", system__uri=GENDER)
    assert told(client.post("/ConceptMap/$translate", json=asked))["result"] is False


@pytest.mark.parametrize("body", [b"[]", b"{", b"null", b'"x"', b'{"resourceType":"Patient"}', b'{"a":1}'])
def test_bodies_that_are_no_parameters(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/ValueSet/$expand", content=body, headers={"Content-Type": "application/fhir+json"})
    assert wrong(answer)[0] in (400, 422)


def test_a_long_filter_is_plain_text(client: httpx.Client) -> None:
    asked = sent(url__uri="http://terminology.hl7.org/ValueSet/v3-RoleCode", filter__string="(a|a)* " * 140)
    answer = client.post("/ValueSet/$expand", json=asked)
    assert codes(answer) == []
    assert answer.elapsed.total_seconds() < 10
    asked = sent(url__uri=GENDERS, filter__string="male " * 20_000)
    outcome(client.post("/ValueSet/$expand", json=asked), 422, "terminology.too_costly")
