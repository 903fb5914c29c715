"""Links between the pages of a search, and reading them back.

A search by GET has its parameters in its links, and ``_page``. One by POST was sent so that no address holds its
parameters: its links to other pages have the whole search sealed in ``_page``, and are followed by GET. One too long
for that is followed by POSTing the same form again. ``self`` is not there to be followed: it tells how the search was
understood (https://hl7.org/fhir/R4/search.html#conformance), so it has the parameters in every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import msgspec
import zstandard

from carelake.apps.http.calls import Call
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.slips import Slips

__all__ = ["Asked", "asked", "links"]

_PAGE = "_page"
_MARK = "."
"""Before a sealed search: no token of a page begins with it."""
_BESIDE = ("_format", "_pretty")
_TYPE = "_type"
"""Stays in the address of a search over several types, as one type is in the path: the gate asks before it opens."""
_LONGEST = 6000
"""Letters of a sealed search in an address; servers and proxies take 8,000 of the whole."""
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched, and which page of it.

    Attributes:
        page: "" for the first.
        hidden: whether links hold no parameters.
    """

    pairs: Sequence[tuple[str, str]]
    page: str
    hidden: bool


def asked(call: Call, permit: Permit, path: str) -> Asked:
    """What a request asks for.

    Args:
        path: what is searched, as in the address; a sealed search is good for that and for its caller alone.

    Raises:
        Invalid: ``store.page``.
    """
    page = call.one(_PAGE) or ""
    pairs = [(name, value) for name, value in call.pairs if name != _PAGE]
    if not page.startswith(_MARK):
        return Asked(pairs, page, call.method == "POST")
    if any(name not in _BESIDE and (path or name != _TYPE) for name, _ in pairs):
        raise Invalid("store.page", "This page holds its whole search; nothing can be added to it.")
    return _opened(_slips(call, permit, path), page.removeprefix(_MARK), pairs)


def _opened(slips: Slips, slip: str, pairs: list[tuple[str, str]]) -> Asked:
    try:
        packed = slips.take(slip)
        if not 0 <= zstandard.frame_content_size(packed) <= _MOST_BYTES:
            raise ValueError
        said = msgspec.msgpack.decode(zstandard.decompress(packed), type=tuple[list[tuple[str, str]], str])
    except (Invalid, ValueError, zstandard.ZstdError):
        raise Invalid(
            "store.page", "This is not a page of this search; take the next link of the page before it."
        ) from None
    own = [pair for pair in said[0] if pair[0] not in {name for name, _ in pairs}]
    return Asked([*own, *pairs], said[1], hidden=True)


def links(
    call: Call, permit: Permit, path: str, told: Asked, kept: Sequence[tuple[str, str]], following: str
) -> dict[str, str]:
    """``self``, and where there are other pages ``first`` and ``next``.

    Args:
        kept: the parameters as they were understood: what was left out is not in links.
        following: token of the next page, "" on the last.
    """
    address = f"{call.base}/fhir" + (f"/{path}" if path else "")
    found = {"self": _address(address, [*kept, (_PAGE, told.page)] if told.page else kept)}
    others = {"first": ""} if told.page or following else {}
    others |= {"next": following} if following else {}
    for relation, page in others.items():
        if told.hidden:
            found[relation] = _hidden(call, permit, path, address, kept, page)
        else:
            found[relation] = _address(address, [*kept, (_PAGE, page)] if page else kept)
    return found


def _hidden(call: Call, permit: Permit, path: str, address: str, kept: Sequence[tuple[str, str]], page: str) -> str:
    said = msgspec.msgpack.encode((kept, page))
    if len(said) <= _MOST_BYTES:
        sealed = _MARK + _slips(call, permit, path).give(zstandard.compress(said))
        if len(sealed) <= _LONGEST:
            return _address(address, [*_types(path, kept), (_PAGE, sealed)])
    return _address(f"{address}/_search", [(_PAGE, page)] if page else [])


def _types(path: str, kept: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [] if path else [pair for pair in kept if pair[0] == _TYPE]


def _slips(call: Call, permit: Permit, path: str) -> Slips:
    bound = msgspec.msgpack.encode((permit.principal, path))
    return Slips(permit, call.door.vault.keyring, "search", bound)


def _address(address: str, pairs: Sequence[tuple[str, str]]) -> str:
    return address + ("?" + urlencode(pairs, quote_via=quote) if pairs else "")
