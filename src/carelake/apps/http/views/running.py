"""``$viewdefinition-run``, ``$sqlquery-run`` and ``$sql-run``: rows of a view or a query, answered at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import Response

from carelake.apps.http.calls import Call
from carelake.apps.http.views.asking import Ask, Given, given
from carelake.apps.http.views.forms import answer, form_of
from carelake.apps.http.views.subjects import Subjects
from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.fhir.references import target
from carelake.lake import asof, query
from carelake.lake.materialisation.materialised import Found
from carelake.lake.views.execute import over_resources
from carelake.lake.views.queries import Among, Node, evaluate

__all__ = ["among", "run"]

ACTION = "lake:query"


def run(call: Call, ask: Ask, *, inside: bool) -> Response:
    """The rows.

    Args:
        inside: whether the address names the subject.
    """
    told = given(call, ask, inside=inside)
    form = form_of(call, told.one("_format"), fhir=True)
    most = told.one("_limit")
    header = told.one("header") is not False
    with call.enter(ACTION, "lake") as permit:
        subjects = Subjects(call, permit, ask, told)
        _, node = subjects.found(told, call.path["id"] if inside else None)
        subjects.used()
        headers: dict[str, str] = {}
        if "resource" in told:
            found = _sent(call, node, told, most)
        else:
            snapshot = asof.as_of(permit, call.door.vault, call.door.nouns)
            over = among(call, permit, snapshot, told)
            found = evaluate(permit, call.door.vault, snapshot, node, over, most)
            headers["X-Lake-Snapshot"] = snapshot.ref
        permit.log.count(rows=len(found.rows))
    if found.kept:
        headers["X-Lake-Materialised"] = found.kept
    return answer(call, found.rows, form, header=header, headers=headers)


def _sent(call: Call, node: Node, told: Given, most: int | None) -> Found:
    """Of the resources that were sent."""
    if "view" not in node:
        raise Invalid("http.parameter", "Resources are for views; a query reads the lake.", expression="resource")
    if any(name in told for name in ("patient", "group", "_since")):
        raise Invalid("http.parameter", "Resources that are sent are not narrowed further.", expression="resource")
    found = over_resources(node["view"], list(_unpacked(told.all("resource"))), limits=call.door.settings.lake)
    return Found(found if most is None else found.slice(0, most))


def _unpacked(resources: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for one in resources:
        if one.get("resourceType") == "Bundle":
            yield from (entry["resource"] for entry in one.get("entry", ()) if "resource" in entry)
        else:
            yield one


def among(call: Call, permit: Permit, snapshot: Noun, told: Given) -> Among:
    """What the rows are to be of.

    Raises:
        Invalid: ``http.parameter``: a patient or Group that is not in sight, as of the snapshot.
    """
    since: datetime | None = instant(str(told.one("_since"))) if "_since" in told else None
    chosen: frozenset[str] | None = None
    if "patient" in told:
        chosen = frozenset(_id(one, "Patient", "patient") for one in told.all("patient"))
        there = query.current(permit, call.door.vault, snapshot, "Patient", columns=["id"], patient=_few(chosen))
        if there is None or not chosen <= set(there.column("id").to_pylist()):
            raise _unknown("patient")
    if "group" in told:
        members = _members(call, permit, snapshot, [_id(one, "Group", "group") for one in told.all("group")])
        chosen = members if chosen is None else chosen & members
    return Among(chosen, since)


def _few(chosen: frozenset[str]) -> Any:
    return next(iter(chosen)) if len(chosen) == 1 else chosen


def _id(said: str, kind: str, name: str) -> str:
    pointed = target(said)
    if pointed is None or pointed[0] != kind:
        raise Invalid(
            "http.parameter", f"The parameter {name} is a Reference of the form {kind}/ID.", expression=name
        )
    return str(pointed[1])


def _unknown(name: str) -> Invalid:
    return Invalid("http.parameter", f"A {name} that is named is not in the lake, or not in sight.", expression=name)


def _members(call: Call, permit: Permit, snapshot: Noun, wanted: Sequence[str]) -> frozenset[str]:
    """Ids of the patients that are in Groups, as of the snapshot."""
    groups = query.current(permit, call.door.vault, snapshot, "Group", columns=["id", "member"])
    rows: list[dict[str, Any]] = [] if groups is None else groups.to_pylist()
    found = {row["id"]: row.get("member") or [] for row in rows if row["id"] in set(wanted)}
    if found.keys() != set(wanted):
        raise _unknown("group")
    pointed = [
        target(str((one.get("entity") or {}).get("reference", "")))
        for members in found.values()
        for one in members
        if one and not one.get("inactive")
    ]
    return frozenset(str(one[1]) for one in pointed if one is not None and one[0] == "Patient")
