"""Health, readiness, metrics: for machines, without a token, without patient data."""

from __future__ import annotations

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.metrics import Metrics

__all__ = ["alive", "metrics_page", "ready"]


def alive(call: Call) -> Response:
    """The process answers."""
    call.only()
    return answers.json({"status": "ok"})


def ready(call: Call) -> Response:
    """Everything that requests lean on works; 503 and the names of what does not, otherwise."""
    call.only()
    checks = dict(call.door.health())
    fine = all(state == "ok" for state in checks.values())
    return answers.json({"status": "ok" if fine else "unavailable", "checks": checks}, 200 if fine else 503)


def metrics_page(metrics: Metrics, call: Call) -> Response:
    """The numbers of this server."""
    call.only()
    return answers.text(metrics.page(), metrics.media_type)
