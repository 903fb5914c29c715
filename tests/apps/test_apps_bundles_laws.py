"""Laws of transactions, on each database: all or nothing, and the order of entries decides nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.apps.served import Lines, admit, bearer, database_of, known, own_workspace, serving

from carelake.apps.wiring import Workspace

FHIR = {"Content-Type": "application/fhir+json"}
_numbers = count()


class Side(NamedTuple):
    """A server and who calls it."""

    workspace: Workspace
    client: httpx.Client

    def seq(self) -> int:
        """The newest of the change feed: no write goes without one."""
        who = known(self.workspace, "writer")
        with self.workspace.gate.enter(who, "record:search", "Patient", "TREAT", account="production") as permit:
            return self.workspace.resources.last_seq(permit)


@pytest.fixture(params=["sqlcipher", pytest.param("postgres", marks=pytest.mark.slow)])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    with own_workspace(tmp_path, **database_of(request)) as workspace:
        admit(workspace, "service", writer="application")
        heads = {**bearer(workspace, "writer"), **FHIR}
        with serving(workspace, Lines()) as url, httpx.Client(base_url=url, headers=heads, timeout=30) as client:
            yield Side(workspace, client)


# -- entries, for a namespace of ids and identifiers ----------------------------------------------------------------

Shape = tuple[Any, ...]
_ids = st.sampled_from("abc")
_values = st.integers(1, 3)
_genders = st.sampled_from(["male", "female"])
_target = st.one_of(
    st.tuples(st.just("entry"), st.integers(0, 3)),
    st.tuples(st.just("id"), _ids),
    st.tuples(st.just("where"), _values),
)
_shapes = st.one_of(
    st.tuples(st.just("post"), _values, _genders),
    st.tuples(st.just("ensure"), _values, _genders),
    st.tuples(st.just("put"), _ids, _genders),
    st.tuples(st.just("match"), _ids, _genders, st.integers(1, 2)),
    st.tuples(st.just("put where"), _values, _genders),
    st.tuples(st.just("patch"), _ids),
    st.tuples(st.just("delete"), _ids),
    st.tuples(st.just("delete where"), _values),
    st.tuples(st.just("observe"), _target),
    st.tuples(st.just("observe"), _target),
    st.tuples(st.just("wrong")),
)


def patient(space: str, value: int | None, gender: str, key: str = "") -> dict[str, Any]:
    own = {"identifier": [{"system": "urn:laws", "value": f"{space}-{value}"}]} if value else {}
    named = {"id": f"{space}-{key}"} if key else {}
    return {"resourceType": "Patient", **named, "meta": tagged(space), **own, "gender": gender}


def tagged(space: str) -> dict[str, Any]:
    return {"tag": [{"system": "urn:laws", "code": space}]}


def entry(space: str, at: int, shape: Shape) -> dict[str, Any]:
    where = f"Patient?identifier=urn:laws|{space}-"
    full = f"urn:uuid:{space}-{at}"
    match shape:
        case ("post", value, gender):
            return whole(full, "POST", "Patient", patient(space, value, gender))
        case ("ensure", value, gender):
            condition = {"ifNoneExist": f"identifier=urn:laws|{space}-{value}"}
            return whole(full, "POST", "Patient", patient(space, value, gender), **condition)
        case ("put", key, gender):
            return whole(full, "PUT", f"Patient/{space}-{key}", patient(space, None, gender, key))
        case ("match", key, gender, version):
            match_ = {"ifMatch": f'W/"{version}"'}
            return whole(full, "PUT", f"Patient/{space}-{key}", patient(space, None, gender, key), **match_)
        case ("put where", value, gender):
            return whole(full, "PUT", f"{where}{value}", patient(space, value, gender))
        case ("patch", key):
            parts = [("type", "Code", "add"), ("path", "String", "Patient"), ("name", "String", "active")]
            listed: list[Any] = [{"name": name, f"value{kind}": value} for name, kind, value in parts]
            listed.append({"name": "value", "valueBoolean": True})
            body = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": listed}]}
            return whole(full, "PATCH", f"Patient/{space}-{key}", body)
        case ("delete", key):
            return {"request": {"method": "DELETE", "url": f"Patient/{space}-{key}"}}
        case ("delete where", value):
            return {"request": {"method": "DELETE", "url": f"{where}{value}"}}
        case ("observe", target):
            subject = {"reference": pointer(space, target)}
            note = {"resourceType": "Observation", "meta": tagged(space), "status": "final", "code": {"text": "c"}}
            return whole(full, "POST", "Observation", {**note, "subject": subject})
    return whole(full, "POST", "Patient", {**patient(space, None, "male"), "gender": "no such code"})


def pointer(space: str, target: tuple[str, Any]) -> str:
    kind, told = target
    if kind == "entry":
        return f"urn:uuid:{space}-{told}"
    return f"Patient/{space}-{told}" if kind == "id" else f"Patient?identifier=urn:laws|{space}-{told}"


def whole(full: str, method: str, url: str, resource: Any, **request: Any) -> dict[str, Any]:
    return {"fullUrl": full, "resource": resource, "request": {"method": method, "url": url, **request}}


# -- doing it -------------------------------------------------------------------------------------------------------


def send(side: Side, entries: list[dict[str, Any]]) -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    return side.client.post("/fhir", content=json.dumps(bundle))


def state(side: Side, space: str, names: dict[str, str]) -> list[Any]:
    """All that a namespace holds, ids by what they stand for."""
    found = []
    for kind in ("Patient", "Observation"):
        answer = side.client.get(f"/fhir/{kind}?_tag=urn:laws|{space}&_count=100")
        assert answer.status_code == 200, answer.text
        for one in answer.json().get("entry", ()):
            resource = one["resource"]
            del resource["meta"]["lastUpdated"]
            text = json.dumps(resource, sort_keys=True)
            for own, name in names.items():
                text = text.replace(own, name)
            found.append(text.replace(space, "SPACE"))
    return sorted(found)


def done(side: Side, space: str, shapes: list[Shape], order: list[int]) -> tuple[bool, dict[int, str], list[Any]]:
    """Whether it was done, what each entry was answered, and what then is there."""
    seed = [
        whole("", "PUT", f"Patient/{space}-{key}", patient(space, at, "other", key))
        for at, key in ((1, "a"), (2, "b"))
    ]
    for one in seed:
        del one["fullUrl"]
    assert send(side, seed).status_code == 200
    before, was = side.seq(), state(side, space, {})
    answer = send(side, [entry(space, at, shapes[at]) for at in order])
    if answer.status_code != 200:
        assert answer.status_code in (400, 404, 409, 410, 412, 422), answer.text
        assert answer.json()["issue"][0]["expression"][0].startswith("Bundle.entry[")
        assert side.seq() == before
        assert state(side, space, {}) == was
        return False, {}, []
    told = {at: one["response"] for at, one in zip(order, answer.json()["entry"], strict=True)}
    names = {one["location"].split("/")[1]: f"entry {at}" for at, one in told.items() if "location" in one}
    names = {own: name for own, name in names.items() if not own.startswith(space)}
    versions = {at: f"{one['status']} {one.get('etag', '')}" for at, one in told.items()}
    return True, versions, state(side, space, names)


_FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_MANY = settings(_FEW, max_examples=300)


def agree(side: Side, shapes: list[Shape], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shapes))))
    one, other = f"s{next(_numbers)}x", f"s{next(_numbers)}y"
    first = done(side, one, shapes, list(range(len(shapes))))
    second = done(side, other, shapes, order)
    event("done" if first[0] else "refused")
    assert first == second


@_FEW
@given(st.lists(_shapes, min_size=1, max_size=4), st.data())
def test_all_or_nothing_in_any_order(side: Side, shapes: list[Shape], data: st.DataObject) -> None:
    agree(side, shapes, data)


@pytest.mark.soak
@_MANY
@given(st.lists(_shapes, min_size=1, max_size=5), st.data())
def test_all_or_nothing_in_any_order_for_long(side: Side, shapes: list[Shape], data: st.DataObject) -> None:
    agree(side, shapes, data)
