"""Small writes that come at the same time: done together, answered each for itself, and accounted for each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from tests.apps.served import Lines, act_of, admit, bearer, own_workspace, recording, serving

from carelake.access.principals import Principals
from carelake.apps.http.workers import Lane
from carelake.apps.http.writers import Steps, writings
from carelake.apps.wiring import Workspace
from carelake.core.errors import Conflict, Refused, Unavailable
from carelake.vault.groups import Work

# -- by itself -------------------------------------------------------------------------------------------------------


def steps(name: str, told: list[str]) -> Steps:
    try:
        made = yield Work(lambda _tx: name, lambda _tx: None)
    except Exception as error:
        told.append(f"{name} {type(error).__name__}")
        raise
    told.append(f"{name} {made}")
    return Response(name.encode())


def refused() -> Steps:
    raise Refused("x.y", "No.")
    yield


def answered() -> Steps:
    return Response(b"at once")
    yield


def run(
    works: Sequence[Steps],
    grouped: Callable[[Sequence[Any]], list[Any]],
    snapshot: Callable[[], AbstractContextManager[None]] = nullcontext,
    settle: Callable[[], None] = lambda: None,
) -> list[Any]:
    @contextmanager
    def gathering() -> Iterator[Callable[[], None]]:
        yield settle

    async def all_of() -> list[Any]:
        writers = Lane(writings(gathering, snapshot, grouped), 5.0)
        async with writers.until_done():
            return await asyncio.gather(*(writers.run(one) for one in works), return_exceptions=True)

    return asyncio.run(all_of())


def made(works: Sequence[Any]) -> list[Any]:
    return [one.alone(None) for one in works]


def test_all_that_wait_are_one_group() -> None:
    groups: list[int] = []

    def grouped(works: Sequence[Any]) -> list[Any]:
        groups.append(len(works))
        return made(works)

    told: list[str] = []
    found = run([steps("a", told), steps("b", told), answered(), steps("c", told)], grouped)
    assert [one.body for one in found] == [b"a", b"b", b"at once", b"c"]
    assert groups == [3]


def test_an_error_is_that_of_one() -> None:
    told: list[str] = []

    def grouped(works: Sequence[Any]) -> list[Any]:
        return [Conflict("x.z", "Too late.") if one.alone(None) == "b" else one.alone(None) for one in works]

    found = run([steps("a", told), refused(), steps("b", told), steps("c", told)], grouped)
    assert [type(one) for one in found] == [Response, Refused, Conflict, Response]
    assert told == ["a a", "b Conflict", "c c"]


def test_what_fails_for_all_is_told_to_each() -> None:
    def breaks(_works: Sequence[Any]) -> list[Any]:
        raise Unavailable("vault.busy", "Busy.")

    told: list[str] = []
    found = run([steps("a", told), steps("b", told)], breaks)
    assert [type(one) for one in found] == [Unavailable] * 2
    assert told == ["a Unavailable", "b Unavailable"]


def test_nobody_is_left_waiting_when_the_snapshot_fails() -> None:
    told: list[str] = []

    @contextmanager
    def ends_badly() -> Iterator[None]:
        yield
        raise Unavailable("vault.database_down", "Gone.")

    @contextmanager
    def begins_badly() -> Iterator[None]:
        raise Unavailable("vault.database_down", "Gone.")
        yield

    for snapshot in (ends_badly, begins_badly):
        found = run([steps("a", told), steps("b", told)], made, snapshot)
        assert [type(one) for one in found] == [Unavailable] * 2
    assert told == ["a Unavailable", "b Unavailable"]  # those that had begun, so that their acts say so


def test_nothing_is_answered_whose_act_is_not_kept() -> None:
    """A write's act is in the write's own transaction: who was told otherwise would send it again."""

    def settle() -> None:
        raise Unavailable("vault.disk_full", "The disk is full.")

    told: list[str] = []
    found = run([steps("a", told), refused(), answered()], made, settle=settle)
    assert [type(one) for one in found] == [Response, Unavailable, Unavailable]
    not_written = run([steps("b", told)], lambda _works: [Conflict("x.z", "Too late.")], settle=settle)
    assert [type(one) for one in not_written] == [Unavailable]


def test_what_nobody_waits_for_is_not_done() -> None:
    told: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def grouped(works: Sequence[Any]) -> list[Any]:
        begun.set()
        assert go_on.wait(10)
        return made(works)

    async def some() -> None:
        writers = Lane(writings(lambda: nullcontext(lambda: None), nullcontext, grouped), 5.0)
        async with writers.until_done():
            first = asyncio.create_task(writers.run(steps("a", told)))
            await asyncio.to_thread(begun.wait, 10)
            gone, stays = (asyncio.create_task(writers.run(steps(name, told))) for name in "bc")
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(first, stays)

    asyncio.run(some())
    assert told == ["a a", "c c"]


# -- over a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("writers")) as made:
        admit(made, "service", writer="application", other="application")
        admit(made, "person", reader="clinician")
        yield made


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    with serving(workspace, Lines()) as url:
        yield url


def ask(address: str, headers: dict[str, str], method: str, path: str, body: Any, **more: str) -> httpx.Response:
    heads = {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}
    return httpx.request(method, f"{address}/fhir/{path}", json=body, headers=heads, timeout=30)


@contextmanager
def nobody_writes(workspace: Workspace) -> Iterator[None]:
    """Who comes meanwhile waits."""
    with recording(workspace):
        yield


def at_once(
    workspace: Workspace, asks: Sequence[Callable[[], httpx.Response]]
) -> tuple[list[httpx.Response], list[int]]:
    """Answers of requests that came while one of them waited for its turn; sizes of the pages they were kept by."""
    singles, sizes = workspace.resources.singles, []
    put = singles._writer.keep_each

    def counted(tx: Any, permits: Sequence[Any], *more: Any) -> Any:
        sizes.append(len(permits))
        return put(tx, permits, *more)

    singles._writer.keep_each = counted  # type: ignore[method-assign]
    try:
        with ThreadPoolExecutor(len(asks)) as pool:
            with nobody_writes(workspace):
                running = [pool.submit(one) for one in asks]
                threading.Event().wait(2.0)
            return [one.result() for one in running], sizes
    finally:
        singles._writer.keep_each = put  # type: ignore[method-assign]


def test_each_is_answered_and_accounted_for_itself(workspace: Workspace, address: str) -> None:
    writer, other, reader = (bearer(workspace, name) for name in ("writer", "other", "reader"))
    for one in (writer, other, reader):
        ask(address, one, "POST", "Basic", {"resourceType": "Basic", "code": {"text": "known from here on"}})
    there = ask(address, writer, "PUT", "Patient/there", {"resourceType": "Patient", "id": "there"})
    assert there.status_code == 201
    post = partial(ask, address, writer, "POST", "Patient")
    asks = [
        *(partial(post, {"resourceType": "Patient", "name": [{"family": f"F{number}"}]}) for number in range(6)),
        partial(post, {"resourceType": "Patient", "gender": "none"}),
        partial(post, {"resourceType": "Observation"}),
        partial(ask, address, reader, "POST", "Patient", {"resourceType": "Patient"}),
        partial(ask, address, other, "POST", "Patient", {"resourceType": "Patient", "active": True}),
        partial(post, {"resourceType": "Patient", "active": False}, if_none_exist="identifier=urn:x|9"),
        partial(
            ask, address, writer, "PUT", "Patient/there",
            {"resourceType": "Patient", "id": "there", "active": True}, if_match='W/"7"',
        ),
        partial(
            ask, address, writer, "PUT", "Patient/there",
            {"resourceType": "Patient", "id": "there", "active": False}, if_match='W/"1"',
        ),
    ]  # fmt: skip
    answers, sizes = at_once(workspace, asks)
    assert [one.status_code for one in answers] == [*[201] * 6, 400, 400, 403, 201, 201, 412, 200]
    assert max(sizes) >= 4
    assert len({one.json()["id"] for one in answers[:6]}) == 6
    for one in (*answers[:6], *answers[9:11], answers[12]):
        path = f"{one.json()['resourceType']}/{one.json()['id']}"
        assert ask(address, writer, "GET", path, None).json() == one.json()
    acts = [act_of(workspace, one) for one in answers]
    assert [one["phase"] for one in acts] == [
        *["done"] * 6, "failed", "failed", "refused", "done", "done", "failed", "done",
    ]  # fmt: skip
    assert [len(one.get("wrote", ())) for one in acts] == [*[1] * 6, 0, 0, 0, 1, 1, 0, 1]
    assert len({ref for one in acts[:6] for ref in one["wrote"]}) == 6


def test_who_may_not_write_any_more_does_not(workspace: Workspace, address: str) -> None:
    admit(workspace, "service", brief="application")
    headers = bearer(workspace, "brief")
    post = partial(ask, address, headers, "POST", "Basic", {"resourceType": "Basic", "code": {"text": "x"}})
    assert [post().status_code for _ in range(2)] == [201, 201]
    with workspace.vault.database.ledger() as connection:
        Principals(connection).disable("brief")
    answers, sizes = at_once(workspace, [post] * 4)
    assert [one.status_code for one in answers] == [403] * 4
    assert sizes == []
    assert [act_of(workspace, one)["phase"] for one in answers] == ["refused"] * 4


def test_in_the_sight_of_one_patient_each_writes_alone(workspace: Workspace, address: str) -> None:
    writer = bearer(workspace, "writer")
    for key in ("p", "q"):
        ask(address, writer, "PUT", f"Patient/{key}", {"resourceType": "Patient", "id": key})
    own = bearer(workspace, "writer", patient="p", scope="patient/*.cruds")

    def pulse(of: str, headers: dict[str, str]) -> Callable[[], httpx.Response]:
        code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
        subject = {"reference": f"Patient/{of}"}
        body = {"resourceType": "Observation", "status": "final", "code": code, "subject": subject}
        return partial(ask, address, headers, "POST", "Observation", body)

    assert pulse("p", own)().status_code == 201
    all_of_it = [pulse(of, writer) for of in ("q", "p", "q")]
    answers, sizes = at_once(workspace, [pulse("p", own), pulse("q", own), *all_of_it, pulse("p", own)])
    assert [one.status_code for one in answers] == [201, 403, 201, 201, 201, 201]
    assert sum(sizes) in (2, 3)  # whoever came first was alone, and may be one of those who see all
    seen = ask(address, own, "GET", "Observation", None).json()
    assert {one["resource"]["subject"]["reference"] for one in seen["entry"]} == {"Patient/p"}
    assert len(seen["entry"]) == 4
