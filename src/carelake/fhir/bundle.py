"""Bundles: the entries of one that comes in, the searchset that goes out (https://hl7.org/fhir/R4/bundle.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Entry", "entries", "searchset", "urn_id"]


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
    resources: Iterable[dict[str, Any]],
    *,
    base: str = "",
    total: int | None = None,
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A searchset Bundle of matches, in the order given.

    Args:
        base: the server's address without slash at the end; with it each entry has its ``fullUrl``.
        total: number of all matches, where it is known.
        links: relation to url, ``self`` and ``next`` for example.
    """
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        bundle["total"] = total
    if links:
        bundle["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    found = [_match(resource, base) for resource in resources]
    if found:
        bundle["entry"] = found
    return bundle


def _match(resource: dict[str, Any], base: str) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if base:
        entry["fullUrl"] = f"{base}/{resource['resourceType']}/{resource['id']}"
    return {**entry, "resource": resource, "search": {"mode": "match"}}
