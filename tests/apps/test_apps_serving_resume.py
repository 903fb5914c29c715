"""What a server takes up that was broken off before: erasures; and how many jobs may begin at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import httpx
import pytest
from tests.apps.crews import wait_for
from tests.apps.served import Lines, known, serving

from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.errors import Conflict
from carelake.core.permit import Permit
from carelake.pipelines.erase import Erasures


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    made = Workspace.create(tmp_path / "workspace", {"CARELAKE_KEY_DIR": str(tmp_path / "keys")})
    yield made
    made.close()


def token(workspace: Workspace) -> dict[str, str]:
    text = workspace.identity.issue(known(workspace, "operator"), purpose="TREAT", account="production", seconds=600)
    return {"Authorization": f"Bearer {text}"}


def entered(workspace: Workspace) -> Any:
    return workspace.gate.enter(
        known(workspace, "operator"), "record:erase", "record", "HOPERAT", account="production"
    )


def put(workspace: Workspace, *keys: str) -> None:
    headers = token(workspace)
    with serving(workspace, Lines()) as url, httpx.Client(base_url=url, timeout=30, headers=headers) as client:
        for key in keys:
            answer = client.put(f"/fhir/Patient/{key}", json={"resourceType": "Patient", "id": key})
            assert answer.status_code == 201


class Broken(Exception):
    pass


def break_off(workspace: Workspace, key: str) -> None:
    """An erasure that ends in the middle, as one does whose permit has run out."""

    def shown(step: str, done: int, of: int) -> None:
        raise Broken

    with pytest.raises(Broken), entered(workspace) as permit:
        workspace.erasures.erase(permit, [key], "asked for", progress=shown)


def states(workspace: Workspace) -> list[str]:
    with entered(workspace) as permit:
        return [one["state"] for one in workspace.erasures.list(permit)]


def test_an_erasure_that_was_broken_off_is_brought_to_its_end_by_the_server(workspace: Workspace) -> None:
    put(workspace, "p1", "p2")
    break_off(workspace, "p1")
    assert states(workspace) != ["done"]
    log = Lines()
    with serving(workspace, log) as url, httpx.Client(base_url=url, timeout=30, headers=token(workspace)) as client:
        wait_for(lambda: states(workspace) == ["done"])
        assert client.get("/fhir/Patient/p1").status_code in (404, 410)
        assert client.get("/fhir/Patient/p2").status_code == 200
        wait_for(lambda: {"event": "erasures brought to their end", "number": 1} in log.said)
    with workspace.vault.database.ledger_reading() as connection:
        acts = [one for one in Acts(connection).find(limit=200) if one["principal"] == "vault"]
    assert {one["phase"] for one in acts if one["action"] == "record:erase"} == {"start", "page", "done"}


def test_what_another_process_carries_out_is_left_to_it_and_costs_no_act(workspace: Workspace) -> None:
    put(workspace, "p1")
    break_off(workspace, "p1")
    elsewhere = '{"host":"elsewhere","boot":"x","pid":1,"start":1,"until":"2999-01-01T00:00:00Z"}'
    with entered(workspace) as permit, workspace.vault.database.transaction(permit) as tx:
        tx.exec_driver_sql("UPDATE erasure SET process = ?", (elsewhere,))
    assert workspace.erasures.broken_off(workspace.gate.polling()) == []
    log = Lines()
    with serving(workspace, log):
        time.sleep(workspace.settings.bulk.poll_seconds * 1.5)
    assert not [one for one in log.said if "erasure" in one["event"]]
    assert states(workspace) != ["done"]


def test_what_is_under_way_here_is_not_broken_off(workspace: Workspace) -> None:
    put(workspace, "p1")
    seen: list[list[str]] = []

    def shown(step: str, done: int, of: int) -> None:
        thread = Thread(target=lambda: seen.append(workspace.erasures.broken_off(workspace.gate.polling())))
        thread.start()
        thread.join()

    with entered(workspace) as permit:
        workspace.erasures.erase(permit, ["p1"], "asked for", progress=shown)
    assert seen
    assert not any(seen)


def test_of_two_that_take_up_the_same_erasure_one_does(workspace: Workspace) -> None:
    put(workspace, "p1")
    break_off(workspace, "p1")
    other = Erasures(workspace.vault, workspace.nouns, workspace.outbox, workspace.resources)
    with entered(workspace) as permit, entered(workspace) as later:
        (seen,) = other._open_jobs(later)
        assert len(workspace.erasures.resume(permit)) == 1
        with pytest.raises(Conflict, match="Another erasure"):
            other._carry_out(later, seen, lambda step, done, of: None)
    assert states(workspace) == ["done"]


def test_a_server_that_ends_breaks_off_and_the_next_one_goes_on(workspace: Workspace) -> None:
    put(workspace, "p1")
    break_off(workspace, "p1")
    work = workspace.erasures.resume
    began: list[Permit] = []

    def slow(permit: Permit, *, progress: Any) -> list[dict[str, Any]]:
        began.append(permit)
        while True:
            progress("record", 0, 1)
            time.sleep(0.01)

    workspace.erasures.resume = slow  # type: ignore[method-assign]
    with serving(workspace, Lines()):
        wait_for(lambda: began)
    workspace.erasures.resume = work  # type: ignore[method-assign]
    assert states(workspace) != ["done"]
    with serving(workspace, Lines()):
        wait_for(lambda: states(workspace) == ["done"])


def test_jobs_that_begin_at_once_are_counted_one_by_one(workspace: Workspace) -> None:
    """As by two workers: a count before the transaction lets both pass."""
    from carelake.core.errors import Unavailable
    from carelake.store.jobs import Jobs

    start, made, refused = Barrier(8), [], []

    def begin() -> None:
        jobs = Jobs(workspace.vault)
        with workspace.gate.enter(
            known(workspace, "operator"), "record:export", "record", "HOPERAT", account="production"
        ) as permit:
            start.wait()
            try:
                with workspace.vault.database.transaction(permit) as tx:
                    made.append(jobs.begin(permit, tx, "export", {}, most=3))
            except Unavailable as error:
                refused.append(error.code)

    threads = [Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert refused == ["store.too_many_jobs"] * 5
