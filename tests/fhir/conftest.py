"""Small resources of our own, and readers of the shared examples."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.core.canonical import load

PATIENT = b"""{
  "resourceType": "Patient", "id": "p1", "active": true, "gender": "female", "birthDate": "1961-02-28",
  "meta": {"tag": [{"system": "http://tags.test", "code": "made-up"}], "profile": ["http://profiles.test/p"],
           "source": "urn:test:source"},
  "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>Made up</div>"},
  "extension": [{"url": "http://x.test/race", "extension": [{"url": "text", "valueString": "x"}]}],
  "identifier": [{"system": "http://mrn.test", "value": "0001"}],
  "name": [{"use": "official", "family": "O'Tester-Nu\xc3\xb1ez", "given": ["Ada", "B."], "text": "Ada Tester"}],
  "telecom": [{"system": "phone", "value": "555-0100"}, {"system": "email", "value": "a@b.test"}],
  "address": [{"line": ["1 Test Way"], "city": "Testville", "postalCode": "00001"}],
  "deceasedBoolean": false,
  "contact": [{"gender": "male", "name": {"family": "Other"}}],
  "generalPractitioner": [{"reference": "Practitioner/d1"}]
}"""

OBSERVATION = b"""{
  "resourceType": "Observation", "id": "o1", "status": "final",
  "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "vital-signs"}]}],
  "code": {"coding": [{"system": "http://loinc.org", "code": "8302-2", "display": "x"},
                      {"system": "http://own.test", "code": "height"}], "text": "Height"},
  "subject": {"reference": "Patient/p1"}, "encounter": {"reference": "Encounter/e1"},
  "effectiveDateTime": "2020-03-01T10:20:30-05:00", "issued": "2020-03-01T15:20:30.125Z",
  "valueQuantity": {"value": 166.80, "unit": "cm", "system": "http://unitsofmeasure.org", "code": "cm"},
  "component": [{"code": {"coding": [{"system": "http://loinc.org", "code": "part"}]},
                 "valueQuantity": {"value": 5.4, "unit": "mg"}}]
}"""

ENCOUNTER = b"""{
  "resourceType": "Encounter", "id": "e1", "status": "finished",
  "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
  "subject": {"reference": "Patient/p1"},
  "period": {"start": "2020-03-01T10:00:00Z"},
  "length": {"value": 3, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"},
  "participant": [{"individual": {"reference": "Practitioner/d1"}},
                  {"individual": {"reference": "RelatedPerson/r1"}}],
  "location": [{"location": {"reference": "#ward"}}],
  "contained": [{"resourceType": "Location", "id": "ward", "name": "Ward"}]
}"""


@pytest.fixture
def patient() -> dict[str, Any]:
    return load(PATIENT)


@pytest.fixture
def observation() -> dict[str, Any]:
    return load(OBSERVATION)


@pytest.fixture
def encounter() -> dict[str, Any]:
    return load(ENCOUNTER)


def _examples(folder: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(folder / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        for line in lines:
            yield load(line)


@pytest.fixture(scope="session")
def examples(shared_data: Path) -> list[dict[str, Any]]:
    """The official examples; tests must not change them (copy first)."""
    return list(_examples(shared_data))


@pytest.fixture(scope="session")
def synthea(shared_data: Path) -> list[dict[str, Any]]:
    """Resources of every twentieth Synthea bundle, references not resolved."""
    files = sorted((shared_data / "synthea-r4").glob("*.json.gz"))[::20]
    return [entry["resource"] for file in files for entry in load(gzip.open(file).read())["entry"]]


@pytest.fixture(scope="session")
def us_core(shared_data: Path) -> list[dict[str, Any]]:
    """The own examples of US Core 6.1.0; tests must not change them (copy first)."""
    data = (shared_data / "us-core-6.1.0" / "us_core_610.tgz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        streams = [archive.extractfile(m) for m in archive if m.name.startswith("package/example/")]
        return [load(stream.read()) for stream in streams if stream is not None]
