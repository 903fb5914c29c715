"""Principals: people and services that may act, kept as rows (decision D13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, Connection, Integer, Row, String, Table, Text, insert, select, update

from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.vault.database import metadata
from carelake.vault.places import ACCOUNTS

__all__ = ["ANONYMOUS", "DEFAULTS", "ROLES", "Principal", "Principals", "principal"]

ROLES = frozenset({"operator", "pipeline", "endpoint", "reviewer", "clinician", "auditor"})

principal = Table(
    "principal",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("roles", Text, nullable=False),
    Column("accounts", Text, nullable=False),
    Column("uid", Integer),
    Column("disabled", Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone who acts.

    Attributes:
        kind: ``person`` or ``service``.
        via: the principal who speaks for this one at a local door, "" when it speaks for itself.
    """

    name: str
    kind: str
    roles: tuple[str, ...]
    accounts: tuple[str, ...]
    disabled: bool = False
    via: str = ""

    def spoken_for_by(self, speaker: Principal) -> Principal:
        """This principal, with ``speaker`` on record as the one who speaks."""
        return replace(self, via=speaker.name if speaker.name != self.name else "")


ANONYMOUS = Principal("anonymous", "person", (), ())

DEFAULTS = (
    Principal("operator", "person", ("operator",), ("production", "research", "development", "security")),
    Principal("pipeline", "service", ("pipeline",), ("production", "research")),
    Principal("endpoint", "service", ("endpoint",), ("production", "research")),
    Principal("reviewer", "person", ("reviewer",), ("production", "research")),
    Principal("auditor", "person", ("auditor",), ("production", "research", "development", "security")),
)
"""Made by ``init``. The operator is no reviewer: who trains a model does not approve it."""


class Principals:
    """The table of principals."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, who: Principal, *, uid: int | None = None, by: Principal | None = None) -> None:
        """Add a principal.

        Args:
            by: who adds it: nobody gives rights in an account that is not theirs.

        Raises:
            Invalid: ``access.unknown_role``, ``access.unknown_account`` or ``access.principal_name``.
            Refused: ``access.not_your_account``.
            Conflict: ``access.principal_exists``.
        """
        if not set(who.accounts) <= set(ACCOUNTS):
            raise Invalid("access.unknown_account", f"Unknown account; the accounts are {', '.join(ACCOUNTS)}.")
        _within(who, by)
        unknown = sorted(set(who.roles) - ROLES)
        if unknown:
            raise Invalid("access.unknown_role", f"Unknown role; the roles are {', '.join(sorted(ROLES))}.")
        if not who.name.isprintable() or not 0 < len(who.name) <= 128 or who.name == ANONYMOUS.name:
            raise Invalid("access.principal_name", "A principal's name has 1 to 128 printable characters.")
        if self._row(who.name) is not None:
            raise Conflict("access.principal_exists", "A principal of this name exists already.")
        self._connection.execute(
            insert(principal).values(
                name=who.name,
                kind=who.kind,
                roles=_join(who.roles),
                accounts=_join(who.accounts),
                uid=uid,
                disabled=who.disabled,
            )
        )

    def get(self, name: str) -> Principal:
        """The principal of that name.

        Raises:
            NotFound: ``access.no_such_principal``.
        """
        row = self._row(name)
        if row is None:
            raise NotFound("access.no_such_principal", "No such principal; `carelake principal list` shows them.")
        return row

    def of_uid(self, uid: int) -> Principal | None:
        """The principal that an operating-system user is bound to."""
        row = self._connection.execute(select(principal).where(principal.c.uid == uid)).first()
        return _principal(row) if row else None

    def all(self) -> list[Principal]:
        """Every principal, by name."""
        return [_principal(row) for row in self._connection.execute(select(principal).order_by(principal.c.name))]

    def disable(self, name: str, *, by: Principal | None = None) -> None:
        """A disabled principal is refused everything from now on."""
        _within(self.get(name), by)
        self._connection.execute(update(principal).where(principal.c.name == name).values(disabled=True))

    def _row(self, name: str) -> Principal | None:
        row = self._connection.execute(select(principal).where(principal.c.name == name)).first()
        return _principal(row) if row else None


def _within(who: Principal, by: Principal | None) -> None:
    if by is not None and not set(who.accounts) <= set(by.accounts):
        raise Refused("access.not_your_account", "Rights are given and taken only in accounts that you belong to.")


def _join(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()


def _principal(row: Row[Any]) -> Principal:
    decode = msgspec.json.Decoder(tuple[str, ...]).decode
    return Principal(row.name, row.kind, decode(row.roles), decode(row.accounts), bool(row.disabled))
