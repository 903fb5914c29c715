"""Groups: roles that their members hold, each in the accounts that the member itself belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from carelake.access.principals import Principal, Principals, checked_name, checked_roles, other_than, within
from carelake.access.stamp import changed
from carelake.access.tables import access_group, access_member
from carelake.core.clock import iso
from carelake.core.errors import Conflict, NotFound

__all__ = ["Group", "Groups"]


@dataclass(frozen=True, slots=True)
class Group:
    """Roles under one name."""

    name: str
    roles: tuple[str, ...]
    members: tuple[str, ...] = ()


class Groups:
    """The tables of groups and their members."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, name: str, roles: Iterable[str], *, at: datetime, by: Principal | None = None) -> None:
        """Add a group, or give an empty one other roles.

        Raises:
            Invalid: ``access.principal_name``, ``access.unknown_role``.
            Conflict: ``access.group_in_use``: members would get roles that nobody gave to them by name.
            Refused: ``access.not_yourself``, ``access.not_your_account``, of any member.
        """
        held = tuple(dict.fromkeys(roles))
        checked_name(name)
        checked_roles(held)
        said = msgspec.json.encode(held).decode()
        known = self._roles(name)
        for member in self.members(name):
            self._may_change(member, by)
        if known is None:
            self._connection.execute(insert(access_group).values(name=name, roles=said, created=iso(at)))
        elif not set(held) <= set(known) and self.members(name):
            raise Conflict("access.group_in_use", "The group has members; take them out before it gives more roles.")
        else:
            self._connection.execute(update(access_group).where(access_group.c.name == name).values(roles=said))
        changed(self._connection)

    def join(self, name: str, member: str, *, by: Principal | None = None) -> None:
        """Make a principal a member. Nobody makes themselves one.

        Raises:
            NotFound: ``access.no_such_group``, ``access.no_such_principal``.
            Refused: ``access.not_yourself``, ``access.not_your_account``.
        """
        self._roles_of(name)
        self._may_change(member, by)
        if member not in self.members(name):
            self._connection.execute(insert(access_member).values(group_name=name, principal=member))
        changed(self._connection)

    def leave(self, name: str, member: str, *, by: Principal | None = None) -> None:
        """End a membership. Nobody ends their own."""
        self._may_change(member, by)
        at = (access_member.c.group_name == name) & (access_member.c.principal == member)
        if not self._connection.execute(delete(access_member).where(at)).rowcount:
            raise NotFound("access.no_such_member", "The principal is no member of this group.")
        changed(self._connection)

    def all(self) -> list[Group]:
        """Every group, by name."""
        names = self._connection.execute(select(access_group.c.name).order_by(access_group.c.name)).scalars().all()
        return [Group(name, self._roles_of(name), self.members(name)) for name in names]

    def of(self, member: str) -> list[Group]:
        """The groups of a principal, by name, without their other members."""
        query = (
            select(access_group.c.name, access_group.c.roles)
            .join(access_member, access_member.c.group_name == access_group.c.name)
            .where(access_member.c.principal == member)
            .order_by(access_group.c.name)
        )
        return [Group(name, _names(roles)) for name, roles in self._connection.execute(query)]

    def members(self, name: str) -> tuple[str, ...]:
        """The members of a group, by name."""
        query = select(access_member.c.principal).where(access_member.c.group_name == name)
        return tuple(self._connection.execute(query.order_by(access_member.c.principal)).scalars())

    def _may_change(self, member: str, by: Principal | None) -> None:
        within(Principals(self._connection).get(member), by)
        other_than(member, by)

    def _roles_of(self, name: str) -> tuple[str, ...]:
        roles = self._roles(name)
        if roles is None:
            raise NotFound("access.no_such_group", "There is no such group; `carelake principal groups` lists them.")
        return roles

    def _roles(self, name: str) -> tuple[str, ...] | None:
        query = select(access_group.c.roles).where(access_group.c.name == name)
        said = self._connection.execute(query).scalar()
        return None if said is None else _names(said)


_names = msgspec.json.Decoder(tuple[str, ...]).decode
