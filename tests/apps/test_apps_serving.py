"""Several workers: what survives the death of one, of all, and of their parent; and what they share."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.apps.crews import Served, Writer, add, clients, gone, token, wait_for
from tests.apps.served import known

from carelake.access.principals import Principals
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["embedded", pytest.param("postgresql", marks=pytest.mark.soak)])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("crew")
    found = {"CARELAKE_KEY_DIR": str(folder / "keys")}
    if request.param == "embedded":
        yield found
        return
    server = request.getfixturevalue("postgres_server")
    (folder / "password").write_text(server.password)
    name = f"crew_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    told = {"URL": server.url(name), "PASSWORD_FILE": str(folder / "password")}
    yield {**found, **{f"CARELAKE_DATABASE__{key}": value for key, value in told.items()}}
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def workspace(environment: dict[str, str]) -> Iterator[Workspace]:
    made = Workspace.create(Path(environment["CARELAKE_KEY_DIR"]).parent / "workspace", environment)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(workspace: Workspace, environment: dict[str, str]) -> Iterator[Served]:
    made = Served(environment, workspace.vault.root.parent / "log")
    yield made
    made.end()


def test_killing_a_worker_loses_nothing_that_was_acknowledged(served: Served, workspace: Workspace) -> None:
    before, stop, headers = served.workers(), threading.Event(), token(workspace)
    assert len(before) == 2
    writers = [Writer(served.url, headers, stop) for _ in range(6)]
    try:
        wait_for(lambda: all(len(one.kept) > 2 for one in writers))
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(served.workers()) == 2 and before[0] not in served.workers())
        reached = [len(one.kept) for one in writers]
        wait_for(lambda: all(len(one.kept) > many + 2 for one, many in zip(writers, reached, strict=True)))
    finally:
        stop.set()
        for one in writers:
            one.thread.join(60)
    assert not any(one.thread.is_alive() for one in writers)
    assert 0 < sum(one.lost for one in writers) <= len(writers)  # each its connection to the one that was killed
    assert served.process.poll() is None
    assert any("ended (-9)" in line for line in served.lines())
    with httpx.Client(base_url=served.url, timeout=30, headers=headers) as client:
        for key, gender in (pair for one in writers for pair in one.kept):
            assert client.get(f"/fhir/Patient/{key}").json()["gender"] == gender
    with workspace.vault.database.ledger() as connection:
        acts = Acts(connection)
        for name in (name for one in writers for name in one.acts):
            assert [one["phase"] for one in acts.find(correlation=name, limit=5)] == ["done"], name


def test_a_revoked_token_is_refused_by_every_worker_at_once(served: Served, workspace: Workspace) -> None:
    wait_for(lambda: httpx.get(f"{served.url}/healthz", timeout=30).status_code == 200)
    add(workspace, "revoked")
    headers = token(workspace, "revoked")
    claims = workspace.identity.tokens.verified(headers["Authorization"].partition(" ")[2])
    with clients(served.url, 8, headers=headers) as found:
        for _ in range(3):
            assert {one.get("/fhir/Patient/none").status_code for one in found} == {404}
        with workspace.vault.database.ledger() as connection:
            workspace.identity.tokens.revoke(connection, claims.id, claims.principal, claims.expires)
        assert {one.get("/fhir/Patient/none").status_code for one in found} == {401}


def test_a_disabled_principal_is_refused_by_every_worker_at_once(served: Served, workspace: Workspace) -> None:
    add(workspace, "passing")
    with clients(served.url, 8, headers=token(workspace, "passing")) as found:
        assert {one.get("/fhir/Patient/none").status_code for one in found} == {404}
        with workspace.vault.database.ledger() as connection:
            Principals(connection).disable("passing")
        assert {one.get("/fhir/Patient/none").status_code for one in found} == {403}


def numbers(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_metrics_are_those_of_all_workers_together(served: Served, workspace: Workspace) -> None:
    name = 'carelake_http_requests_total{method="GET",route="/fhir/{type}/{id}",status="404"}'
    with clients(served.url, 6, headers=token(workspace)) as found:
        before = numbers(found[0].get("/metrics").text, name)
        for one in found:
            one.get("/fhir/Patient/none")
        wait_for(lambda: numbers(found[0].get("/metrics").text, name) >= before + 6, 10)
        assert len({numbers(one.get("/metrics").text, name) for one in found}) == 1


def test_the_trail_is_sealed_while_it_runs_by_one_of_them(served: Served, workspace: Workspace) -> None:
    with httpx.Client(base_url=served.url, timeout=30, headers=token(workspace)) as client:
        name = client.get("/fhir/Patient/none").headers["X-Request-Id"]

    def sealed() -> bool:
        with workspace.vault.database.ledger_reading() as connection:
            seq = Acts(connection).find(correlation=name, limit=1)[0]["seq"]
            last = connection.exec_driver_sql("SELECT max(last) FROM segment").scalar()
            return bool(last and last >= seq)

    wait_for(sealed)


def test_no_worker_outlives_its_parent(served: Served, workspace: Workspace) -> None:
    """The last one: it ends what the others share."""
    workers = served.workers()
    assert len(workers) == 2
    served.process.kill()
    served.process.wait(10)
    wait_for(lambda: all(gone(one) for one in workers))


def test_sigterm_finishes_what_has_begun_and_ends_all(workspace: Workspace, environment: dict[str, str]) -> None:
    made = Served(environment, workspace.vault.root.parent / "log2")
    workers, headers = made.workers(), token(workspace)
    stop = threading.Event()
    writers = [Writer(made.url, headers, stop) for _ in range(3)]
    try:
        wait_for(lambda: all(one.kept for one in writers))
        assert made.end() == 0
    finally:
        stop.set()
        for one in writers:
            one.thread.join(60)
    assert all(gone(one) for one in workers)
    assert not [line for line in made.lines() if "leaked" in line]  # by what the interpreter did not free
    with workspace.gate.enter(
        known(workspace, "operator"), "record:read", "Patient", "TREAT", account="production"
    ) as permit:
        for key, gender in (pair for one in writers for pair in one.kept):
            assert workspace.resources.read(permit, "Patient", key)["gender"] == gender
