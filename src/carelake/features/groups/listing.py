"""ListFeatureGroups: filters, order and pages over the groups of an account; and pages of ListRecords.

A token is sealed, and is of one list asked for in one way by who sees as much; it holds the last that was told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from carelake.core.clock import instant
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.features.groups.definition import Group
from carelake.features.groups.shapes import invalid
from carelake.vault.keyring import Keyring
from carelake.vault.slips import Slips

__all__ = ["Pages", "chosen"]

_PAGE = 10
_FREE = frozenset({"MaxResults", "NextToken"})

_BY: Mapping[str, Callable[[Group], str]] = {
    "Name": lambda one: one.name,
    "FeatureGroupStatus": lambda one: one.state,
    "OfflineStoreStatus": lambda one: "Active" if one.offline is not None else "Disabled",
    "CreationTime": lambda one: one.created,
}


class Pages:
    """Makes and reads the tokens of one list.

    Args:
        asked: what is asked for; how much of it at a time may change from page to page.
    """

    def __init__(self, permit: Permit, keyring: Keyring, *asked: Any) -> None:
        told = msgspec.msgpack.encode((permit.account, permit.scope, asked))
        self._slips = Slips(permit, keyring, "feature-page", sha256(told).digest())

    def make(self, *last: str) -> str:
        """The token of what comes after these words."""
        return self._slips.give(msgspec.msgpack.encode(last))

    def read(self, token: str | None, size: int) -> tuple[str, ...]:
        """So many words of a token, () for none.

        Raises:
            Invalid: ``features.validation``: a token of something else.
        """
        if not token:
            return ()
        try:
            last = msgspec.msgpack.decode(self._slips.take(token), type=tuple[str, ...])
        except (Invalid, ValueError, msgspec.MsgspecError):
            last = ()
        if len(last) != size:
            raise invalid("NextToken is not one of this list; ask again from its first page.")
        return last


def chosen(
    groups: Sequence[Group], request: Mapping[str, Any], permit: Permit, keyring: Keyring
) -> tuple[list[Group], str]:
    """One page, and the token of the next one or "".

    Raises:
        Invalid: ``features.validation``: a token that is none.
    """
    key = _BY[request.get("SortBy", "CreationTime")]
    backwards = request.get("SortOrder", "Ascending") == "Descending"
    said = {name: str(value) for name, value in sorted(request.items()) if name not in _FREE}
    pages = Pages(permit, keyring, "groups", said)
    last, size = pages.read(request.get("NextToken"), 2), request.get("MaxResults", _PAGE)
    found = [one for one in groups if _wanted(one, request)]
    places = {one.id: (key(one), one.name) for one in found}
    found.sort(key=lambda one: places[one.id], reverse=backwards)
    if last:
        found = [one for one in found if (places[one.id] < last if backwards else places[one.id] > last)]
    token = pages.make(key(found[size - 1]), found[size - 1].name) if len(found) > size else ""
    return found[:size], token


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
