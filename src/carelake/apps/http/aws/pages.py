"""Pages of lists: ``NextToken`` is a slip that holds how many came before, good for the same question and caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from carelake.apps.http.aws.served import Asked
from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.vault.slips import Slips

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
    said, size = asked.said, int(asked.said.get("MaxResults", most))
    question = {k: str(v) for k, v in said.items() if k not in ("NextToken", "MaxResults")}
    bound = canonical.dump([name, asked.permit.principal, asked.permit.account, question])
    slips = Slips(asked.permit, asked.door.vault.keyring, "aws-page", bound)
    first = _place(slips.take(said["NextToken"])) if "NextToken" in said else 0
    shown = list(found[first : first + size])
    more = first + size < len(found)
    return shown, {"NextToken": slips.give(str(first + size).encode())} if more and shown else {}


def _place(data: Any) -> int:
    try:
        return int(data)
    except ValueError:
        raise Invalid("vault.slip", "This was not given out here, or for something else.") from None
