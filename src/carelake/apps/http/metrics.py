"""Metrics for Prometheus. Labels are route templates, methods and status codes: nothing that a caller can choose."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from carelake import __version__

__all__ = ["FOLDER", "Metrics", "known_method", "mark_dead"]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where the workers of one server keep their numbers; looked at when `prometheus_client` is imported."""


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def known_method(method: str) -> str:
    """The method, or ``other``: a caller can send any word there."""
    return method if method in _METHODS else "other"


class Metrics:
    """The numbers of one server, in a registry of their own."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.sealing_works = True
        self._registry = CollectorRegistry(auto_describe=True)
        self._of = lru_cache(2048)(self._found)
        self._requests = Counter(
            "carelake_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "carelake_http_seconds", "Time to answer", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self.running = Gauge(
            "carelake_http_running", "Requests being answered", registry=self._registry, multiprocess_mode="livesum"
        )
        self._seal_failures = Counter(
            "carelake_audit_seal_failures", "Times the trail could not be sealed", registry=self._registry
        )
        self._sealed = Counter("carelake_audit_segments", "Segments sealed by this server", registry=self._registry)
        self._undelivered = Counter(
            "carelake_event_failures", "Turns of delivery that failed", ("code",), registry=self._registry
        )
        self._limited = Counter("carelake_http_limited", "Requests over a rate", ("rate",), registry=self._registry)
        info = Gauge(
            "carelake_build_info", "Always 1", ("version",), registry=self._registry, multiprocess_mode="max"
        )
        info.labels(__version__).set(1)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        counter, timer = self._of(known_method(method), route, status)
        counter.inc()
        timer.observe(seconds)

    def _found(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, route, str(status)), self._seconds.labels(route)

    def sealed(self, segments: int) -> None:
        """The trail was sealed into so many segments."""
        self.sealing_works = True
        self._sealed.inc(segments)

    def not_sealed(self) -> None:
        """The trail could not be sealed."""
        self.sealing_works = False
        self._seal_failures.inc()

    def not_delivered(self, code: str) -> None:
        """A turn of delivery failed."""
        self._undelivered.labels(code).inc()

    def limited(self, rate: str) -> None:
        """A request was over a rate: ``principal`` or ``source``."""
        self._limited.labels(rate).inc()

    def page(self) -> bytes:
        """The exposition text; of all workers together, where there are several."""
        folder = os.environ.get(FOLDER)
        if not folder:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def mark_dead(pid: int, folder: Path) -> None:
    """A worker ended: what it counted stays, what it was at does not."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
