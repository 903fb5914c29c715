"""Webhooks: one POST per event, signed as Standard Webhooks 1.0 has it, CloudEvents structured JSON as the body.

2xx is done. 408, 425, 429, 5xx and what never arrived may pass, and are tried again, not before Retry-After. Any
other 4xx is for good. A redirect is not followed: where to send is a setting, not an answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLong
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from sqlalchemy import Connection

from carelake.core import canonical
from carelake.core.clock import Clock
from carelake.core.errors import CarelakeError
from carelake.events.addresses import Address, Allowed
from carelake.events.envelopes import MEDIA_TYPE, Event
from carelake.events.port import DONE, HELD, Outcome, dead, held_after, retry
from carelake.events.signing import headers

__all__ = ["Webhook"]

_MAY_PASS = frozenset({408, 425, 429})


class Webhook:
    """One address that is called."""

    batch = 20
    joins = False

    def __init__(
        self,
        url: str,
        secrets: Sequence[str],
        *,
        allowed: Allowed,
        source: str,
        clock: Clock,
        timeout: float,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Make a driver.

        Args:
            secrets: the signing secrets that are good now, the newest first.
            timeout: seconds for each step of a call, and twice that for the whole of it.
            trust: which certificates to trust; default: the system's.
        """
        self._url = url
        self._secrets = secrets
        self._allowed = allowed
        self._source = source
        self._clock = clock
        self._seconds = timeout
        self._trust = trust if trust is not None else ssl.create_default_context()
        self._begin()

    def _begin(self) -> None:
        self._caller = ThreadPoolExecutor(1, "webhook")
        self._client = httpx.Client(
            timeout=self._seconds,
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment would connect where we have not looked
            verify=self._trust,
            headers={"user-agent": "carelake", "content-type": MEDIA_TYPE},
        )

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        """Call once per event, in order; what follows a failure in its stream waits."""
        outcomes: list[Outcome] = []
        for number, one in enumerate(events):
            outcomes.append(HELD if held_after(events, number, outcomes) else self._within_time(one))
        return outcomes

    def close(self) -> None:
        """Close connections; what still waits for an answer is given up."""
        self._client.close()
        self._caller.shutdown(wait=False, cancel_futures=True)

    def _within_time(self, one: Event) -> Outcome:
        # The client's own limit is for each read: an answer that comes byte by byte would never be late for it.
        try:
            return self._caller.submit(self._send, one).result(2 * self._seconds)
        except WaitedTooLong:
            self.close()
            self._begin()
            return retry("webhook.timeout")

    def _send(self, one: Event) -> Outcome:
        try:
            address = self._allowed.address(self._url)
        except CarelakeError as error:
            return retry("webhook." + error.code.partition(".")[2])
        body = canonical.dump(one.cloudevent(self._source))
        said = headers(one.id, self._clock.now(), body, self._secrets)
        try:
            status, after = self._post(address, body, said)
        except httpx.TimeoutException:
            return retry("webhook.timeout")
        except httpx.ConnectError as error:
            return retry("webhook.tls" if _by_tls(error) else "webhook.connect")
        except (httpx.HTTPError, httpx.InvalidURL):
            return retry("webhook.broken")
        return self._judge(status, after)

    def _post(self, address: Address, body: bytes, said: dict[str, str]) -> tuple[int, str]:
        request = self._client.build_request(
            "POST",
            address.connect_to,
            content=body,
            headers={**said, "host": address.url.netloc},
            extensions={"sni_hostname": address.host},
        )
        # The body of an answer is not read: it may be of any size, and nothing in it matters.
        answer = self._client.send(request, stream=True)
        answer.close()
        return answer.status_code, answer.headers.get("retry-after", "")

    def _judge(self, status: int, after: str) -> Outcome:
        if 200 <= status < 300:
            return DONE
        reason = f"webhook.status_{status}"
        if 400 <= status < 500 and status not in _MAY_PASS:
            return dead(reason)
        return retry(reason, self._asked(after))

    def _asked(self, text: str) -> float | None:
        """Retry-After in seconds (RFC 9110 section 10.2.3): a number, or a date."""
        if text.isascii() and text.isdigit() and len(text) < 10:
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        aware: datetime = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (aware - self._clock.now()).total_seconds())


def _by_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
