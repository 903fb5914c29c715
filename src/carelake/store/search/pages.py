"""Tokens of pages: sealed, so that no value of a record is in a URL, and bound to the search they are of.

A token holds where the page ended: the sort keys of its last match and its seq. It is a slip (`carelake.vault.slips`)
bound to the search and the permit's scope: it opens for the same search of the same account, and for nothing else.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.query import Query
from carelake.vault.keyring import Keyring
from carelake.vault.slips import Slips

__all__ = ["Place", "Tokens"]

_MAX_TOKEN = 16_384
_FREE = frozenset({"_count", "_format", "_pretty", "_total", "_summary", "_elements"})


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a page ended.

    Attributes:
        part: number of the type that was being read, of a search of several types.
        keys: values of each sort key of the last match; None for one that it has no value of.
        seq: of the last match.
        seen: matches on this page and those before it.
        led: which condition's order the matches are in (`plan.Plan.page`), -1 for the order asked for.
    """

    part: int
    keys: tuple[tuple[Any, ...] | None, ...]
    seq: int
    seen: int
    led: int = -1


class Tokens:
    """Makes and reads the tokens of one search."""

    def __init__(self, permit: Permit, keyring: Keyring, query: Query) -> None:
        self._slips = Slips(permit, keyring, "search-page", _bound(permit, query))

    def make(self, place: Place) -> str:
        """The token of a place."""
        return self._slips.give(msgspec.msgpack.encode(place))

    def read(self, token: str) -> Place:
        """The place of a token.

        Raises:
            Invalid: ``store.page``: it is none of ours, or of another search.
        """
        try:
            if len(token) > _MAX_TOKEN:
                raise ValueError
            return msgspec.msgpack.decode(self._slips.take(token), type=decodable(Place))
        except (ValueError, Invalid, msgspec.MsgspecError):
            raise Invalid(
                "store.page", "This is not a page of this search; take the next link of the page before it."
            ) from None


def _bound(permit: Permit, query: Query) -> bytes:
    """The search and who may see what of it; how much of each match is shown may change from page to page."""
    said = [pair for pair in query.pairs if pair[0] not in _FREE]
    exact = repr([(part.types, part.conditions, part.sort) for part in query.each()]) if not query.pairs else ""
    told = (permit.account, permit.scope, query.types, query.compartment, said, exact)
    return sha256(msgspec.msgpack.encode(told)).digest()
