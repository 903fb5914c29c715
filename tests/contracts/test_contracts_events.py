"""What every driver of events does, whatever is behind it: local functions, a pipe, a webhook, EventBridge."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import Unavailable
from carelake.events.addresses import Allowed
from carelake.events.drivers.eventbridge import EventBridge, client_for
from carelake.events.drivers.local import Local, Pull
from carelake.events.drivers.webhook import Webhook
from carelake.events.envelopes import Event
from carelake.events.port import Driver
from carelake.events.signing import new_secret

SOURCE = "urn:carelake:w1"
CANARY = "Zebulon"


@dataclass
class Side:
    """A driver and its other side.

    Attributes:
        received: sequences, in the order in which they came.
        down: makes the other side fail, or well again.
        ordered: what follows a failure in its stream is held; the gap of EventBridge, which keeps no order.
        fails: whether it can fail at all; a pipe that breaks is its reader's error.
    """

    driver: Driver
    received: Callable[[], list[int]]
    down: Callable[[bool], None]
    ordered: bool = True
    fails: bool = True


@contextmanager
def a_function(vault: Any) -> Iterator[Side]:
    got: list[int] = []
    down: list[bool] = []

    def handle(_tx: Any, one: Event) -> None:
        if down:
            raise Unavailable("test.down", CANARY)
        got.append(one.seq)

    yield Side(Local(handle), lambda: got, lambda yes: down.append(yes) if yes else down.clear())


@contextmanager
def a_pipe(vault: Any) -> Iterator[Side]:
    got: list[int] = []
    driver = Pull(lambda said: got.append(int(said["sequence"])), SOURCE)
    yield Side(driver, lambda: got, lambda _: None, fails=False)


@contextmanager
def a_webhook(vault: Any) -> Iterator[Side]:
    got: list[int] = []
    down: list[bool] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not down:
                got.append(int(json.loads(body)["sequence"]))
            self.send_response(503 if down else 204, CANARY)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    driver = Webhook(
        f"http://127.0.0.1:{server.server_port}/",
        [new_secret()],
        allowed=Allowed("127.0.0.1"),
        source=SOURCE,
        clock=clock,
        timeout=5.0,
    )
    try:
        yield Side(driver, lambda: got, lambda yes: down.append(yes) if yes else down.clear())
    finally:
        driver.close()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def a_bus(vault: Any) -> Iterator[Side]:
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint, region, name = f"http://{host}:{port}", "eu-central-1", f"lake-{uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        for word in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(word, "testing")
        client = client_for(region, endpoint, 5.0)
        queues = boto3.client("sqs", region_name=region, endpoint_url=endpoint)
        nobody = client_for(region, "http://127.0.0.1:9", 0.5)
    client.create_event_bus(Name=name)
    queue = queues.create_queue(QueueName=name)["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    client.put_rule(Name="all", EventBusName=name, EventPattern=json.dumps({"source": ["carelake"]}))
    client.put_targets(Rule="all", EventBusName=name, Targets=[{"Id": "1", "Arn": arn}])
    got: list[int] = []

    def received() -> list[int]:
        while found := queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                got.append(int(json.loads(message["Body"])["detail"]["sequence"]))
                queues.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return got

    driver = EventBridge(client, name, source=SOURCE)

    def down(yes: bool) -> None:
        driver._client = nobody if yes else client

    try:
        yield Side(driver, received, down, ordered=False)
    finally:
        for one in (client, queues, nobody):
            one.close()
        server.stop()


@pytest.fixture(params=[a_function, a_pipe, a_webhook, a_bus], ids=["local", "pull", "webhook", "eventbridge"])
def side(request: pytest.FixtureRequest, vault: Any) -> Iterator[Side]:
    with request.param(vault) as made:
        yield made


def told(seq: int, kind: str = "carelake.a") -> Event:
    return Event(seq, uuid4().hex, kind, "production", "model:1", "2026-01-02T03:04:05.000Z", {"n": seq})


def deliver(vault: Any, side: Side, *events: Event) -> list[str]:
    if side.driver.joins:
        with vault.database.ledger() as tx:
            outcomes = side.driver.deliver(events, tx)
    else:
        outcomes = side.driver.deliver(events, None)
    assert not [one for one in outcomes if CANARY in one.reason], "what the other side said is not ours to tell"
    return [one.state for one in outcomes]


def test_each_event_arrives_once_and_has_an_outcome(vault: Any, side: Side) -> None:
    events = [told(n, f"carelake.{'ab'[n % 2]}") for n in range(1, 24)]
    assert deliver(vault, side, *events) == ["done"] * 23
    got = side.received()
    assert sorted(got) == list(range(1, 24))
    if side.ordered:
        assert got == sorted(got)


def test_nothing_is_nothing(vault: Any, side: Side) -> None:
    assert deliver(vault, side) == []


def test_a_failure_is_an_outcome_and_passes(vault: Any, side: Side) -> None:
    if not side.fails:
        pytest.xfail("never: an error of the reader's is raised to it")
    events = [told(1, "carelake.a"), told(2, "carelake.a"), told(3, "carelake.b")]
    side.down(True)
    assert deliver(vault, side, *events) == (["retry", "held", "retry"] if side.ordered else 3 * ["retry"])
    side.down(False)
    assert deliver(vault, side, *events) == 3 * ["done"]
    assert sorted(side.received()) == [1, 2, 3]
