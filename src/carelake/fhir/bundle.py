"""Bundles: the entries of one that comes in, the searchset that goes out (https://hl7.org/fhir/R4/bundle.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "entries", "search_entry", "searchset", "urn_id"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a bundle.

    Attributes:
        position: 0-based number in the bundle.
        full_url: "" where there is none.
        resource: None for requests without one (GET, DELETE).
        request: ``method``, ``url``, ``ifNoneExist`` and so on; empty outside of transactions and batches.
    """

    position: int
    full_url: str
    resource: dict[str, Any] | None
    request: Mapping[str, Any]


def entries(bundle: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of a valid Bundle in order."""
    for position, entry in enumerate(bundle.get("entry", ())):
        yield Entry(position, entry.get("fullUrl", ""), entry.get("resource"), entry.get("request", {}))


def urn_id(full_url: str) -> str:
    """The uuid of ``urn:uuid:...``, which becomes the id of its resource (decision D6); "" for other urls."""
    scheme, uuid = full_url[:9], full_url[9:]
    return uuid.lower() if scheme.lower() == "urn:uuid:" else ""


def searchset(
    entries: Iterable[Mapping[str, Any]] = (),
    *,
    total: int | None = None,
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A searchset Bundle (https://hl7.org/fhir/R4/bundle.html#searchset).

    Args:
        entries: as `search_entry` makes them, matches first.
        total: number of all matches, where it is known; what is included does not count.
        links: relation to url: ``self``, ``first``, ``next``.
    """
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        bundle["total"] = total
    if links:
        bundle["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    listed = list(entries)
    if listed:
        bundle["entry"] = listed
    return bundle


def search_entry(resource: Mapping[str, Any], mode: str = "match", base: str = "") -> dict[str, Any]:
    """An entry of a searchset.

    Args:
        resource: with its type and id as texts; other values may be raw JSON. An ``outcome`` has no id.
        mode: ``match``, ``include`` or ``outcome``.
        base: the server's address without slash at the end; with it a resource has its ``fullUrl``.
    """
    named = base and mode != "outcome"
    url = {"fullUrl": f"{base}/{resource['resourceType']}/{resource['id']}"} if named else {}
    return {**url, "resource": resource, "search": {"mode": mode}}
