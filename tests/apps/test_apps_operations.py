"""``$everything``, ``$lastn``, ``$match`` and ``$meta`` over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, act_of, admit, outcome, own_workspace, recording

from carelake.apps.wiring import Workspace

CANARY = "Zyxwvutsrq"
TAG = {"system": "http://tags", "code": "x"}
PEOPLE = {"doctor": "clinician", "machine": "application", "auditor2": "auditor"}


def observation(key: str, code: str, day: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": "Patient/p"},
        "performer": [{"reference": "Practitioner/dr"}],
        "effectiveDateTime": day,
    }


PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "name": [{"family": CANARY, "given": ["Ada"]}],
    "birthDate": "1980-02-13",
    "gender": "female",
    "identifier": [{"system": "http://mrn", "value": "1"}],
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("operations")) as made:
        admit(made, "person", **PEOPLE)
        with recording(made) as (permit, tx):
            for one in (
                {"resourceType": "Practitioner", "id": "dr"},
                PATIENT,
                observation("o1", "A", "2024-01-01"),
                observation("o2", "A", "2024-02-01"),
                observation("o3", "B", "2024-03-01"),
                {"resourceType": "Patient", "id": "labelled"},
                {"resourceType": "Patient", "id": "gone"},
            ):
                made.resources.update(permit, tx, one)
            made.resources.delete(permit, tx, "Patient", "gone")
        yield made


@pytest.fixture
def client(as_: Callable[[str], httpx.Client]) -> httpx.Client:
    return as_("doctor")


@pytest.fixture
def writer(as_: Callable[[str], httpx.Client]) -> httpx.Client:
    return as_("machine")


def refs(bundle: dict[str, Any], mode: str = "match") -> list[str]:
    found = [one for one in bundle.get("entry", ()) if one["search"]["mode"] == mode]
    return [f"{one['resource']['resourceType']}/{one['resource']['id']}" for one in found]


# --- $everything --------------------------------------------------------------------------------------------------


def test_everything_of_a_patient(client: httpx.Client, address: str, workspace: Workspace) -> None:
    answer = client.get("/Patient/p/$everything")
    bundle = answer.json()
    assert (answer.status_code, bundle["type"], bundle["total"]) == (200, "searchset", 4)
    assert set(refs(bundle)) == {"Patient/p", "Observation/o1", "Observation/o2", "Observation/o3"}
    assert refs(bundle, "include") == ["Practitioner/dr"]
    assert bundle["entry"][0]["fullUrl"].startswith(f"{address}/fhir/")
    act = act_of(workspace, answer)
    assert (act["action"], act["target"], act["phase"]) == ("record:search", "Patient", "done")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_everything_are_followed_by_their_links(client: httpx.Client, method: str) -> None:
    listed = [{"name": "_count", "valueInteger": 2}, {"name": "_type", "valueString": "Observation,Practitioner"}]
    if method == "POST":
        answer = client.post("/Patient/p/$everything", json={"resourceType": "Parameters", "parameter": listed})
    else:
        answer = client.get("/Patient/p/$everything", params={"_count": "2", "_type": "Observation,Practitioner"})
    seen: list[str] = []
    for _ in range(5):
        assert answer.status_code == 200, answer.text
        bundle = answer.json()
        seen += [*refs(bundle), *refs(bundle, "include")]
        links = {one["relation"]: one["url"] for one in bundle["link"]}
        if "next" not in links:
            break
        answer = client.get(links["next"])
    assert seen == ["Observation/o1", "Observation/o2", "Observation/o3", "Practitioner/dr"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("color=red", 400, "http.unknown_parameter"),
        ("start=yesterday", 400, "http.parameter"),
        ("_since=2024-13-01", 400, "http.parameter"),
        ("_type=Nothing", 400, "http.parameter"),
        ("_count=0", 400, "http.parameter"),
        ("_count=-1", 400, "http.parameter"),
        ("_count=many", 400, "http.parameter"),
        ("_count=1&_count=2", 400, "http.repeated_parameter"),
        ("_page=nonsense", 400, "store.page"),
        ("_format=xml", 406, "http.format"),
    ],
)
def test_everything_asked_for_wrongly(client: httpx.Client, query: str, status: int, code: str) -> None:
    outcome(client.get(f"/Patient/p/$everything?{query}"), status, code)


def test_everything_of_nobody(client: httpx.Client) -> None:
    outcome(client.get("/Patient/nobody/$everything"), 404, "store.no_such_resource")
    outcome(client.get("/Patient/gone/$everything"), 410, "store.deleted")
    outcome(client.get("/Patient/in valid/$everything"), 404, "http.no_such_resource")
    outcome(client.get("/Encounter/e/$everything?start=2024-01-01"), 400, "http.unknown_parameter")
    outcome(client.get("/Observation/o1/$everything"), 404, "http.no_route")


def test_who_may_not_search_gets_nothing(as_: Callable[[str], httpx.Client]) -> None:
    auditor = as_("auditor2")
    for path in ("/Patient/p/$everything", "/Observation/$lastn?patient=p&code=A", "/Patient/p/$meta", "/$meta"):
        outcome(auditor.get(path), 403, "access.denied")
    body = {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": PATIENT}]}
    outcome(auditor.post("/Patient/$match", json=body), 403, "access.denied")


# --- $lastn -------------------------------------------------------------------------------------------------------


def test_the_newest_of_each_code(client: httpx.Client) -> None:
    assert refs(client.get("/Observation/$lastn?patient=p&code=A,B").json()) == ["Observation/o3", "Observation/o2"]
    found = client.get("/Observation/$lastn?subject=Patient/p&code=A&max=2&_include=Observation:performer").json()
    assert refs(found) == ["Observation/o2", "Observation/o1"]
    assert refs(found, "include") == ["Practitioner/dr"]


def test_the_newest_of_each_code_by_post(client: httpx.Client) -> None:
    listed = [
        {"name": "patient", "valueId": "p"},
        {"name": "code", "valueString": "A"},
        {"name": "max", "valueInteger": 2},
    ]
    answer = client.post("/Observation/$lastn", json={"resourceType": "Parameters", "parameter": listed})
    assert refs(answer.json()) == ["Observation/o2", "Observation/o1"]
    assert answer.json()["link"][0]["url"].endswith("/Observation/$lastn?patient=p&code=A&max=2")
    for wrong in ({"name": "code", "valueCoding": {"code": "A"}}, {"name": "code"}):
        said = {"resourceType": "Parameters", "parameter": [listed[0], wrong]}
        assert client.post("/Observation/$lastn", json=said).status_code in (400, 422)
    outcome(client.post("/Observation/$lastn", json=PATIENT), 400, "http.parameter")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("patient=p", "http.lastn"),
        ("code=A", "http.lastn"),
        ("patient=p&code=A&_sort=date", "http.lastn"),
        ("patient=p&code=A&_count=1", "http.lastn"),
        ("patient=p&code=A&max=0", "http.parameter"),
        ("patient=p&code=A&max=all", "http.parameter"),
        ("patient=p&code=A&max=1&max=2", "http.repeated_parameter"),
        ("patient=p&code=A&colour=red", "search.unknown_parameter"),
    ],
)
def test_lastn_asked_for_wrongly(client: httpx.Client, query: str, code: str) -> None:
    outcome(client.get(f"/Observation/$lastn?{query}"), 400, code)


# --- $match -------------------------------------------------------------------------------------------------------


def sought(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in ({**PATIENT, "id": None} | more).items() if value is not None}


def asking(patient: dict[str, Any], **more: Any) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"name": "resource", "resource": patient}]
    listed += [
        {"name": name, "valueBoolean" if isinstance(value, bool) else "valueInteger": value}
        for name, value in more.items()
    ]
    return {"resourceType": "Parameters", "parameter": listed}


def test_match_tells_score_and_grade(client: httpx.Client, log: Lines) -> None:
    answer = client.post("/Patient/$match", json=asking(sought(), onlyCertainMatches=True, count=3))
    assert answer.status_code == 200, answer.text
    (entry,) = answer.json()["entry"]
    assert entry["resource"]["id"] == "p"
    assert entry["search"]["score"] > 0.99
    grade = {"url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": "certain"}
    assert entry["search"]["extension"] == [grade]
    # The Patient alone is understood too (R4: the one resource parameter may be the body).
    likely = client.post("/Patient/$match", json=sought(identifier=None)).json()
    assert likely["entry"][0]["search"]["extension"][0]["valueCode"] == "probable"
    assert (
        client.post("/Patient/$match", json=asking(sought(identifier=None), onlyCertainMatches=True)).json()["total"]
        == 0
    )
    assert CANARY not in str(log.said)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"resourceType": "Parameters"}, 400, "http.parameter"),
        (asking({"resourceType": "Observation", "status": "final", "code": {"text": "x"}}), 400, "http.parameter"),
        (asking(sought(), count=0), 400, "http.parameter"),
        (asking(sought(), certain=True), 400, "http.unknown_parameter"),
        (asking(sought(name=CANARY)), 422, "http.invalid_parameters"),
        (asking(sought(name=None, identifier=None)), 400, "store.match_too_little"),
        ([], 400, "http.body"),
    ],
)
def test_match_asked_for_wrongly(client: httpx.Client, body: Any, status: int, code: str) -> None:
    answer = client.post("/Patient/$match", json=body)
    outcome(answer, status, code)
    assert CANARY not in answer.text


# --- $meta --------------------------------------------------------------------------------------------------------


def meta(**said: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": said}]}


def told(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["parameter"]
    assert one["name"] == "return"
    found: dict[str, Any] = one["valueMeta"]
    return found


def test_labels_are_added_and_taken_away(client: httpx.Client, writer: httpx.Client) -> None:
    before = told(client.get("/Patient/labelled/$meta"))
    assert told(client.post("/Patient/labelled/$meta", json={"resourceType": "Parameters"})) == before
    added = told(writer.post("/Patient/labelled/$meta-add", json=meta(tag=[TAG], profile=["http://p/1"])))
    assert added["tag"] == [TAG]
    assert int(added["versionId"]) == int(before["versionId"]) + 1
    again = told(writer.post("/Patient/labelled/$meta-add", json=meta(tag=[{**TAG, "display": "other"}, TAG])))
    assert (again["tag"], again["versionId"]) == ([TAG], added["versionId"])
    for path in ("/Patient/$meta", "/$meta"):
        assert told(client.get(path)) == {"profile": ["http://p/1"], "tag": [TAG]}
    assert refs(client.get("/Patient?_tag=http://tags|x").json()) == ["Patient/labelled"]
    removed = told(writer.post("/Patient/labelled/$meta-delete", json=meta(tag=[TAG, {"code": "never"}])))
    assert (removed["profile"], "tag" in removed) == (["http://p/1"], False)
    assert told(client.get("/Patient/$meta")) == {"profile": ["http://p/1"]}
    assert told(client.get("/Observation/$meta")) == {}


def test_labels_need_a_right_to_write(client: httpx.Client) -> None:
    outcome(client.post("/Patient/labelled/$meta-add", json=meta(tag=[TAG])), 403, "access.denied")


def test_who_may_not_read_is_told_no_labels_that_were_there(
    writer: httpx.Client, as_: Callable[[str], httpx.Client]
) -> None:
    writer.post("/Patient/labelled/$meta-add", json=meta(security=[TAG]))
    loader = as_("pipeline")
    assert loader.get("/Patient/labelled/$meta").status_code == 403
    for name in ("$meta-add", "$meta-delete"):
        assert set(told(loader.post(f"/Patient/labelled/{name}", json=meta(tag=[TAG])))) == {
            "versionId",
            "lastUpdated",
        }
    writer.post("/Patient/labelled/$meta-delete", json=meta(security=[TAG]))


def test_meta_asked_for_wrongly(writer: httpx.Client) -> None:
    outcome(writer.get("/Nothing/$meta"), 404, "http.unknown_type")
    outcome(writer.get("/Patient/nobody/$meta"), 404, "store.no_such_resource")
    outcome(writer.post("/Patient/gone/$meta-add", json=meta(tag=[TAG])), 410, "store.deleted")
    outcome(writer.post("/Patient/p/$meta-add", json={"resourceType": "Parameters"}), 400, "http.parameter")
    outcome(writer.post("/Patient/p/$meta-add", json=meta(tag="x")), 422, "http.invalid_parameters")
    outcome(writer.get("/Patient/p/$meta?x=1"), 400, "http.unknown_parameter")
