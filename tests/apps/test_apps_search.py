"""Search over HTTP on a real server: levels, forms, links, preferences, formats, and what is never written down."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.apps.served import Lines, act_of, admit, fill, known, outcome, own_workspace, wrong

from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts

CANARY = "Qwxyzvut"
POLICY = """
@id("interns see no diagnoses")
forbid (principal, action, resource)
when { principal.name == "intern" && context.type == "Condition" };

@id("clerks see patients and organizations only")
forbid (principal, action, resource)
when { principal.name == "clerk" && !(context has type && ["Patient", "Organization"].contains(context.type)) };
"""


def resources() -> Iterator[dict[str, Any]]:
    yield {"resourceType": "Organization", "id": "north", "name": "North"}
    for n in range(5):
        yield {
            "resourceType": "Patient",
            "id": f"p{n}",
            "gender": ["female", "male"][n % 2],
            "birthDate": f"195{n}-01-01",
            "name": [{"family": f"{CANARY}{n}", "given": ["Ann"]}],
            "managingOrganization": {"reference": "Organization/north"},
        }
        for m in range(3):
            yield {
                "resourceType": "Observation",
                "id": f"o{n}{m}",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
                "subject": {"reference": f"Patient/p{n}"},
                "effectiveDateTime": f"2024-01-0{m + 1}",
                "valueQuantity": {"value": Decimal(f"7{m}.10"), "unit": "/min"},
            }
        yield {
            "resourceType": "Condition",
            "id": f"c{n}",
            "subject": {"reference": f"Patient/p{n}"},
            "code": {"text": "x"},
        }


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("search"), POLICY) as made:
        admit(made, "person", **dict.fromkeys(("doctor", "intern", "other", "clerk"), "clinician"))
        fill(made, *resources())
        yield made


Token = Callable[..., dict[str, str]]


@pytest.fixture
def client(address: str, token: Token) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30, headers=token()) as made:
        yield made


def found(answer: httpx.Response, mode: str = "match") -> list[str]:
    assert answer.status_code == 200, answer.text
    listed = answer.json().get("entry", [])
    return [
        f"{one['resource']['resourceType']}/{one['resource']['id']}"
        for one in listed
        if one["search"]["mode"] == mode
    ]


def links(answer: httpx.Response) -> dict[str, str]:
    return {one["relation"]: one["url"] for one in answer.json()["link"]}


def pages(client: httpx.Client, answer: httpx.Response, **other: Any) -> Iterator[httpx.Response]:
    yield answer
    while "next" in links(answer):
        answer = client.get(links(answer)["next"], **other)
        assert answer.status_code == 200, answer.text
        yield answer


# -- levels ----------------------------------------------------------------------------------------------------------


def test_one_type(client: httpx.Client, address: str) -> None:
    answer = client.get("/fhir/Observation", params={"subject:Patient.name": CANARY.lower() + "1", "_sort": "-date"})
    assert found(answer) == ["Observation/o12", "Observation/o11", "Observation/o10"]
    bundle = answer.json()
    assert (bundle["type"], bundle["total"]) == ("searchset", 3)
    assert bundle["entry"][0]["fullUrl"] == f"{address}/fhir/Observation/o12"
    meta = bundle["entry"][0]["resource"]["meta"]
    assert (meta["versionId"], meta["lastUpdated"][-1]) == ("1", "Z")
    assert '"value":72.10' in answer.text
    assert answer.headers["Content-Type"] == "application/fhir+json; charset=utf-8"


def test_several_types_and_all(client: httpx.Client) -> None:
    both = client.get("/fhir?_type=Patient,Organization&_id=p1,north&_sort=_id")
    assert sorted(found(both)) == ["Organization/north", "Patient/p1"]
    assert sorted(found(client.get("/fhir?_id=p1,o10,c1"))) == ["Condition/c1", "Observation/o10", "Patient/p1"]
    assert client.get("/fhir?_type=Patient&_summary=count").json()["total"] == 5


def test_compartments(client: httpx.Client) -> None:
    assert found(client.get("/fhir/Patient/p1/Observation?_sort=date")) == [f"Observation/o1{n}" for n in range(3)]
    assert found(client.get("/fhir/Patient/p1/Observation?date=2024-01-02")) == ["Observation/o11"]
    whole = found(client.get("/fhir/Patient/p1/*?_count=100"))
    assert {"Observation/o10", "Condition/c1"} <= set(whole)
    assert not any(one.endswith(("p2", "o20", "c2")) for one in whole)
    assert found(client.get("/fhir/Patient/nobody/Observation")) == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/fhir/Patience", 404, "http.unknown_type"),
        ("/fhir/Patient/p1/Patience", 404, "http.no_route"),
        ("/fhir/Patient/p1/_past", 404, "http.no_route"),
        ("/fhir/Organization/north/Patient", 404, "http.no_compartment"),
        ("/fhir/Patient/p_1/Observation", 404, "http.no_such_resource"),
        ("/fhir/Patient?colour=red", 400, "search.unknown_parameter"),
        ("/fhir/Patient?name:fuzzy=x", 400, "search.unknown_modifier"),
        ("/fhir/Patient?birthdate=soon", 400, "search.bad_value"),
        ("/fhir/Patient?_filter=x", 400, "search.unsupported"),
        ("/fhir?_type=Patience", 400, "search.bad_value"),
        ("/fhir/Patient?name=a&_page=x", 400, "store.page"),
        ("/fhir/Patient?_page=a&_page=b", 400, "http.repeated_parameter"),
        ("/fhir/Patient?_format=xml", 406, "http.format"),
    ],
)
def test_what_is_wrong_is_an_outcome(client: httpx.Client, path: str, status: int, code: str) -> None:
    outcome(client.get(path), status, code)


def test_the_parameter_is_named_and_its_value_is_not(client: httpx.Client) -> None:
    told = client.get("/fhir/Patient", params={"colour": CANARY}).json()["issue"][0]["diagnostics"]
    assert "colour" in told
    assert CANARY not in told


# -- forms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["/fhir/Patient", "/fhir", "/fhir/Patient/p1/*", "/fhir/Patient/p1/Observation"])
def test_by_post_is_the_same_search(client: httpx.Client, level: str) -> None:
    asked = {"_sort": "_id", "_total": "accurate", **({"_type": "Patient"} if level == "/fhir" else {})}
    by_get = client.get(level, params=asked)
    by_post = client.post(f"{level}/_search", data=asked)
    assert found(by_get)
    assert by_post.json()["entry"] == by_get.json()["entry"]
    assert by_post.json()["total"] == by_get.json()["total"]


def test_a_form_adds_to_the_address(client: httpx.Client) -> None:
    both = client.post("/fhir/Patient/_search?gender=female", data={"birthdate": "ge1952-01-01"})
    assert found(both) == ["Patient/p2", "Patient/p4"]
    assert found(client.post("/fhir/Patient/_search?gender=female")) == ["Patient/p0", "Patient/p2", "Patient/p4"]


def test_another_body_is_refused(client: httpx.Client) -> None:
    outcome(client.post("/fhir/Patient/_search", json={"gender": "female"}), 415, "http.media_type")
    assert client.request("GET", "/fhir/Patient", content=b"gender=male").status_code == 400
    long = client.post("/fhir/Patient/_search", data={"_id": "x" * (5 * 1024 * 1024)})
    outcome(long, 413, "http.body_too_large")


def test_a_long_form_is_taken(client: httpx.Client) -> None:
    many = ",".join(["p1", *(f"no-such-{n}" for n in range(900))])
    assert found(client.post("/fhir/Patient/_search", data={"_id": many})) == ["Patient/p1"]


# -- links and pages -------------------------------------------------------------------------------------------------


def test_pages_follow_links(client: httpx.Client) -> None:
    first = client.get("/fhir/Observation?code=http://loinc.org|8867-4&_sort=-date,_id&_count=4")
    every = list(pages(client, first))
    listed = [one for page in every for one in found(page)]
    assert len(every) == 4
    assert len(listed) == len(set(listed)) == 15
    assert "_page" not in links(first)["self"]
    assert links(every[1])["self"] == links(first)["next"]
    assert found(client.get(links(every[2])["first"])) == found(first)
    assert "next" not in links(every[-1])


def test_a_page_is_for_its_search(client: httpx.Client, token: Token) -> None:
    first = client.get("/fhir/Observation?_count=4")
    following = links(first)["next"]
    assert found(client.get(following)) == found(client.get(following))
    outcome(client.get(following.replace("/Observation?", "/Condition?")), 400, "store.page")
    outcome(client.get(following + "&code=x"), 400, "store.page")
    outcome(client.get(following[:-3] + "AAA"), 400, "store.page")
    outcome(client.get(following, headers=token("auditor")), 403, "access.denied")


def test_a_post_leaves_nothing_in_addresses(client: httpx.Client) -> None:
    asked = {"subject:Patient.name": CANARY, "_count": "4"}
    first = client.post("/fhir/Observation/_search", data=asked)
    every = list(pages(client, first))
    assert len({one for page in every for one in found(page)}) == 15
    for page in every:
        following = links(page).get("next", "")
        assert CANARY not in following
        assert "Patient" not in following
    again = list(pages(client, client.get("/fhir/Observation", params=asked)))
    assert [found(one) for one in every] == [found(one) for one in again]


def test_a_sealed_search_is_for_its_caller_and_is_not_added_to(client: httpx.Client, token: Token) -> None:
    first = client.post("/fhir/Observation/_search", data={"subject:Patient.name": CANARY, "_count": "4"})
    following = links(first)["next"]
    outcome(client.get(following, headers=token("other")), 400, "store.page")
    assert wrong(client.get(following + "&code=x"))[0] == 400
    outcome(client.get(following[:-3] + "AAA"), 400, "store.page")
    outcome(client.get(following.replace("/Observation?", "/Condition?")), 400, "store.page")


def test_a_very_long_post_is_paged_by_post(client: httpx.Client) -> None:
    rng = random.Random(7)
    many = ",".join(
        [f"o{n}{m}" for n in range(5) for m in range(3)] + [f"{rng.getrandbits(200):x}" for _ in range(400)]
    )
    asked = {"_id": many, "_count": "4"}
    answer, listed = client.post("/fhir/Observation/_search", data=asked), []
    for _ in range(4):
        listed += found(answer)
        if "next" in links(answer):
            following = links(answer)["next"]
            assert len(following) < 300
            assert "/_search?_page=" in following
            answer = client.post(following, data=asked)
    assert len(set(listed)) == len(listed) == 15


def test_a_form_that_packs_well_is_paged_too(client: httpx.Client) -> None:
    asked = {"code:not": "a" * (1 << 20), "_count": "4"}
    first = client.post("/fhir/Observation/_search", data=asked)
    following = client.post(links(first)["next"], data=asked)
    assert (len(found(first)), len(found(following))) == (4, 4)


# -- what comes with it ----------------------------------------------------------------------------------------------


def test_includes(client: httpx.Client) -> None:
    answer = client.get(
        "/fhir/Observation?_id=o10,o11&_include=Observation:subject&_include:iterate=Patient:organization"
    )
    assert found(answer) == ["Observation/o10", "Observation/o11"]
    assert sorted(found(answer, "include")) == ["Organization/north", "Patient/p1"]
    back = client.get("/fhir/Patient?_id=p1&_revinclude=Condition:subject")
    assert found(back, "include") == ["Condition/c1"]


def test_counts_summaries_and_elements(client: httpx.Client) -> None:
    counted = client.get("/fhir/Observation?_summary=count")
    assert (counted.json()["total"], "entry" in counted.json()) == (15, False)
    assert client.get("/fhir/Observation?_count=0").json()["total"] == 15
    cut = client.get("/fhir/Patient?_id=p1&_elements=gender").json()["entry"][0]["resource"]
    assert set(cut) == {"resourceType", "id", "meta", "gender"}
    assert cut["meta"]["tag"][0]["code"] == "SUBSETTED"


@pytest.mark.parametrize(
    "empty", ["name=", "_id=", "gender:missing=", "organization.name=", "_has:Observation:patient:code=", "_include="]
)
def test_what_has_no_value_is_left_out_and_told(client: httpx.Client, empty: str) -> None:
    """https://hl7.org/fhir/R4/search.html#errors"""
    answer = client.get(f"/fhir/Patient?{empty}&_count=&_summary=&_format=&birthdate=1951-01-01")
    assert found(answer) == ["Patient/p1"]
    (told,) = [one["resource"] for one in answer.json()["entry"] if one["search"]["mode"] == "outcome"]
    assert empty.removesuffix("=") in told["issue"][0]["diagnostics"]
    assert links(answer)["self"].endswith("/fhir/Patient?birthdate=1951-01-01")
    said = [issue["diagnostics"] for issue in told["issue"][1:]]
    assert [one.split()[2] for one in said] == ["_count,", "_summary,", "_format,"]
    posted = client.post("/fhir/Patient/_search", data={empty.removesuffix("="): "", "birthdate": "1951-01-01"})
    assert found(posted) == ["Patient/p1"]
    strict = [("Prefer", "return=minimal"), ("Prefer", "handling=strict")]
    assert client.get(f"/fhir/Patient?{empty}", headers=strict).status_code == 400


def test_what_is_unknown_is_an_error_without_a_value_too(client: httpx.Client) -> None:
    outcome(client.get("/fhir/Patient?colour="), 400, "search.unknown_parameter")
    outcome(client.get("/fhir/Patient?name:fuzzy="), 400, "search.unknown_modifier")
    outcome(client.get("/fhir/Patient?name=,"), 400, "search.bad_value")


def test_what_every_resource_has_is_never_missing(client: httpx.Client) -> None:
    for code in ("_lastUpdated", "_id"):
        assert len(found(client.get(f"/fhir/Patient?{code}:missing=false"))) == 5
        assert found(client.get(f"/fhir/Patient?{code}:missing=true")) == []
        assert found(client.get(f"/fhir/Patient?gender=female&_id=p0,p1&{code}:missing=false")) == ["Patient/p0"]
        assert found(client.get(f"/fhir/Observation?subject:Patient.{code}:missing=true")) == []
        assert found(client.get(f"/fhir?_type=Patient,Observation&_id=p1&{code}:missing=false")) == ["Patient/p1"]


def test_an_offset_needs_no_escape_in_an_address(client: httpx.Client) -> None:
    """A plus in a query is a plus (RFC 3986), and a blank in a form only."""
    for path in ("Observation?date=ge2024-01-03T01:00:00", "Patient/p1/$everything?_since=2024-01-01T00:00:00"):
        plain, escaped = (client.get(f"/fhir/{path}{plus}01:00") for plus in ("+", "%2B"))
        assert found(plain) == found(escaped) != []
    for wrong_ in ("2024-01-03 01:00", "2024-01-03 10:00:00", "2024 01"):
        outcome(client.get("/fhir/Observation", params={"date": wrong_}), 400, "search.bad_value")


def test_a_value_set_by_its_address(client: httpx.Client, address: str, workspace: Workspace) -> None:
    codes = {"system": "http://loinc.org", "concept": [{"code": "8867-4"}]}
    rates = {"resourceType": "ValueSet", "id": "rates", "status": "active", "compose": {"include": [codes]}}
    fill(workspace, {**rates, "url": "http://sets.test/rates"})
    for said in ("http://sets.test/rates", "ValueSet/rates", f"{address}/fhir/ValueSet/rates"):
        assert len(found(client.get("/fhir/Observation", params={"code:in": said}))) == 15
        assert found(client.get("/fhir/Observation", params={"code:not-in": said})) == []
    for said in ("ValueSet/none", "rates", "CodeSystem/rates", "http://other.test/ValueSet/rates"):
        outcome(client.get("/fhir/Observation", params={"code:in": said}), 400, "terminology.unknown_value_set")


def test_sort_may_repeat(client: httpx.Client) -> None:
    listed = client.get("/fhir/Patient?_sort=gender,-birthdate")
    repeated = client.get("/fhir/Patient?_sort=gender&_sort=-birthdate&_count=2")
    assert [one for page in pages(client, repeated) for one in found(page)] == found(listed)
    assert links(repeated)["self"].endswith("?_count=2&_sort=gender%2C-birthdate")


def test_lenient_says_what_it_left_out(client: httpx.Client) -> None:
    asked = "/fhir/Patient?gender=female&colour=red&name:fuzzy=x&_sort=-birthdate"
    assert client.get(asked).status_code == 400
    for prefer in ("handling=lenient", 'return=minimal, handling="lenient"', "respond-async; handling=lenient"):
        answer = client.get(asked, headers={"Prefer": prefer})
        assert found(answer) == ["Patient/p4", "Patient/p2", "Patient/p0"]
        assert answer.headers["Preference-Applied"] == "handling=lenient"
        (left_out,) = [one for one in answer.json()["entry"] if one["search"]["mode"] == "outcome"]
        said = " ".join(issue["diagnostics"] for issue in left_out["resource"]["issue"])
        assert "colour" in said
        assert "name:fuzzy" in said
        assert "colour" not in links(answer)["self"]
        assert "gender=female" in links(answer)["self"]
    assert client.get(asked, headers={"Prefer": "handling=strict"}).status_code == 400
    bad = client.get("/fhir/Patient?birthdate=soon", headers={"Prefer": "handling=lenient"})
    outcome(bad, 400, "search.bad_value")


def test_formats(client: httpx.Client) -> None:
    for accept in ("application/fhir+json", "application/json;q=0.9, text/html", "*/*"):
        assert client.get("/fhir/Patient", headers={"Accept": accept}).status_code == 200
    for accept in ("application/fhir+xml", "text/html", "application/fhir+json; fhirVersion=3.0", "*/*;q=0"):
        outcome(client.get("/fhir/Patient", headers={"Accept": accept}), 406, "http.format")
    for told in ("json", "application/fhir%2Bjson", "application/fhir+json"):
        assert client.get(f"/fhir/Patient?_format={told}").status_code == 200
    assert client.get("/fhir/Patient?_pretty=true&_count=1").text.startswith("{\n  ")


def test_head_has_the_headers_alone(client: httpx.Client) -> None:
    answer = client.head("/fhir/Patient?gender=female")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 100


# -- who may ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        "/fhir/Condition",
        "/fhir/Patient?_has:Condition:patient:code:text=x",
        "/fhir/Patient?_revinclude=Condition:subject",
        "/fhir?_id=p1",
        "/fhir/Patient/p1/*",
        "/fhir?_type=Patient,Condition",
    ],
)
def test_a_denied_type_refuses_the_whole(
    client: httpx.Client, workspace: Workspace, token: Token, asked: str
) -> None:
    assert client.get(asked).status_code == 200
    answer = client.get(asked, headers=token("intern"))
    outcome(answer, 403, "access.denied")
    assert "interns see no diagnoses" in [issue["diagnostics"] for issue in answer.json()["issue"][1:]]
    assert "Patient/p" not in answer.text
    act = act_of(workspace, answer)
    assert (act["phase"], act["principal"]) == ("refused", "intern")
    assert "interns see no diagnoses" in act["reasons"]


def test_validation_does_not_tell_what_is_there_of_a_denied_type(
    client: httpx.Client, workspace: Workspace, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = msgspec.structs.replace(workspace.settings.validation, references="on")
    monkeypatch.setattr(workspace, "settings", msgspec.structs.replace(workspace.settings, validation=validation))

    def lost(who: str, reference: str) -> list[str]:
        body = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
        body |= {"diagnosis": [{"condition": {"reference": reference}}]}
        answer = client.post("/fhir/Encounter/$validate", json=body, headers=token(who))
        issues = answer.json()["issue"]
        return [place for one in issues if one["code"] == "not-found" for place in one["expression"]]

    at = ["Encounter.diagnosis[0].condition.reference"]
    assert lost("doctor", "Condition/c1") == []
    assert lost("doctor", "Condition/no-such") == at
    assert lost("intern", "Condition/c1") == lost("intern", "Condition/no-such") == at


def test_one_act_names_all_types(client: httpx.Client, workspace: Workspace) -> None:
    answer = client.get("/fhir/Observation?subject:Patient.organization.name=north&_revinclude=Condition:subject")
    assert answer.status_code in (200, 400)
    answer = client.get("/fhir/Observation?subject:Patient.organization.name=north")
    act = act_of(workspace, answer)
    assert (act["target"], act["types"]) == ("Observation", ["Observation", "Organization", "Patient"])
    assert len(act["read"]) == 15


def test_who_may_see_some_types_pages_through_them(client: httpx.Client, token: Token) -> None:
    asked, clerk = {"_type": "Patient,Organization", "_count": "2"}, token("clerk")
    for first in (
        client.get("/fhir", params=asked, headers=clerk),
        client.post("/fhir/_search", data=asked, headers=clerk),
    ):
        listed = [one for page in pages(client, first, headers=clerk) for one in found(page)]
        assert len(listed) == len(set(listed)) == 6
    other = links(first)["next"].replace("Organization", "Condition")
    assert wrong(client.get(other, headers=clerk))[0] in (400, 403)
    outcome(client.get(other), 400, "store.page")
    outcome(client.get("/fhir?_id=p1", headers=clerk), 403, "access.denied")


# -- capabilities ----------------------------------------------------------------------------------------------------


def test_capabilities_list_what_is_offered(client: httpx.Client) -> None:
    said = httpx.get(f"{client.base_url}/fhir/metadata", timeout=30).json()
    rest = said["rest"][0]
    assert {"search-system", "history-system"} <= {one["code"] for one in rest["interaction"]}
    types = {one["type"]: one for one in rest["resource"]}
    offered = {one["name"]: one for one in types["Observation"]["searchParam"]}
    assert {"code-value-quantity", "combo-code", "_has", "_lastUpdated", "_text", "_profile"} <= set(offered)
    assert offered["code"]["definition"] == "http://hl7.org/fhir/SearchParameter/clinical-code"
    assert {one["name"] for one in types["Patient"]["searchParam"]} >= {"race", "ethnicity"}
    assert "near" in {one["name"] for one in types["Location"]["searchParam"]}
    assert "Observation:subject" in types["Observation"]["searchInclude"]
    assert "Observation:subject" in types["Patient"]["searchRevInclude"]
    assert "http://hl7.org/fhir/CompartmentDefinition/patient" in rest["compartment"]
    assert client.get("/fhir/metadata").json() == said


def test_the_accounts_own_parameters_are_told_to_its_callers_once_they_are_built(
    client: httpx.Client, workspace: Workspace
) -> None:
    def told(answer: httpx.Response) -> bool:
        types = {one["type"]: one for one in answer.json()["rest"][0]["resource"]}
        return "unit-of" in {one["name"] for one in types["Observation"]["searchParam"]}

    own = {
        "resourceType": "SearchParameter",
        "id": "unit-of",
        "url": "http://example.org/unit-of",
        "name": "UnitOf",
        "status": "active",
        "description": "The unit",
        "code": "unit-of",
        "base": ["Observation"],
        "type": "string",
        "expression": "Observation.value.ofType(Quantity).unit",
    }
    operator = known(workspace, "operator")
    with workspace.gate.enter(operator, "record:ingest", "record", "TREAT", account="production") as permit:
        with workspace.vault.database.transaction(permit) as tx:
            workspace.resources.update(permit, tx, own)
        outcome(client.get("/fhir/Observation?unit-of=/min"), 400, "search.unknown_parameter")
        assert not told(client.get("/fhir/metadata"))
        workspace.resources.reindex(permit)
    assert told(client.get("/fhir/metadata"))
    assert not told(httpx.get(f"{client.base_url}/fhir/metadata", timeout=30))
    assert len(found(client.get("/fhir/Observation?unit-of=/min"))) == 15


# -- outside clients -------------------------------------------------------------------------------------------------


def test_fhirclient_searches_and_pages(address: str, token: Token) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fhirclient.models.observation import Observation
        from fhirclient.models.patient import Patient
        from fhirclient.server import FHIRServer

    server = FHIRServer(None, f"{address}/fhir")
    try:
        server.session.headers.update(token())
        women = Patient.where({"gender": "female", "_count": "2", "_sort": "birthdate"})
        pages = list(women.perform_iter(server))
        assert [len(page.entry) for page in pages] == [2, 1]
        listed = list(women.perform_resources_iter(server))
        assert [one.id for one in listed] == ["p0", "p2", "p4"]
        assert listed[0].birthDate.isostring == "1950-01-01"
        search = Observation.where({"subject:Patient.name": CANARY, "_count": "4"}).include("subject")
        mixed = list(search.perform_resources_iter(server))
        assert len({one.id for one in mixed if one.resource_type == "Observation"}) == 15
        assert len({one.id for one in mixed if one.resource_type == "Patient"}) == 5
        assert Patient.read("p1", server).name[0].family == f"{CANARY}1"
    finally:
        server.session.close()


# -- what is written down --------------------------------------------------------------------------------------------


def test_no_log_or_metric_holds_a_query(client: httpx.Client, log: Lines, workspace: Workspace) -> None:
    client.get("/fhir/Patient", params={"name": CANARY, "_has:Observation:patient:code": CANARY})
    client.get("/fhir/Patient", params={CANARY: "x"})
    client.get(f"/fhir/Patient/{CANARY}/Observation", params={"code": CANARY})
    client.post("/fhir/_search", data={"_type": "Patient", "_id": CANARY})
    client.get(f"/fhir/{CANARY}")
    assert log.said
    assert CANARY not in repr(log.said)
    assert CANARY not in client.get("/metrics").text
    with workspace.vault.database.ledger() as connection:
        assert CANARY not in repr(Acts(connection).find(limit=500))
    assert "/fhir/{compartment}/{id}/{type}" in {one.get("route") for one in log.said}
    assert Path(workspace.vault.root).is_dir()
