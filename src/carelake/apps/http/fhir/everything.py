"""``$everything`` of a patient and of an encounter.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty
from carelake.apps.http.fhir.parameters import PARAMETERS, Given, asked_with
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.routes import Operation
from carelake.core.errors import Invalid
from carelake.fhir.bundle import search_entry, searchset
from carelake.fhir.definitions import is_resource
from carelake.fhir.search.values import date_range
from carelake.store.everything import Asked, kinds

__all__ = ["everything", "operations"]

_KINDS = ("Patient", "Encounter")
_PAGE = "_page"
_TAKES = {
    "start": "date",
    "end": "date",
    "_since": "instant",
    "_type": "string*",
    "_count": "integer",
    _PAGE: "string",
}
_QUERY = "start, end: days of care; _since; _type; _count: size of a page"
_LARGEST = 10_000


def operations() -> list[Operation]:
    """The addresses of the operation."""
    found = []
    for kind in _KINDS:
        for method in ("GET", "POST"):
            found.append(
                Operation(
                    method,
                    f"/fhir/{kind}/{{id}}/$everything",
                    f"everythingOf{kind}" + ("ByPost" if method == "POST" else ""),
                    f"Everything that is known of one {kind.lower()}, by pages",
                    everything,
                    "fhir",
                    body=PARAMETERS if method == "POST" else None,
                    parameters={"id": f"id of the {kind}"},
                    query=_QUERY,
                    media_type=answers.FHIR_JSON,
                    answers={"404": "There is none", "410": "It was deleted or erased"},
                )
            )
    return found


def everything(call: Call) -> Response:
    """A page of the record, and the way to the next."""
    kind, key = call.route.split("/")[2], call.path["id"]
    json_only(call)
    if not is_id(key):
        raise absent()
    root = f"{call.base}/fhir"
    with call.enter("record:search", kind) as permit:
        given = asked_with(call, _TAKES)
        asked = _asked(kind, key, given)
        wider = call.door.gate.widen(permit, kinds(asked))
        found = call.door.resources.operations.everything(wider, asked, given.text(_PAGE))
    entries = [search_entry(one.raw, "match", root) for one in found.found]
    entries += [search_entry(one.raw, "include", root) for one in found.along]
    links = _links(f"{root}/{kind}/{key}/$everything", given, found.next)
    return answers.fhir(searchset(entries, total=found.total, links=links), pretty=pretty(call))


def _asked(kind: str, key: str, given: Given) -> Asked:
    if kind == "Encounter" and ("start" in given or "end" in given):
        raise Invalid("http.unknown_parameter", "An encounter is care of one time: start and end are of a patient's.")
    types = [name for text in given.all("_type") for name in str(text).split(",") if name]
    if not all(map(is_resource, types)):
        raise Invalid("http.parameter", "The parameter _type names what FHIR R4 has no resource type of.")
    since, start, end = (_moment(given, name) for name in ("_since", "start", "end"))
    return Asked(
        kind,
        key,
        tuple(dict.fromkeys(types)),
        None if since is None else since[0],
        None if start is None else start[0],
        None if end is None else end[1],
        _count(given),
    )


def _moment(given: Given, name: str) -> tuple[int, int] | None:
    text = given.text(name)
    if not text:
        return None
    try:
        return date_range(text)
    except ValueError:
        raise Invalid("http.parameter", f"The parameter {name} is no valid date.") from None


def _count(given: Given) -> int:
    asked = given.number("_count")
    if asked is not None and asked < 1:
        raise Invalid("http.parameter", "The parameter _count is at least 1.")
    return min(asked or 0, _LARGEST)


def _links(address: str, given: Given, following: str) -> dict[str, str]:
    """By GET: nothing in them tells of more than the address does."""
    kept = [(name, str(value)) for name in given if name != _PAGE for value in given.all(name)]
    here = given.text(_PAGE)
    found = {"self": _address(address, [*kept, (_PAGE, here)] if here else kept)}
    if here or following:
        found["first"] = _address(address, kept)
    if following:
        found["next"] = _address(address, [*kept, (_PAGE, following)])
    return found


def _address(address: str, pairs: Sequence[tuple[str, str]]) -> str:
    return address + ("?" + urlencode(pairs, quote_via=quote) if pairs else "")
