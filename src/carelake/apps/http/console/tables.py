"""What there is to ask: tables and views with their columns, and how far the lake is behind."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from carelake.apps.http.calls import Call
from carelake.apps.http.console import pages
from carelake.apps.http.console.visits import visit
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.lake import asof
from carelake.lake.flat import names
from carelake.lake.following.fresh import freshness
from carelake.lake.seeing.relations import find, listed
from carelake.lake.statements.statement import Relation

__all__ = ["columns", "overview"]


@visit
def overview(call: Call) -> Response:
    """The first page: every relation that the visitor may read."""
    door = call.door
    with call.enter("lake:query", "lake") as permit:
        told = freshness(permit, door.vault, door.resources)
        tables = _tables(call, permit) if told.snapshot_ref else {}
    return pages.render(
        "overview.html", fresh=told, tables=tables, views=names() if tables else (), account=permit.account
    )


@visit
def columns(call: Call) -> Response:
    """The columns of one relation, and a question about it to begin with."""
    name = call.path["name"]
    with call.enter("lake:query", "lake") as permit:
        snapshot = asof.as_of(permit, call.door.vault, call.door.nouns)
        found = find(permit, call.door.vault, snapshot, Relation("", name.lower()))
        if found is None:
            raise NotFound("http.no_table", "There is no such table here; the first page lists them.")
    told = [{"name": one.name, "type": _type(one.type)} for one in found.schema]
    return pages.render("columns.html", name=name, columns=told)


def _tables(call: Call, permit: Permit) -> dict[str, int | None]:
    return listed(permit, call.door.vault, asof.as_of(permit, call.door.vault, call.door.nouns))


def _type(kind: Any) -> str:
    """A type as people read it; a struct by the names of its parts, which are the elements of R4."""
    text = str(kind)
    return text.replace("list<element: ", "list<").replace("list<item: ", "list<")
