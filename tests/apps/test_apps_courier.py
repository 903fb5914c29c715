"""The courier: one odd consumer stops nobody, and a slow one delays nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from carelake.access.identity import Caller
from carelake.apps.cli.events import _plain
from carelake.apps.courier import Courier
from carelake.apps.wiring import Workspace
from carelake.core.errors import Invalid
from carelake.events.filters import Filter, start_of
from carelake.events.subscriptions import Subscriptions
from carelake.events.tables import subscription

LONG = "a" * 70 + ".example.org"
SECRET = "T0KEN-in-a-path"


class Hook:
    """A receiver; calls below /slow wait for ``go``."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.go = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                if "/slow" in self.path:
                    hook.go.wait(8)
                hook.got.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.go.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    environment = {"CARELAKE_KEY_DIR": str(tmp_path / "keys"), "CARELAKE_EVENTS__HOSTS": f"127.0.0.1 {LONG}"}
    Workspace.create(tmp_path / "ws", environment).close()
    made = Workspace.open(tmp_path / "ws", environment)
    yield made
    made.close()


@pytest.fixture
def caller(workspace: Workspace) -> Caller:
    from carelake.access.principals import Principals

    with workspace.vault.database.ledger() as tx:
        return Caller(Principals(tx).get("operator"), "HOPERAT", "production")


def add(workspace: Workspace, caller: Caller, name: str, driver: str, target: dict[str, Any]) -> None:
    with (
        workspace.enter(caller, "event:manage", "events") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        Subscriptions(tx, workspace.vault.clock, workspace.vault.sealer).add(
            permit, name, driver, Filter(), target, start_of("beginning")
        )


def publish(workspace: Workspace, caller: Caller) -> None:
    with (
        workspace.enter(caller, "event:manage", "events") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        workspace.outbox.publish(tx, "production", "model.state", "model:1", {"n": 1})


def test_odd_consumers_stop_nobody(workspace: Workspace, caller: Caller, hook: Hook) -> None:
    pytest.importorskip("boto3")
    publish(workspace, caller)
    add(workspace, caller, "abus", "eventbridge", {"bus": "x", "region": "bad region!"})
    add(workspace, caller, "along", "webhook", {"url": f"https://{LONG}/x"})
    add(workspace, caller, "ano-target", "webhook", {})
    add(workspace, caller, "zhook", "webhook", {"url": f"{hook.url}/x"})
    with Courier(workspace, caller) as courier:
        said = {one.name: one for one in courier.round()}
        assert hook.got == ["/x"]
        assert said["zhook"].tally.delivered == 1
        assert said["abus"].failed == "fault.InvalidRegionError"
        assert said["ano-target"].failed == "fault.KeyError"
        assert said["along"].tally.reasons == {"webhook.url": 1}
        assert "abus" not in {one.name for one in courier.round()}, "it rests"


def test_a_slow_consumer_delays_nobody(workspace: Workspace, caller: Caller, hook: Hook) -> None:
    publish(workspace, caller)
    add(workspace, caller, "aslow", "webhook", {"url": f"{hook.url}/slow"})
    add(workspace, caller, "zquick", "webhook", {"url": f"{hook.url}/quick"})
    with Courier(workspace, caller) as courier:
        began = time.monotonic()
        assert [one.name for one in courier.round(patience=1.0)] == ["zquick"]
        publish(workspace, caller)
        assert [one.name for one in courier.round(patience=1.0)] == ["zquick"]
        assert time.monotonic() - began < 6
        hook.go.set()
        until = time.monotonic() + 10
        names: list[str] = []
        while "aslow" not in names and time.monotonic() < until:
            names += [one.name for one in courier.round(patience=0.2)]
        assert "aslow" in names
    assert hook.got.count("/quick") == 2
    assert hook.got.count("/slow") == 2


def test_a_path_of_a_webhook_is_sealed_and_not_shown(workspace: Workspace, caller: Caller, hook: Hook) -> None:
    add(workspace, caller, "hook", "webhook", {"url": f"{hook.url}/{SECRET}?key={SECRET}"})
    # One that was kept before URLs were sealed.
    add(workspace, caller, "older", "webhook", {})
    told = msgspec.json.encode({"url": f"{hook.url}/{SECRET}/older"}).decode()
    with workspace.vault.database.ledger() as tx:
        kept = tx.execute(subscription.select().where(subscription.c.name == "hook")).one()
        assert SECRET not in str(kept)
        tx.execute(update(subscription).where(subscription.c.name == "older").values(target=told))
    with (
        workspace.enter(caller, "event:manage", "events") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        found = Subscriptions(tx, workspace.vault.clock, workspace.vault.sealer)
        shown = [_plain(one) for one in found.all("production")]
        assert [one["target"] for one in shown] == [{"url": f"{hook.url}/…"}] * 2
        for name in ("hook", "older"):
            found.rotate(permit, name)
        assert SECRET not in str(tx.execute(subscription.select()).all())
    publish(workspace, caller)
    with Courier(workspace, caller) as courier:
        assert [one.tally.delivered for one in courier.round()] == [1, 1]
    assert sorted(hook.got) == sorted([f"/{SECRET}?key={SECRET}", f"/{SECRET}/older"])


def test_what_is_at_the_ends_of_the_calendar_is_no_start() -> None:
    for text in ("0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"):
        with pytest.raises(Invalid) as caught:
            start_of(text)
        assert caught.value.code == "events.start"
