"""Consents between the record and access: those that are kept are told on, and versions are shown as they say.

Access knows a patient by the record's symbol and id (`carelake.access.projection`). What belongs to several patients,
or to none, is shown when all whom it points to are; of that the index tells, for current versions alone. What may
hold anything of anybody (`OPAQUE`) is not shown where anything is withheld.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from sqlalchemy import Connection

from carelake.access.consents import Asked, Bind, asked_of
from carelake.access.projection import Told, project
from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.compartment import tells_of_patients
from carelake.store import bodies
from carelake.store.symbols import TERM, Symbols, kinds_of

__all__ = ["CONSENT", "OPAQUE", "Shown", "project_kept", "shown_to"]

CONSENT = "Consent"
OPAQUE = frozenset({"Binary", "Bundle"})
"""Types whose resources may tell of patients without pointing to them."""


def project_kept(tx: Connection, account: str, kept: Iterable[Parsed], owners: Mapping[str, int]) -> None:
    """Tell access of Consents that were kept, each as it is now.

    Args:
        owners: symbols of patients by id.
    """
    project(tx, account, [_told(one, owners[one.owner]) for one in kept])


def _told(one: Parsed, owner: int) -> Told:
    resource = canonical.load(bodies.unpack(one.body)) if one.body else None
    return Told(one.id, owner, one.owner, resource)


def shown_to(permit: Permit, tx: Connection, symbols: Symbols) -> Shown | None:
    """What consents show to a permit; None where they hide nothing from it."""
    asked = asked_of(permit, tx)
    return None if asked is None else Shown(asked, tx, symbols)


class Shown:
    """SQL of what a permit's consents show."""

    def __init__(self, asked: Asked, tx: Connection, symbols: Symbols) -> None:
        self._asked, self._tx, self._symbols = asked, tx, symbols
        self._patient = symbols.key(tx, TERM, "Patient")

    def current(self, bind: Bind, seq: str, name: str = "") -> str:
        """True of a current version.

        Args:
            seq: SQL of its ``seq``.
            name: its type, where that is known.
        """
        return f"EXISTS (SELECT 1 FROM resource_version w WHERE w.seq = {seq} AND {self._row(bind, 'w', name)})"

    def version(self, bind: Bind, row: str) -> str:
        """True of any version, past or deleted: ``row`` is a name of ``resource_version``.

        A past version of several patients is not shown, for the index does not tell of whom it was.
        """
        telling = sorted(key for name, key in self._kinds.items() if tells_of_patients(name))
        now = f"EXISTS (SELECT 1 FROM resource u WHERE u.kind = {row}.kind AND u.seq = {row}.seq AND NOT u.deleted)"
        known = f"({row}.owner <> 0 OR {row}.kind NOT IN ({_listed(bind, telling)}) OR {now})"
        return f"{known} AND {self._row(bind, row, '')}"

    @cached_property
    def _kinds(self) -> dict[str, int]:
        return self._symbols.everything(self._tx, kinds_of(self._asked.account))

    def _row(self, bind: Bind, row: str, name: str) -> str:
        kind = bind(name) if name else f'(SELECT s.text FROM symbol s WHERE s."key" = {row}.kind)'
        owned = f"{row}.owner <> 0 AND {self._asked.shows(bind, f'{row}.owner', kind)}"
        return f"({owned} OR {row}.owner = 0 AND {self._unowned(bind, row, name, kind)})"

    def _unowned(self, bind: Bind, row: str, name: str, kind: str) -> str:
        if name in OPAQUE:
            return "1 = 0"
        of = f"l.seq = {row}.seq AND l.type = {bind(self._patient)}"
        each = self._asked.shows(bind, "l.target", kind, by="patient")
        shown = f"NOT EXISTS (SELECT 1 FROM ix_reference l WHERE {of} AND NOT {each})"
        if name:
            return shown
        opaque = sorted(key for known, key in self._kinds.items() if known in OPAQUE)
        return f"{row}.kind NOT IN ({_listed(bind, opaque)}) AND {shown}"


def _listed(bind: Bind, numbers: Iterable[int]) -> str:
    return ", ".join(map(bind, numbers)) or "-1"
