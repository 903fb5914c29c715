"""What a permit's scope shows, as data (decision D10). The set of predicates is closed: others deny.

account         rows of the permit's account: always on, here to be nameable
patient:ID      resources in that patient's compartment, owned by no other
only:GRANT      with one or more: only what one of the grants covers, see `carelake.access.narrowed`
consent:...     what patients' consents show, see `carelake.access.consents`; asked of the database, so not here
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from carelake.access.consents import CONSENT
from carelake.access.narrowed import ONLY, Grant, read_grant
from carelake.core.errors import Refused
from carelake.core.permit import Permit

__all__ = ["Sight", "sight_of"]


@dataclass(frozen=True, slots=True)
class Sight:
    """What a permit's scope comes to.

    Attributes:
        owner: the one patient that it allows, None for all of the account.
        grants: one of these must cover what is seen; None where nothing asks for that.
    """

    owner: str | None = None
    grants: tuple[Grant, ...] | None = None

    @property
    def bounded(self) -> bool:
        """Whether it leaves out anything of the account, consents aside."""
        return self.owner is not None or self.grants is not None

    def of(self, kind: str, need: tuple[str, ...]) -> tuple[Grant, ...] | None:
        """The grants that cover some of a type for one of some interactions; None where all of it is covered.

        Args:
            kind: "" for a type that no grant names.
        """
        if self.grants is None:
            return None
        found = tuple(one for one in self.grants if one.serves(need, kind) and (kind or one.type == "*"))
        return None if any(one.whole for one in found) else found

    def named(self) -> frozenset[str]:
        """The types that grants name."""
        return frozenset(one.type for one in self.grants or ()) - {"*"}


def sight_of(permit: Permit) -> Sight:
    """The sight of a permit.

    Raises:
        Refused: ``store.unknown_scope``, ``store.no_patient``.
    """
    return _read(permit.scope)


@lru_cache(1024)
def _read(scope: tuple[str, ...]) -> Sight:
    owner: str | None = None
    grants: list[Grant] = []
    for name in scope:
        word, colon, rest = name.partition(":")
        if name == "account" or word == CONSENT:
            continue
        if word == "only":
            grants.append(read_grant(name.removeprefix(ONLY)))
            continue
        if word != "patient" or not colon or not rest:
            raise Refused(
                "store.unknown_scope", "The permit names a scope that the record has no predicate for; it denies."
            )
        if owner not in (None, rest):
            raise Refused("store.no_patient", "The permit is scoped to two patients at once, so to none.")
        owner = rest
    return Sight(owner, tuple(grants) or None)
