"""How alike two Patients are: the weights of ``Patient/$match``, which are ours (docs/operations.md has the table).

The model is Fellegi and Sunter's: each field that both have adds the log2 of how much more often its values agree so
among records of one person than among those of two; a field that one of them lacks adds nothing. From the sum comes a
probability, with the prior that one in 2^17 patients is the one looked for. The grade is not read off that alone:
``certain`` needs what rules name, so that a common name and birthday never is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from jellyfish import jaro_winkler_similarity

from carelake.fhir.search.values import normalise, sounds

__all__ = ["GRADES", "PRIOR", "WEIGHTS", "Likeness", "Traits", "likeness", "traits"]

PRIOR = 17.0
"""log2 of how many patients there are for each that is looked for."""

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "identifier": {"same": 22.0, "different": -4.0},
    "family": {"same": 9.0, "close": 6.0, "sounds": 4.0, "swapped": 4.0, "different": -5.0},
    "given": {"same": 6.0, "close": 4.0, "sounds": 3.0, "initial": 1.5, "different": -4.0},
    "birthDate": {"same": 13.0, "close": 6.0, "partial": 4.0, "different": -8.0},
    "gender": {"same": 1.0, "different": -4.0},
    "line": {"same": 8.0, "close": 5.0, "different": -1.0},
    "postalCode": {"same": 6.0, "different": -1.0},
    "city": {"same": 3.0, "different": -0.5},
    "phone": {"same": 11.0, "different": -0.5},
    "email": {"same": 12.0, "different": -0.5},
}
"""Field -> how its values compare -> weight in bits."""

GRADES = {"probable": 0.95, "possible": 0.5}
"""Least score of a grade; below the last one it is no match."""

_CLOSE = 0.92
_DIGITS = re.compile(r"\D+")
_PHONE = 10
_MOST = 50
"""Values of a field that are compared; a person has fewer."""
_LONGEST = 100
"""Characters of a value that are compared: nobody is to be kept busy by a name as long as a book."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What of a Patient is compared, folded.

    Attributes:
        identifiers: system to values; "" for none.
        families, givens: of every name; givens are the first names.
        phones: their last ten digits.
    """

    identifiers: Mapping[str, frozenset[str]]
    families: frozenset[str]
    givens: frozenset[str]
    birth: str
    gender: str
    lines: frozenset[str]
    postals: frozenset[str]
    cities: frozenset[str]
    phones: frozenset[str]
    emails: frozenset[str]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two are.

    Attributes:
        score: probability that they are one person, 0 to 1.
        grade: ``certain``, ``probable``, ``possible`` or ``certainly-not``.
        fields: how each field compared, for explanation and tests.
    """

    score: float
    grade: str
    fields: Mapping[str, str]


def traits(patient: Mapping[str, Any]) -> Traits:
    """The traits of a valid Patient."""
    names = _listed(patient, "name")
    contacts = _listed(patient, "telecom")
    addresses = _listed(patient, "address")
    identifiers: dict[str, set[str]] = {}
    for one in _listed(patient, "identifier"):
        if one.get("value"):
            identifiers.setdefault(one.get("system", ""), set()).add(one["value"].strip())
    return Traits(
        {system: frozenset(values) for system, values in identifiers.items()},
        _folded(name.get("family") for name in names),
        _folded((name.get("given") or [None])[0] for name in names),
        patient.get("birthDate") or "",
        _known(patient.get("gender")),
        _folded(line for one in addresses for line in one.get("line") or ()),
        _folded(one.get("postalCode") for one in addresses),
        _folded(one.get("city") for one in addresses),
        frozenset(filter(None, (_digits(one) for one in contacts if one.get("system") in ("phone", "sms", None)))),
        _lowered(one.get("value") for one in contacts if one.get("system") == "email"),
    )


def likeness(one: Traits, other: Traits) -> Likeness:
    """How alike two are; the same for both orders."""
    fields = {name: how for name, compare in _COMPARED.items() if (how := compare(one, other))}
    total = sum(WEIGHTS[name][how] for name, how in fields.items())
    score = 1 / (1 + 2.0 ** min(1000.0, PRIOR - total))
    return Likeness(score, _grade(score, fields), fields)


def _grade(score: float, fields: Mapping[str, str]) -> str:
    if score >= GRADES["probable"]:
        return "certain" if _is_certain(fields) else "probable"
    return "possible" if score >= GRADES["possible"] else "certainly-not"


def _is_certain(fields: Mapping[str, str]) -> bool:
    """By an identifier and a trait of the person; or by name, birth date and where or how they are reached."""
    if "different" in (fields.get("birthDate"), fields.get("family"), fields.get("gender")):
        return False
    person = [fields.get("family") == "same", fields.get("given") == "same", fields.get("birthDate") == "same"]
    if fields.get("identifier") == "same":
        return any(person)
    reached = any(fields.get(name) == "same" for name in ("line", "phone", "email"))
    return all(person) and reached and fields.get("identifier") != "different"


# -- fields ------------------------------------------------------------------------------------------------------


def _identifier(one: Traits, other: Traits) -> str:
    shared = one.identifiers.keys() & other.identifiers.keys()
    if any(one.identifiers[system] & other.identifiers[system] for system in shared):
        return "same"
    return "different" if shared - {""} else ""


def _family(one: Traits, other: Traits) -> str:
    found = _name(one.families, other.families)
    swapped = one.families & other.givens or one.givens & other.families
    return "swapped" if found == "different" and swapped else found


def _given(one: Traits, other: Traits) -> str:
    found = _name(one.givens, other.givens)
    if found == "different" and any(_initial(a, b) for a in one.givens for b in other.givens):
        return "initial"
    if found == "different" and (one.families & other.givens or one.givens & other.families):
        return "close"
    return found


def _name(ours: frozenset[str], theirs: frozenset[str]) -> str:
    if not ours or not theirs:
        return ""
    if ours & theirs:
        return "same"
    pairs = [(a, b) for a in ours for b in theirs]
    if any(jaro_winkler_similarity(a, b) >= _CLOSE for a, b in pairs):
        return "close"
    return "sounds" if any(_sound(a) == _sound(b) for a, b in pairs) else "different"


@lru_cache(maxsize=1 << 14)
def _sound(text: str) -> tuple[str, ...]:
    return tuple(sounds(text))


def _initial(one: str, other: str) -> bool:
    return one[0] == other[0] and 1 in (len(one), len(other))


def _birth(one: Traits, other: Traits) -> str:
    a, b = one.birth, other.birth
    if not a or not b:
        return ""
    if len(a) != len(b):
        short, long = sorted((a, b), key=len)
        return "partial" if long.startswith(short) else "different"
    if a == b:
        return "same" if len(a) == 10 else "partial"
    return "close" if len(a) == 10 and _slipped(a, b) else "different"


def _slipped(a: str, b: str) -> bool:
    """One digit differs, two neighbours or month and day change places."""
    where = [n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if len(where) == 1:
        return True
    if len(where) == 2 and a[where[0]] == b[where[1]] and a[where[1]] == b[where[0]]:
        return True
    return a[:4] == b[:4] and (a[5:7], a[8:]) == (b[8:], b[5:7])


def _gender(one: Traits, other: Traits) -> str:
    if not one.gender or not other.gender:
        return ""
    return "same" if one.gender == other.gender else "different"


def _line(one: Traits, other: Traits) -> str:
    found = _same(one.lines, other.lines)
    if found != "different":
        return found
    pairs = ((a, b) for a in one.lines for b in other.lines)
    # A house's number decides: "12 main st" is not "14 main st".
    close = any(
        re.findall(r"\d+", a) == re.findall(r"\d+", b) and jaro_winkler_similarity(a, b) >= _CLOSE for a, b in pairs
    )
    return "close" if close else "different"


def _same(ours: frozenset[str], theirs: frozenset[str]) -> str:
    if not ours or not theirs:
        return ""
    return "same" if ours & theirs else "different"


_COMPARED: Mapping[str, Callable[[Traits, Traits], str]] = {
    "identifier": _identifier,
    "family": _family,
    "given": _given,
    "birthDate": _birth,
    "gender": _gender,
    "line": _line,
    "postalCode": lambda one, other: _same(one.postals, other.postals),
    "city": lambda one, other: _same(one.cities, other.cities),
    "phone": lambda one, other: _same(one.phones, other.phones),
    "email": lambda one, other: _same(one.emails, other.emails),
}


# -- folding -----------------------------------------------------------------------------------------------------


def _listed(patient: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in patient.get(name) or () if isinstance(one, dict)][:_MOST]


def _folded(texts: Iterable[str | None]) -> frozenset[str]:
    return frozenset(islice(filter(None, (normalise(text[:_LONGEST]) for text in texts if text)), _MOST))


def _lowered(texts: Iterable[str | None]) -> frozenset[str]:
    return frozenset(filter(None, (text[:_LONGEST].strip().lower() for text in texts if text)))


def _known(gender: str | None) -> str:
    return gender if gender in ("male", "female") else ""


def _digits(contact: Mapping[str, Any]) -> str:
    """The last digits of a number, without the country's; "" where it has too few to tell."""
    found = _DIGITS.sub("", (contact.get("value") or "")[:_LONGEST])
    return found[-_PHONE:] if len(found) >= 7 else ""
