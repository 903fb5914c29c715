"""What a narrowed credential leaves of what policy allows: grants, each for types and interactions.

A grant is written ``[PATIENT]/TYPE.LETTERS[?CONDITIONS]``, a SMART scope with the patient in place of its level. Who
carries some is *narrowed*: an action is allowed when policy allows it and a grant serves it; what is seen is what
policy shows and a grant covers. Grants go into the permit's scope as ``only:GRANT`` (decision 0035).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from carelake.access.consents import CONSENT
from carelake.access.policy import Decision
from carelake.access.scopes import LETTERS, Scope, canonical_query, read_scopes
from carelake.core.errors import Invalid
from carelake.fhir.definitions import is_resource

__all__ = [
    "NEEDS",
    "NOT_COVERED",
    "ONLY",
    "PATIENT",
    "Grant",
    "checked_scopes",
    "granted",
    "left_of",
    "read_grant",
    "shown",
    "wanted",
]

NOT_COVERED = "the scopes of the token do not cover it"
ONLY = "only:"
PATIENT = "patient:"

NEEDS: dict[str, tuple[str, ...]] = {
    "record:read": ("r",),
    "record:search": ("s",),
    "record:write": ("c", "u", "d"),
    "record:validate": tuple(LETTERS),
    "record:export": ("rs",),
    "record:import": ("cud",),
}
"""The letters that serve an action: a grant must have all of one of these. No grant serves an action not named."""

_WHOLE = frozenset({"record:import"})
"""Actions on all there is at once: only a grant for everything serves them."""

_IS_ID = re.compile(r"[A-Za-z0-9.-]{1,64}").fullmatch
_FORM = re.compile(r"([A-Za-z0-9.-]{0,64})/(\*|[A-Za-z]{1,64})\.(c?r?u?d?s?)(?:\?(.+))?")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a narrowed credential opens.

    Attributes:
        patient: only in this patient's compartment; "" for all that policy shows.
        type: a FHIR type, or ``*``.
        letters: some of ``cruds``.
        query: only what meets these conditions, "" for none.
    """

    patient: str
    type: str
    letters: str
    query: str = ""

    @property
    def text(self) -> str:
        """As it is carried."""
        return f"{self.patient}/{self.type}.{self.letters}{'?' + self.query if self.query else ''}"

    @property
    def whole(self) -> bool:
        """Whether it covers all resources of its type."""
        return not (self.patient or self.query)

    def serves(self, need: Iterable[str], kind: str = "") -> bool:
        """Whether it is for one of some interactions, with a type when one is named."""
        return self.type in ("*", kind or self.type) and any(set(one) <= set(self.letters) for one in need)


def granted(scopes: Iterable[Scope], patient: str = "") -> tuple[str, ...]:
    """The grants that scopes come to, as they are carried; those for a patient are nothing without one.

    Args:
        patient: id of the patient in context, "" for none.
    """
    found = []
    for one in scopes:
        if one.level == "patient":
            if not _IS_ID(patient):
                continue
            found.append(Grant(patient, one.type, one.letters, one.query))
        else:
            found.append(Grant("", one.type, one.letters, one.query))
    return tuple(dict.fromkeys(grant.text for grant in found))


def checked_scopes(text: str, patient: str = "") -> str:
    """Scopes for a token that we make, as they are written into it: what would open nothing is an error here.

    Raises:
        Invalid: ``access.scope``.
    """
    said = read_scopes(text)
    if said.unknown or not said.resources:
        raise Invalid(
            "access.scope", "A scope is none of SMART App Launch; expected for example user/Observation.rs."
        )
    about = any(one.level == "patient" for one in said.resources)
    if about != bool(patient) or (patient and not _IS_ID(patient)):
        raise Invalid("access.scope", "Scopes of the level patient go with the id of a patient, and no others do.")
    return " ".join((*said.context, *(one.said for one in said.resources)))


@lru_cache(4096)
def read_grant(text: str) -> Grant:
    """A grant of its text.

    Raises:
        Invalid: ``access.scope``: what cannot be read denies.
    """
    found = _FORM.fullmatch(text)
    if found is None or not found[3] or (found[2] != "*" and not is_resource(found[2])):
        raise Invalid("access.scope", "The credential is narrowed to what cannot be read; it opens nothing.")
    patient, kind, letters, query = found.groups()
    return Grant(patient, kind, letters, canonical_query(kind, query) if query else "")


_BESIDE = {"record:write": ("r", "s"), "record:validate": ("r", "s")}
"""The letters by which actions that are not for reading see what they read on the way."""


def wanted(action: str, *, searching: bool = False) -> tuple[str, ...]:
    """The letters by which a permit for an action sees: whoever may write something may not read it for that."""
    if action in _BESIDE:
        return NEEDS["record:search"] if searching else _BESIDE[action]
    return NEEDS.get(action, ())


def left_of(decision: Decision, carried: tuple[str, ...] | None, action: str, kind: str) -> Decision:
    """What a decision of policy comes to for a narrowed credential; never more than it was.

    Args:
        carried: grants as carried; None for a credential that is not narrowed.
        kind: the FHIR type that the action is about, "" for none in particular.
    """
    if carried is None or not decision.allowed:
        return decision
    try:
        grants = [read_grant(one) for one in carried]
    except Invalid:
        grants = []
    serving = [one for one in grants if one.serves(NEEDS.get(action, ()), kind)]
    if not any(one.whole and one.type == "*" for one in serving) if action in _WHOLE else not serving:
        return replace(decision, allowed=False, reasons=(NOT_COVERED,), scope=())
    patients = {one.patient for one in grants}
    named: tuple[str, ...] = ()
    if len(patients) == 1 and "" not in patients:
        # One patient's record and nothing else: the predicate that there is for it, which leads searches.
        named = (f"{PATIENT}{next(iter(patients))}",)
        grants = [replace(one, patient="") for one in grants]
    scope = {*decision.scope, *named, *(f"{ONLY}{one.text}" for one in grants)}
    return replace(decision, scope=tuple(sorted(scope)))


def shown(scope: Iterable[str]) -> list[str]:
    """A scope as acts tell of it: without ids of patients and values of conditions."""
    return list(dict.fromkeys(map(_shown, scope)))


def _shown(name: str) -> str:
    if name.startswith(PATIENT):
        return "patient"
    if name.startswith(CONSENT):
        return CONSENT
    if not name.startswith(ONLY):
        return name
    grant = read_grant(name.removeprefix(ONLY))
    names = "&".join(pair.partition("=")[0] for pair in grant.query.split("&")) if grant.query else ""
    return f"{ONLY}{'patient' if grant.patient else ''}/{grant.type}.{grant.letters}{'?' + names if names else ''}"
