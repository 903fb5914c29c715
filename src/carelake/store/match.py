"""``Patient/$match``: who in the record may be the patient that is described (https://hl7.org/fhir/R4/patient-operation-match.html).

Candidates come from searches of the index (blocks: an identifier; the sounds of the name; birth date with a name, a
sex or a postal code; a phone or e-mail), each bounded, so that the work does not grow with the record. Each candidate
is then compared field by field (`carelake.store.match_weights`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.query.texts import escape
from carelake.fhir.references import target
from carelake.fhir.search.values import sounds
from carelake.store.match_weights import Likeness, likeness, traits
from carelake.store.search import Shown

__all__ = ["BLOCK", "Match", "blocks", "matches"]

BLOCK = 200
"""Candidates that one block may bring; one with more says little by itself."""
_HOPS = 10
_MOST_NAMES = 5
_MOST_VALUES = 20
_LONGEST = 200

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Match:
    """A patient of the record who may be the one, and how alike they are.

    Attributes:
        patient: as it is stored; where another has replaced the one that is alike, that other.
    """

    patient: Shown
    likeness: Likeness


def blocks(patient: Mapping[str, Any]) -> list[Pairs]:
    """Searches of Patient that find who may be alike.

    Raises:
        Invalid: ``store.match_too_little``.
    """
    found = [[*pairs, ("_count", str(BLOCK)), ("_total", "none")] for pairs in _blocks(patient)]
    if not found:
        raise Invalid(
            "store.match_too_little",
            "There is too little to match by: give an identifier, a phone or e-mail, or a name with a birth date.",
        )
    return found


def _blocks(patient: Mapping[str, Any]) -> Iterator[Pairs]:
    ids = [one for one in patient.get("identifier") or () if one.get("value")][:_MOST_VALUES]
    if ids:
        yield [("identifier", ",".join(_token(one) for one in ids))]
    contacts = [one["value"][:_LONGEST] for one in patient.get("telecom") or () if one.get("value")][:_MOST_VALUES]
    if contacts:
        yield [("telecom", ",".join(map(escape, contacts)))]
    born = patient.get("birthDate") or ""
    for name in (patient.get("name") or ())[:_MOST_NAMES]:
        family, given = (name.get("family") or "")[:_LONGEST], ((name.get("given") or [""])[0] or "")[:_LONGEST]
        if sounds(family) and sounds(given):
            yield [("phonetic", escape(f"{family} {given}"))]
        for heard in filter(sounds, (family, given) if born else ()):
            yield [("phonetic", escape(heard)), ("birthdate", born)]
        if sounds(family) and len(born) == 10:
            yield [("phonetic", escape(family)), ("birthdate", born[:4])]
    if born:
        places = [one["postalCode"] for one in patient.get("address") or () if one.get("postalCode")][:_MOST_NAMES]
        if places:
            yield [("birthdate", born), ("address-postalcode", ",".join(map(escape, places)))]


def _token(identifier: Mapping[str, Any]) -> str:
    value = escape(identifier["value"].strip())
    return f"{escape(identifier['system'])}|{value}" if identifier.get("system") else value


def matches(
    patient: Mapping[str, Any],
    candidates: Mapping[str, Shown],
    read: Callable[[str], Shown | None],
    *,
    certain: bool = False,
) -> list[Match]:
    """The candidates that may be the patient, the likeliest first.

    Args:
        candidates: by id.
        read: another Patient by id, None where there is none that may be seen.
        certain: only a certain one, and none at all where several are (``onlyCertainMatches``).
    """
    sought = traits(patient)
    best: dict[str, Match] = {}
    for one in candidates.values():
        stored = one.resource
        found = likeness(sought, traits(stored))
        if found.grade == "certainly-not" or (certain and found.grade != "certain"):
            continue
        shown = _survivor(one, stored, read)
        if shown.id not in best or best[shown.id].likeness.score < found.score:
            best[shown.id] = Match(shown, found)
    if certain and len(best) > 1:
        return []
    return sorted(
        best.values(), key=lambda one: (one.likeness.grade != "certain", -one.likeness.score, one.patient.id)
    )


def _survivor(one: Shown, stored: Mapping[str, Any], read: Callable[[str], Shown | None]) -> Shown:
    """Who has replaced a patient (``Patient.link``, ``replaced-by``), else the patient."""
    seen = {one.id}
    while len(seen) < _HOPS:
        following = next((key for key in _replacing(stored) if key not in seen), "")
        found = read(following) if following else None
        if found is None:
            break
        seen.add(following)
        one, stored = found, found.resource
    return one


def _replacing(patient: Mapping[str, Any]) -> Iterator[str]:
    for link in patient.get("link") or ():
        pointed = target(link.get("other", {}).get("reference") or "#") if link.get("type") == "replaced-by" else None
        if pointed is not None and pointed[0] == "Patient":
            yield pointed[1]
