"""Pages of lists: a page's ``NextToken`` is a slip that holds how many came before, good for the same question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.keyring import Keyring
from carelake.vault.slips import Slips

__all__ = ["paged"]

One = TypeVar("One")

_PLACE = ("NextToken", "MaxResults")
"""Members that say which page, and not of what."""


def paged(
    permit: Permit, keyring: Keyring, name: str, asked: Mapping[str, Any], found: Sequence[One], size: int
) -> tuple[list[One], dict[str, str]]:
    """One page of what was found, and the ``NextToken`` for the next one, where there is one.

    Args:
        name: of the list, so that no other takes its tokens.
        asked: the request; its ``NextToken`` says where the page begins, all else is what the token is bound to,
            with the caller and the account.

    Raises:
        Invalid: ``vault.slip``.
    """
    question = {key: str(value) for key, value in asked.items() if key not in _PLACE and value is not None}
    bound = canonical.dump([name, permit.principal, permit.account, question])
    slips = Slips(permit, keyring, "page", bound)
    token = asked.get("NextToken")
    first = _place(slips.take(str(token))) if token else 0
    shown = list(found[first : first + size])
    more = first + size < len(found)
    return shown, {"NextToken": slips.give(str(first + size).encode())} if more and shown else {}


def _place(data: bytes) -> int:
    try:
        return int(data)
    except ValueError:
        raise Invalid("vault.slip", "This was not given out here, or for something else.") from None
