"""Which driver a consumer has, made from its target and the settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from carelake.core.clock import Clock
from carelake.core.errors import Invalid, Unavailable
from carelake.core.settings import EventSettings
from carelake.events.addresses import Allowed
from carelake.events.drivers.eventbridge import EventBridge, client_for
from carelake.events.drivers.local import Handler, Local, Pull
from carelake.events.drivers.webhook import Webhook
from carelake.events.port import Driver
from carelake.events.subscriptions import Subscription

__all__ = ["Choice", "target_of"]

_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,5}")
_BUS = re.compile(
    r"[A-Za-z0-9._/-]{1,256}|arn:aws[a-z-]{0,20}:events:[a-z0-9-]{1,40}:\d{12}:event-bus/[A-Za-z0-9._/-]{1,256}"
)
# The SDK resolves the name once more by itself: only names whose answers are AWS's own need not be in events.hosts.
_AWS = re.compile(r"(vpce-[a-z0-9-]+\.)?events(-fips)?\.[a-z]{2,8}(-[a-z]+)+-\d{1,2}(\.vpce)?\.amazonaws\.com(\.cn)?")


class Choice:
    """Makes drivers for one process."""

    def __init__(
        self,
        settings: EventSettings,
        *,
        source: str,
        clock: Clock,
        handlers: Mapping[str, Handler] | None = None,
        write: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Say what there is.

        Args:
            source: of the CloudEvents.
            handlers: functions by the name that a local consumer's target gives.
            write: where to events go that are read by a command.
        """
        self._settings = settings
        self._source = source
        self._clock = clock
        self._handlers = handlers or {}
        self._write = write

    def can(self, told: Subscription) -> bool:
        """Whether this process can deliver to it: not everyone has its function, or reads its output."""
        if told.driver == "local":
            return told.target.get("handler") in self._handlers
        return told.driver != "pull" or self._write is not None

    def __call__(self, told: Subscription, secrets: list[str]) -> Driver:
        """The driver.

        Raises:
            Unavailable: ``events.no_handler``, ``events.extra``.
            Refused: ``events.host_not_allowed``.
        """
        seconds = self._settings.timeout_seconds
        allowed = Allowed(self._settings.hosts, self._settings.networks)
        if told.driver == "webhook":
            url = str(told.target["url"])
            return Webhook(url, secrets, allowed=allowed, source=self._source, clock=self._clock, timeout=seconds)
        if told.driver == "eventbridge":
            endpoint = told.target.get("endpoint")
            if endpoint and not _AWS.fullmatch(allowed.check(str(endpoint), _AWS).hostname or ""):
                allowed.address(str(endpoint))
            client = client_for(str(told.target["region"]), endpoint, seconds)
            return EventBridge(client, str(told.target["bus"]), source=self._source)
        if told.driver == "pull" and self._write is not None:
            return Pull(self._write, self._source)
        handler = self._handlers.get(str(told.target.get("handler")))
        if handler is None:
            raise Unavailable("events.no_handler", "This process has no function for that consumer; it is another's.")
        return Local(handler)


def target_of(
    settings: EventSettings, *, url: str | None, bus: str | None, region: str | None, endpoint: str | None
) -> tuple[str, dict[str, Any]]:
    """Driver and target from what was typed: a webhook's URL, or an event bus; neither is a consumer that pulls.

    Raises:
        Invalid: ``events.target``, ``events.url``. Refused: ``events.host_not_allowed``.
    """
    allowed = Allowed(settings.hosts, settings.networks)
    if url is not None and bus is not None:
        raise Invalid("events.target", "Give --url for a webhook or --bus for EventBridge, not both.")
    if url is not None:
        allowed.check(url)
        return "webhook", {"url": url}
    if bus is None:
        return "pull", {}
    if not _REGION.fullmatch(region or ""):
        raise Invalid("events.target", "An event bus needs its --region, for example eu-central-1.")
    if not _BUS.fullmatch(bus):
        raise Invalid("events.target", "Not an event bus; expected its name or its ARN.")
    if endpoint is not None:
        allowed.check(endpoint, _AWS)
    return "eventbridge", {"bus": bus, "region": region, **({"endpoint": endpoint} if endpoint else {})}
