"""Health, readiness, metrics: for machines, without a token, without patient data."""

from __future__ import annotations

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.metrics import Metrics
from carelake.core.errors import CarelakeError
from carelake.lake.following.fresh import of_accounts

__all__ = ["alive", "metrics_page", "ready"]


def alive(call: Call) -> Response:
    """The process answers."""
    call.only()
    return answers.json({"status": "ok"})


def ready(metrics: Metrics, call: Call) -> Response:
    """Everything that requests lean on works; 503 and the names of what does not, otherwise."""
    call.only()
    checks = {"database": _database(call), "trail": "ok" if metrics.sealing_works else "not sealed"}
    fine = all(state == "ok" for state in checks.values())
    return answers.json({"status": "ok" if fine else "unavailable", "checks": checks}, 200 if fine else 503)


def _database(call: Call) -> str:
    try:
        # A permit without an act: a probe every second must not fill the trail with acts that tell nothing.
        with call.door.vault.database.reading(call.door.gate.probing()) as tx:
            tx.exec_driver_sql("SELECT 1").scalar_one()
    except CarelakeError as error:
        return error.code
    except Exception as error:  # whatever the driver says, the answer is that it is not ready
        return type(error).__name__
    return "ok"


def metrics_page(metrics: Metrics, call: Call) -> Response:
    """The numbers of this server."""
    call.only()
    return answers.text(metrics.page() + _lake(call), metrics.media_type)


def _lake(call: Call) -> bytes:
    """How far the lake of each account is behind the record; nothing where the database does not answer."""
    door = call.door
    try:
        told = of_accounts(door.gate.probing(), door.vault, door.resources)
    except CarelakeError:
        return b""
    lines = []
    for name, help_text, figure in (
        ("carelake_lake_behind", "Change numbers that the lake is behind the record", "behind"),
        ("carelake_lake_behind_seconds", "Age of the oldest change that the lake does not have", "seconds"),
    ):
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{account="{account}"}} {getattr(one, figure)}' for account, one in told.items()]
    return ("\n".join(lines) + "\n").encode() if told else b""
