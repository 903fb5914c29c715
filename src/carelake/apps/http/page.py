"""The start page: the state of the loop, rendered here, without scripts and without anything from elsewhere.

It is shown without a token to this machine only, since it holds counts and state words and no patient data; the act
behind it is the server's own.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import threading
import time
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from starlette.responses import Response

from carelake import __version__
from carelake.access.identity import Caller
from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.ports import Door
from carelake.apps.http.state import Latest, State, state_of
from carelake.core.clock import iso
from carelake.core.errors import Refused

__all__ = ["StartPage"]

_SERVICE = "endpoint"
_PURPOSE = "HOPERAT"
_ACCOUNT = "production"
_FRESH = timedelta(seconds=2).total_seconds()
_GOOD = frozenset({"Approved", "InService", "ok", "passed", "done"})
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


class StartPage:
    """Shows the state; a page that is asked for again within two seconds is the same page and the same act."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: tuple[float, str, str] = (-_FRESH, "", "")

    def __call__(self, call: Call) -> Response:
        call.only()
        _from_this_machine(call)
        with self._lock:
            shown, page, act = self._shown
            if time.monotonic() - shown > _FRESH:
                page = self._render(call)
                act = call.act
                self._shown = (time.monotonic(), page, act)
        call.act = act
        answer = answers.html(page)
        answer.headers["Content-Security-Policy"] = _policy()
        return answer

    @staticmethod
    def _render(call: Call) -> str:
        # The act tells both: the server's own principal, on behalf of somebody unknown.
        nobody = Caller(call.door.identity.nobody(), _PURPOSE, _ACCOUNT)
        with call.door.platform.acting(_SERVICE, nobody, "status:read", "start page") as permit:
            call.act = permit.act
            state = state_of(call.door, permit)
        return _template().render(**_shown(call.door, state))


def _shown(door: Door, state: State) -> dict[str, Any]:
    cards = (
        ("Model", state.model, _facts(state.model), "No model yet: carelake run readmission"),
        ("Endpoint", state.endpoint, _facts(state.endpoint), "No endpoint yet; an approved model gets one."),
        ("Drift", state.finding, _facts(state.finding), "No check yet: carelake monitor check ENDPOINT"),
    )
    now = iso(door.vault.clock.now())
    return {
        "state": state,
        "cards": cards,
        "good": _GOOD,
        "style": _style(),
        "version": __version__,
        "now": now,
    }


_SHOWN_FACTS = ("name", "version", "author", "status", "rows")


def _facts(thing: Latest | None) -> list[tuple[str, str]]:
    """The few facts of a noun that the page shows: an allow-list, whatever else its body gets one day."""
    if thing is None:
        return []
    said = [(name, str(thing.body[name])) for name in _SHOWN_FACTS if isinstance(thing.body.get(name), str | int)]
    violations = thing.body.get("violations")
    return [*said, ("violations", str(len(violations)))] if isinstance(violations, list) else said


def _from_this_machine(call: Call) -> None:
    """Refuse callers from elsewhere, those that a proxy speaks for, and pages of other names (DNS rebinding)."""
    host = call.headers.get("host", "")
    name = host[: host.rfind(":")] if host.rpartition(":")[2].isdigit() else host
    proxied = any(header in call.headers for header in _PROXY_HEADERS)
    if proxied or not _is_loopback(call.client) or not (name == "localhost" or _is_loopback(name.strip("[]"))):
        raise Refused("http.this_machine_only", "The start page is shown to a browser on the server's machine only.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return _text("start.css")


@cache
def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_text("start.html"))
