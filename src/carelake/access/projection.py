"""Consents of the record as rows of access: written in the transaction that keeps, replaces or erases a Consent.

The record calls with plain values; a patient is called here as the record's index rows do (its symbol, and its id),
so that the rows tell a database no more than those, and go with their patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, select

from carelake.access.directives import WORDS, read_consent
from carelake.access.stamp import changed
from carelake.access.tables import access_consent, access_consent_rule
from carelake.vault.database import bulk

__all__ = ["Rows", "Told", "complete", "counted", "drop", "forget", "known", "project", "projected", "rows_for"]

_CHUNK = 500
_HEAD, _RULE = access_consent.c, access_consent_rule.c
_INTO = (
    "INSERT INTO access_consent (account, consent, owner, patient, word, rules, widened, dropped) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INTO_RULES = (
    "INSERT INTO access_consent_rule (account, consent, owner, patient, node, part, parent, denies, purpose, mode, "
    "actor, kind, low, high) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Told(NamedTuple):
    """A Consent as it is now.

    Attributes:
        owner, patient: the record's symbol of the patient and the id; 0 and "" for none.
        resource: None for one that is deleted.
    """

    consent: str
    owner: int
    patient: str
    resource: Mapping[str, Any] | None


class Rows(NamedTuple):
    """Of ``access_consent`` and ``access_consent_rule``."""

    heads: list[tuple[Any, ...]]
    rules: list[tuple[Any, ...]]


def rows_for(account: str, page: Iterable[Told]) -> Rows:
    """The rows of consents; those that are deleted have none."""
    made = Rows([], [])
    for one in page:
        if one.resource is None:
            continue
        found = read_consent(one.resource, one.patient)
        key = (account, one.consent, one.owner, one.patient)
        made.heads.append((*key, found.word, len(found.rules), found.widened, found.dropped))
        made.rules.extend((*key, rule.node, rule.part, rule.parent, rule.denies, *rule[4:]) for rule in found.rules)
    return made


def project(tx: Connection, account: str, page: Sequence[Told]) -> None:
    """Put consents in the place of what was projected of them, in the caller's transaction."""
    with _Noticing(tx, account):
        _drop(tx, account, [one.consent for one in page])
        made = rows_for(account, page)
        bulk(tx, _INTO, made.heads)
        bulk(tx, _INTO_RULES, made.rules)


def drop(tx: Connection, account: str, consents: Sequence[str]) -> None:
    """Take out consents that are no more, by id."""
    with _Noticing(tx, account):
        _drop(tx, account, consents)


def forget(tx: Connection, account: str, patients: Sequence[str]) -> None:
    """Take out all that was projected of patients, who are erased."""
    with _Noticing(tx, account):
        for start in range(0, len(patients), _CHUNK):
            some = list(patients[start : start + _CHUNK])
            for table in (access_consent, access_consent_rule):
                tx.execute(delete(table).where(table.c.account == account, table.c.patient.in_(some)))


def _drop(tx: Connection, account: str, consents: Sequence[str]) -> None:
    for start in range(0, len(consents), _CHUNK):
        some = list(consents[start : start + _CHUNK])
        for table in (access_consent, access_consent_rule):
            tx.execute(delete(table).where(table.c.account == account, table.c.consent.in_(some)))


class _Noticing:
    """Changes the stamp of all rights where an account gets its first denial, or loses the last one."""

    def __init__(self, tx: Connection, account: str) -> None:
        self._tx, self._account = tx, account
        self._before = False

    def __enter__(self) -> None:
        self._before = self._denied()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self._denied() != self._before:
            changed(self._tx)

    def _denied(self) -> bool:
        query = select(_RULE.consent).where(_RULE.account == self._account, _RULE.denies).limit(1)
        return self._tx.execute(query).first() is not None


# -- what there is --------------------------------------------------------------------------------------------------


def counted(connection: Connection, account: str) -> dict[str, Any]:
    """What became of an account's consents, in numbers."""
    own = and_(_HEAD.account == account, _HEAD.consent != "")
    words: dict[str, int] = dict(
        connection.execute(select(_HEAD.word, func.count()).where(own).group_by(_HEAD.word)).all()
    )
    told = select(func.count(_HEAD.patient.distinct())).where(own, _HEAD.patient != "", _HEAD.rules > 0)
    sums = connection.execute(select(func.sum(_HEAD.widened), func.sum(_HEAD.dropped)).where(own)).one()
    each = select(_RULE.consent, _RULE.node, _RULE.denies).where(_RULE.account == account).distinct().subquery()
    by: dict[bool, int] = dict(connection.execute(select(each.c.denies, func.count()).group_by(each.c.denies)).all())
    stale = select(_HEAD.consent).where(_HEAD.account == account, _HEAD.consent == "")
    return {
        "consents": sum(words.values()),
        "patients": int(connection.execute(told).scalar_one()),
        "words": {word: int(words.get(word, 0)) for word in WORDS},
        "denials": int(by.get(True, 0)),
        "permissions": int(by.get(False, 0)),
        "widened": int(sums[0] or 0),
        "dropped": int(sums[1] or 0),
        "projected": connection.execute(stale).first() is None,
    }


def projected(connection: Connection, account: str, consents: Sequence[str]) -> Rows:
    """The rows of some consents as they are, in the order of `rows_for`."""
    found = Rows([], [])
    for start in range(0, len(consents), _CHUNK):
        some = list(consents[start : start + _CHUNK])
        for table, into, names in (
            (access_consent, found.heads, _INTO),
            (access_consent_rule, found.rules, _INTO_RULES),
        ):
            columns = [table.c[name.strip()] for name in names[names.index("(") + 1 : names.index(")")].split(",")]
            query = select(*columns).where(table.c.account == account, table.c.consent.in_(some))
            into.extend(tuple(row) for row in connection.execute(query))
    return found


def known(connection: Connection, account: str, after: str, most: int) -> list[str]:
    """Ids of consents that have rows, in order, the next after one."""
    query = select(_HEAD.consent).where(_HEAD.account == account, _HEAD.consent > after)
    return list(connection.execute(query.order_by(_HEAD.consent).limit(most)).scalars())


def complete(tx: Connection, account: str) -> None:
    """Note that all consents of an account are projected."""
    tx.execute(delete(access_consent).where(_HEAD.account == account, _HEAD.consent == ""))
    changed(tx)
