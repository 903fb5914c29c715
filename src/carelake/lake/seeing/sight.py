"""What of the lake a permit shows: its scope as row filters, column masks and a schema (decisions D10 and 0042).

account         rows of the permit's account: always on, here to be nameable
patient:ID      rows in that patient's compartment
consent         rows of those who do not withhold them from the permit's purpose
minimum         the columns that the permit's purpose needs, see `minimum.toml`
deidentified    the de-identified schema and no other
cells           counts and means of that schema over enough patients, and nothing else

All that a scope names holds at once. Any other name denies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from carelake.access.consents import CONSENT
from carelake.access.narrowed import PATIENT
from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.lake.seeing.minimum import needs_everything

__all__ = ["Sight", "sight_of"]

_WORDS = frozenset({CONSENT, "account", "cells", "deidentified", "minimum"})


@dataclass(frozen=True, slots=True)
class Sight:
    """What a permit's scope comes to in the lake.

    Attributes:
        patient: the one patient whose rows it shows, None for all.
        consented: only rows of those who do not withhold them.
        purpose: whose minimum of columns it shows, "" for all columns.
        deidentified: nothing but the de-identified schema.
        cells: of that, nothing but aggregates over enough patients.
    """

    patient: str | None = None
    consented: bool = False
    purpose: str = ""
    deidentified: bool = False
    cells: bool = False

    @property
    def whole(self) -> bool:
        """Whether it shows all of the account as it is."""
        return self == _WHOLE

    @property
    def both(self) -> bool:
        """Whether it shows the de-identified schema beside the identified one.

        Where columns or patients are hidden it does not: rows of both could be joined by what they share.
        """
        return not (self.deidentified or self.purpose or self.patient is not None)


_WHOLE = Sight()


def sight_of(permit: Permit) -> Sight:
    """The sight of a permit.

    Raises:
        Refused: ``lake.scope``.
    """
    return _read(permit.scope, permit.purpose)


@lru_cache(1024)
def _read(scope: tuple[str, ...], purpose: str) -> Sight:
    patients = {name.removeprefix(PATIENT) for name in scope if name.startswith(PATIENT)}
    words = {_word(name) for name in scope if not name.startswith(PATIENT)}
    if not words <= _WORDS or "" in patients:
        raise Refused("lake.scope", "The permit names a scope that the lake has no predicate for; it denies.")
    if len(patients) > 1:
        raise Refused("lake.scope", "The permit is scoped to two patients at once, so to none.")
    hidden = bool(words & {"deidentified", "cells"})
    told = Sight(
        patient=next(iter(patients), None),
        consented=CONSENT in words,
        # What is listed for a purpose is listed of the identified schema; the other one has lists of its own.
        purpose=purpose if "minimum" in words and not hidden and not needs_everything(purpose) else "",
        deidentified=hidden,
        cells="cells" in words,
    )
    return _WHOLE if told == _WHOLE else told


def _word(name: str) -> str:
    return CONSENT if name.startswith(f"{CONSENT}:") else name
