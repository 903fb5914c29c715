"""The CapabilityStatement tells the truth: what it lists is answered as listed, what it does not list is refused.

The tests read the statement of a served workspace and call what it says. What is listed anew needs a probe here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest
from tests.apps.served import calling, fill, own_workspace

from carelake.fhir.definitions import resource_types
from carelake.fhir.query import pointed_types
from carelake.fhir.search import parameters, unsupported

TYPES = ("Patient", "Observation", "Encounter", "ValueSet", "List", "Basic")
BODIES: Mapping[str, dict[str, Any]] = {
    "Patient": {"gender": "female"},
    "Observation": {"status": "final", "code": {"text": "x"}},
    "Encounter": {"status": "finished", "class": {"code": "AMB"}},
    "ValueSet": {"status": "active", "url": "http://example.org/v", "expansion": {"timestamp": "2024-01-01"}},
    "List": {"status": "current", "mode": "working"},
    "Basic": {"code": {"text": "x"}},
}
INSTANCE = {
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
}
SYSTEM = {"transaction", "batch", "search-system", "history-system"}
Client = httpx.Client
Probe = Callable[[Client, str], httpx.Response]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with own_workspace(tmp_path_factory.mktemp("truth")) as made:
        fill(made, *(body(kind, "one") for kind in TYPES))
        with calling(made, "operator") as one:
            yield one


@pytest.fixture(scope="module")
def statement(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/metadata").json()
    return found


@pytest.fixture(scope="module")
def rest(statement: dict[str, Any]) -> dict[str, Any]:
    (one,) = statement["rest"]
    found: dict[str, Any] = one
    return found


@pytest.fixture(scope="module")
def listed(rest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["type"]: one for one in rest["resource"]}


def body(kind: str, key: str = "", **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, **({"id": key} if key else {}), **BODIES[kind], **more}


def codes(of: Mapping[str, Any]) -> set[str]:
    return {one["code"] for one in of.get("interaction", ())}


def refused(answer: httpx.Response, what: object = "") -> None:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text)
    assert answer.headers["Content-Type"].startswith("application/fhir+json"), what
    assert answer.json()["resourceType"] == "OperationOutcome", what
    assert answer.json()["issue"], what


def answered(answer: httpx.Response, what: object = "", status: int = 200) -> None:
    assert answer.status_code == status, (what, answer.status_code, answer.text)


# --- interactions -------------------------------------------------------------------------------------------------


def _changed(client: Client, kind: str) -> httpx.Response:
    return client.put(f"/{kind}/one", json=body(kind, "one", language="en"))


def _patch(client: Client, kind: str) -> httpx.Response:
    json_patch = {"Content-Type": "application/json-patch+json"}
    change = [{"op": "add", "path": "/language", "value": "fr"}]
    return client.patch(f"/{kind}/one", json=change, headers=json_patch)


def _delete(client: Client, kind: str) -> httpx.Response:
    client.put(f"/{kind}/gone", json=body(kind, "gone"))
    return client.delete(f"/{kind}/gone")


PROBES: Mapping[str, tuple[Probe, tuple[int, ...]]] = {
    "read": (lambda client, kind: client.get(f"/{kind}/one"), (200,)),
    "vread": (lambda client, kind: client.get(f"/{kind}/one/_history/1"), (200,)),
    "update": (_changed, (200,)),
    "patch": (_patch, (200,)),
    "delete": (_delete, (200, 204)),
    "history-instance": (lambda client, kind: client.get(f"/{kind}/one/_history"), (200,)),
    "history-type": (lambda client, kind: client.get(f"/{kind}/_history"), (200,)),
    "create": (lambda client, kind: client.post(f"/{kind}", json=body(kind)), (201,)),
    "search-type": (lambda client, kind: client.get(f"/{kind}"), (200,)),
}


def _bundle(kind: str) -> dict[str, Any]:
    entry = {"request": {"method": "GET", "url": "Patient/one"}}
    return {"resourceType": "Bundle", "type": kind, "entry": [entry]}


SYSTEM_PROBES: Mapping[str, Callable[[Client], httpx.Response]] = {
    "transaction": lambda client: client.post("", json=_bundle("transaction")),
    "batch": lambda client: client.post("", json=_bundle("batch")),
    "search-system": lambda client: client.get("", params={"_type": "Patient,List", "_id": "one"}),
    "history-system": lambda client: client.get("/_history"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_interaction_of_a_type(client: Client, listed: dict[str, dict[str, Any]], kind: str) -> None:
    said = codes(listed[kind])
    assert said <= INSTANCE
    for code, (probe, statuses) in PROBES.items():
        answer = probe(client, kind)
        if code in said:
            assert answer.status_code in statuses, (code, answer.text)
        else:
            refused(answer, code)


@pytest.mark.parametrize("kind", ["OperationOutcome", "Parameters"])
def test_what_is_an_answer_alone_is_not_said_to_be_kept(
    client: Client, listed: dict[str, dict[str, Any]], kind: str
) -> None:
    issue = {"severity": "error", "code": "invalid"}
    whole = {"resourceType": kind, "id": "a", **({"issue": [issue]} if kind == "OperationOutcome" else {})}
    refused(client.post(f"/{kind}", json=whole))
    refused(client.put(f"/{kind}/a", json=whole))
    said = listed[kind]
    assert codes(said).isdisjoint({"create", "update", "patch"})
    assert [said[f"{one}Create"] for one in ("update", "conditional")] == [False, False]
    assert said["conditionalUpdate"] is False


def test_every_interaction_of_the_server(client: Client, rest: dict[str, Any]) -> None:
    said = codes(rest)
    assert said <= SYSTEM
    for code, probe in SYSTEM_PROBES.items():
        answer = probe(client)
        if code in said:
            answered(answer, code)
            assert answer.json()["resourceType"] == "Bundle"
        else:
            refused(answer, code)


def test_every_type_is_listed_and_no_other_is_answered(client: Client, listed: dict[str, dict[str, Any]]) -> None:
    assert set(listed) == resource_types()
    for path in ("/Nothing", "/Nothing/1", "/Resource", "/DomainResource/1", "/patient", "/Nothing/_history"):
        refused(client.get(path), path)
    for kind in sorted(listed):
        answered(client.get(f"/{kind}", params={"_id": "one", "_total": "none"}), kind)


def test_versions_and_conditions(client: Client, listed: dict[str, dict[str, Any]]) -> None:
    said = listed["Basic"]
    etag = client.get("/Basic/one").headers["ETag"]
    assert said["versioning"] in ("versioned", "versioned-update")
    assert re.fullmatch(r'W/"\d+"', etag)
    unchanged = client.get("/Basic/one", headers={"If-None-Match": etag})
    since = client.get("/Basic/one").headers["Last-Modified"]
    unmodified = client.get("/Basic/one", headers={"If-Modified-Since": since})
    told = {"full-support": (304, 304), "not-match": (304, 200), "modified-since": (200, 304)}
    assert (unchanged.status_code, unmodified.status_code) == told.get(said.get("conditionalRead"), (200, 200))
    stale = client.put("/Basic/one", json=body("Basic", "one", language="de"), headers={"If-Match": 'W/"9999"'})
    assert stale.status_code in (409, 412)
    made = client.put("/Basic/made", json=body("Basic", "made"))
    assert made.status_code == (201 if said.get("updateCreate") else 405)
    deleted = client.get(f"/Basic/one/_history/{1}")
    assert (deleted.status_code == 200) == bool(said.get("readHistory"))


def test_conditional_writes(client: Client, listed: dict[str, dict[str, Any]]) -> None:
    said = listed["Basic"]
    mark = {"identifier": [{"system": "http://once", "value": "1"}]}
    where = {"identifier": "http://once|1"}
    condition = {"If-None-Exist": "identifier=http://once|1"}
    answers = [client.post("/Basic", json=body("Basic", **mark), headers=condition).status_code for _ in range(2)]
    assert answers == ([201, 200] if said.get("conditionalCreate") else [412, 412])
    updated = client.put("/Basic", params=where, json=body("Basic", language="en", **mark))
    if said.get("conditionalUpdate"):
        answered(updated)
    else:
        refused(updated)
    several = client.post("/Basic", json=body("Basic", **mark)).status_code
    assert several == 201
    removed = client.delete("/Basic", params=where)
    if said.get("conditionalDelete") == "multiple":
        assert removed.status_code in (200, 204)
    else:
        refused(removed)
        one = client.get("/Basic", params=where).json()["entry"][0]["resource"]["id"]
        client.delete(f"/Basic/{one}")
        single = client.delete("/Basic", params=where)
        if said.get("conditionalDelete") == "single":
            assert single.status_code in (200, 204)
        else:
            refused(single)


# --- formats ------------------------------------------------------------------------------------------------------


def test_formats(client: Client, statement: dict[str, Any], listed: dict[str, dict[str, Any]]) -> None:
    for known_as in statement["format"]:
        answered(client.get("/Patient/one", headers={"Accept": known_as}), known_as)
        answered(client.get("/Patient/one", params={"_format": known_as}), known_as)
        answered(client.post("/Patient", json=body("Patient"), headers={"Content-Type": known_as}), known_as, 201)
    for other in ("application/fhir+xml", "text/turtle", "xml", "ttl"):
        assert client.get("/Patient/one", params={"_format": other}).status_code == 406, other
    refused(client.get("/Patient/one", headers={"Accept": "application/fhir+xml"}))
    refused(client.post("/Patient", content="<Patient/>", headers={"Content-Type": "application/fhir+xml"}))
    assert ("patch" in codes(listed["Patient"])) == bool(statement.get("patchFormat"))
    said = (("type", "valueCode", "replace"), ("path", "valueString", "Patient.language"))
    parts = [{"name": name, key: value} for name, key, value in said]
    parts.append({"name": "value", "valueCode": "es"})
    parameter = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    sent: dict[str, Any] = {
        "application/json-patch+json": [{"op": "add", "path": "/language", "value": "it"}],
        "application/fhir+json": parameter,
        "application/merge-patch+json": {"language": "pt"},
        "application/fhir+xml": {},
    }
    for known_as, change in sent.items():
        answer = client.patch("/Patient/one", json=change, headers={"Content-Type": known_as})
        if known_as in statement.get("patchFormat", ()):
            answered(answer, known_as)
        else:
            refused(answer, known_as)


# --- operations ---------------------------------------------------------------------------------------------------

_JOB = re.compile(r"/fhir/\$[a-z-]+/\{job\}(/\{name\})?").fullmatch
"""Where a job stands that an operation began."""
_ADDRESS = re.compile(r"/fhir(?:/(?P<type>[A-Z]\w+|\{type\}))?(?:/\{id\})?/\$(?P<name>[a-z-]+)").fullmatch


_LATER = "ViewDefinition"


def _offered(client: Client) -> set[tuple[str, str]]:
    """Type (``{type}`` for each, "" for the server) and name of all operations that there are addresses of."""
    root = str(client.base_url).rstrip("/").removesuffix("/fhir")
    found = set()
    for path in sorted(client.get(f"{root}/openapi.json").json()["paths"], key=lambda path: path.count("/")):
        if path.startswith("/fhir") and "$" in path and not _JOB(path):
            address = _ADDRESS(path)
            assert address is not None, f"{path} is of a form that this test does not know"
            if address["type"] == _LATER:  # no type of R4 that could be listed: on the server the same is
                assert address["name"] in ("run", *(name for kind, name in found if not kind)), path
            else:
                found.add((address["type"] or "", address["name"]))
    return found


def test_operations_are_listed_where_there_are_addresses_of_them(
    client: Client, rest: dict[str, Any], listed: dict[str, dict[str, Any]]
) -> None:
    said = {("", one["name"]) for one in rest.get("operation", ())}
    everywhere = set.intersection(*({one["name"] for one in kind.get("operation", ())} for kind in listed.values()))
    said |= {("{type}", name) for name in everywhere}
    for kind, about in listed.items():
        said |= {(kind, one["name"]) for one in about.get("operation", ()) if one["name"] not in everywhere}
    assert said == _offered(client)
    for about in (rest, *listed.values()):
        names = [one["name"] for one in about.get("operation", ())]
        assert len(names) == len(set(names))


def test_operations_are_there(client: Client, rest: dict[str, Any], listed: dict[str, dict[str, Any]]) -> None:
    """Every one is known at some address: what is asked for may be refused, the address is not unknown."""
    for kind in (*TYPES, "CodeSystem", "ConceptMap", "Group"):
        for one in listed[kind].get("operation", ()):
            key = "nobody" if one["name"] in ("erase", "purge") else "one"  # what is erased is missing from here on
            addresses = (f"/{kind}/${one['name']}", f"/{kind}/{key}/${one['name']}")
            seen = [client.request(method, path) for path in addresses for method in ("GET", "POST")]
            assert not all(_unknown(answer) for answer in seen), (kind, one["name"])
            assert all(answer.status_code < 500 for answer in seen), (kind, one["name"])
    for one in rest.get("operation", ()):
        seen = [client.request(method, f"/${one['name']}") for method in ("GET", "POST")]
        assert not all(_unknown(answer) for answer in seen), one["name"]


def test_what_is_defined_here_is_what_is_taken(client: Client, rest: dict[str, Any]) -> None:
    """The definitions of SQL on FHIR's operations, which this server publishes itself."""
    ours = [one for one in rest["operation"] if one["name"].startswith(("sql", "view"))]
    assert len(ours) == 6
    for one in ours:
        name = one["name"]
        told = client.get(f"/metadata/{name}").json()
        assert (told["url"], told["code"], told["system"]) == (one["definition"], name, True)
        checked = client.post("/OperationDefinition/$validate", json=told).json()
        assert not [issue for issue in checked["issue"] if issue["severity"] in ("error", "fatal")], checked
        asynchronous = {"Prefer": "respond-async"} if name.endswith("export") else {}
        taken = [parameter for parameter in told["parameter"] if parameter["use"] == "in"]
        for parameter in [*taken, {"name": "source"}, {"name": "nothing"}]:
            sent = {"name": parameter["name"], "valueBase64Binary": "AAAA"}  # of a type that none of them has
            body = {"resourceType": "Parameters", "parameter": [sent]}
            answer = client.post(f"/${name}", json=body, headers=asynchronous)
            refused(answer, parameter)
            (issue,) = answer.json()["issue"]
            known = issue["details"]["text"] not in ("http.unknown_parameter", "http.source")
            assert known == (parameter in taken), (name, parameter, issue)


def _unknown(answer: httpx.Response) -> bool:
    if answer.status_code == 405:
        return True
    codes = ("http.no_route", "http.no_such_resource", "http.unknown_type")
    return answer.status_code == 404 and answer.json()["issue"][0]["details"]["text"] in codes


@pytest.mark.parametrize("name", ["nothing", "evict", "Everything", "everything2", "graph", "apply", "submit"])
def test_operations_that_are_not_listed(
    client: Client, rest: dict[str, Any], listed: dict[str, dict[str, Any]], name: str
) -> None:
    assert name not in {one["name"] for about in (rest, *listed.values()) for one in about.get("operation", ())}
    for path in (f"/${name}", f"/Patient/${name}", f"/Patient/one/${name}"):
        for method in ("GET", "POST"):
            refused(client.request(method, path), path)


@pytest.mark.parametrize("kind", ["List", "Basic", "Practitioner"])
def test_operations_of_other_types(client: Client, listed: dict[str, dict[str, Any]], kind: str) -> None:
    said = {one["name"] for one in listed[kind].get("operation", ())}
    every = {one["name"] for about in listed.values() for one in about.get("operation", ())}
    assert every > said
    for name in every - said:
        for path in (f"/{kind}/${name}", f"/{kind}/one/${name}"):
            for method in ("GET", "POST"):
                refused(client.request(method, path), path)


def test_listed_operations_answer_as_defined(client: Client) -> None:
    for path, kind in (
        ("/Patient/one/$everything", "Bundle"),
        ("/Encounter/one/$everything", "Bundle"),
        ("/Observation/$lastn?patient=one&code=x", "Bundle"),
        ("/Patient/one/$meta", "Parameters"),
        ("/Patient/$meta", "Parameters"),
        ("/$meta", "Parameters"),
        ("/Patient/one/$validate", "OperationOutcome"),
    ):
        answer = client.get(path)
        answered(answer, path)
        assert answer.json()["resourceType"] == kind


# --- search -------------------------------------------------------------------------------------------------------

_VALUES = {
    "number": "1",
    "date": "2024",
    "string": "a",
    "token": "a",
    "quantity": "5",
    "uri": "http://a",
}


def _asking(kind: str, name: str, as_: str) -> tuple[str, str]:
    special = {
        "_has": ("_has:Provenance:target:_id", "one"),
        "_list": ("_list", "one"),
        "_type": ("_type", kind),
        "near": ("near", "1|1"),
    }
    if name in special:
        return special[name]
    if as_ == "reference":
        return name, f"{pointed_types(parameters(kind)[name])[0]}/one"
    if as_ == "composite":
        return name, "$".join(_VALUES.get(one.type, "Patient/one") for one in parameters(kind)[name].components)
    return name, _VALUES.get(as_, "a")


@pytest.mark.parametrize("kind", [*TYPES, "Location", "MolecularSequence"])
def test_every_search_parameter(client: Client, listed: dict[str, dict[str, Any]], kind: str) -> None:
    for one in listed[kind]["searchParam"]:
        name, value = _asking(kind, one["name"], one["type"])
        answered(client.get(f"/{kind}", params={name: value, "_total": "none"}), (kind, one["name"]))


@pytest.mark.parametrize("kind", TYPES)
def test_parameters_that_are_not_listed(client: Client, listed: dict[str, dict[str, Any]], kind: str) -> None:
    said = {one["name"] for one in listed[kind]["searchParam"]}
    every = {one["name"] for about in listed.values() for one in about["searchParam"]}
    others = [*unsupported(kind), *sorted(every - said)[::25], "colour", "_colour", "Name", ""]
    for name in others:
        assert name not in said
        refused(client.get(f"/{kind}", params={name: "a"}), (kind, name))


def test_every_parameter_of_a_search_over_all_types(client: Client, rest: dict[str, Any]) -> None:
    for one in rest["searchParam"]:
        name, value = _asking("Basic", one["name"], one["type"])
        answered(client.get("", params={"_type": "Basic,List", name: value}), one["name"])


@pytest.mark.parametrize("kind", TYPES)
def test_every_include(client: Client, listed: dict[str, dict[str, Any]], kind: str) -> None:
    for field, name in (("searchInclude", "_include"), ("searchRevInclude", "_revinclude")):
        said = listed[kind][field]
        for start in range(0, len(said), 40):
            asked = [("_id", "one"), *((name, value) for value in said[start : start + 40])]
            answered(client.get(f"/{kind}", params=asked), (kind, field))
        refused(client.get(f"/{kind}", params={name: f"{kind}:colour"}))


def test_every_compartment(client: Client, rest: dict[str, Any]) -> None:
    names = {url.rpartition("/")[2] for url in rest["compartment"]}
    assert len(names) == len(rest["compartment"])
    for kind in resource_types():
        code = kind[0].lower() + kind[1:]
        answer = client.get(f"/{kind}/one/*", params={"_total": "none"})
        if code in names:
            answered(answer, kind)
        else:
            refused(answer, kind)
