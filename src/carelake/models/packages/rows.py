"""Rows of groups and versions: found, made and changed inside the caller's transaction.

A version that was registered before there were rows has none; it is told of by its noun, and gets one when it is
changed. Who registered a version anew after it was deleted stands in the JSON of its row under `_AGAIN`, which no
answer shows: all of them made it, and none of them approves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from carelake.audit.tables import noun as noun_table
from carelake.core import canonical
from carelake.core.nouns import Noun
from carelake.models.tables import model_group, model_package

__all__ = [
    "Group",
    "Package",
    "add",
    "add_group",
    "change",
    "find",
    "find_group",
    "groups",
    "next_version",
    "packages",
]


_AGAIN = "carelake:again"


@dataclass(frozen=True, slots=True)
class Group:
    """A model package group."""

    account: str
    name: str
    description: str
    tags: tuple[Mapping[str, str], ...]
    created: str
    created_by: str
    versions: int = 0


@dataclass(frozen=True, slots=True)
class Package:
    """A version in a group.

    Attributes:
        started_by: who spoke for its author, or the author.
        said: the fields of CreateModelPackage that were given or worked out.
        state: ModelApprovalStatus, of its noun.
        again: who registered it after it was deleted, and who began that.
    """

    ref: str
    account: str
    name: str
    version: int
    created: str
    created_by: str
    modified: str
    modified_by: str
    started_by: str
    said: Mapping[str, Any]
    state: str
    token: str = ""
    deleted: str = ""
    again: tuple[str, ...] = ()

    @property
    def makers(self) -> tuple[str, ...]:
        """Everybody who made it, or began that: whoever decides on it is none of them."""
        return tuple(dict.fromkeys((self.created_by, self.started_by, *self.again)))


def add_group(tx: Connection, group: Group) -> None:
    """Keep a new group."""
    row = {
        name: getattr(group, name) for name in ("account", "name", "description", "created", "created_by", "versions")
    }
    tx.execute(insert(model_group).values(**row, tags=canonical.dump([dict(tag) for tag in group.tags]).decode()))


def find_group(tx: Connection, account: str, name: str) -> Group | None:
    """A group by name."""
    query = select(model_group).where(model_group.c.account == account, model_group.c.name == name)
    row = tx.execute(query).first()
    return _group(row) if row else None


def groups(tx: Connection, account: str) -> list[Group]:
    """All groups of an account, by name."""
    query = select(model_group).where(model_group.c.account == account).order_by(model_group.c.name)
    return [_group(row) for row in tx.execute(query)]


def next_version(tx: Connection, account: str, name: str) -> int:
    """Take the next number of a group; none is given twice, whatever was deleted."""
    here = (model_group.c.account == account) & (model_group.c.name == name)
    highest = tx.execute(
        select(func.max(model_package.c.version)).where(
            model_package.c.account == account, model_package.c.name == name
        )
    ).scalar()
    given = tx.execute(select(model_group.c.versions).where(here)).scalar() or 0
    number = max(int(highest or 0), int(given)) + 1
    tx.execute(update(model_group).where(here).values(versions=number))
    return number


def add(tx: Connection, package: Package) -> None:
    """Keep a new version."""
    names = ("ref", "account", "name", "version", "created", "created_by", "modified", "modified_by", "started_by")
    row = {name: getattr(package, name) for name in (*names, "token", "deleted")}
    tx.execute(insert(model_package).values(**row, said=_said(package)))


def change(
    tx: Connection, package: Package, *, at: str, by: str, deleted: str = "", again: Sequence[str] = (), **said: Any
) -> Package:
    """Change what is said of a version; a field that is None goes.

    Args:
        again: who registers it anew, beside those that did.
    """
    told = {key: value for key, value in {**package.said, **said}.items() if value is not None}
    others = tuple(dict.fromkeys((*package.again, *again)))
    after = replace(package, said=told, modified=at, modified_by=by, deleted=deleted, again=others)
    values = {"said": _said(after), "modified": at, "modified_by": by, "deleted": deleted}
    done = tx.execute(update(model_package).where(model_package.c.ref == package.ref).values(**values))
    if not done.rowcount:
        add(tx, after)
    return after


def find(tx: Connection, account: str, ref: str) -> Package | None:
    """A version by ref, deleted ones too."""
    found = packages(tx, account, model_package.c.ref == ref, orphan=noun_table.c.ref == ref)
    return found[0] if found else None


def packages(tx: Connection, account: str, *wanted: Any, orphan: Any = None) -> list[Package]:
    """Versions of an account, newest first.

    Args:
        wanted: conditions on ``model_package``.
        orphan: condition on the nouns of versions that have no row; without, all of these.
    """
    joined = model_package.join(noun_table, noun_table.c.ref == model_package.c.ref)
    query = select(model_package, noun_table.c.state).select_from(joined)
    query = query.where(model_package.c.account == account, *wanted)
    order = (model_package.c.created.desc(), model_package.c.name, model_package.c.version.desc())
    found = [_package(row) for row in tx.execute(query.order_by(*order))]
    return found + _orphans(tx, account, orphan)


def _orphans(tx: Connection, account: str, orphan: Any) -> list[Package]:
    query = select(noun_table.c.state, noun_table.c.ref, noun_table.c.body, noun_table.c.at).where(
        noun_table.c.kind == "model", noun_table.c.account == account
    )
    query = query.where(~exists().where(model_package.c.ref == noun_table.c.ref))
    if orphan is not None:
        query = query.where(orphan)
    return [
        _of_noun(Noun(row.ref, account, row.state, "", (), canonical.load(row.body)), row.at)
        for row in tx.execute(query.order_by(noun_table.c.number.desc()))
    ]


def _of_noun(noun: Noun, at: str) -> Package:
    body = noun.body
    author = str(body["author"])
    named = (str(body["name"]), int(body["version"]))
    return Package(noun.ref, noun.account, *named, at, author, at, author, author, {}, noun.state)


def _group(row: Row[Any]) -> Group:
    tags = tuple(canonical.load(row.tags))
    return Group(row.account, row.name, row.description, tags, row.created, row.created_by, row.versions)


def _package(row: Row[Any]) -> Package:
    names = ("ref", "account", "name", "version", "created", "created_by", "modified", "modified_by", "started_by")
    told = {name: getattr(row, name) for name in (*names, "token", "deleted", "state")}
    said = dict(canonical.load(row.said))
    again = tuple(said.pop(_AGAIN, ()))
    return Package(**told, said=said, again=again)


def _said(package: Package) -> str:
    return canonical.dump({**package.said, **({_AGAIN: list(package.again)} if package.again else {})}).decode()
