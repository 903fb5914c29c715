"""What tests of the HTTP door begin with: a workspace of its own, who is in it, a server on loopback, its callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest

from carelake.access.principals import Principal, Principals
from carelake.apps.http.server import make_server
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.permit import Permit


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})

    error = info


# --- a workspace --------------------------------------------------------------------------------------------------


@contextmanager
def own_workspace(folder: Path, policy: str = "", **told: str) -> Iterator[Workspace]:
    """A new one in a folder, its keys beside it.

    ``policy`` is put beside the package's own; ``told`` are settings, named as in the environment.
    """
    environment = {"CARELAKE_KEY_DIR": str(folder / "keys"), **told}
    made = Workspace.create(folder / "workspace", environment)
    if policy:
        made.close()
        (folder / "workspace" / "policies").mkdir(exist_ok=True)
        (folder / "workspace" / "policies" / "own.cedar").write_text(policy)
        made = Workspace.open(folder / "workspace", environment)
    with closing(made):
        yield made


def database_of(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for the database that a fixture's parameter names: ``sqlcipher`` or ``postgres``."""
    if request.param != "postgres":
        return {}
    database: Any = request.getfixturevalue("postgres")
    return {"CARELAKE_DATABASE__URL": database.url, "CARELAKE_DATABASE__PASSWORD_FILE": database.password_file}


def admit(workspace: Workspace, kind: str, **roles: str) -> None:
    """Principals of one kind by their names, each with one role: ``admit(made, "person", doctor="clinician")``."""
    with workspace.vault.database.ledger() as connection:
        for name, role in roles.items():
            Principals(connection).add(Principal(name, kind, (role,), ("production",)))


def known(workspace: Workspace, name: str) -> Principal:
    with workspace.vault.database.ledger() as connection:
        return Principals(connection).get(name)


@contextmanager
def recording(workspace: Workspace, action: str = "record:ingest") -> Iterator[tuple[Permit, Any]]:
    """A permit of the operator's and a transaction, to write without the door."""
    operator = known(workspace, "operator")
    with (
        workspace.gate.enter(operator, action, "record", "TREAT", account="production") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        yield permit, tx


def fill(workspace: Workspace, *resources: dict[str, Any], action: str = "record:ingest") -> None:
    with recording(workspace, action) as (permit, tx):
        for one in resources:
            workspace.resources.update(permit, tx, one)


# --- a server, and who calls it -----------------------------------------------------------------------------------


@contextmanager
def serving(workspace: Workspace, log: Lines, deliver: Any = None) -> Iterator[str]:
    addresses: Queue[str] = Queue()
    server = make_server(workspace, port=0, started=addresses.put, log=log, deliver=deliver)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield addresses.get(timeout=20)
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive()


def bearer(
    workspace: Workspace,
    name: str,
    purpose: str = "TREAT",
    account: str = "production",
    *,
    seconds: int = 3600,
    **narrowed: Any,
) -> dict[str, str]:
    """Headers with a token of one principal; ``narrowed`` by ``scope``, or to a ``patient``."""
    who = known(workspace, name)
    token = workspace.identity.issue(who, purpose=purpose, account=account, seconds=seconds, **narrowed)
    return {"Authorization": f"Bearer {token}"}


@contextmanager
def calling(workspace: Workspace, name: str, base: str = "/fhir", timeout: float = 20) -> Iterator[httpx.Client]:
    """A server, and one client of it."""
    with (
        serving(workspace, Lines()) as url,
        httpx.Client(base_url=url + base, headers=bearer(workspace, name), timeout=timeout) as made,
    ):
        yield made


@contextmanager
def callers(workspace: Workspace, address: str) -> Iterator[Callable[..., httpx.Client]]:
    """Clients of one server by who calls, made when first asked for: ``of("doctor")``; narrowed as in `bearer`."""
    with ExitStack() as stack:

        @cache
        def of(name: str, **narrowed: Any) -> httpx.Client:
            headers = bearer(workspace, name, **narrowed)
            return stack.enter_context(httpx.Client(base_url=f"{address}/fhir", headers=headers, timeout=20))

        yield of


# --- what is answered ---------------------------------------------------------------------------------------------


def wrong(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    told = answer.json()
    assert told["resourceType"] == "OperationOutcome", answer.text
    return answer.status_code, told["issue"][0]["details"]["text"]


def outcome(answer: httpx.Response, status: int, code: str) -> None:
    """It is this error."""
    assert wrong(answer) == (status, code), answer.text


def acts_of(workspace: Workspace, answer: httpx.Response) -> list[dict[str, Any]]:
    """What the trail keeps of one request."""
    with workspace.vault.database.ledger_reading() as connection:
        return Acts(connection).find(limit=20, correlation=answer.headers["X-Request-Id"])


def act_of(workspace: Workspace, answer: httpx.Response) -> dict[str, Any]:
    (act,) = acts_of(workspace, answer)
    return act
