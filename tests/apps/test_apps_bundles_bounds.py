"""Bundles that ask for more than an answer can hold: bounded, whatever a few words can ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import calling, outcome, own_workspace

from carelake.apps.http.fhir import batching, transacting_reads
from carelake.store import rows

MOST = 20_000


@pytest.fixture
def client(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(batching, "MOST_BYTES", MOST)
    monkeypatch.setattr(transacting_reads, "MOST_BYTES", MOST)
    with own_workspace(tmp_path) as made, calling(made, "operator") as one:
        one.put("/Patient/p", json={"resourceType": "Patient", "id": "p", "name": [{"text": "x" * 3000}]})
        yield one


def bundle(kind: str, *urls: str) -> dict[str, Any]:
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


@pytest.mark.parametrize("url", ["Patient/p", "Patient?_id=p"])
def test_answers_of_a_batch_come_to_so_much_and_no_more(client: httpx.Client, url: str) -> None:
    answer = client.post("/", json=bundle("batch", *[url] * 50))
    assert answer.status_code == 200
    told = [entry["response"]["status"][:3] for entry in answer.json()["entry"]]
    assert told[0] == "200"
    assert told[-1] == "503"
    assert len(answer.content) < 3 * MOST


@pytest.mark.parametrize("url", ["Patient/p", "Patient?_id=p"])
def test_neither_do_those_of_a_transaction(client: httpx.Client, url: str) -> None:
    assert client.post("/", json=bundle("transaction", *[url] * 4)).status_code == 200
    answer = client.post("/", json=bundle("transaction", *[url] * 50))
    outcome(answer, 503, "http.answer_too_large")


@pytest.mark.parametrize(
    "path", ["/Patient?_count={}", "/Patient/p/_history?_count={}", "/Patient/p/$everything?_count={}"]
)
def test_a_page_holds_so_much_and_no_more(client: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        client.put(f"/Patient/q{number}", json={"resourceType": "Patient", "id": f"q{number}", **LONG, **LINK})
        client.put(
            "/Patient/p", json={"resourceType": "Patient", "id": "p", "active": bool(number % 2), **LONG, **LINK}
        )
    monkeypatch.setattr(rows, "PAGE_BYTES", 8000)
    assert client.get(path.format(2)).status_code == 200
    answer = client.get(path.format(100))
    outcome(answer, 400, "store.page_too_large")


LONG = {"name": [{"text": "x" * 3000}]}
LINK = {"link": [{"other": {"reference": f"Patient/q{number}"}, "type": "replaces"} for number in range(3)]}
