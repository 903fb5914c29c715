"""Principals: people and services that may act, kept as rows (decision D13)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from carelake.access.stamp import changed
from carelake.access.tables import principal
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.vault.places import ACCOUNTS

__all__ = [
    "ANONYMOUS",
    "DEFAULTS",
    "KINDS",
    "ROLES",
    "Principal",
    "Principals",
    "checked_name",
    "checked_roles",
    "other_than",
    "principal",
    "within",
]

ROLES = frozenset({"operator", "pipeline", "endpoint", "reviewer", "clinician", "auditor"}) | frozenset(
    {"application", "development", "administrator", "compliance", "analyst", "billing", "researcher"}
)
KINDS = ("person", "service")
_OURS = frozenset({"access", "anonymous", "carelake", "init", "probe", "sealer", "upgrade", "vault"})
"""Under these names the trail tells of acts that no principal did."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone who acts.

    Attributes:
        kind: ``person`` or ``service``.
        via: the principal who speaks for this one at a local door, "" when it speaks for itself.
        groups: groups whose roles are among ``roles``.
        credential: by what it was recognised, for the trail: ``token:ID``, ``key:ID``, ``oidc:DIGEST``; "" at a
            local door.
        until: when that credential ends.
        holds: every role of the principal, where ``roles`` are fewer (a token for one role): what they forbid stays
            forbidden.
        lent: spoken for at a local door: good while the speaker is an operator.
        narrowed: what its credential leaves of what policy allows, as `carelake.access.narrowed` has it; None for a
            credential that leaves all, () for one that leaves nothing.
    """

    name: str
    kind: str
    roles: tuple[str, ...]
    accounts: tuple[str, ...]
    disabled: bool = False
    via: str = ""
    groups: tuple[str, ...] = ()
    credential: str = ""
    until: datetime | None = None
    holds: tuple[str, ...] = ()
    lent: bool = False
    narrowed: tuple[str, ...] | None = None

    def spoken_for_by(self, speaker: Principal) -> Principal:
        """This principal, with ``speaker`` on record as who speaks, for no longer and no more than that one may."""
        via = speaker.name if speaker.name != self.name else ""
        return replace(self, via=via, credential=speaker.credential, until=speaker.until, narrowed=speaker.narrowed)


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

    def add(
        self, who: Principal, *, uid: int | None = None, by: Principal | None = None, at: datetime | None = None
    ) -> None:
        """Add a principal.

        Args:
            by: who adds it: nobody gives rights in an account that is not theirs.

        Raises:
            Invalid: ``access.unknown_role``, ``access.unknown_account``, ``access.kind``, ``access.principal_name``.
            Refused: ``access.not_your_account``.
            Conflict: ``access.principal_exists``.
        """
        if not set(who.accounts) <= set(ACCOUNTS):
            raise Invalid("access.unknown_account", f"Unknown account; the accounts are {', '.join(ACCOUNTS)}.")
        within(who, by)
        checked_roles(who.roles)
        if who.kind not in KINDS:
            raise Invalid("access.kind", f"Unknown kind of principal; expected one of {', '.join(KINDS)}.")
        checked_name(who.name)
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
                created=iso(at) if at else None,
            )
        )
        changed(self._connection)

    def get(self, name: str) -> Principal:
        """The principal of that name, with the roles that are its own: those of its groups are not among them.

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
        """A disabled principal is refused everything from now on, in every process."""
        self._change(name, by, disabled=True)

    def enable(self, name: str, *, by: Principal | None = None) -> None:
        """Let a disabled principal act again. Nobody enables themselves.

        Raises:
            Refused: ``access.not_yourself``.
        """
        other_than(name, by)
        self._change(name, by, disabled=False)

    def add_role(self, name: str, role: str, *, by: Principal | None = None) -> Principal:
        """Give a role. Nobody gives one to themselves.

        Raises:
            Refused: ``access.not_yourself``.
            Invalid: ``access.unknown_role``.
        """
        other_than(name, by)
        checked_roles((role,))
        return self._set_roles(name, (*(r for r in self.get(name).roles if r != role), role), by)

    def remove_role(self, name: str, role: str, *, by: Principal | None = None) -> Principal:
        """Take a role away; it counts from the next decision on, in every process. Nobody takes one off themselves.

        Raises:
            Refused: ``access.not_yourself``: a role may be what a guardrail forbids by.
            NotFound: ``access.role_not_there``.
        """
        other_than(name, by)
        held = self.get(name).roles
        if role not in held:
            raise NotFound(
                "access.role_not_there", "The principal does not hold this role itself; a group may give it."
            )
        return self._set_roles(name, tuple(r for r in held if r != role), by)

    def _set_roles(self, name: str, roles: tuple[str, ...], by: Principal | None) -> Principal:
        self._change(name, by, roles=_join(roles))
        return self.get(name)

    def _change(self, name: str, by: Principal | None, **values: Any) -> None:
        within(self.get(name), by)
        self._connection.execute(update(principal).where(principal.c.name == name).values(**values))
        changed(self._connection)

    def _row(self, name: str) -> Principal | None:
        row = self._connection.execute(select(principal).where(principal.c.name == name)).first()
        return _principal(row) if row else None


def checked_name(name: str) -> str:
    """The name of a principal or group, when it may be one; `Invalid` ``access.principal_name`` otherwise."""
    if not name.isprintable() or not 0 < len(name) <= 128 or name != name.strip() or name.casefold() in _OURS:
        raise Invalid(
            "access.principal_name",
            "A name has 1 to 128 printable characters, no space at the edge, and is none that carelake acts by.",
        )
    if not unicodedata.is_normalized("NFC", name):
        raise Invalid("access.principal_name", "A name is in Unicode's normal form C, so that one name is one text.")
    return name


def checked_roles(roles: Iterable[str]) -> None:
    """Let pass known roles; `Invalid` ``access.unknown_role`` otherwise."""
    if not ROLES.issuperset(roles):
        raise Invalid("access.unknown_role", f"Unknown role; the roles are {', '.join(sorted(ROLES))}.")


def within(who: Principal, by: Principal | None) -> None:
    """Let pass a change by someone who belongs to every account of ``who``; `Refused` otherwise."""
    if by is not None and not set(who.accounts) <= set(by.accounts):
        raise Refused("access.not_your_account", "Rights are given and taken only in accounts that you belong to.")


def other_than(name: str, by: Principal | None) -> None:
    """Let pass a change of somebody else's rights; `Refused` ``access.not_yourself`` otherwise."""
    if by is not None and by.name == name:
        raise Refused("access.not_yourself", "Nobody changes their own rights; another administrator does.")


def _join(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()


_names = msgspec.json.Decoder(tuple[str, ...]).decode


def _principal(row: Row[Any]) -> Principal:
    return Principal(row.name, row.kind, _names(row.roles), _names(row.accounts), bool(row.disabled))
