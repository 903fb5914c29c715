"""ListFeatureGroups: filters, order and pages over the groups of an account; and pages of ListRecords."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from carelake.core.clock import instant
from carelake.features.groups.definition import Group
from carelake.features.groups.shapes import invalid

__all__ = ["after_token", "chosen", "token_of"]

_PAGE = 10

_BY: Mapping[str, Callable[[Group], str]] = {
    "Name": lambda one: one.name,
    "FeatureGroupStatus": lambda one: one.state,
    "OfflineStoreStatus": lambda one: "Active" if one.offline is not None else "Disabled",
    "CreationTime": lambda one: one.created,
}


def chosen(groups: Sequence[Group], request: Mapping[str, Any]) -> tuple[list[Group], str]:
    """One page, and the token of the next one or "".

    Raises:
        Invalid: ``features.validation``: a token that is none.
    """
    found = [one for one in groups if _wanted(one, request)]
    key = _BY[request.get("SortBy", "CreationTime")]
    backwards = request.get("SortOrder", "Ascending") == "Descending"
    found.sort(key=lambda one: (key(one), one.name), reverse=backwards)
    start, size = _start(request.get("NextToken")), request.get("MaxResults", _PAGE)
    end = start + size
    return found[start:end], base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(found) else ""


def _wanted(one: Group, request: Mapping[str, Any]) -> bool:
    created = instant(one.created)
    after, before = request.get("CreationTimeAfter"), request.get("CreationTimeBefore")
    return (
        request.get("NameContains", "") in one.name
        and request.get("FeatureGroupStatusEquals", one.state) == one.state
        and request.get("OfflineStoreStatusEquals", _BY["OfflineStoreStatus"](one)) == _BY["OfflineStoreStatus"](one)
        and (after is None or created >= _time(after))
        and (before is None or created <= _time(before))
    )


def _time(value: Any) -> datetime:
    try:
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        return instant(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise invalid("CreationTimeAfter and CreationTimeBefore are times.") from None


def _start(token: str | None) -> int:
    if not token:
        return 0
    try:
        return max(0, int(base64.urlsafe_b64decode(token.encode())))
    except ValueError:
        raise invalid("NextToken is not one of this list.") from None


def token_of(group: Group, last: str) -> str:
    """The token of what comes after a record identifier of a group."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((group.id, last))).decode()


def after_token(token: str | None, group: Group) -> str:
    """The record identifier of a token, "" for none.

    Raises:
        Invalid: ``features.validation``: a token of something else.
    """
    if not token:
        return ""
    try:
        own, last = msgspec.msgpack.decode(base64.urlsafe_b64decode(token.encode()), type=tuple[str, str])
    except (ValueError, msgspec.MsgspecError):
        own, last = "", ""
    if own != group.id or "\0" in last:
        raise invalid("NextToken is not one of this feature group.")
    return str(last)
