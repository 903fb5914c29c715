"""EventBridge against the moto server: what was put comes out of a rule's queue; limits and partial failures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from carelake.core.clock import SystemClock
from carelake.core.errors import Invalid, Refused
from carelake.core.settings import EventSettings
from carelake.events.drivers.choice import Choice, target_of
from carelake.events.drivers.eventbridge import EventBridge, client_for
from carelake.events.envelopes import Event
from carelake.events.filters import Filter
from carelake.events.port import Outcome
from carelake.events.subscriptions import Subscription

boto3 = pytest.importorskip("boto3")
REGION = "eu-central-1"
DONE = Outcome("done")


def told(seq: int, size: int = 0) -> Event:
    data = {"n": seq, **({"pad": "x" * size} if size else {})}
    return Event(
        seq, f"{seq:032x}", "carelake.model.state", "production", "model:1f", "2026-01-02T03:04:05.000Z", data
    )


class Bus:
    """A bus whose rule sends everything to a queue."""

    def __init__(self, endpoint: str) -> None:
        self.client = client_for(REGION, endpoint, 5.0)
        self.queues = boto3.client("sqs", region_name=REGION, endpoint_url=endpoint)
        self.name = f"lake-{uuid4().hex}"
        self.client.create_event_bus(Name=self.name)
        self.queue = self.queues.create_queue(QueueName=self.name)["QueueUrl"]
        arn = self.queues.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])
        self.client.put_rule(Name="all", EventBusName=self.name, EventPattern=json.dumps({"source": ["carelake"]}))
        self.client.put_targets(
            Rule="all", EventBusName=self.name, Targets=[{"Id": "1", "Arn": arn["Attributes"]["QueueArn"]}]
        )

    def received(self) -> list[dict[str, Any]]:
        found = []
        while got := self.queues.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in got:
                found.append(json.loads(message["Body"]))
                self.queues.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def close(self) -> None:
        self.client.close()
        self.queues.close()


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server.start()
    host, port = server.get_host_and_port()
    made = Bus(f"http://{host}:{port}")
    try:
        yield made
    finally:
        made.close()
        server.stop()


def test_what_is_put_comes_out_of_a_queue(bus: Bus) -> None:
    driver = EventBridge(bus.client, bus.name, source="urn:carelake:w1")
    assert driver.deliver([told(n) for n in range(25)], None) == 25 * [DONE]
    got = bus.received()
    assert sorted(one["detail"]["data"]["n"] for one in got) == list(range(25))
    first = min(got, key=lambda one: one["detail"]["data"]["n"])
    assert first["detail-type"] == "carelake.model.state"
    assert first["resources"] == ["model:1f"]
    assert first["detail"] == told(0).cloudevent("urn:carelake:w1")


class Spy:
    """Stands before the service: notes calls, and lets entries fail."""

    def __init__(self, client: Any, codes: dict[int, list[str]] | None = None) -> None:
        self.client = client
        self.codes = codes or {}
        self.calls: list[list[dict[str, Any]]] = []

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - the service's word
        self.calls.append(Entries)
        fates = [self.codes.get(json.loads(one["Detail"])["data"]["n"], []) for one in Entries]
        good = [one for one, fate in zip(Entries, fates, strict=True) if not fate]
        answers = iter(self.client.put_events(Entries=good)["Entries"] if good else [])
        said = [{"ErrorCode": fate.pop(0), "ErrorMessage": "no"} if fate else next(answers) for fate in fates]
        return {"Entries": said, "FailedEntryCount": len(Entries) - len(good)}

    def close(self) -> None:
        pass


def test_calls_keep_the_limits_of_ten_and_of_256_kb(bus: Bus) -> None:
    spy = Spy(bus.client)
    driver = EventBridge(spy, bus.name, source="urn:carelake:w1")
    sizes = [*([0] * 12), *([100_000] * 5), 300_000, 0]
    outcomes = driver.deliver([told(n, size) for n, size in enumerate(sizes)], None)
    assert [one.state for one in outcomes] == ["done"] * 17 + ["dead", "done"]
    assert outcomes[17].reason == "eventbridge.too_large"
    assert all(len(call) <= 10 for call in spy.calls)
    assert all(sum(len(one["Detail"]) + 80 for one in call) < 256 * 1024 for call in spy.calls)
    assert [len(call) for call in spy.calls] == [10, 4, 2, 2]
    assert len(bus.received()) == 18


def test_entries_that_failed_are_put_again_alone(bus: Bus, desk: Any, clock: Any) -> None:
    """Through the whole of it: the outbox, a consumer, a batch that fails in part."""
    codes = {2: ["ThrottlingException", "InternalFailure"], 3: ["MalformedDetail"]}
    spy = Spy(bus.client, codes)
    driver = EventBridge(spy, bus.name, source="urn:carelake:w1")
    desk.add(driver="eventbridge", target={"bus": bus.name, "region": REGION})
    with desk.vault.database.transaction(desk.permit()) as tx:
        for n in range(6):
            desk.outbox.publish(tx, "production", "model.state", "model:1", {"n": n})
    for _ in range(3):
        desk.turn(driver)
        clock.move(minutes=1)
    assert sorted(one["detail"]["data"]["n"] for one in bus.received()) == [0, 1, 2, 4, 5], "each once"
    assert [(one.sequence, one.reason) for one in desk.letters()] == [(4, "eventbridge.MalformedDetail")]
    assert desk.standing().lag == 0


def test_a_bus_that_is_not_there_or_nobody_there_comes_again(bus: Bus) -> None:
    gone = client_for(REGION, "http://127.0.0.1:9", 0.5)
    driver = EventBridge(gone, bus.name, source="urn:carelake:w1")
    assert driver.deliver([told(1)], None) == [Outcome("retry", "eventbridge.connect")]
    driver.close()

    class Refusing:
        def put_events(self, **_: Any) -> None:
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "Zebulon"}}, "PutEvents")

    [outcome] = EventBridge(Refusing(), bus.name, source="urn:carelake:w1").deliver([told(1)], None)
    assert (outcome.state, outcome.reason) == ("retry", "eventbridge.AccessDeniedException")


# -- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bus", "region"),
    [("x", "bad region!"), ("x", ""), ("x", "eu-central-1.evil.org"), ("", REGION), ("a b", REGION), ("é", REGION)],
)
def test_a_bus_or_region_that_is_none_is_refused_when_it_is_added(bus: str, region: str) -> None:
    with pytest.raises(Invalid) as caught:
        target_of(EventSettings(), url=None, bus=bus, region=region, endpoint=None)
    assert caught.value.code == "events.target"


def test_a_bus_may_have_an_arn() -> None:
    arn = "arn:aws-cn:events:cn-north-1:123456789012:event-bus/lake"
    assert target_of(EventSettings(), url=None, bus=arn, region="cn-north-1", endpoint=None)[1]["bus"] == arn


def test_an_endpoint_is_of_aws_or_named() -> None:
    """The SDK resolves it once more: a name whose second answer may be another one is the operator's to trust."""

    def add(endpoint: str, hosts: str = "") -> None:
        target_of(EventSettings(hosts=hosts), url=None, bus="x", region=REGION, endpoint=endpoint)

    for name in ("events.eu-central-1", "events-fips.us-east-1", "vpce-0a1b-c2.events.eu-central-1.vpce"):
        add(f"https://{name}.amazonaws.com")
    add("https://events.cn-north-1.amazonaws.com.cn")
    add("http://127.0.0.1:5000", "127.0.0.1")
    for url in (
        "https://rebind.example.org",
        "https://events.eu-central-1.amazonaws.com.evil.org",
        "https://evilamazonaws.com",
        "https://ec2-1-2-3-4.eu-central-1.compute.amazonaws.com",
        "https://mine.s3.amazonaws.com",
        "http://127.0.0.1:5000",
    ):
        with pytest.raises(Refused):
            add(url)


def test_what_was_added_is_checked_once_more_when_it_is_called() -> None:
    target = {"bus": "x", "region": REGION, "endpoint": "https://10.0.0.1"}
    told = Subscription("bus", "production", "eventbridge", "active", Filter(), target, "")
    for hosts in ("", "10.0.0.1"):
        with pytest.raises(Refused):
            Choice(EventSettings(hosts=hosts), source="urn:x", clock=SystemClock())(told, [])


def test_a_proxy_of_the_environment_is_not_used(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = client_for(REGION, bus.client.meta.endpoint_url, 5.0)
    assert EventBridge(client, bus.name, source="urn:x").deliver([told(1)], None) == [DONE]
    client.close()
