"""Named predicates of a permit, as conditions over versions (decision D10). The set is closed: others deny.

account         rows of the permit's account: always on, here to be nameable
patient:ID      resources in that patient's compartment, owned by no other
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, select, true

from carelake.core.errors import Refused
from carelake.core.permit import Permit
from carelake.store.symbols import Symbols, patients_of
from carelake.store.tables import ix_owner, resource_version

__all__ = ["owner_of", "scoped", "version_scope"]


def owner_of(permit: Permit) -> str | None:
    """The one patient that the scope allows, or None for all of the account.

    Raises:
        Refused: ``store.unknown_scope``.
    """
    owner: str | None = None
    for name in permit.scope:
        word, colon, rest = name.partition(":")
        if name == "account":
            continue
        if word != "patient" or not colon or not rest:
            raise Refused(
                "store.unknown_scope", "The permit names a scope that the record has no predicate for; it denies."
            )
        if owner not in (None, rest):
            raise Refused("store.no_patient", "The permit is scoped to two patients at once, so to none.")
        owner = rest
    return owner


def scoped(permit: Permit, tx: Connection, symbols: Symbols, seq: ColumnElement[int]) -> ColumnElement[bool]:
    """The scope over the ``seq`` of a current version."""
    owner = owner_of(permit)
    if owner is None:
        return true()
    key = symbols.key(tx, patients_of(permit.account), owner)
    return and_(seq.in_(select(ix_owner.c.seq).where(ix_owner.c.owner == key)))


def version_scope(permit: Permit, tx: Connection, symbols: Symbols) -> ColumnElement[bool]:
    """The scope over rows of ``resource_version``, past versions included."""
    owner = owner_of(permit)
    if owner is None:
        return true()
    return resource_version.c.owner == symbols.key(tx, patients_of(permit.account), owner)
