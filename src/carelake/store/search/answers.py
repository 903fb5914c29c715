"""Matches as they are answered: opened, with the record's own ``meta``, and cut to what was asked for.

Bodies are canonical JSON already. Only their outermost object is taken apart, its values stay the bytes that they
are; whoever needs a value parses it then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt
from carelake.fhir.definitions import Element, element, is_primitive
from carelake.fhir.query import Query
from carelake.store import bodies
from carelake.store.rows import Version

__all__ = ["SearchResult", "Shown", "part", "shown"]

_outermost = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()
_TAG = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
_ALWAYS = ("resourceType", "id", "meta")

Raws = dict[str, Any]
"""A resource whose values are `msgspec.Raw`, but for ``resourceType`` and ``id``; it encodes as the whole."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One resource of an answer."""

    type: str
    id: str
    raw: Raws

    @property
    def resource(self) -> dict[str, Any]:
        """The resource, parsed."""
        parsed: dict[str, Any] = canonical.load(_encoder.encode(self.raw))
        return parsed


@dataclass(frozen=True)
class SearchResult:
    """One page of a search.

    Attributes:
        total: number of all matches, where it is known (see `Searches.search`).
        found, along: the matches in order, and what is included with them.
        next: token of the page after this one, "" on the last.
        cut: whether something that should have been included was left out because of the limit.
    """

    total: int | None
    found: tuple[Shown, ...] = ()
    along: tuple[Shown, ...] = ()
    next: str = ""
    cut: bool = False
    _parsed: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def matches(self) -> list[dict[str, Any]]:
        """The matches, parsed."""
        return self._all("found", self.found)

    @property
    def included(self) -> list[dict[str, Any]]:
        """What is included, parsed."""
        return self._all("along", self.along)

    def _all(self, name: str, shown_: Iterable[Shown]) -> list[dict[str, Any]]:
        if name not in self._parsed:
            self._parsed[name] = [one.resource for one in shown_]
        return self._parsed[name]


def shown(versions: Iterable[Version], query: Query) -> Iterator[Shown]:
    """Versions as answers to a query; those that were erased are not there any more."""
    for one in versions:
        if not one.erased and not one.deleted:
            yield Shown(one.type, one.id, _cut(_with_meta(one), one.type, query))


def part(text: bytes, kind: str, query: Query) -> bytes:
    """Of a resource as it is answered, as JSON, what the query's ``_summary`` or ``_elements`` ask for."""
    raw: Raws = _outermost.decode(text)
    if "meta" not in raw and _wanted(kind, query.elements, query.summary) is None:
        return text
    meta = _outermost.decode(raw["meta"]) if "meta" in raw else {}
    return _encoder.encode(_cut({**raw, "meta": meta}, kind, query))


def _with_meta(one: Version) -> Raws:
    try:
        raw: dict[str, Any] = _outermost.decode(one.text)
        told = raw.pop("meta", None)
        meta: dict[str, Any] = {} if told is None else _outermost.decode(told)
    except msgspec.DecodeError:
        raise Corrupt("store.body", "A stored body is no JSON object; restore it from a backup.") from None
    meta |= {"versionId": str(one.version), "lastUpdated": iso(bodies.moment(one.updated))}
    raw.pop("resourceType", None)
    raw.pop("id", None)
    return {"resourceType": one.type, "id": one.id, "meta": meta, **raw}


def _cut(raw: Raws, kind: str, query: Query) -> Raws:
    """Only what was asked for, marked as a part (https://hl7.org/fhir/R4/search.html#summary, #elements)."""
    wanted = _wanted(kind, query.elements, query.summary)
    if wanted is None:
        return raw
    kept = {name: value for name, value in raw.items() if name in wanted}
    if query.summary == "true" and not query.elements:
        kept = _summary(kept, kind)
    meta = dict(kept["meta"])
    tags = canonical.load(bytes(meta["tag"])) if "tag" in meta else []
    meta["tag"] = [*(tag for tag in tags if tag.get("code") != _TAG["code"]), _TAG]
    return {**kept, "meta": meta}


@cache
def _wanted(kind: str, elements: tuple[str, ...], summary: str) -> frozenset[str] | None:
    """Names of the outermost elements that stay; None for all."""
    known = element(kind)
    needed = {name for name, item in known.items() if item.min}
    if elements:
        chosen = needed | set(elements)
    elif summary == "true":
        chosen = needed | {name for name, item in known.items() if item.summary}
    elif summary == "text":
        chosen = needed | {"text"}
    elif summary == "data":
        chosen = set(known) - {"text"}
    else:
        return None
    keys = {key for name in chosen if name in known for key in known[name].keys}
    return frozenset({*_ALWAYS, *chosen, *keys, *(f"_{key}" for key in keys)})


def _summary(raw: Raws, kind: str) -> Raws:
    """Inside of elements of the summary, what is not of it goes too."""
    return {
        name: value if name in _ALWAYS or name.startswith("_") else _pruned(value, kind, name)
        for name, value in raw.items()
    }


def _pruned(value: msgspec.Raw, kind: str, name: str) -> Any:
    item, inner = _item(element(kind), name)
    if item is None or is_primitive(inner) or not item.content_ref:
        return value
    return _without(canonical.load(bytes(value)), inner)


def _without(value: Any, kind: str) -> Any:
    """Backbone elements keep what is of the summary, or must be there."""
    if isinstance(value, list):
        return [_without(one, kind) for one in value]
    known = element(kind)
    kept = {}
    for name, one in value.items():
        item, inner = _item(known, name.lstrip("_"))
        if item is not None and (item.summary or item.min):
            kept[name] = _without(one, inner) if item.content_ref and not name.startswith("_") else one
    return kept


def _item(known: Mapping[str, Element], key: str) -> tuple[Element | None, str]:
    """The element of a JSON name, and its type."""
    for item in known.values():
        kind = item.keys.get(key)
        if kind is not None:
            return item, kind
    return None, ""
