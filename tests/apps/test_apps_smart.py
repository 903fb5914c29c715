"""SMART App Launch over a real server: discovery tells what is so, services get tokens, scopes bound all answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from tests.apps.served import act_of, admit, bearer, fill, own_workspace

from carelake.access.smart_clients import Client, Clients
from carelake.apps.http.smart import _configured, security
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.settings import AccessSettings, OidcIssuer, OidcSettings, Settings, SmartSettings

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
KEY = ec.generate_private_key(ec.SECP384R1())
JWKS = json.dumps({"keys": [{**ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "k1", "alg": "ES384"}]})
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LAB = f"patient/Observation.rs?category={CATEGORY}|laboratory"
Json = dict[str, Any]


def observation(key: str, patient: str, category: str, **said: Any) -> Json:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": category}]}],
        "code": {"coding": [{"system": "urn:s", "code": "a"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2024-01-02",
        **said,
    }


HELD: list[Json] = [
    {"resourceType": "Patient", "id": "p1", "gender": "female"},
    {"resourceType": "Patient", "id": "p2", "gender": "male"},
    observation("lab1", "p1", "laboratory"),
    observation("vital1", "p1", "vital-signs"),
    observation("lab2", "p2", "laboratory"),
    observation("turned", "p1", "social-history"),
    {"resourceType": "Condition", "id": "c1", "subject": {"reference": "Patient/p1"}, "code": {"text": "x"}},
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    registered = (
        ("loads", "loader", "system/*.cruds"),
        ("reads", "reader", f"system/Patient.rs system/Observation.rs?category={CATEGORY}|laboratory"),
        ("ended", "reader", "system/*.rs"),
    )
    with own_workspace(tmp_path_factory.mktemp("smart")) as made:
        admit(made, "person", doctor="clinician")
        admit(made, "service", loader="application", reader="clinician")
        with made.vault.database.ledger() as connection:
            for name, principal, scopes in registered:
                said = (name, principal, "production", "TREAT", scopes, "", JWKS, made.vault.clock.now())
                Clients(connection).add(Client(*said), by=None)
            Clients(connection).disable("ended", by=None)
        fill(made, *HELD, observation("turned", "p1", "laboratory"), action="record:write")
        yield made


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def narrowed(workspace: Workspace, client: httpx.Client) -> Callable[..., Callable[..., httpx.Response]]:
    """``narrowed("doctor", "patient/*.rs", "p1")("GET", "/fhir/Patient")``."""

    def as_(name: str, scope: str, patient: str = "") -> Callable[..., httpx.Response]:
        own = bearer(workspace, name, scope=scope, patient=patient)

        def ask(method: str, path: str, **said: Any) -> httpx.Response:
            return client.request(method, path, headers={**own, **said.pop("headers", {})}, **said)

        return ask

    return as_


def assertion(client: httpx.Client, name: str, key: Any = KEY, algorithm: str = "ES384", **said: Any) -> str:
    now = int(time.time())
    audience = str(client.base_url).rstrip("/") + "/auth/token"
    claims = {"iss": name, "sub": name, "aud": audience, "exp": now + 240, "jti": str(uuid4()), **said}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "k1"})


def exchange(client: httpx.Client, name: str, asked: str, **said: Any) -> httpx.Response:
    form = {
        "grant_type": "client_credentials",
        "scope": asked,
        "client_assertion_type": ASSERTION,
        "client_assertion": assertion(client, name),
        **said,
    }
    return client.post("/auth/token", data={field: value for field, value in form.items() if value is not None})


def ids(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {one["resource"]["id"] for one in answer.json().get("entry", [])}


# -- discovery -------------------------------------------------------------------------------------------------------


def test_discovery_tells_where_the_tokens_are_and_they_are_there(client: httpx.Client) -> None:
    told = client.get("/fhir/.well-known/smart-configuration", headers={"Accept": "text/html"})
    assert told.status_code == 200
    assert told.headers["content-type"].startswith("application/json")
    said = told.json()
    assert said["token_endpoint"] == f"{str(client.base_url).rstrip('/')}/auth/token"
    assert "authorization_endpoint" not in said
    assert said["grant_types_supported"] == ["client_credentials"]
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert {"client-confidential-asymmetric", "permission-v1", "permission-v2"} <= set(said["capabilities"])
    assert not {one for one in said["capabilities"] if one.startswith(("launch", "sso"))}
    assert httpx.post(said["token_endpoint"], data={"grant_type": "password"}).json() == {
        "error": "unsupported_grant_type",
        "error_description": "Expected client_credentials; apps that people use are launched by way of an identity "
        "provider.",
    }
    security = client.get("/fhir/metadata").json()["rest"][0]["security"]
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"
    assert security["extension"][0]["extension"] == [{"url": "token", "valueUri": said["token_endpoint"]}]


def test_with_a_provider_apps_are_sent_to_it_and_services_to_us() -> None:
    both = {"authorization_endpoint": "https://id.test/authorize", "token_endpoint": "https://id.test/token"}
    half = OidcIssuer("https://other.test", "a", "https://other.test/jwks", token_endpoint="https://other.test/token")
    issuers = (half, OidcIssuer("https://id.test", "a", "https://id.test/jwks", **both))
    smart = SmartSettings("https://fhir.test/base")
    told = Settings("w", access=AccessSettings(oidc=OidcSettings(issuers), smart=smart))
    said = _configured(told, "http://127.0.0.1:1")
    assert said is not None
    assert {name: said[name] for name in both} == both
    assert said["backend_services_token_endpoint"] == "https://fhir.test/base/auth/token"
    assert said["grant_types_supported"] == ["authorization_code"]
    assert "launch-standalone" in said["capabilities"]
    uris = security(told, "http://evil.test")["extension"][0]["extension"]
    assert {one["url"]: one["valueUri"] for one in uris} == {
        "token": both["token_endpoint"],
        "authorize": both["authorization_endpoint"],
    }
    assert _configured(Settings("w"), "https://fhir.test") is None
    assert "extension" not in security(Settings("w"), "")


@pytest.mark.parametrize(
    "url",
    [
        "http://fhir.test",
        "https://fhir.test/",
        "https://fhir.test?x",
        "https://a:b@fhir.test",
        "fhir.test",
        "https://",
    ],
)
def test_an_address_that_is_none_cannot_be_set(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        SmartSettings(url)


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.example"])
def test_what_a_request_calls_us_is_believed_on_loopback_alone(client: httpx.Client, host: str) -> None:
    assert client.get("/fhir/.well-known/smart-configuration", headers={"Host": host}).status_code == 404
    theirs = assertion(client, "loads", aud=f"http://{host}/auth/token")
    form = {"client_assertion": theirs, "client_assertion_type": ASSERTION, "scope": "system/*.rs"}
    form["grant_type"] = "client_credentials"
    assert client.post("/auth/token", data=form, headers={"Host": host}).status_code == 503
    assert client.post("/auth/token", data=form).json()["error"] == "invalid_client"


# -- tokens ----------------------------------------------------------------------------------------------------------


def test_a_service_gets_a_token_for_what_it_asks_and_no_more(client: httpx.Client, workspace: Workspace) -> None:
    answer = exchange(client, "loads", "system/Patient.r system/Observation.cru")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json()
    assert (said["token_type"], said["expires_in"]) == ("bearer", 300)
    assert said["scope"] == "system/Patient.r system/Observation.cru"
    bearer = {"Authorization": f"Bearer {said['access_token']}"}
    assert client.get("/fhir/Patient/p1", headers=bearer).status_code == 200
    assert client.get("/fhir/Patient", headers=bearer).status_code == 403
    assert client.get("/fhir/Condition/c1", headers=bearer).status_code == 403
    made = observation("made", "p2", "laboratory")
    assert client.put("/fhir/Observation/made", json=made, headers=bearer).status_code == 201
    assert client.put("/fhir/Observation/made", json={**made, "status": "amended"}, headers=bearer).status_code == 200
    assert client.delete("/fhir/Observation/made", headers=bearer).status_code == 403
    with workspace.vault.database.ledger() as connection:
        found = Acts(connection).find(limit=5, action="token:exchange", phase="done")
    assert {one["principal"] for one in found} == {"loader"}
    assert {one["credential"] for one in found} == {"client:loads"}


def test_what_is_registered_and_what_policy_allows_bound_the_answer(client: httpx.Client) -> None:
    lab = f"system/Observation.rs?category={CATEGORY}|laboratory"
    said = exchange(client, "reads", "system/*.cruds").json()
    assert set(said["scope"].split()) == {"system/Patient.rs", lab}
    assert exchange(client, "reads", "system/Observation.r").json()["scope"] == lab.replace(".rs", ".r")
    assert exchange(client, "reads", "system/Patient.read").json()["scope"] == "system/Patient.read"
    assert exchange(client, "reads", "system/Patient.cud").json()["error"] == "invalid_scope"
    assert exchange(client, "reads", "system/Condition.rs").json()["error"] == "invalid_scope"
    bearer = {"Authorization": f"Bearer {said['access_token']}"}
    assert ids(client.get("/fhir/Observation", headers=bearer)) >= {"lab1", "lab2", "turned"}
    assert "vital1" not in ids(client.get("/fhir/Observation", headers=bearer))


@pytest.mark.parametrize(
    "scope", ["", "patient/*.rs", "user/*.rs", "openid", "system/Patient.sr", "system/*.rs nonsense"]
)
def test_scopes_that_a_service_cannot_have_are_refused(client: httpx.Client, scope: str) -> None:
    answer = exchange(client, "loads", scope)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
        ({"client_assertion_type": "bearer"}, 400, "invalid_client"),
        ({"client_assertion": "a.b.c"}, 401, "invalid_client"),
        ({"client_assertion": None}, 401, "invalid_client"),
        ({"client_id": "reads"}, 401, "invalid_client"),
        ({"client_assertion": "x" * 70_000}, 400, "invalid_request"),
        ({"scope": ["system/*.rs", "system/*.cruds"]}, 400, "invalid_request"),
    ],
)
def test_requests_that_are_wrong_are_told_in_the_words_of_oauth(
    client: httpx.Client, said: dict[str, Any], status: int, error: str
) -> None:
    answer = exchange(client, "loads", "system/*.rs", **said)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_assertion_is_good_once_and_its_refusal_is_on_the_trail(
    client: httpx.Client, workspace: Workspace
) -> None:
    same = assertion(client, "loads")
    assert exchange(client, "loads", "system/*.rs", client_assertion=same).status_code == 200
    again = exchange(client, "loads", "system/*.rs", client_assertion=same)
    assert (again.status_code, again.json()["error"]) == (401, "invalid_client")
    act = act_of(workspace, again)
    assert (act["phase"], act["error"], act["principal"]) == ("refused", "access.client", "anonymous")


def test_a_client_that_was_ended_gets_nothing(client: httpx.Client) -> None:
    assert exchange(client, "ended", "system/*.rs").json()["error"] == "invalid_client"


# -- what scopes leave -----------------------------------------------------------------------------------------------


def test_a_patients_scopes_show_that_patients_record(narrowed: Any) -> None:
    ask = narrowed("doctor", "launch/patient patient/*.rs", "p1")
    assert ids(ask("GET", "/fhir/Observation")) == {"lab1", "vital1", "turned"}
    assert ids(ask("GET", "/fhir/Patient?_revinclude=Observation:subject")) == {"p1", "lab1", "vital1", "turned"}
    assert ask("GET", "/fhir/Observation/lab2").status_code == 404
    assert ask("GET", "/fhir/Observation/lab2/_history").status_code == 404
    assert ask("GET", "/fhir/Patient/p2").status_code == 404
    assert ids(ask("GET", "/fhir/Patient/p1/$everything")) == {"p1", "lab1", "vital1", "turned", "c1"}


def test_conditions_of_a_scope_hold_in_every_answer(narrowed: Any) -> None:
    ask = narrowed("doctor", f"{LAB} patient/Patient.rs", "p1")
    found = ask("GET", "/fhir/Observation?_total=accurate&_sort=-date")
    assert ids(found) == {"lab1", "turned"}
    assert found.json()["total"] == 2
    assert ask("GET", "/fhir/Observation?_summary=count").json()["total"] == 2
    assert ids(ask("GET", "/fhir/Patient?_revinclude=Observation:subject")) == {"p1", "lab1", "turned"}
    assert ids(ask("GET", "/fhir/Patient?_has:Observation:patient:_id=vital1")) == set()
    assert ids(ask("GET", "/fhir/Patient?_has:Observation:patient:_id=lab1")) == {"p1"}
    assert ask("GET", "/fhir/Observation/lab1").status_code == 200
    assert ask("GET", "/fhir/Observation/vital1").status_code == 404
    assert ask("GET", "/fhir/Observation/lab2").status_code == 404
    assert ask("GET", "/fhir/Observation/turned/_history/2").status_code == 200
    assert ask("GET", "/fhir/Observation/turned/_history/1").status_code == 404, "it was no laboratory result then"
    assert [
        one["resource"]["meta"]["versionId"]
        for one in ask("GET", "/fhir/Observation/turned/_history").json()["entry"]
    ] == ["2"]
    assert ids(ask("GET", "/fhir/Observation/_history")) == {"lab1", "turned"}
    assert ids(ask("GET", "/fhir/Patient/p1/$everything?_type=Patient,Observation")) == {"p1", "lab1", "turned"}
    assert ask("GET", "/fhir/Patient/p1/$everything").status_code == 403
    assert ask("GET", "/fhir/Condition").status_code == 403
    assert ask("GET", "/fhir/Patient?_has:Condition:patient:_id=c1").status_code == 403
    assert ask("GET", "/fhir/Condition/c1").status_code == 403


def test_scopes_open_nothing_that_policy_does_not(narrowed: Any) -> None:
    ask = narrowed("doctor", "user/*.cruds")
    assert ask("PUT", "/fhir/Patient/p1", json=HELD[0]).status_code == 403
    assert narrowed("auditor", "user/*.cruds")("GET", "/fhir/Patient/p1").status_code == 403


@pytest.mark.parametrize(
    "scope", ["", "openid fhirUser", "patient/*.rs", "patient/Obs.rs", "user/Patient.x", "user/Patient"]
)
def test_scopes_that_open_nothing_open_nothing(narrowed: Any, scope: str) -> None:
    ask = narrowed("doctor", scope)  # those of a patient have no patient here
    refused = ask("GET", "/fhir/Patient/p1")
    assert refused.status_code == 403
    assert refused.headers["WWW-Authenticate"].endswith('error="insufficient_scope"')
    assert ask("GET", "/fhir/Patient").status_code == 403


def test_a_token_with_scopes_opens_the_record_alone(narrowed: Any) -> None:
    ask = narrowed("operator", "user/*.cruds")
    assert ask("GET", "/fhir/Patient/p1").status_code == 200
    assert ask("POST", "/predict/readmission", json={"patient": "p1"}).status_code == 403


def test_each_letter_is_for_its_interaction(narrowed: Any) -> None:
    new = observation("letters", "p2", "laboratory")
    create = narrowed("operator", "user/Observation.c user/Patient.r")
    assert create("PUT", "/fhir/Observation/letters", json=new).status_code == 201
    assert create("PUT", "/fhir/Observation/letters", json={**new, "status": "amended"}).status_code == 403
    assert create("DELETE", "/fhir/Observation/letters").status_code == 403
    assert create("GET", "/fhir/Observation/letters").status_code == 403
    assert create("PUT", "/fhir/Patient/p9", json={"resourceType": "Patient", "id": "p9"}).status_code == 403
    assert create("POST", "/fhir/Observation", json=new, headers={"If-None-Exist": "status=final"}).status_code == 403
    update = narrowed("operator", "user/Observation.u")
    assert update("PUT", "/fhir/Observation/letters", json={**new, "status": "amended"}).status_code == 200
    assert update("POST", "/fhir/Observation", json=new).status_code == 403
    delete = narrowed("operator", "user/Observation.d")
    assert delete("DELETE", "/fhir/Observation/letters").status_code in (200, 204)


def test_a_write_stays_within_the_conditions_before_and_after(narrowed: Any) -> None:
    ask = narrowed("operator", f"{LAB.replace('.rs', '.cruds')}", "p1")
    vital, lab = observation("vital1", "p1", "vital-signs"), observation("lab1", "p1", "laboratory")
    assert ask("PUT", "/fhir/Observation/vital1", json=observation("vital1", "p1", "laboratory")).status_code == 404
    assert ask("DELETE", "/fhir/Observation/vital1").status_code in (204, 404)
    assert ask("PUT", "/fhir/Observation/lab1", json=observation("lab1", "p1", "vital-signs")).status_code == 403
    assert (
        ask("PUT", "/fhir/Observation/lab1", json={**lab, "subject": {"reference": "Patient/p2"}}).status_code == 403
    )
    assert ask("POST", "/fhir/Observation", json=vital).status_code == 403
    made = ask("POST", "/fhir/Observation", json=lab)
    assert made.status_code == 201
    assert ask(
        "DELETE", made.headers["Location"].partition("/_history")[0].removeprefix(str(made.url.join("/"))[:-1])
    ).status_code in (200, 204)
    whole = narrowed("operator", "user/Observation.rs")
    assert whole("GET", "/fhir/Observation/vital1").json()["category"][0]["coding"][0]["code"] == "vital-signs"
    assert whole("GET", "/fhir/Observation/lab1").json()["meta"]["versionId"] == "1"


def test_no_value_of_a_scope_and_no_patient_is_on_the_trail(narrowed: Any, workspace: Workspace) -> None:
    ask = narrowed("doctor", "patient/Observation.rs?code=urn:s|Zyxwvutsrq", "p1")
    answer = ask("GET", "/fhir/Observation")
    act = act_of(workspace, answer)
    assert act["scope"] == ["account", "consent", "only:/Observation.rs?code", "patient"]
    assert "Zyxwvutsrq" not in json.dumps(act)


def test_a_transaction_reads_nothing_that_its_writer_may_not_read(narrowed: Any) -> None:
    def bundle(*entries: Json) -> Json:
        return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}

    new = observation("ignored", "p2", "laboratory")
    create = {"resource": new, "request": {"method": "POST", "url": "Observation"}}
    read = {"request": {"method": "GET", "url": "Observation/vital1"}}
    found = {"request": {"method": "GET", "url": "Observation?_id=vital1"}}
    write_only = narrowed("operator", "user/Observation.c")
    for entry in (read, found):
        answer = write_only("POST", "/fhir", json=bundle(create, entry))
        assert answer.status_code >= 400 or "vital-signs" not in answer.text
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    headers = {"Content-Type": "application/json-patch+json"}
    blind = narrowed("operator", "user/Observation.u")
    answer = blind("PATCH", "/fhir/Observation/vital1", content=json.dumps(patch), headers=headers)
    assert answer.status_code == 404
    seeing = narrowed("operator", "user/Observation.ru")
    answer = seeing("PATCH", "/fhir/Observation/vital1", content=json.dumps(patch), headers=headers)
    assert answer.status_code == 200


def test_an_export_holds_what_the_token_covers_and_is_for_the_same_sight(narrowed: Any) -> None:
    lab = LAB.replace("patient/", "user/")
    ask = narrowed("operator", lab)
    begun = ask("GET", "/fhir/$export?_type=Observation", headers={"Prefer": "respond-async"})
    assert begun.status_code == 202, begun.text
    where = begun.headers["Content-Location"]
    for _ in range(200):
        status = ask("GET", where)
        if status.status_code == 200:
            break
        assert status.status_code == 202, status.text
        time.sleep(0.05)
    (file,) = status.json()["output"]
    lines = [json.loads(line) for line in ask("GET", file["url"]).text.splitlines()]
    assert {"lab1", "lab2", "turned"} <= {one["id"] for one in lines}
    assert all(one["category"][0]["coding"][0]["code"] == "laboratory" for one in lines)
    less = narrowed("operator", lab + "&status=amended")
    assert less("GET", where).status_code == 404
    assert less("GET", file["url"]).status_code == 404
    assert narrowed("operator", "user/Observation.r")("GET", file["url"]).status_code == 403
    assert narrowed("operator", "user/*.cruds")("GET", "/fhir/$export/" + "0" * 32).status_code == 404
    refused = narrowed("operator", "user/Patient.rs")(
        "GET", "/fhir/$export?_type=Observation", headers={"Prefer": "respond-async"}
    )
    assert refused.status_code == 403


def test_a_transaction_is_covered_whole_or_refused(narrowed: Any) -> None:
    ask = narrowed("operator", f"system/Observation.crs?category={CATEGORY}|laboratory system/Patient.r")

    def bundle(*resources: Json) -> Json:
        entries = [
            {"resource": one, "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}}
            for one in resources
        ]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    before = ids(ask("GET", "/fhir/Observation"))
    lab = {**observation("x", "p2", "laboratory"), "id": "bundled"}
    condition = {"resourceType": "Condition", "id": "c9", "subject": {"reference": "Patient/p2"}}
    for other in (
        condition,
        {**observation("x", "p2", "vital-signs"), "id": "bundled2"},
        {**HELD[0], "gender": "male"},
    ):
        posts = bundle(lab, other)
        posts["entry"][0]["request"] = {"method": "POST", "url": "Observation"}
        assert ask("POST", "/fhir", json=posts).status_code in (403, 404)
    assert ids(ask("GET", "/fhir/Observation")) == before
