"""Views that were saved by name: what a query, an operation and a materialisation know them by.

R4 has no resource type ViewDefinition, so they are no resources of the record, but rows of the lake, sealed: a
condition of a view may name a patient. A name is a relation of SQL, so it minds no capitals.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.fhir.definitions import resource_types
from carelake.lake import flat
from carelake.lake.iceberg.catalog import VIEW_TABLE, VaultCatalog
from carelake.lake.seeing.sight import sight_of
from carelake.lake.tables import lake_view
from carelake.lake.views.build import build
from carelake.lake.views.definition import Definition, read
from carelake.vault.workspace import Vault

__all__ = ["ERASING", "KEPT", "SAVED", "Saved", "all_of", "digest_of", "drop", "found", "is_whole", "named", "save"]

SAVED, KEPT, ERASING = "saved", "kept", "erasing"
_MOST = 500
_LONGEST = 48
_RECIPE = 1
"""Raised when the compiler gives other rows for the same view: what was materialised before is made anew."""
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{_LONGEST - 1}}}", re.ASCII).fullmatch
_MEANS_ROWS = ("resource", "constant", "select", "where")
_V = lake_view.c


@dataclass(frozen=True)
class Saved:
    """A view that has a name.

    Attributes:
        state: ``saved``, or ``kept`` where its rows are kept too; ``erasing`` is kept, and empty for now.
        error: code of why they are not fresh, "" for nothing known.
    """

    name: str
    view: Mapping[str, Any]
    state: str
    at: str
    error: str = ""

    @property
    def key(self) -> str:
        """The name as SQL compares it."""
        return self.name.lower()

    @property
    def id(self) -> str:
        """What an address names it by."""
        return str(self.view.get("id") or self.name)

    @property
    def known_as(self) -> frozenset[str]:
        """What it can be named by, in small letters."""
        return frozenset({self.key, self.id.lower()})

    def other_than(self, before: Saved) -> bool:
        """Whether it was given another id than the one of its name before."""
        return "id" in before.view and self.id != before.id

    @property
    def table(self) -> str:
        """Its table in the catalog."""
        return VIEW_TABLE + self.key

    @cached_property
    def definition(self) -> Definition:
        """The view, read."""
        return read(self.view)

    @cached_property
    def digest(self) -> str:
        """Names the rows that it gives: views of one digest have the same."""
        return digest_of(self.view)


def is_whole(permit: Permit) -> bool:
    """Whether a permit sees all of its account, so that what it makes is good for everybody.

    Raises:
        Refused: ``lake.scope``.
    """
    return sight_of(permit).whole


def digest_of(view: Mapping[str, Any]) -> str:
    """As `Saved.digest`."""
    told = {name: view[name] for name in _MEANS_ROWS if view.get(name) is not None}
    return hashlib.sha256(canonical.dump({"recipe": _RECIPE, "view": told})).hexdigest()


def named(view: Mapping[str, Any], name: str | None = None) -> str:
    """The name that a view is saved by: the one given, or its own.

    Raises:
        Invalid: ``lake.view_name``; ``lake.view_definition`` and what else is wrong with the view.
    """
    definition = read(view)
    build(definition)
    wanted = name or definition.name
    if not wanted or not _NAME(wanted):
        raise Invalid(
            "lake.view_name",
            f"A saved view has a name: a letter, then letters, digits and underscores, {_LONGEST} at most.",
        )
    if wanted.lower().removesuffix("_history") in _taken():
        raise Invalid("lake.view_name", "The lake has a table or a view of that name already; choose another one.")
    return wanted


def _taken() -> frozenset[str]:
    return frozenset({"deletions", *flat.names(), *(kind.lower() for kind in resource_types())})


def save(
    permit: Permit, vault: Vault, view: Mapping[str, Any], name: str | None = None, *, keep: bool = False
) -> Saved:
    """Save a view, or put it in the place of the one of its name.

    Args:
        permit: grants ``rows:read``, ``rows:write``.
        keep: its rows are to be kept too; where they are kept already, they stay so.

    Raises:
        Invalid: ``lake.view_name``, ``lake.views_full``, and as `named`. Conflict: ``lake.view_id``.
    """
    wanted = named(view, name)
    body = {"name": wanted, **{key: value for key, value in view.items() if key != "name"}}
    with vault.database.transaction(permit) as tx:
        before = _one(permit, vault, tx, wanted.lower())
        if before is None and _count(permit, tx) >= _MOST:
            raise Invalid("lake.views_full", f"There are {_MOST} saved views; drop one.")
        state = before.state if before is not None and before.state != SAVED else KEPT if keep else SAVED
        if before is not None and "id" in before.view:
            body.setdefault("id", before.view["id"])
        made = Saved(wanted, body, state, iso(vault.clock.now()))
        for other in _all(permit, vault, tx):
            clash = bool(made.known_as & other.known_as) if other.key != made.key else made.other_than(other)
            if clash:
                raise Conflict("lake.view_id", "Another saved view has this name or this id; choose another one.")
        if before is not None and before.digest != made.digest:
            VaultCatalog(vault, permit).forget(tx, made.table)
        _put(permit, vault, tx, made, before is None)
        permit.log.note(change="save-view")
    return made


def _put(permit: Permit, vault: Vault, tx: Connection, made: Saved, new: bool) -> None:
    sealed = vault.sealer.seal(permit, tx, "", _context(permit, made.key), canonical.dump(dict(made.view)))
    values = {"definition": sealed, "state": made.state, "at": made.at, "error": ""}
    if new:
        tx.execute(insert(lake_view).values(account=permit.account, key=made.key, **values))
    else:
        tx.execute(update(lake_view).where(*_mine(permit, made.key)).values(**values))


def drop(permit: Permit, vault: Vault, name: str) -> Saved:
    """Forget a view, and its table with it; whoever reads that one still can.

    Raises:
        NotFound: ``lake.no_such_view``.
    """
    with vault.database.transaction(permit) as tx:
        gone = _one(permit, vault, tx, name.lower())
        if gone is None:
            raise _none()
        VaultCatalog(vault, permit).forget(tx, gone.table)
        tx.execute(delete(lake_view).where(*_mine(permit, gone.key)))
        permit.log.note(change="drop-view")
    return gone


def found(permit: Permit, vault: Vault, said: str) -> Saved:
    """The view of a name, or of an id that it was saved with.

    Raises:
        NotFound: ``lake.no_such_view``.
    """
    for one in all_of(permit, vault):
        if said.lower() in one.known_as:
            return one
    raise _none()


def all_of(permit: Permit, vault: Vault, *states: str, among: Collection[str] | None = None) -> list[Saved]:
    """The account's saved views by name, of some states or all.

    Args:
        among: only those whose names are among these, in small letters.
    """
    with vault.database.reading(permit) as tx:
        return _all(permit, vault, tx, *states, among=among)


def _all(
    permit: Permit, vault: Vault, tx: Connection, *states: str, among: Collection[str] | None = None
) -> list[Saved]:
    query = select(lake_view).where(_V.account == permit.account).order_by(_V.key)
    rows = tx.execute(query.where(_V.state.in_(states)) if states else query).all()
    return [_opened(permit, vault, tx, row) for row in rows if among is None or row.key in among]


def _one(permit: Permit, vault: Vault, tx: Connection, key: str) -> Saved | None:
    row = tx.execute(select(lake_view).where(*_mine(permit, key))).first()
    return None if row is None else _opened(permit, vault, tx, row)


def _opened(permit: Permit, vault: Vault, tx: Connection, row: Any) -> Saved:
    view = canonical.load(vault.sealer.open(permit, tx, "", _context(permit, row.key), row.definition))
    return Saved(str(view["name"]), view, row.state, row.at, row.error)


def _count(permit: Permit, tx: Connection) -> int:
    return int(tx.execute(select(func.count()).where(_V.account == permit.account)).scalar_one())


def _mine(permit: Permit, key: str) -> tuple[Any, ...]:
    return (_V.account == permit.account, _V.key == key)


def _context(permit: Permit, key: str) -> bytes:
    return f"lake-view\x1f{permit.account}\x1f{key}".encode()


def _none() -> NotFound:
    return NotFound("lake.no_such_view", "There is no such saved view; `carelake view list` has them.")
