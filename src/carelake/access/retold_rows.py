"""The rows of rights as they lie, named as acts name them, for `retold`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Table, select

from carelake.access import tables
from carelake.access.smart_clients import told_as

__all__ = ["Held", "held", "membership"]


@dataclass(frozen=True, slots=True)
class Held:
    """One row.

    Attributes:
        about: the things that it is a part of, itself among them.
    """

    name: str
    about: frozenset[str]
    columns: dict[str, Any]


def held(connection: Connection, refer: Callable[[str, str], str]) -> Iterator[Held]:
    """Every row that gives somebody a right, or takes one; times of use and failed attempts are none."""

    def rows(table: Table) -> Sequence[Row[Any]]:
        return connection.execute(select(table)).all()

    for row in rows(tables.principal):
        said = {"kind": row.kind, "roles": _names(row.roles), "accounts": _names(row.accounts), "uid": row.uid}
        yield _held(f"principal/{row.name}", disabled=bool(row.disabled), **said)
    for row in rows(tables.access_group):
        yield _held(f"group/{row.name}", roles=_names(row.roles))
    for row in rows(tables.access_member):
        who, group = f"principal/{row.principal}", f"group/{row.group_name}"
        yield _held(membership(who, group), who, group)
    for row in rows(tables.access_grant):
        # What ends a grant is the time of its revocation, who did it is on record beside it: both or none.
        revoked = None if row.revoked is None else row.revoked_by
        yield _held(f"grant/{row.id}", **{**row._mapping, "revoked_by": revoked})
    for row in rows(tables.access_break_glass):
        reviewed = None if row.reviewed is None else row.reviewed_by
        yield _held(f"glass/{row.id}", **{**row._mapping, "reviewed_by": reviewed})
    for row in rows(tables.access_key):
        told = {**row._mapping, "disabled": bool(row.disabled)}
        yield _held(f"access-key/{row.id}", f"principal/{row.principal}", **told)
    for row in rows(tables.access_client):
        told = {**row._mapping, "disabled": bool(row.disabled)}
        digest = told_as(row.scopes, row.keys_url, row.keys)
        yield _held(f"client/{row.id}", f"principal/{row.principal}", digest=digest, **told)
    for row in rows(tables.access_revoked):
        yield _held(f"token/{row.id}", token=row.id, expires=row.expires)
    for row in rows(tables.access_link):
        yield _held(f"link/{refer(row.issuer, row.subject)}", f"principal/{row.principal}", principal=row.principal)


def membership(who: str, group: str) -> str:
    """How a membership is called: not as any principal can be, whose name may hold all that can be printed."""
    return f"{who}\n{group}"


def _held(thing: str, /, *about: str, **columns: Any) -> Held:
    return Held(thing, frozenset({thing, *about}), columns)


def _names(text: str) -> frozenset[str]:
    """What a list of names says; a text that is none gives names that nobody has."""
    try:
        return frozenset(msgspec.json.decode(text, type=list[str]))
    except (msgspec.DecodeError, TypeError):
        return frozenset({str(text)})
