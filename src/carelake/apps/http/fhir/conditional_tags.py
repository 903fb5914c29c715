"""Entity tags and dates: what a client says it has, against what there is.

https://hl7.org/fhir/R4/http.html#concurrency, #cread; RFC 9110 section 13
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

from carelake.core.clock import instant
from carelake.core.errors import Invalid

__all__ = ["ANY", "etag", "tags", "unchanged", "validators", "validators_of"]

ANY = "*"
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_LONGEST = 2000


def etag(version: int | str) -> str:
    """The weak tag of a version, ``W/"3"``."""
    return f'W/"{version}"'


def validators(version: int | str, updated: datetime) -> dict[str, str]:
    """``ETag`` and ``Last-Modified`` of a version."""
    return {"ETag": etag(version), "Last-Modified": format_datetime(updated.astimezone(UTC), usegmt=True)}


def validators_of(resource: Mapping[str, Any]) -> dict[str, str]:
    """As `validators`, by the ``meta`` of a resource that is answered."""
    meta = resource["meta"]
    return validators(meta["versionId"], instant(str(meta["lastUpdated"])))


def tags(header: str) -> tuple[str, ...]:
    """The tags of ``If-Match`` or ``If-None-Match``, without quotes; `ANY` for ``*``, () where it is not given.

    FHIR's tags are all weak, so weak and strong are the same here; a bare ``3`` is taken too, as clients send it.

    Raises:
        Invalid: ``http.etag``.
    """
    said = header.strip()
    if not said:
        return ()
    if said == ANY:
        return (ANY,)
    pieces = [one.strip() for one in said[:_LONGEST].split(",")]
    if len(pieces) == 1 and pieces[0].isascii() and pieces[0].isdigit():
        return (pieces[0],)
    found = [_TAG.fullmatch(one) for one in pieces]
    if len(said) > _LONGEST or not all(found):
        raise Invalid("http.etag", 'If-Match and If-None-Match take entity tags, for example W/"3", or *.')
    return tuple(one[1] for one in found if one)


def unchanged(headers: Mapping[str, str], told: Mapping[str, str]) -> bool:
    """Whether the client has what would be answered (``If-None-Match``; without it ``If-Modified-Since``).

    Args:
        told: the answer's ``ETag`` and, where it has one, ``Last-Modified``.
    """
    known = headers.get("if-none-match", "")
    if known.strip():
        try:
            asked = tags(known)
        except Invalid:
            return False  # a read may be answered whole whatever was said of it
        return ANY in asked or tags(told["ETag"])[0] in asked
    asked_since = headers.get("if-modified-since", "")
    if not asked_since:
        return False
    since = _date(asked_since)
    modified = _date(told.get("Last-Modified", ""))
    return since is not None and modified is not None and modified <= since


def _date(text: str) -> datetime | None:
    """An HTTP date; what is none is ignored, as RFC 9110 asks."""
    try:
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
