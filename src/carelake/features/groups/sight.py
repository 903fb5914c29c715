"""Whose records a permit shows: its scope as a test of owners (decisions D10 and 0042)."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from carelake.access.consents import withheld
from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.lake.seeing.sight import sight_of

__all__ = ["check_whole", "shows"]


def check_whole(permit: Permit) -> None:
    """Let pass who sees all of the account; `Refused` ``features.scope``."""
    if not sight_of(permit).whole:
        raise Refused("features.scope", "The permit shows a part of the account; this is for who sees all of it.")


def shows(permit: Permit, tx: Connection) -> Callable[[str], bool] | None:
    """A test of a record's owner, "" for nobody's; None where all are shown.

    Raises:
        Refused: ``features.scope``, for a sight of columns that are not the features'.
    """
    sight = sight_of(permit)
    if sight.whole:
        return None
    if sight.deidentified or sight.cells or sight.purpose:
        raise Refused("features.scope", "Feature groups are identified as they are: the permit shows less than that.")
    hidden = withheld(permit, tx) if sight.consented else None

    def shown(owner: str) -> bool:
        if sight.patient is not None and owner != sight.patient:
            return False
        return hidden is None or (hidden.shows(owner) if owner else hidden.nobody)

    return shown
