"""The server and what goes out by itself: HTTP, events."""

from __future__ import annotations

import re

import msgspec

from carelake.core.settings.units import MIB

__all__ = ["EventSettings", "ServeSettings"]

_ORIGIN = re.compile(r"https://[a-z0-9.-]+(:[1-9][0-9]{0,4})?|http://(localhost|127\.0\.0\.1)(:[1-9][0-9]{0,4})?")
"""An exact origin, as browsers write it; without TLS on the same machine only."""


class EventSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How events are delivered. Times in seconds.

    Attributes:
        hosts: hosts, or host:port, that webhooks and event buses may be at; white space or commas between them.
        networks: networks that are not public and that these may lie in, for example ``10.1.0.0/16``.
        tries: attempts before an event is a dead letter; the waits double from ``first_seconds`` to ``cap_seconds``.
        keep_days: `carelake events trim` deletes what is older, as far as everyone has it.
        poll_seconds: how often the server looks for events to deliver; 0 means that it delivers none.
    """

    hosts: str = ""
    networks: str = ""
    tries: int = 16
    first_seconds: float = 1.0
    cap_seconds: float = 21_600.0
    timeout_seconds: float = 10.0
    lease_seconds: float = 60.0
    keep_days: int = 30
    poll_seconds: float = 1.0


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP door and its bounds (docs/serving.md).

    Attributes:
        workers: processes that answer.
        tls_certificate: PEM file of the certificate and those between it and its root; with it the door speaks TLS.
        tls_key: PEM file of its private key, not encrypted.
        hsts_seconds: for so long browsers shall come by TLS only; 0 says nothing of it.
        principal_per_second: requests of one principal, over all workers; 0 counts none.
        source_per_second: requests from one address (IPv6: one /64), over all workers; 0 counts none.
        burst_seconds: how long one who was quiet may go on at any speed, in seconds' worth of requests.
        answer_seconds: how long an answer may take to be made.
        silent_seconds: a worker whose event loop does not run for so long is ended, and another one begins; 0: never.
        gzip: compress answers for those who take that.
        cors_origins: origins whose pages browsers let read answers, each as a browser sends it.
        max_bundle_entries: entries of one batch or transaction.
    """

    max_body_bytes: int = 5 * MIB
    seal_seconds: float = 1.0
    workers: int = 1
    tls_certificate: str = ""
    tls_key: str = ""
    hsts_seconds: int = 31_536_000
    principal_per_second: float = 5_000.0
    source_per_second: float = 10_000.0
    burst_seconds: float = 2.0
    answer_seconds: float = 60.0
    silent_seconds: float = 30.0
    gzip: bool = True
    max_bundle_entries: int = 1000
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [one for one in self.cors_origins if not _ORIGIN.fullmatch(one)]:
            raise ValueError(f"serve.cors_origins has {wrong[0]!r}; expected origins like https://app.example:8443")
        if not 1 <= self.workers <= 64:
            raise ValueError(f"serve.workers is {self.workers}; one to 64 processes answer")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("serve.tls_certificate and serve.tls_key are given both or neither")
        if min(self.principal_per_second, self.source_per_second, self.hsts_seconds, self.silent_seconds) < 0:
            raise ValueError("serve: rates, hsts_seconds and silent_seconds are 0 or more")
        if self.burst_seconds <= 0 or self.answer_seconds <= 0:
            raise ValueError("serve.burst_seconds and serve.answer_seconds are more than 0")
