"""Rights as the trail tells them, against the rows that decisions are made from.

An act that changes rights says under ``changed`` what it changed. Those acts are done again here in their order, on
nothing but the principals of `init`, and what comes of them is compared with the tables: a row that somebody edited,
added or removed past the gate is named. Of things that an act of an earlier version changed without saying how, and
of the operating-system user of ``operator``, the trail does not tell enough; they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select

from carelake.access.oidc import subject_ref
from carelake.access.principals import DEFAULTS
from carelake.access.retold_rows import Held, held, membership
from carelake.audit.tables import act
from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["strays", "witness"]

_ROWS = 5_000
_CHANGING = ("access:manage", "credential:manage")
"""Every act of these is a change."""

_DECIDING = ("access:request", "access:approve", "access:break-glass", "access:review")
_KINDS = ("access-key/", "client/", "glass/", "grant/", "group/", "principal/", "token/")


def witness(vault: Vault, vouching: Callable[[], Permit]) -> Callable[[Connection], Iterator[tuple[str, str]]]:
    """What `audit verify` asks of rights: see `strays`.

    Args:
        vouching: ``gate.vouching``.
    """
    return lambda connection: strays(connection, partial(subject_ref, vault, vouching()))


def strays(connection: Connection, refer: Callable[[str, str], str]) -> Iterator[tuple[str, str]]:
    """Rows of rights that the acts do not account for: each with what is wrong, in words.

    Args:
        refer: how acts call a subject of an issuer.
    """
    told = _Told()
    # Without the phase among the conditions: by its index SQLite would fetch nearly every act, and sort them all.
    query = select(act).where(act.c.action.in_(_CHANGING + _DECIDING)).order_by(act.c.seq)
    for row in connection.execute(query, execution_options={"yield_per": _ROWS}):
        if row.phase == "done":
            _take(told, row)
    there = {one.name: one for one in held(connection, refer)}
    for name in sorted(told.things.keys() | there.keys()):
        if wrong := _wrong(told, told.things.get(name), there.get(name)):
            yield name.replace("\n", " in "), wrong


@dataclass(frozen=True, slots=True)
class _Thing:
    """A row as the acts would have it.

    Attributes:
        about: the things that it is a part of; where one of them is not told of, neither is this.
    """

    about: frozenset[str]
    columns: dict[str, Any]


@dataclass
class _Told:
    """What the acts come to.

    Attributes:
        unsaid: things that an act changed without saying how.
        swept: when revoked tokens that had ended were last removed.
    """

    things: dict[str, _Thing] = field(default_factory=dict)
    unsaid: set[str] = field(default_factory=set)
    swept: str = ""

    def __post_init__(self) -> None:
        for who in DEFAULTS:
            bound = {} if who.name == "operator" else {"uid": None}
            said = {"kind": who.kind, "roles": frozenset(who.roles), "accounts": frozenset(who.accounts)}
            self.put(f"principal/{who.name}", disabled=False, **said, **bound)

    def put(self, name: str, *about: str, **columns: Any) -> None:
        self.things[name] = _Thing(frozenset({name, *about}), columns)

    def change(self, name: str, **columns: Any) -> None:
        if name in self.things:
            self.things[name].columns.update(columns)

    def of(self, name: str, column: str) -> Any:
        return self.things[name].columns.get(column) if name in self.things else None


def _wrong(told: _Told, wanted: _Thing | None, there: Held | None) -> str:
    about = (wanted.about if wanted else frozenset()) | (there.about if there else frozenset())
    if not told.unsaid.isdisjoint(about):
        return ""
    if wanted is None:
        return "no act tells that it was given"
    if there is None:
        over = "token" in wanted.columns and wanted.columns["expires"] < told.swept
        return "" if over else "its row is gone, and no act tells of that"
    other = [column for column, value in wanted.columns.items() if there.columns[column] != value]
    return f"not what the acts on it made it: {', '.join(other)}" if other else ""


def _take(told: _Told, row: Row[Any]) -> None:
    try:
        facts = canonical.load(row.facts)
    except CarelakeError:
        return  # which is told of the act
    if not isinstance(facts, dict):
        return
    said = facts.get("changed")
    if not isinstance(said, dict):
        if row.action in _CHANGING or row.action == "access:break-glass" or "wrote" in facts:
            names = [row.target, *(ref.replace(":", "/", 1) for ref in facts.get("wrote", ()))]
            told.unsaid.update(name for name in names if name.startswith(_KINDS))
        return
    change = _CHANGES.get(said.get("change", ""))
    try:
        if change is None:
            raise KeyError
        change(told, row, said)
    except (KeyError, TypeError, ValueError):
        told.unsaid.add(row.target)  # of a version that says less of it, or more


# -- changes, by the word that acts have for them ------------------------------------------------------------------


def _add(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    columns = {"roles": frozenset(said["roles"]), "accounts": frozenset(said["accounts"])}
    told.put(row.target, kind=said["kind"], disabled=False, uid=None, **columns)
    for group in said["groups"]:
        _join(told, row, {"group": group})


def _disable(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, disabled=said["change"] == "disable")


def _add_role(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, roles=(told.of(row.target, "roles") or frozenset()) | {said["role"]})


def _remove_role(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, roles=(told.of(row.target, "roles") or frozenset()) - {said["role"]})


def _group(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.put(row.target, roles=frozenset(said["roles"]))
    told.unsaid.discard(row.target)  # all of it was said


def _join(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    group = f"group/{said['group']}"
    told.put(membership(row.target, group), row.target, group)


def _leave(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.things.pop(membership(row.target, f"group/{said['group']}"), None)


def _request(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    given = {"principal": said["to"], "action": said["grant"], "days": int(said["days"])}
    place = {"account": row.account, "purpose": row.purpose, "requested_by": row.principal}
    told.put(row.target, **given, **place, approved_by=None, expires=None, revoked_by=None)


def _approve(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, approved_by=row.principal, expires=said["expires"])


def _revoke(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, revoked_by=row.principal)


def _begin(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    times = {"expires": said["expires"], "review_by": said["review_by"], "ended": None}
    place = {"principal": row.principal, "account": row.account, "purpose": row.purpose}
    told.put(f"glass/{said['glass']}", **place, **times, reviewed_by=None, verdict=None)


def _end(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, ended=said["ended"] or None)


def _review(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(row.target, ended=said["ended"] or None, reviewed_by=row.principal, verdict=said["verdict"])


def _add_key(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    place = {"account": row.account, "purpose": row.purpose, "role": said["role"], "created": said["created"]}
    who = row.target.partition("/")[2]
    told.put(f"access-key/{said['key']}", row.target, principal=who, disabled=False, **place)


def _rotate_key(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    old, new = f"access-key/{said['disabled']}", f"access-key/{said['key']}"
    _add_key(told, row, said)
    if old not in told.things:
        told.unsaid.add(new)
        return
    told.change(new, account=told.of(old, "account"), purpose=told.of(old, "purpose"))
    told.change(old, disabled=True)


def _disable_key(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(f"access-key/{said['key']}", disabled=True)


def _add_client(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    place = {"account": row.account, "purpose": row.purpose, "digest": said["digest"], "created": said["created"]}
    who = row.target.partition("/")[2]
    told.put(f"client/{said['client']}", row.target, principal=who, disabled=False, **place)


def _disable_client(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.change(f"client/{said['client']}", disabled=True)


def _revoke_token(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.swept = str(said["swept"])
    name = f"token/{said['token']}"  # targets show ids of our own only
    if (told.of(name, "expires") or "") < told.swept:
        told.put(name, token=said["token"], expires=str(said["expires"]))


def _link(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.put(f"link/{said['subject']}", row.target, principal=row.target.partition("/")[2])


def _unlink(told: _Told, row: Row[Any], said: Mapping[str, Any]) -> None:
    told.things.pop(f"link/{said['subject']}", None)


_CHANGES: dict[str, Callable[[_Told, Row[Any], Mapping[str, Any]], None]] = {
    "add": _add,
    "add-client": _add_client,
    "add-key": _add_key,
    "add-role": _add_role,
    "approve-grant": _approve,
    "break-glass": _begin,
    "disable": _disable,
    "disable-client": _disable_client,
    "disable-key": _disable_key,
    "enable": _disable,
    "end-glass": _end,
    "group": _group,
    "join": _join,
    "leave": _leave,
    "link": _link,
    "remove-role": _remove_role,
    "request-grant": _request,
    "review-glass": _review,
    "revoke-grant": _revoke,
    "revoke-token": _revoke_token,
    "rotate-key": _rotate_key,
    "unlink": _unlink,
}
