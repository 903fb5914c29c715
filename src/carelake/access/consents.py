"""The predicate ``consent``: whose record a permit may show, by the consents that are projected (decision 0043).

A permit that has it in its scope shows nothing of a patient whose consent denies its purpose, and for purposes that
ask for a permission (``access.consent.opt_in``) nothing of one whose consent does not permit it. The store joins
`Asked.shows` to its statements; the lake asks `withheld` for ids.

Consents count as they are now, also for readings of the past: who withdrew a consent withdrew it for all there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, text

from carelake.access.stamp import stamp_of
from carelake.core.errors import Refused, Unavailable
from carelake.core.permit import Permit
from carelake.core.settings import ConsentSettings
from carelake.fhir.compartment import tells_of_patients
from carelake.fhir.definitions import is_resource
from carelake.vault.database import rows_of, scope_of

__all__ = ["CONSENT", "Asked", "Bind", "Withheld", "asked_of", "resolved", "withheld"]

CONSENT = "consent"
"""As a policy names it, and as it begins in a permit's scope."""

_IN, _OUT = "in", "out"
_DEIDENTIFIED = frozenset({"cells", "deidentified"})
_DISCLOSING = frozenset({"features:export", "lake:export", "record:export"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ANYTHING = "SELECT 1 FROM access_consent_rule WHERE account = ? AND owner = ? LIMIT 1"

Bind = Callable[[Any], str]
"""Gives the placeholder of a value."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Whom a permit does not show.

    Attributes:
        default_shown: whether a patient is shown that is not among the exceptions.
        except_ids: ids of patients of whom the contrary is true.
    """

    default_shown: bool = True
    except_ids: frozenset[str] = frozenset()

    @property
    def nobody(self) -> bool:
        """Whether nobody is withheld, so that there is nothing to ask."""
        return self.default_shown and not self.except_ids

    def shows(self, patient: str) -> bool:
        """Whether rows of a patient are shown, by id."""
        return (patient in self.except_ids) != self.default_shown

    def shows_unowned(self, kind: str) -> bool:
        """Whether rows of a FHIR type are shown that are of no patient, or of several and not told of which."""
        return self.nobody or not tells_of_patients(kind)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of consents: by whom, for what, and when.

    Attributes:
        default: whether a patient is shown of whom no consent says anything.
        mode: one of `carelake.access.provisions.MODES`.
        mine: what the caller is called as an actor of consents.
        known: all such names that are of anybody here.
        now: microseconds since 1970 UTC.
    """

    account: str
    purpose: str
    default: bool
    mode: str
    mine: tuple[str, ...]
    known: tuple[str, ...]
    now: int

    def shows(self, bind: Bind, owner: str, kind: str, *, by: str = "owner") -> str:
        """SQL that is true where a record is shown.

        Args:
            owner: SQL of whose it is: the record's symbol, or with ``by="patient"`` the id.
            kind: SQL of the FHIR type's name.
        """
        named = f"n.account = {bind(self.account)} AND n.{by} = {owner}"
        denied = (
            f"NOT EXISTS (SELECT 1 FROM access_consent_rule n WHERE {named} AND {self._stands(bind, True, kind)})"
        )
        if self.default:
            return denied
        stands = self._stands(bind, False, kind)
        return f"(EXISTS (SELECT 1 FROM access_consent_rule n WHERE {named} AND {stands}) AND {denied})"

    def silent(self, connection: Connection, owner: int) -> bool:
        """Whether no consent of a patient says anything, so that what holds without one does: the quick answer."""
        return not rows_of(connection, _ANYTHING, self.account, owner)

    def patients(self, bind: Bind, *, denies: bool, kind: str = "") -> str:
        """SQL of the ids of patients, each once, of whom some rule stands.

        Args:
            kind: for this FHIR type; "" for all types: a denial of any counts then, and a permission of all.
        """
        # A name that R4 has, so it may stand in the text, and twice.
        told = f"'{kind}'" if is_resource(kind) else ""
        tests = f"n.account = {bind(self.account)} AND {self._stands(bind, denies, told)}"
        return f"SELECT DISTINCT n.patient FROM access_consent_rule n WHERE {tests}"

    def _stands(self, bind: Bind, denies: bool, kind: str) -> str:
        """Tests of a rule ``n``: it is met, and no exception to it is."""
        below = "c.account = n.account AND c.consent = n.consent AND c.parent = n.node"
        excepted = f"{below} AND {self._met(bind, 'c')} AND c.kind IN ('', {kind or 'n.kind'})"
        tests = f"{'' if denies else 'NOT '}n.denies AND {self._met(bind, 'n')}"
        if kind:
            tests += f" AND n.kind IN ('', {kind})"
        elif not denies:
            tests += " AND n.kind = ''"
        return f"{tests} AND NOT EXISTS (SELECT 1 FROM access_consent_rule c WHERE {excepted})"

    def _met(self, bind: Bind, row: str) -> str:
        who = ", ".join(["''", *map(bind, self.mine)])
        strangers = f"{row}.actor <> ''"
        if self.known:
            strangers += f" AND {row}.actor NOT IN ({', '.join(map(bind, self.known))})"
        # Who is meant by an actor that nobody here is known by may be the caller: then it is denied.
        return (
            f"{row}.purpose IN ('', {bind(self.purpose)}) AND {row}.mode IN ('', {bind(self.mode)}) "
            f"AND {row}.low <= {bind(self.now)} AND {row}.high > {bind(self.now)} "
            f"AND ({row}.actor IN ({who}) OR ({row}.denies AND {strangers}))"
        )


def withheld(permit: Permit, connection: Connection, kind: str = "") -> Withheld:
    """Whom the permit does not show, now; nobody for one without the predicate.

    Args:
        connection: a reading or transaction of the workspace's database.
        kind: FHIR type of the rows that are asked for, since consents may be about some types; "" for rows of any:
            who denies some of them is withheld whole.

    Raises:
        Unavailable: ``access.consents``: consents are not projected yet.
    """
    asked = asked_of(permit, connection)
    if asked is None:
        return Withheld()
    denied = _ids(connection, asked, kind, denies=True)
    return Withheld(True, denied) if asked.default else Withheld(False, _ids(connection, asked, kind) - denied)


def _ids(connection: Connection, asked: Asked, kind: str, *, denies: bool = False) -> frozenset[str]:
    values: dict[str, Any] = {}

    def bind(value: Any) -> str:
        name = f"v{len(values)}"  # by name: fragments may stand more than once
        values[name] = value
        return f":{name}"

    statement = text(asked.patients(bind, denies=denies, kind=kind))
    return frozenset(str(one) for one in connection.execute(statement, values).scalars())


def asked_of(permit: Permit, connection: Connection) -> Asked | None:
    """What a permit asks of consents; None where it asks nothing, or nothing is denied in its account.

    Raises:
        Unavailable: ``access.consents``.
    """
    said = _said(permit.scope)
    if said is None:
        return None
    default, mine, known = said
    if not _denied(connection, permit.account) and default:
        return None
    mode = "disclose" if permit.action in _DISCLOSING else "access"
    now = (scope_of(connection).now() - _EPOCH) // datetime.resolution
    return Asked(permit.account, permit.purpose, default, mode, mine, known, now)


# -- in a permit's scope ---------------------------------------------------------------------------------------------


def resolved(
    settings: ConsentSettings, scope: tuple[str, ...], purpose: str, names: Collection[str]
) -> tuple[str, ...]:
    """A scope whose ``consent`` tells what holds without one, and as whom consents may mean the caller.

    Args:
        names: what the settings may say of the caller: name, ``role:ROLE``, ``account:ACCOUNT``, ``*``.
    """
    if CONSENT not in scope:
        return scope
    asking = settings.opt_in_deidentified if _DEIDENTIFIED.intersection(scope) else settings.opt_in
    said = f"{CONSENT}:{_IN if purpose in asking else _OUT}"
    if settings.actors:
        mine = sorted(actor for actor, told in settings.actors.items() if told in names)
        said += ":" + json.dumps([mine, sorted(settings.actors)], separators=(",", ":"))
    return tuple(sorted(said if one == CONSENT else one for one in scope))


@lru_cache(1024)
def _said(scope: tuple[str, ...]) -> tuple[bool, tuple[str, ...], tuple[str, ...]] | None:
    """What holds without consent, and the names; several of them would have to agree."""
    told = {one for one in scope if one == CONSENT or one.startswith(f"{CONSENT}:")}
    if not told:
        return None
    _, _, rest = told.pop().partition(":")
    default, _, names = rest.partition(":")
    if told or default not in (_IN, _OUT):
        raise Refused("access.consent_scope", "The permit's consent is none that can be read; it denies.")
    mine, known = json.loads(names) if names else ((), ())
    return default == _OUT, tuple(mine), tuple(known)


# -- whether there is any --------------------------------------------------------------------------------------------

_KEPT = 256
_known: dict[tuple[str, str], bool] = {}
"""By account, and the stamp of all rights, which changes with an account's first denial and with its last."""

_ANY = (
    "SELECT EXISTS (SELECT 1 FROM access_consent_rule WHERE account = ? AND denies), "
    "EXISTS (SELECT 1 FROM access_consent WHERE account = ? AND consent = '')"
)


def _denied(connection: Connection, account: str) -> bool:
    """Whether anything is denied in an account at all."""
    key = (stamp_of(connection), account)
    found = _known.get(key)
    if found is None:
        some, stale = rows_of(connection, _ANY, account, account)[0]
        if stale:
            raise Unavailable(
                "access.consents",
                "Consents of the time before this version are not projected yet: run carelake access consents "
                "--rebuild in this account.",
            )
        found = bool(some)
        if key[0] and not scope_of(connection).writing:
            if len(_known) >= _KEPT:
                _known.clear()
            _known[key] = found
    return found
