"""One version of one object, as its row tells it; its name and tags."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from carelake.core.errors import Gone, Invalid
from carelake.vault.depot import Depot
from carelake.vault.vouched import check_voucher
from carelake.vault.wrapping import bind, unwrap, wrap

__all__ = [
    "MAX_NAME_BYTES",
    "ObjectVersion",
    "check_name",
    "check_tags",
    "open_tags",
    "row_of",
    "sealed_tags",
    "told",
]

MAX_NAME_BYTES = 1024
_MAX_TAGS_BYTES = 8192
_SEALED = "~"


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object.

    Attributes:
        size: bytes of plaintext.
        sha256: of the plaintext, in hex; with ``parts`` of the concatenated SHA-256 digests of the parts.
        created: FHIR instant.
        parts: number of parts of a composite digest; 0 for a digest of the whole.
        current: is it the one that is read when no version is named?
        marker: it has no bytes: the object counts as deleted while this is the current version.
        storage: storage class.
        retain_mode: ``governance``, ``compliance`` or "".
        retain_until: FHIR instant, or "".
        held: under legal hold.
    """

    name: str = field(repr=False)
    zone: str
    account: str
    version: str
    size: int
    sha256: str
    created: str
    tags: Mapping[str, str] = field(repr=False)
    parts: int = 0
    current: bool = True
    marker: bool = False
    storage: str = "hot"
    retain_mode: str = ""
    retain_until: str = ""
    held: bool = False


def check_name(name: str) -> None:
    """`Invalid` ``vault.name`` unless it is bounded text; what else it holds is of no matter, it names no file."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_NAME_BYTES or "\0" in name:
        raise Invalid(
            "vault.name", f"An object's name is 1 to {MAX_NAME_BYTES} bytes of UTF-8 without NUL; this one is not."
        )


def check_tags(tags: Mapping[str, str] | None) -> str:
    """Tags as JSON; `Invalid` ``vault.tags`` when they are not bounded text."""
    given = dict(tags or {})
    text = json.dumps(given, sort_keys=True)
    if len(text) > _MAX_TAGS_BYTES or not all(isinstance(value, str) for value in given.values()):
        raise Invalid("vault.tags", f"Tags are text to text, at most {_MAX_TAGS_BYTES} bytes as JSON.")
    return text


def sealed_tags(depot: Depot, account: str, zone: str, version: str, tags: Mapping[str, str]) -> str:
    """Tags as their column holds them: sealed under the zone's key, since a source's file name can be among them."""
    text = check_tags(tags)
    if not tags:
        return text
    key = depot.key(account, zone)
    sealed = wrap(key.secret, text.encode(), _bound(depot, account, zone, version))
    return f"{_SEALED}{key.version}.{b64encode(sealed).decode()}"


def open_tags(depot: Depot, account: str, zone: str, version: str, text: str) -> Mapping[str, str]:
    """The tags of a column; those of the first format are plain JSON."""
    if text.startswith(_SEALED):
        number, _, sealed = text[1:].partition(".")
        try:
            key = depot.key(account, zone, int(number))
        except Gone:
            return {}  # destroyed with its key, as the bytes are; that the object was there is no secret
        text = unwrap(key.secret, b64decode(sealed), _bound(depot, account, zone, version)).decode()
    tags: dict[str, str] = json.loads(text)
    return tags


def _bound(depot: Depot, account: str, zone: str, version: str) -> bytes:
    return bind("carelake-tags-1", depot.workspace, account, zone, version)


def told(row: Row[Any], depot: Depot) -> ObjectVersion:
    """A row of ``object_version`` as what it tells of; `Corrupt` ``vault.row_altered`` if that is not so."""
    check_voucher(depot, row)
    return ObjectVersion(
        name=row.name,
        zone=row.zone,
        account=row.account,
        version=row.version,
        size=row.size,
        sha256=row.sha256,
        created=row.created,
        tags=open_tags(depot, row.account, row.zone, row.version, row.tags),
        parts=row.parts,
        current=row.current,
        marker=row.form == "marker",
        storage=row.storage,
        retain_mode=row.retain_mode or "",
        retain_until=row.retain_until or "",
        held=row.held,
    )


def row_of(version: ObjectVersion, depot: Depot) -> dict[str, Any]:
    """What ``object_version`` holds of it, but for its form, its object and the voucher."""
    return {
        "account": version.account,
        "zone": version.zone,
        "name": version.name,
        "version": version.version,
        "size": version.size,
        "sha256": version.sha256,
        "created": version.created,
        "tags": sealed_tags(depot, version.account, version.zone, version.version, version.tags),
        "parts": version.parts,
        "current": version.current,
        "deleted": version.marker,
        "storage": version.storage,
        "retain_mode": version.retain_mode or None,
        "retain_until": version.retain_until or None,
        "held": version.held,
    }
