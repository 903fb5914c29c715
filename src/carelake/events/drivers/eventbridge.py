"""Amazon EventBridge: PutEvents in batches, each entry with its own fate.

https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html. An entry's Detail is the CloudEvent.
EventBridge keeps no order, so the entries of a stream may go out together; one that failed is sent again alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import Unavailable
from carelake.events.envelopes import Event
from carelake.events.port import DONE, Outcome, dead, retry

__all__ = ["EventBridge", "client_for"]

_ENTRIES = 10
_BYTES = 256 * 1024
_TIME_BYTES = 14
_FOR_GOOD = frozenset({"MalformedDetail", "InvalidArgument", "NotAuthorizedForSourceException"})
_CODE = re.compile(r"[A-Za-z]{1,40}")


def client_for(region: str, endpoint: str | None, seconds: float) -> Any:
    """A client of the service, with credentials from where the AWS SDK finds them; its own retries are off.

    Raises:
        Unavailable: ``events.extra``.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise Unavailable(
            "events.extra", "EventBridge needs the AWS SDK; install it with `pip install carelake[aws]`."
        ) from None
    # A proxy of the environment would connect where we have not looked.
    config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}, proxies={})
    return boto3.client("events", region_name=region, endpoint_url=endpoint, config=config)


class EventBridge:
    """One event bus."""

    batch = 100
    joins = False

    def __init__(self, client: Any, bus: str, *, source: str) -> None:
        """Make a driver.

        Args:
            client: a boto3 client for ``events``, see `client_for`.
            bus: name or ARN of the bus.
            source: of the CloudEvents.
        """
        self._client = client
        self._bus = bus
        self._source = source

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        """Send them in as few calls as the limits allow."""
        found: dict[int, Outcome] = {}
        for batch in self._batches(events, found):
            answers = self._put([entry for _, entry in batch])
            found |= {number: answer for (number, _), answer in zip(batch, answers, strict=True)}
        return [found[number] for number in range(len(events))]

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _batches(
        self, events: Sequence[Event], found: dict[int, Outcome]
    ) -> Iterator[list[tuple[int, dict[str, Any]]]]:
        batch: list[tuple[int, dict[str, Any]]] = []
        size = 0
        for number, one in enumerate(events):
            entry = self._entry(one)
            own = _size(entry)
            if own > _BYTES:
                found[number] = dead("eventbridge.too_large")
                continue
            if batch and (len(batch) == _ENTRIES or size + own > _BYTES):
                yield batch
                batch, size = [], 0
            batch.append((number, entry))
            size += own
        if batch:
            yield batch

    def _entry(self, one: Event) -> dict[str, Any]:
        return {
            "Source": "carelake",
            "DetailType": one.type,
            "Detail": canonical.dump(one.cloudevent(self._source)).decode(),
            "Resources": [one.subject],
            "Time": instant(one.time),
            "EventBusName": self._bus,
        }

    def _put(self, entries: list[dict[str, Any]]) -> list[Outcome]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.put_events(Entries=entries)
        except ClientError as error:
            # About the call and not an entry: who calls, how often, which bus. It may be put right.
            return [retry(_reason(error.response.get("Error", {}).get("Code", "")))] * len(entries)
        except BotoCoreError:
            return [retry("eventbridge.connect")] * len(entries)
        return [_outcome(one) for one in answer["Entries"]]


def _outcome(answer: dict[str, Any]) -> Outcome:
    code = answer.get("ErrorCode")
    if not code:
        return DONE
    return dead(_reason(code)) if code in _FOR_GOOD else retry(_reason(code))


def _reason(code: str) -> str:
    return f"eventbridge.{code}" if _CODE.fullmatch(code) else "eventbridge.failed"


def _size(entry: dict[str, Any]) -> int:
    """The bytes of an entry, as the limit counts them: time, source, type, detail, resources."""
    texts = [entry["Source"], entry["DetailType"], entry["Detail"], *entry["Resources"]]
    return _TIME_BYTES + sum(len(text.encode()) for text in texts)
