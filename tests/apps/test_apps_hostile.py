"""Input that is made to exhaust: each is answered soon, as wrong or as it deserves; others are answered meanwhile."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.apps.served import calling, fill, own_workspace

SOON = 10.0
"""Seconds; each takes well below one on a machine that is not busy."""
MIB = 1 << 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with own_workspace(tmp_path_factory.mktemp("hostile"), CARELAKE_SEARCH__CONTENT="true") as made:
        fill(made, PATIENT)
        with calling(made, "operator", timeout=60) as one:
            yield one


PATIENT = {
    "resourceType": "Patient",
    "id": "one",
    "name": [{"family": "a" * 900, "given": ["b"]}],
    "address": [{"text": "a" * 900}],
    "birthDate": "1980-02-13",
}
FHIR = {"Content-Type": "application/fhir+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}


def nested(depth: int) -> bytes:
    return (
        b'{"resourceType":"Patient","extension":[' * 1 + b'{"url":"u","extension":[' * depth + b"]}" * depth + b"]}"
    )


def bundle(count: int, entry: Callable[[int], dict[str, Any]], kind: str = "transaction") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": [entry(n) for n in range(count)]}).encode()


def path_patch(path: str) -> bytes:
    said = (("type", "valueCode", "replace"), ("path", "valueString", path), ("value", "valueCode", "en"))
    parts = [{"name": name, key: value} for name, key, value in said]
    return json.dumps({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}).encode()


def matching(**patient: Any) -> bytes:
    resource = {"resourceType": "Patient", **patient}
    return json.dumps(
        {"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": resource}]}
    ).encode()


EMPTY = bundle(1, lambda _: {})
REDOS = "'" + "a" * 40 + "!'.matches('^(a+)+$')"
CATASTROPHES = {
    "arrays a hundred thousand deep": ("POST", "/Patient", b"[" * 100_000, FHIR),
    "objects a hundred thousand deep": ("POST", "/Patient", b'{"a":' * 100_000, FHIR),
    "extensions ten thousand deep": ("POST", "/Patient", nested(10_000), FHIR),
    "extensions ninety deep": ("POST", "/Patient", nested(90), FHIR),
    "a number of a million digits": ("POST", "/Patient", b'{"resourceType":"Patient","x":' + b"9" * MIB + b"}", FHIR),
    "a decimal of a million digits": (
        "POST",
        "/Observation",
        b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":0.'
        + b"1" * MIB
        + b"}}",
        FHIR,
    ),
    "an exponent of nine digits": (
        "POST",
        "/Observation",
        b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1e999999999}}',
        FHIR,
    ),
    "half a MB of keys": (
        "POST",
        "/Patient",
        b'{"resourceType":"Patient"' + b"".join(b',"k%d":1' % n for n in range(40_000)) + b"}",
        FHIR,
    ),
    "a MB of names": (
        "POST",
        "/Patient",
        b'{"resourceType":"Patient","name":[' + b",".join([b'{"family":"a"}'] * 60_000) + b"]}",
        FHIR,
    ),
    "a body over the bound": ("POST", "/Patient", b" " * (6 * MIB), FHIR),
    "a gigabyte in a megabyte": (
        "POST",
        "/Patient",
        gzip.compress(b" " * (200 * MIB), 9),
        {**FHIR, "Content-Encoding": "gzip"},
    ),
    "a bundle of ten thousand": (
        "POST",
        "",
        bundle(10_000, lambda n: {"request": {"method": "DELETE", "url": f"Patient/{n}"}}),
        FHIR,
    ),
    "a thousand conditional references": (
        "POST",
        "",
        bundle(
            2,
            lambda n: {
                "fullUrl": f"urn:uuid:{n}",
                "request": {"method": "POST", "url": "List"},
                "resource": {
                    "resourceType": "List",
                    "status": "current",
                    "mode": "working",
                    "entry": [{"item": {"reference": f"Patient?identifier=x|{one}"}} for one in range(1000)],
                },
            },
        ),
        FHIR,
    ),
    "a bundle in a bundle in a bundle": (
        "POST",
        "",
        bundle(1, lambda _: {"request": {"method": "POST", "url": ""}, "resource": json.loads(EMPTY)}),
        FHIR,
    ),
    "a patch that copies itself": (
        "PATCH",
        "/Patient/one",
        json.dumps(
            [
                {"op": "copy", "from": "/address", "path": "/address/-"},
                *[{"op": "copy", "from": "/address/0", "path": "/address/-"}] * 5000,
            ]
        ).encode(),
        JSON_PATCH,
    ),
    "a patch that doubles a list again and again": (
        "PATCH",
        "/Patient/one",
        json.dumps(
            [{"op": "add", "path": "/x", "value": ["a"] * 10}]
            + [{"op": "copy", "from": "/x", "path": f"/x/{n % 2}"} for n in range(60)]
        ).encode(),
        JSON_PATCH,
    ),
    "a regular expression without end in a patch": ("PATCH", "/Patient/one", path_patch(REDOS), FHIR),
    "a path of ten thousand brackets": ("PATCH", "/Patient/one", path_patch("(" * 10_000), FHIR),
    "a path that multiplies": (
        "PATCH",
        "/Patient/one",
        path_patch("Patient" + ".descendants()" * 50),
        FHIR,
    ),
    "names as long as books to match": (
        "POST",
        "/Patient/$match",
        matching(
            name=[{"family": "a" * 10_000, "given": ["b" * 10_000]}] * 100,
            address=[{"line": ["x" * 1000] * 20}] * 60,
            birthDate="1980-02-13",
        ),
        FHIR,
    ),
    "a hundred thousand identifiers to match": (
        "POST",
        "/Patient/$match",
        matching(identifier=[{"system": "http://a", "value": str(n)} for n in range(60_000)]),
        FHIR,
    ),
}


@pytest.mark.parametrize("name", CATASTROPHES)
def test_it_is_answered_soon(client: httpx.Client, name: str) -> None:
    method, path, body, headers = CATASTROPHES[name]
    start = time.monotonic()
    answer = client.request(method, path, content=body, headers=headers)
    took = time.monotonic() - start
    assert answer.status_code < 500, (name, answer.status_code, answer.text[:300])
    assert took < SOON, (name, took)
    if answer.status_code >= 400:
        assert answer.json()["resourceType"] == "OperationOutcome"
        assert len(answer.content) < MIB
    assert client.get("/Patient/one").status_code == 200


SEARCHES = (
    {"_content": "(a+)+$"},
    {"_content": "a*a*a*a*a*a*a*a*b OR " * 30},
    {"_content": '"' * 2000},
    {"_text": "(" * 2000},
    {"name:contains": "%_" * 400},
    {"name:contains": "a" * 900 + "!"},
    {"name:exact": "\\" * 3000},
    {"_id": ",".join(str(n) for n in range(10_000))},
    {"identifier": ",".join(f"http://a|{n}" for n in range(5000))},
    {"_has:" + "Observation:patient:_has:" * 30 + "x": "y"},
    {".".join(["link"] * 60): "x"},
    {"general-practitioner:Practitioner." + "." * 500: "x"},
    {"_include": "*", "_revinclude": "*", "_include:iterate": "*:*"},
    {"_sort": ",".join(["name", "-birthdate"] * 500)},
    {"birthdate": "ap" + "9" * 5000},
    {"_count": "9" * 5000},
    {"_page": "A" * 100_000},
    {"_elements": ",".join(["name"] * 20_000)},
)


@pytest.mark.parametrize("number", range(len(SEARCHES)))
def test_searches_are_answered_soon(client: httpx.Client, number: int) -> None:
    longest = max(map(len, SEARCHES[number].values()))
    for method in ("GET", "POST")[longest > 30_000 :]:
        start = time.monotonic()
        if method == "POST":
            answer = client.post("/Patient/_search", data=SEARCHES[number])
        else:
            answer = client.get("/Patient", params=SEARCHES[number])
        assert answer.status_code < 500, (SEARCHES[number], answer.status_code, answer.text[:300])
        assert time.monotonic() - start < SOON, SEARCHES[number]


def test_slow_senders_keep_nobody_waiting(client: httpx.Client) -> None:
    at = urlsplit(str(client.base_url))
    body = json.dumps(PATIENT).encode()
    head = [
        f"PUT /fhir/Patient/one HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/fhir+json\r\n"
        f"Authorization: {client.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n",
        f"GET /fhir/Patient/one HTTP/1.1\r\nHost: {at.netloc}\r\nX-Slow: ",
    ]
    stop = threading.Event()

    def drip(number: int) -> None:
        with socket.create_connection((at.hostname or "", at.port or 0), timeout=20) as one:
            one.sendall(head[number % 2].encode())
            while not stop.wait(0.2):
                try:
                    one.sendall(b"x")
                except OSError:
                    return

    senders = [threading.Thread(target=drip, args=(number,)) for number in range(60)]
    for one in senders:
        one.start()
    try:
        start = time.monotonic()
        for _ in range(20):
            assert client.get("/Patient/one").status_code == 200
        assert time.monotonic() - start < SOON
    finally:
        stop.set()
        for one in senders:
            one.join(20)
    assert client.get("/Patient/one").json()["name"][0]["family"] == "a" * 900
