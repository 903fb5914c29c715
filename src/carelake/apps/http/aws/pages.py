"""Pages of what these doors list themselves; the rooms cut theirs by the same `vault.paging`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from carelake.apps.http.aws.served import Asked
from carelake.vault.paging import paged

__all__ = ["page"]

One = TypeVar("One")
_DEFAULT = 50


def page(asked: Asked, name: str, found: Sequence[One], most: int = _DEFAULT) -> tuple[list[One], dict[str, str]]:
    """One page of what was found, and the ``NextToken`` for the next one, where there is one.

    Args:
        name: of the operation.
        most: of a page where the request says nothing.

    Raises:
        Invalid: ``vault.slip``.
    """
    size = int(asked.said.get("MaxResults", most))
    return paged(asked.permit, asked.door.vault.keyring, name, asked.said, found, size)
