"""What a provision of a FHIR Consent asks for, with those above it, read for a denial or for a permission.

Either reading is on the safe side: a condition that is not understood is left out of a denial, and makes a permission
one that nobody meets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from carelake.access.purposes import PURPOSES, at_most, may_be
from carelake.fhir.definitions import is_resource
from carelake.fhir.references import target
from carelake.fhir.search.values import date_range

__all__ = [
    "ALL",
    "EVER",
    "MODES",
    "NEVER",
    "NOTHING",
    "TIMED",
    "Conditions",
    "Unclear",
    "codes_of",
    "listed",
    "narrowed",
]

MODES = ("access", "disclose")
"""What is done with what is seen: looked at here, or taken out in bulk."""
NEVER, EVER = -(1 << 62), 1 << 62
"""Before and after all times that can be written, in microseconds since 1970."""
TIMED = frozenset({"id", "extension", "period", "type", "provision"})
"""Members of a provision that are conditions of time at most."""

_REASONS = frozenset({"http://terminology.hl7.org/CodeSystem/v3-ActReason", "http://hl7.org/fhir/v3/ActReason"})
_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
_MODE_OF = {"access": "access", "use": "access", "disclose": "disclose"}
_NOT_SEEN = frozenset({"collect", "correct"})
"""Actions by which nobody sees anything."""
_TYPES = "http://hl7.org/fhir/resource-types"
_CORE = "http://hl7.org/fhir/StructureDefinition/"
_ANYTHING = frozenset({"Resource", "DomainResource"})
_CONTENT = ("securityLabel", "code", "dataPeriod", "data")
"""Conditions on what a resource holds, of which no row tells for certain."""

Some = frozenset[str] | None
"""Some of them; None for all."""
ALL: Some = None
_NONE: Some = frozenset()


class Unclear(Exception):
    """A Consent has no form that is known."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of a provision with all above it, as far as they are understood.

    Attributes:
        exact: whether nothing was lost.
    """

    purposes: Some = ALL
    modes: Some = ALL
    actors: Some = ALL
    kinds: Some = ALL
    low: int = NEVER
    high: int = EVER
    exact: bool = True

    @property
    def sets(self) -> tuple[Some, Some, Some, Some]:
        """All but the time."""
        return self.purposes, self.modes, self.actors, self.kinds

    @property
    def many(self) -> int:
        """How many combinations of one of each there are."""
        return math.prod(1 if one is None else len(one) for one in self.sets) if self.low < self.high else 0


NOTHING = Conditions(purposes=_NONE, exact=False)


def narrowed(provision: Mapping[str, Any], above: Conditions, *, denies: bool) -> Conditions:
    """The conditions above with a provision's own, read for a denial or for a permission."""
    if "modifierExtension" in provision:  # it may turn any of them into something else
        return replace(above, exact=False) if denies else NOTHING
    told = [
        _members(listed(provision, "purpose"), _purposes, denies=denies),
        _members(listed(provision, "action"), _modes, denies=denies),
        _members(listed(provision, "actor"), _actors, denies=denies),
        _members(listed(provision, "class"), _kinds, denies=denies),
    ]
    low, high, timed = _period(provision, denies=denies)
    known = timed and not any(name in provision for name in _CONTENT)
    exact = above.exact and known and all(one.exact for one in told)
    if not known and not denies:
        return NOTHING
    purposes, modes, actors, kinds = (one.members for one in told)
    # Who is meant twice must be both, under whatever names. A row has one: less than that for a permission, and more
    # for a denial.
    twice = actors is not None and above.actors is not None and actors != above.actors
    who = actors if twice and denies else _meet(actors, above.actors)
    return Conditions(
        _meet(purposes, above.purposes),
        _meet(modes, above.modes),
        who,
        _meet(kinds, above.kinds),
        max(low, above.low),
        min(high, above.high),
        exact and not twice,
    )


def _meet(one: Some, other: Some) -> Some:
    if one is None or other is None:
        return one if other is None else other
    return one & other


class _Told(NamedTuple):
    """Members of a condition, and whether they are what it says."""

    members: Some
    exact: bool


def _members(said: list[Any], read: Callable[[Any, bool], Some | Literal[False]], *, denies: bool) -> _Told:
    """The union of what each entry covers.

    Args:
        read: of one entry what it covers; None for everything, False for what is not understood.
    """
    if not said:
        return _Told(ALL, True)
    found: set[str] = set()
    exact, whole = True, False
    for one in said:
        covered = read(one, denies)
        if covered is None:
            whole = True
        elif covered is False:
            exact, whole = False, whole or denies
        else:
            found |= covered
    return _Told(ALL if whole else frozenset(found), exact)


def _purposes(said: Any, denies: bool) -> Some | Literal[False]:
    if said.get("system") not in _REASONS:
        return False
    covered = (may_be if denies else at_most)(str(said.get("code", "")))
    if covered is None:
        return False
    return ALL if covered == frozenset(PURPOSES) else covered


def _modes(said: Any, denies: bool) -> Some | Literal[False]:
    codes = codes_of(said, _ACTION)
    if len(codes) != 1:
        return False
    code = codes.pop()
    if code in _NOT_SEEN:
        return _NONE
    if code not in _MODE_OF:
        return False
    # To see is what disclosing begins with, and whoever sees something here may be a third party.
    return ALL if denies else frozenset({_MODE_OF[code]})


def _actors(said: Any, denies: bool) -> Some | Literal[False]:
    if "modifierExtension" in said:
        return False
    reference = said.get("reference", {})
    text = reference.get("reference")
    pointed = target(text) if isinstance(text, str) else None
    if pointed is not None:
        return frozenset({f"{pointed[0]}/{pointed[1]}" if pointed[1] else pointed[2]})
    named = reference.get("identifier", {})
    if text is None and isinstance(named.get("system"), str) and isinstance(named.get("value"), str):
        return frozenset({f"{named['system']}|{named['value']}"})
    return False


def _kinds(said: Any, denies: bool) -> Some | Literal[False]:
    code, system = said.get("code"), said.get("system")
    if not isinstance(code, str):
        return False
    if code.startswith(_CORE):
        code, system = code.removeprefix(_CORE), _TYPES
    if system != _TYPES:
        return False
    if code in _ANYTHING:
        return ALL
    return frozenset({code}) if is_resource(code) else False


def _period(provision: Mapping[str, Any], *, denies: bool) -> tuple[int, int, bool]:
    """From when until before when, and whether that is known."""
    said = provision.get("period")
    if said is None:
        return NEVER, EVER, "_period" not in provision
    known = "_start" not in said and "_end" not in said
    low, high = NEVER, EVER
    if "start" in said:
        low = date_range(said["start"])[0]
    if "end" in said:
        high = date_range(said["end"])[1]
    if low >= high:  # a period of no time is a mistake, not a condition
        return NEVER, EVER, False
    return low, high, known


def codes_of(concept: Any, system: str) -> set[str]:
    """The codes of a CodeableConcept in a code system."""
    return {one["code"] for one in concept.get("coding", ()) if one.get("system") == system and "code" in one}


def listed(holder: Any, name: str) -> list[Any]:
    """What repeats under a name, each a JSON object.

    Raises:
        Unclear: it is no such list.
    """
    found = holder.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise Unclear
    return found
