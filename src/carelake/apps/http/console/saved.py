"""Saved questions of the visitor's own."""

from __future__ import annotations

from starlette.responses import Response

from carelake.apps.http.calls import Call
from carelake.apps.http.console import pages
from carelake.apps.http.console.questions import asked_of, kept
from carelake.apps.http.console.visits import go, visit
from carelake.lake.statements.questions import Questions

__all__ = ["listed", "remove", "save"]


@visit
def listed(call: Call) -> Response:
    """All of them."""
    call.only()
    with call.enter("lake:query", "lake") as permit:
        found = Questions(call.door.vault).all(permit)
    return pages.render("saved.html", questions=found)


@visit
def save(call: Call) -> Response:
    """Keep what the editor holds, in the place of the question that it came from."""
    asked = asked_of(call)
    with call.enter("lake:keep", "lake") as permit:
        Questions(call.door.vault).save(permit, kept(asked), asked.id)
    return go("/saved")


@visit
def remove(call: Call) -> Response:
    """Take one away."""
    call.only()
    with call.enter("lake:keep", "lake") as permit:
        Questions(call.door.vault).delete(permit, call.path["id"])
    return go("/saved")
