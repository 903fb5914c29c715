"""A browser's visit: the token that it was given, in a cookie that no script and no other site can use."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http.cookies import CookieError, SimpleCookie
from typing import TypeVar

from starlette.responses import RedirectResponse, Response

from carelake.apps.errors import message_of
from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.console import pages
from carelake.apps.http.routes import Handler
from carelake.core.errors import CarelakeError, Invalid, Refused, Unauthenticated

__all__ = ["ROOT", "enter", "go", "leave", "looked_at", "paged", "visit"]

Answer = TypeVar("Answer")

ROOT = "/explore"
_COOKIE = "carelake_visit"
_LONGEST = 3800
"""Browsers keep cookies up to 4096 bytes, name and attributes among them."""
_LOOKS = ("lake:query", "lake")
_SAME = frozenset({"same-origin", "none"})


def visit(handler: Handler) -> Handler:
    """The handler of a page for those who entered: as who the cookie says."""

    @wraps(handler)
    def answer(call: Call) -> Response:
        call.present(_carried(call))
        call.caller(*_LOOKS)
        return handler(call)

    return paged(answer)


def paged(handler: Callable[[Call], Answer]) -> Callable[[Call], Answer | Response]:
    """The handler of a page: errors are pages, and nothing is done for another site."""

    @wraps(handler)
    def answer(call: Call) -> Answer | Response:
        try:
            _from_here(call)
            return handler(call)
        except Unauthenticated as error:
            return pages.render("enter.html", status=401, said="" if not call.token else message_of(error))
        except CarelakeError as error:
            status = answers.status_for(error)
            return pages.render("wrong.html", status=status, code=error.code, said=message_of(error))

    return answer


@paged
def looked_at(call: Call) -> None:
    """Before a visitor's form is read: who does not come as one has the page that takes a token for an answer."""
    call.present(_carried(call))
    call.caller(*_LOOKS)


def enter(call: Call) -> Response:
    """The form that takes a token; with one in it, begin the visit."""
    if call.method == "GET":
        return pages.render("enter.html", said="")
    token = (call.one("token") or "").strip()
    if len(token) > _LONGEST:
        raise Invalid("http.long_token", "The token is too long for a browser to keep; use one of `carelake token`.")
    call.present(token)
    call.caller(*_LOOKS)
    answer = go()
    # A session cookie: it goes when the browser is closed; the token ends by itself before.
    answer.set_cookie(_COOKIE, token, path=ROOT, secure=call.scheme == "https", httponly=True, samesite="strict")
    return answer


def leave(_call: Call) -> Response:
    """End the visit."""
    answer = go("/enter")
    answer.delete_cookie(_COOKIE, path=ROOT, httponly=True, samesite="strict")
    return answer


def go(place: str = "") -> Response:
    """Show another page."""
    return RedirectResponse(ROOT + place, status_code=303)


def _carried(call: Call) -> str:
    try:
        found = SimpleCookie(call.headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _from_here(call: Call) -> None:
    """Refuse what another site made the browser send; the cookie is not sent then either.

    Our pages tell no referrer, so browsers name the origin of their forms ``null``: then they must say the site.
    """
    if call.method == "GET":
        return
    origin, site = call.headers.get("origin"), call.headers.get("sec-fetch-site")
    named = origin not in (None, "null")
    here = site in _SAME if site is not None else origin != "null"
    if not here or (named and origin != call.base):
        raise Refused("http.another_site", "The form was sent from another site; open the page here and try again.")
