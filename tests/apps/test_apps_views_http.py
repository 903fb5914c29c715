"""SQL on FHIR over HTTP: rows of views and queries, exports in the background, saved views, and who may."""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.apps.served import admit, bearer, own_workspace, recording

from carelake.apps.wiring import Workspace
from carelake.lake.following.sync import sync

VIEW = {
    "resourceType": "ViewDefinition",
    "url": "http://example.org/ViewDefinition/people",
    "version": "1.0.0",
    "name": "people",
    "status": "active",
    "resource": "Patient",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "gender", "path": "gender"},
                {"name": "born", "path": "birthDate"},
                {"name": "active", "path": "active"},
            ]
        }
    ],
}
VALUES = {
    "resourceType": "ViewDefinition",
    "url": "http://example.org/ViewDefinition/values",
    "name": "values_of",
    "status": "active",
    "resource": "Observation",
    "select": [
        {
            "column": [
                {"name": "patient", "path": "subject.getReferenceKey(Patient)"},
                {"name": "value", "path": "value.ofType(Quantity).value"},
            ]
        }
    ],
}
PATIENTS = [
    {"resourceType": "Patient", "id": "p1", "gender": "male", "birthDate": "1970-06-15", "active": True},
    {"resourceType": "Patient", "id": "p2", "gender": "female", "birthDate": "1990-01-01"},
    {"resourceType": "Patient", "id": "p3", "gender": "female"},
]
ROWS = [
    {"id": "p1", "gender": "male", "born": "1970-06-15", "active": True},
    {"id": "p2", "gender": "female", "born": "1990-01-01", "active": None},
    {"id": "p3", "gender": "female", "born": None, "active": None},
]
ASYNC = {"Prefer": "respond-async"}


def observation(key: str, of: str, value: float) -> dict[str, Any]:
    told = {"status": "final", "code": {"text": "x"}, "valueQuantity": {"value": value}}
    return {"resourceType": "Observation", "id": key, "subject": {"reference": f"Patient/{of}"}, **told}


def library(sql: str, *depends: tuple[str, str], **more: Any) -> dict[str, Any]:
    told = [{"type": "depends-on", "resource": of, "label": label} for label, of in depends]
    content = {"contentType": "application/sql", "data": base64.b64encode(sql.encode()).decode()}
    kind = {
        "coding": [{"system": "http://hl7.org/fhir/uv/sql-on-fhir/CodeSystem/LibraryTypesCodes", "code": "sql-query"}]
    }
    return {
        "resourceType": "Library",
        "status": "active",
        "type": kind,
        "relatedArtifact": told,
        "content": [content],
        **more,
    }


QUERY = library(
    "SELECT p.id, count(*) AS n, sum(v.value) AS total FROM p JOIN v ON v.patient = p.id -- :gender\n"
    "WHERE p.gender = :gender AND p.born >= :after GROUP BY p.id ORDER BY p.id",
    ("p", VIEW["url"]),
    ("v", VALUES["url"]),
    id="totals",
    url="http://example.org/Library/totals",
    name="totals",
    parameter=[
        {"name": "gender", "type": "code", "use": "in", "min": 1},
        {"name": "after", "type": "date", "use": "in"},
    ],
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("views")) as made:
        admit(made, "person", doctor="clinician", other="operator")
        group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True}
        group["member"] = [{"entity": {"reference": f"Patient/p{n}"}, "inactive": n == 3} for n in (1, 3)]
        kept = [*PATIENTS, group, QUERY, *(observation(f"o{n}", f"p{n % 2 + 1}", n) for n in range(5))]
        with recording(made) as (permit, tx):
            for one in kept:
                made.resources.update(permit, tx, one)
        with made.enter(made.local(None, "HOPERAT", None), "lake:sync", "lake", job=True) as permit:
            sync(permit, made.vault, made.resources, made.nouns)
        yield made


@pytest.fixture(scope="module")
def client(address: str, workspace: Workspace) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=30, headers=bearer(workspace, "operator", "HOPERAT")) as made:
        for view in (VIEW, VALUES):
            answer = made.put(f"/fhir/ViewDefinition/{view['name'].replace('_', '-')}", json=view)
            assert answer.status_code == 201, answer.text
        yield made


def parameters(**given: Any) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            key = {bool: "valueBoolean", int: "valueInteger", str: "valueString"}.get(type(one))
            told.append(
                {"name": name, key: one}
                if key
                else {"name": name, **(one if "part" in one or "valueReference" in one else {"resource": one})}
            )
    return {"resourceType": "Parameters", "parameter": told}


def reference(to: str) -> dict[str, Any]:
    return {"valueReference": {"reference": to}}


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: str(row["id"]))


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize(
    "path",
    ["/fhir/$viewdefinition-run", "/fhir/ViewDefinition/$viewdefinition-run", "/fhir/ViewDefinition/$run"],
)
def test_a_view_by_every_name_it_has(client: httpx.Client, path: str) -> None:
    sent = client.post(path, json=parameters(viewResource=VIEW))
    assert ordered(lines(sent)) == ROWS
    assert sent.headers["X-Lake-Snapshot"].startswith("snapshot:")
    assert lines(client.post(path, json=VIEW)) == lines(sent), "the view itself, and no Parameters"
    for said in ("ViewDefinition/people", "ViewDefinition/PEOPLE", VIEW["url"], f"{VIEW['url']}|1.0.0"):
        assert ordered(lines(client.post(path, json=parameters(viewReference=reference(said))))) == ROWS, said
        assert ordered(lines(client.get(path, params={"viewReference": said}))) == ROWS, said
    for said in ("ViewDefinition/nobody", f"{VIEW['url']}|2", "http://example.org/other", "Patient/p1"):
        assert client.get(path, params={"viewReference": said}).status_code == 404, said


@pytest.mark.parametrize("name", ["$run", "$viewdefinition-run"])
def test_a_view_by_its_address(client: httpx.Client, name: str) -> None:
    assert ordered(lines(client.get(f"/fhir/ViewDefinition/people/{name}"))) == ROWS
    assert client.get(f"/fhir/ViewDefinition/nobody/{name}").status_code == 404
    refused = client.post(f"/fhir/ViewDefinition/people/{name}", json=parameters(viewResource=VIEW))
    assert refused.status_code == 400, "the address names it"


def test_forms(client: httpx.Client) -> None:
    path = "/fhir/ViewDefinition/people/$run"
    told = client.get(path, params={"_format": "csv"})
    assert told.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert sorted(row["id"] for row in csv.DictReader(io.StringIO(told.text))) == ["p1", "p2", "p3"]
    bare = client.get(path, params={"_format": "text/csv", "header": "false"})
    assert len(bare.text.splitlines()) == 3
    assert ordered(client.get(path, headers={"Accept": "application/json"}).json()) == ROWS
    assert ordered(client.get(path, params={"_format": "json"}, headers={"Accept": "text/csv"}).json()) == ROWS
    parquet = client.get(path, params={"_format": "parquet"})
    assert parquet.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert ordered(pq.read_table(io.BytesIO(parquet.content)).to_pylist()) == ROWS
    arrow = client.get(path, params={"_format": "arrow"}).content
    assert ordered(pa.ipc.open_stream(arrow).read_all().to_pylist()) == ROWS
    fhir = client.get(path, params={"_format": "fhir", "patient": "Patient/p1"}).json()
    (row,) = fhir["parameter"]
    assert row["part"][0] == {"name": "id", "valueString": "p1"}
    assert row["part"][3] == {"name": "active", "valueBoolean": True}
    envelope = client.get(path, headers={"Accept": "application/fhir+json"}).json()
    assert (envelope["resourceType"], envelope["contentType"]) == ("Binary", "application/x-ndjson")
    assert len(base64.b64decode(envelope["data"]).splitlines()) == 3
    for said, status in (({"params": {"_format": "xml"}}, 400), ({"headers": {"Accept": "text/turtle"}}, 406)):
        assert client.get(path, **said).status_code == status


def test_filters(client: httpx.Client) -> None:
    def found(**given: Any) -> list[str]:
        rows = lines(client.get("/fhir/ViewDefinition/people/$run", params=given))
        return sorted(row["id"] for row in rows)

    assert found(patient="Patient/p2") == ["p2"]
    assert found(patient=["Patient/p2", "Patient/p3"]) == ["p2", "p3"]
    assert found(group="Group/g") == ["p1"]
    assert found(group="Group/g", patient="Patient/p2") == []
    assert len(found(_limit="2")) == 2
    assert found(_since="2020-01-01T00:00:00Z") == ["p1", "p2", "p3"]
    assert found(_since="2100-01-01T00:00:00Z") == []
    wrong = [{"patient": "Patient/p9"}, {"group": "Group/h"}, {"patient": "p1"}, {"_since": "x"}, {"_limit": "-1"}]
    for given in [*wrong, {"source": "s3://x"}, {"unknown": "1"}, {"header": "yes"}, {"_limit": ["1", "2"]}]:
        answer = client.get("/fhir/ViewDefinition/people/$run", params=given)
        assert answer.status_code == 400, given
        assert answer.json()["resourceType"] == "OperationOutcome"


def test_resources_that_are_sent(client: httpx.Client) -> None:
    sent = [
        {"resourceType": "Patient", "id": "x"},
        {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENTS[1]}]},
    ]
    told = client.post(
        "/fhir/$sql-run", json=parameters(subjectResource=VIEW, resource=[*sent, observation("o", "x", 1)])
    )
    assert [row["id"] for row in lines(told)] == ["x", "p2"]
    assert "X-Lake-Snapshot" not in told.headers
    both = client.post("/fhir/$sql-run", json=parameters(subjectResource=QUERY, resource=sent))
    assert both.status_code == 400


TOTALS = [{"id": "p2", "n": 2, "total": 4.0}]


@pytest.mark.parametrize("path", ["/fhir/$sqlquery-run", "/fhir/Library/$sqlquery-run", "/fhir/$sql-run"])
def test_queries(client: httpx.Client, path: str) -> None:
    named = "subject" if path.endswith("sql-run") else "query"
    values = {
        "resourceType": "Parameters",
        "parameter": [{"name": "gender", "valueCode": "female"}, {"name": "after", "valueDate": "1980-01-01"}],
    }
    for said in (
        {f"{named}Resource": QUERY},
        {f"{named}Reference": reference("Library/totals")},
        {f"{named}Canonical": QUERY["url"]},
    ):
        assert lines(client.post(path, json=parameters(**said, parameters=values))) == TOTALS, said
    narrowed = client.post(path, json=parameters(**said, parameters=values, patient=reference("Patient/p1")))
    assert lines(narrowed) == []
    missing = client.post(path, json=parameters(**said))
    assert (missing.status_code, missing.json()["issue"][0]["expression"]) == (400, ["parameters"])
    for name, value in (
        ("gender", {"valueInteger": 1}),
        ("other", {"valueString": "x"}),
        ("after", {"valueString": "x"}),
    ):
        wrong = {"resourceType": "Parameters", "parameter": [*values["parameter"], {"name": name, **value}]}
        answer = client.post(path, json=parameters(**said, parameters=wrong))
        assert answer.status_code == 400, name


def test_values_are_bound_and_never_text(client: httpx.Client) -> None:
    evil = "x' OR '1'='1"
    values = {
        "resourceType": "Parameters",
        "parameter": [{"name": "gender", "valueCode": "female"}, {"name": "after", "valueDate": "1980"}],
    }
    ask = library(
        "SELECT :said AS said, ':said' AS kept FROM p LIMIT 1",
        ("p", VIEW["url"]),
        parameter=[{"name": "said", "type": "string", "use": "in"}],
    )
    values = {"resourceType": "Parameters", "parameter": [{"name": "said", "valueString": evil}]}
    told = client.post("/fhir/$sqlquery-run", json=parameters(queryResource=ask, parameters=values))
    assert lines(told) == [{"said": evil, "kept": ":said"}]


def test_what_a_query_may_not(client: httpx.Client) -> None:
    def status(sql: str, *depends: tuple[str, str]) -> int:
        return client.post("/fhir/$sqlquery-run", json=parameters(queryResource=library(sql, *depends))).status_code

    people = ("p", str(VIEW["url"]))
    assert status("SELECT * FROM p", people) == 200
    for sql in ("SELECT * FROM Patient", "SELECT * FROM people", "DROP TABLE p", "SELECT 1; SELECT 2", "SELEC",
                "SELECT * FROM read_csv('/etc/passwd')", "COPY p TO 'x.csv'"):  # fmt: skip
        assert status(sql, people) == 422, sql
    assert status("SELECT * FROM q", ("q", "http://example.org/none")) == 404
    assert status("SELECT 1", people, people) == 422
    cycle = library("SELECT * FROM t", ("t", "http://example.org/me"), url="http://example.org/me")
    assert client.post("/fhir/$sql-run", json=parameters(subjectResource=cycle, context=cycle)).status_code == 422


def test_what_is_sent_beside_a_query(client: httpx.Client) -> None:
    inner = library("SELECT id FROM p WHERE gender = 'female'", ("p", "http://x/view"), url="http://x/women")
    outer = library("SELECT count(*) AS n FROM women", ("women", "http://x/women"))
    view = {**VIEW, "url": "http://x/view"}
    told = client.post("/fhir/$sql-run", json=parameters(subjectResource=outer, context=[inner, view]))
    assert lines(told) == [{"n": 2}]
    for context in ([inner, view, {**view, "url": "http://x/other"}], [inner, view, view], [{**view, "url": ""}]):
        answer = client.post("/fhir/$sql-run", json=parameters(subjectResource=outer, context=context))
        assert answer.status_code == 400
        assert answer.json()["issue"][0]["expression"] == ["context"]
    assert client.post("/fhir/$sql-run", json=parameters(subjectResource=outer, context=inner)).status_code == 404


def test_wrong_views_and_wrong_calls(client: httpx.Client) -> None:
    def status(**given: Any) -> int:
        answer = client.post("/fhir/$viewdefinition-run", json=parameters(**given))
        assert answer.json()["resourceType"] == "OperationOutcome"
        return answer.status_code

    column = {"select": [{"column": [{"name": "x", "path": "nothing"}]}]}
    assert status(viewResource={**VIEW, **column}) == 422
    assert status(viewResource={**VIEW, "select": [{"column": [{"name": "x", "path": "name.given & 1"}]}]}) in (
        400,
        422,
    )
    assert status(viewResource=VIEW, viewReference=reference("ViewDefinition/people")) == 400
    assert status() == 400
    assert status(viewResource=QUERY) == 400
    assert client.post("/fhir/$sql-run", json=parameters(subjectReference=reference("Library/no"))).status_code == 404
    assert (
        client.post("/fhir/$sql-run", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    )


def test_who_may(address: str, workspace: Workspace) -> None:
    with httpx.Client(base_url=address, timeout=30) as nobody:
        assert nobody.get("/fhir/ViewDefinition/people/$run").status_code == 401
        narrow = bearer(workspace, "operator", "HOPERAT", scope="system/*.rs")
        assert nobody.get("/fhir/ViewDefinition/people/$run", headers=narrow).status_code == 403
        open_to_all = nobody.get("/fhir/metadata/sql-run")
        assert open_to_all.json()["code"] == "sql-run"


def ended(client: httpx.Client, begun: httpx.Response) -> httpx.Response:
    assert begun.status_code == 202, begun.text
    until = time.monotonic() + 30
    while True:
        answer = client.get(begun.headers["Content-Location"])
        if answer.status_code != 202:
            return answer
        assert time.monotonic() < until
        time.sleep(0.1)


def outputs(result: dict[str, Any]) -> dict[str, str]:
    found = [one["part"] for one in result["parameter"] if one["name"] == "output"]
    return {name["valueString"]: place["valueUri"] for name, place in found}


def value(result: dict[str, Any], name: str) -> Any:
    (one,) = [one for one in result["parameter"] if one["name"] == name]
    return next(value for key, value in one.items() if key.startswith("value"))


def test_exports(client: httpx.Client, address: str, workspace: Workspace) -> None:
    parts = [
        {"part": [{"name": "name", "valueString": "all people"}, {"name": "viewResource", "resource": VIEW}]},
        {"part": [{"name": "viewReference", **reference("ViewDefinition/values-of")}]},
    ]
    sent = {**parameters(view=parts, clientTrackingId="mine", _format="csv"), "resourceType": "Parameters"}
    begun = client.post("/fhir/$viewdefinition-export", json=sent, headers=ASYNC)
    assert value(begun.json(), "clientTrackingId") == "mine"
    done = ended(client, begun)
    assert (done.status_code, done.content) == (303, b"")
    result = client.get(done.headers["Location"]).json()
    assert (value(result, "status"), value(result, "_format"), value(result, "clientTrackingId")) == (
        "completed",
        "csv",
        "mine",
    )
    files = outputs(result)
    assert set(files) == {"all people", "values_of"}
    told = client.get(files["all people"])
    assert told.headers["Content-Type"].startswith("text/csv")
    assert len(told.text.splitlines()) == 4
    with httpx.Client(timeout=30, headers=bearer(workspace, "other", "HOPERAT")) as other:
        for place in (begun.headers["Content-Location"], done.headers["Location"], files["values_of"]):
            assert other.get(place).status_code == 404, "another's job"
    assert client.delete(begun.headers["Content-Location"]).status_code == 202
    for place in (begun.headers["Content-Location"], files["values_of"]):
        assert client.get(place).status_code == 404


def test_exports_of_queries_and_their_mistakes(client: httpx.Client) -> None:
    values = {"resourceType": "Parameters", "parameter": [{"name": "gender", "valueCode": "female"}]}
    subject = {"part": [{"name": "subjectResource", "resource": QUERY}, {"name": "parameters", "resource": values}]}
    view = {"part": [{"name": "subjectResource", "resource": VIEW}]}
    begun = client.post(
        "/fhir/$sql-export",
        json=parameters(subject=[subject, view], _format="parquet", patient=reference("Patient/p2")),
        headers=ASYNC,
    )
    files = outputs(client.get(ended(client, begun).headers["Location"]).json())
    assert pq.read_table(io.BytesIO(client.get(files["people"]).content)).num_rows == 1
    assert set(files) == {"totals", "people"}
    for body, headers, status in (
        (parameters(subject=[view]), {}, 400),
        (parameters(subject=[view, view]), ASYNC, 400),
        (parameters(), ASYNC, 400),
        (parameters(subject=[view], _limit=1), ASYNC, 400),
        (parameters(subject=[view], _format="fhir"), ASYNC, 400),
        (parameters(subject=[{"part": [{"name": "subjectCanonical", "valueString": "http://none"}]}]), ASYNC, 404),
        (
            parameters(
                subject=[
                    {
                        "part": [
                            {"name": "subjectResource", "resource": VALUES},
                            {"name": "parameters", "resource": values},
                        ]
                    }
                ]
            ),
            ASYNC,
            400,
        ),
    ):
        assert client.post("/fhir/$sql-export", json=body, headers=headers).status_code == status, body
    inside = client.post(
        "/fhir/ViewDefinition/people/$viewdefinition-export", json=parameters(_format="ndjson"), headers=ASYNC
    )
    assert len(outputs(client.get(ended(client, inside).headers["Location"]).json())) == 1


def test_saved_views(client: httpx.Client) -> None:
    one = client.get("/fhir/ViewDefinition/people").json()
    assert one == {**VIEW, "id": "people"}
    listed = client.get("/fhir/ViewDefinition", params={"url": VIEW["url"]}).json()
    assert [entry["resource"]["id"] for entry in listed["entry"]] == ["people"]
    assert client.put("/fhir/ViewDefinition/people", json={**VIEW, "title": "x"}).status_code == 200
    assert client.put("/fhir/ViewDefinition/other", json=VIEW).status_code in (400, 409)
    assert client.put("/fhir/ViewDefinition/bad", json={**VIEW, "name": "Patient"}).status_code == 400
    assert client.put("/fhir/ViewDefinition/bad", json={**VIEW, "name": "bad", "select": []}).status_code == 422
    made = client.put(
        "/fhir/ViewDefinition/by-id", json={name: value for name, value in VIEW.items() if name != "name"}
    )
    assert made.json()["name"] == "by_id"
    assert client.delete("/fhir/ViewDefinition/by-id").status_code == 204
    assert client.delete("/fhir/ViewDefinition/by-id").status_code == 404


def test_numbers_and_moments_out_of_bounds_are_the_callers_mistake(client: httpx.Client) -> None:
    for wrong in (
        {"_limit": -1},
        {"_limit": -(2**31)},
        {"_since": "2020-06-30T23:59:60Z"},
        {"_since": "0001-01-01T00:00:00+14:00"},
    ):
        answer = client.post("/fhir/$sql-run", json=parameters(subjectReference="ViewDefinition/people", **wrong))
        assert answer.status_code == 400, (wrong, answer.text)
        assert answer.json()["issue"][0]["expression"] == list(wrong), answer.text


def test_queries_that_read_each_other_are_bounded_in_all(client: httpx.Client) -> None:
    """Each of twenty reads the next one twice: a million in all."""
    urls = [f"http://example.org/Library/deep{n}" for n in range(20)]
    sent = [
        library("SELECT 1 AS x", ("a", after), ("b", after), url=url, name=f"deep{n}")
        for n, (url, after) in enumerate(zip(urls, [*urls[1:], VIEW["url"]], strict=True))
    ]
    began = time.process_time()
    answer = client.post("/fhir/$sql-run", json=parameters(subjectCanonical=urls[0], context=sent))
    assert answer.status_code == 422, answer.text
    assert "lake.query" in answer.text
    assert time.process_time() - began < 20
