"""A typical clinical mix of searches, as data: what clinicians' applications, portals and cohort lists ask for.

Each line is a name, its weight (their sum is 100) and a search. Words in braces are drawn anew for each search from
what was loaded: {patient} with its own {mrn}, {family}, {given}, {gender}, {birthdate}, {city}, {loinc}, {icd}, {rx},
{encounter}, {from} and {to} (a year of that patient's record) and {day}; so the answer is seldom empty.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

__all__ = ["CHAINS", "HAS", "MIX", "Pool", "Search", "read_pool"]

LOINC, ICD, RXNORM = (
    "http://loinc.org",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
)


@dataclass(frozen=True, slots=True)
class Search:
    """One kind of search of the mix."""

    name: str
    weight: int
    text: str


MIX = tuple(
    Search(*one)
    for one in (
        ("patient-id", 4, "Patient?_id={patient}"),
        ("patient-identifier", 6, "Patient?identifier={mrn}"),
        ("patient-name", 4, "Patient?name={family}&_count=20"),
        ("patient-family-birthdate", 4, "Patient?family={family}&birthdate={birthdate}"),
        ("patient-given-gender-years", 2, "Patient?given={given}&gender={gender}&birthdate=ge{decade}&_count=20"),
        ("patient-city-sorted", 1, "Patient?address-city={city}&_sort=family,given&_count=20"),
        ("observation-patient-code", 10, "Observation?patient={patient}&code={loinc}&_sort=-date&_count=10"),
        ("observation-vitals-range", 8,
         "Observation?patient={patient}&category=vital-signs&date=ge{from}&date=lt{to}&_sort=-date&_count=50"),
        ("observation-labs-latest", 6, "Observation?patient={patient}&category=laboratory&_sort=-date&_count=20"),
        ("observation-several-codes", 3,
         f"Observation?patient={{patient}}&code={LOINC}|2951-2,{LOINC}|2160-0,{LOINC}|718-7"),
        ("observation-encounter", 3, "Observation?encounter={encounter}&_count=50"),
        ("observation-code-latest", 1, "Observation?code={loinc}&_sort=-date&_count=20"),
        ("observation-value-quantity", 1,
         f"Observation?code={LOINC}|2160-0&value-quantity=gt3|http://unitsofmeasure.org|mg/dL&_count=20"),
        ("observation-code-value", 1, f"Observation?patient={{patient}}&code-value-quantity={LOINC}|2951-2$lt135"),
        ("observation-component-value", 1,
         f"Observation?component-code-value-quantity={LOINC}|8480-6$gt150&date=ge{{from}}&_count=20"),
        ("observation-updated", 1, "Observation?patient={patient}&_lastUpdated=ge2020-01-01&_count=20"),
        ("observation-count", 2, "Observation?patient={patient}&_summary=count"),
        ("condition-active", 7, "Condition?patient={patient}&clinical-status=active"),
        ("condition-not-problems", 2, "Condition?patient={patient}&category:not=problem-list-item"),
        ("condition-code", 2, "Condition?code={icd}&_count=20"),
        ("condition-code-count", 1, "Condition?code={icd}&_summary=count"),
        ("encounter-patient", 6, "Encounter?patient={patient}&_sort=-date&_count=10"),
        ("encounter-day", 3, "Encounter?date=ge{day}&date=lt{next_day}&_count=50"),
        ("encounter-include", 3,
         "Encounter?patient={patient}&_include=Encounter:participant&_include=Encounter:service-provider"),
        ("medication-active", 6, "MedicationRequest?patient={patient}&status=active"),
        ("medication-code-range", 1, "MedicationRequest?code={rx}&authoredon=ge{from}&_count=20"),
        ("document-patient", 4, "DocumentReference?patient={patient}&_sort=-date&_count=10"),
        ("patient-revinclude", 3,
         "Patient?_id={patient}&_revinclude=Condition:patient&_revinclude=MedicationRequest:patient"),
        ("observation-chain", 3, "Observation?subject:Patient.identifier={mrn}&code={loinc}&_count=20"),
        ("patient-has", 1, "Patient?_has:Condition:patient:code={icd}&_count=20"),
    )
)  # fmt: skip

assert len(MIX) == 30
assert sum(one.weight for one in MIX) == 100

CHAINS = tuple(
    (f"Observation?encounter:Encounter.{test}&code={LOINC}|2524-7&_count=20", f"Encounter?{test}&_summary=count")
    for test in ("class=EMER", "class=IMP", "status=finished")
)
"""Searches through an intermediate result, each with the one that counts it; the first of 100,000 rows is taken."""

HAS = tuple(
    (f"Patient?_has:Observation:patient:code={LOINC}|{code}&gender=female&_count=20",
     f"Observation?code={LOINC}|{code}&_summary=count")
    for code in ("9279-1", "2160-0", "85354-9", "8867-4")
)  # fmt: skip
"""The same of ``_has``."""


@dataclass(slots=True)
class Pool:
    """What is drawn from: patients, each with what its own record holds. Only made-up people are in it."""

    patients: list[dict[str, list[str]]] = field(default_factory=list)

    def draw(self, search: str, rng: random.Random) -> str:
        """The search with its words filled in, as it would stand in a URL."""
        one = rng.choice(self.patients)
        found = {name: rng.choice(values) for name, values in one.items() if values}
        day = date.fromisoformat(found.setdefault("date", "2022-03-01"))
        found |= {
            "from": str(day - timedelta(days=200)), "to": str(day + timedelta(days=165)),
            "day": str(day), "next_day": str(day + timedelta(days=1)), "decade": found["birthdate"][:3] + "0-01-01",
        }  # fmt: skip
        for name, value in {"loinc": f"{LOINC}|2951-2", "icd": f"{ICD}|I10", "rx": f"{RXNORM}|29046"}.items():
            found.setdefault(name, value)
        found.setdefault("encounter", "none")
        return search.format(**{name: quote(value, safe="|:/") for name, value in found.items()})


def read_pool(files: Iterable[Path], most: int = 2000) -> Pool:
    """Sample patients evenly over the files of a synthetic hospital; memory is that of the sample."""
    files = [file for file in files if file.stat().st_size]
    rng, share = random.Random(7), max(1, most // max(1, len(files)))
    pool = Pool()
    for file in files:
        taken = _patients(file)
        pool.patients += rng.sample(taken, min(share, len(taken)))
    return pool


def _patients(file: Path) -> list[dict[str, list[str]]]:
    """Of the first megabytes of a file: each patient's own values."""
    found: dict[str, dict[str, list[str]]] = {}
    with file.open("rb") as lines:
        for line in lines:
            resource = msgspec.json.decode(line)
            _take(found, resource)
            if lines.tell() > 4_000_000:
                break
    return list(found.values())


def _take(found: dict[str, dict[str, list[str]]], resource: dict[str, Any]) -> None:
    kind = resource["resourceType"]
    if kind == "Patient":
        name, identifier = resource["name"][0], resource["identifier"][0]
        found[resource["id"]] = {
            "patient": [resource["id"]],
            "mrn": [f"{identifier['system']}|{identifier['value']}"],
            "family": [name["family"]],
            "given": [name["given"][0]],
            "gender": [resource["gender"]],
            "birthdate": [resource["birthDate"]],
            "city": [resource["address"][0]["city"]],
            "encounter": [], "date": [], "loinc": [], "icd": [], "rx": [],
        }  # fmt: skip
        return
    one = found.get(resource.get("subject", {}).get("reference", "").partition("/")[2])
    if one is None:
        return
    if kind == "Encounter":
        one["encounter"].append(resource["id"])
        one["date"].append(resource["period"]["start"][:10])
    place = {"Observation": "loinc", "Condition": "icd", "MedicationRequest": "rx"}.get(kind)
    if place:
        coding = resource["medicationCodeableConcept" if kind == "MedicationRequest" else "code"]["coding"][0]
        one[place].append(f"{coding['system']}|{coding['code']}")
