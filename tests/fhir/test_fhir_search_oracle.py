"""An oracle for index values: what the walk finds, our engine finds by evaluating each parameter's expression.

The walk reads paths of its own grammar from one tree; the engine has nothing in common with it but the converters.
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from carelake.core.canonical import load
from carelake.core.records import IndexValues
from carelake.fhir.definitions import (
    core_search_definitions,
    element,
    is_primitive,
    is_resource,
    resource_types,
    search_definitions,
)
from carelake.fhir.path import Services, compile
from carelake.fhir.search import BASE, SearchParameter, Use, extract
from carelake.fhir.search.expression import Equals, Present, Step
from carelake.fhir.search.general import emitter, typed

Resource = dict[str, Any]
Rows = set[tuple[Any, ...]]

# Expressions whose text is no FHIRPath of R4, or names less than we index: a choice by its JSON name, a type with a
# capital letter, and the code of a Coding, of which the system can be searched for too.
_REWRITTEN = [
    (re.compile(r"\.valueDateTime$"), ".value.ofType(dateTime)"),
    (re.compile(r"\.value\.code$"), ".value.ofType(Coding)"),
    (re.compile(r"\.coding\.code$"), ".coding"),
    (re.compile(r"\bDateTime\b"), "dateTime"),
]


def _resolve(text: str) -> Resource | None:
    parts = text.split("/_history/")[0].split("/")
    known = len(parts) > 1 and is_resource(parts[-2])
    return {"resourceType": parts[-2], "id": parts[-1]} if known else None


@cache
def _expressions() -> dict[str, str]:
    found = {one.url: one.expression for one in (*search_definitions(), *core_search_definitions())}
    for url, text in found.items():
        for pattern, replacement in _REWRITTEN:
            text = pattern.sub(replacement, text)
        found[url] = text
    return found


def checked(resource_type: str) -> list[SearchParameter]:
    """Parameters that an expression alone defines."""
    offered = BASE.parameters(resource_type).values()
    return [one for one in offered if one.type not in ("composite", "special") and not one.phonetic]


def oracle(resource: Resource, parameter: SearchParameter) -> Rows:
    """Rows of the expression's values, without the source."""
    rows = IndexValues()
    emit = emitter("oracle", parameter.type)
    told = {"resource": resource, "rootResource": resource}
    found = compile(_expressions()[parameter.url]).items(
        resource, resource["resourceType"], told, Services(resolver=_resolve), False, True
    )
    for item in found:
        emit(*typed(item), rows)
    # What is no path is told apart by the definition's one target, which its expression does not test.
    told_apart = {use.target for use in parameter.uses if use.source.expression}
    return told_rows(parameter, {"oracle": told_apart.pop() if told_apart else ""}, rows)


def walked(parameter: SearchParameter, rows: IndexValues) -> Rows:
    """Rows that the parameter finds."""
    return told_rows(parameter, {use.source.name: use.target for use in parameter.uses}, rows)


def told_rows(parameter: SearchParameter, sources: dict[str, str], rows: IndexValues) -> Rows:
    """Rows of some sources, without the source and what an expression does not tell."""
    plain = all(is_primitive(kind) for kind in parameter.kinds)
    table: Iterable[Any] = {
        "token": rows.tokens,
        "string": rows.strings,
        "date": rows.dates,
        "number": rows.quantities,
        "quantity": rows.quantities,
        "reference": rows.references,
        "uri": rows.uris,
    }[parameter.type]
    targets = {use.target for use in parameter.uses}
    found: Rows = set()
    for name, *values in table:
        target = sources.get(name)
        if target is None:
            continue
        if parameter.type == "reference":
            if target and values[0] != target:
                continue
            if targets != {""} and not any(values[1:]):
                continue  # without a target nothing resolves, though its type may be told
        if parameter.type == "token" and plain:
            values = values[1:]  # expressions do not tell the system of a code
        found.add(tuple(values))
    return found


def differences(resources: Iterable[Resource]) -> tuple[dict[tuple[str, str], int], set[tuple[str, str]]]:
    """How many resources differ, by type and parameter; and which parameters found something."""
    wrong: dict[tuple[str, str], int] = defaultdict(int)
    met = set()
    for resource in resources:
        kind = resource["resourceType"]
        rows = extract(resource)
        for parameter in checked(kind):
            found = walked(parameter, rows)
            if found:
                met.add((kind, parameter.code))
            if found != oracle(resource, parameter):
                wrong[kind, parameter.code] += 1
    return dict(wrong), met


def _guide_examples(package: Path) -> list[Resource]:
    with tarfile.open(package) as archive:
        members = [member for member in archive if "/example/" in member.name and member.name.endswith(".json")]
        found = [load(archive.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
    return [resource for resource in found if is_resource(resource.get("resourceType", ""))]


def test_the_walk_finds_what_expressions_find_in_examples(
    examples: list[Resource], patient: Resource, observation: Resource
) -> None:
    wrong, met = differences([patient, observation, *examples])
    assert wrong == {}
    assert len(met) > 820


_SAMPLES: dict[str, Any] = {
    "Coding": {"system": "http://codes.test", "code": "a", "display": "An A"},
    "CodeableConcept": {"coding": [{"system": "http://codes.test", "code": "a"}, {"code": "b"}], "text": "A or b"},
    "Identifier": {"system": "http://ids.test", "value": "1", "type": {"coding": [{"code": "MR"}], "text": "Record"}},
    "ContactPoint": {"system": "phone", "value": "555-0100"},
    "boolean": True,
    "code": "a",
    "id": "a",
    "string": "Some Text",
    "markdown": "Some *text*",
    "date": "2020-02",
    "dateTime": "2020-02-03T04:05:06Z",
    "instant": "2020-02-03T04:05:06.789+01:00",
    "Period": {"start": "2020", "end": "2021-02"},
    "Timing": {"event": ["2020-05", "2020-07-01"]},
    "decimal": Decimal("1.20"),
    "integer": 12,
    "positiveInt": 3,
    "unsignedInt": 0,
    "Money": {"value": Decimal("12.5"), "currency": "EUR"},
    "Range": {"low": {"value": 1, "unit": "mg"}, "high": {"value": 2, "unit": "mg"}},
    "canonical": "http://canonicals.test/x|1.0",
    "uri": "http://uris.test/x",
    "url": "http://urls.test/x",
    "oid": "urn:oid:1.2.3",
    "uuid": "urn:uuid:00000000-0000-0000-0000-000000000001",
}
_QUANTITY = {"value": Decimal("5.40"), "unit": "year", "system": "http://unitsofmeasure.org", "code": "a"}
_SAMPLES |= dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), _QUANTITY)


def _samples(kind: str, use: Use) -> list[Any]:
    if kind != "Reference":
        return [_SAMPLES[kind]]
    return [
        {"reference": f"{use.target or 'Patient'}/1"},
        {"reference": f"https://other.test/fhir/{use.target or 'Patient'}/1"},
        {"reference": "Group/2"},
        {"identifier": {"system": "http://ids.test", "value": "2"}},
        {"reference": "#inside"},
    ]


def _grown(kind: str, steps: tuple[Step, ...], last: str, value: Any) -> Iterator[Resource]:
    """Elements of a type that have the value at the end of a path, one for each choice on the way."""
    step, *rest = steps
    item = element(kind)[step.name]
    for key, inner in item.keys.items():
        if step.type and item.choice and inner != step.type:
            continue
        if not rest:
            found = [value] if inner == last else []
        else:
            goes_on = not is_primitive(inner) and inner != "Resource" and rest[0].name in element(inner)
            found = list(_grown(inner, tuple(rest), last, value)) if goes_on else []
        for one in found:
            if isinstance(step.test, Equals):
                one = {**one, step.test.name: step.test.value}
            yield {key: [one] if item.max == "*" else one}


def _made_up() -> Iterator[Resource]:
    """A resource for each source of each parameter and each type of value it may have."""
    for resource_type in sorted(resource_types()):
        uses = {use for one in checked(resource_type) for use in one.uses if use.source.steps}
        for use in sorted(uses, key=lambda use: (use.source.name, use.target)):
            last = use.source.steps[-1]
            if isinstance(last.test, Present):
                yield {"resourceType": resource_type, f"{last.name}Boolean": False}
                continue
            for kind in use.source.kinds:
                for value in _samples(kind, use):
                    for found in _grown(resource_type, use.source.steps, kind, value):
                        yield {"resourceType": resource_type, **found}


def test_the_walk_finds_what_expressions_find_of_every_type_of_value() -> None:
    wrong, met = differences(_made_up())
    assert wrong == {}
    everything = {(kind, one.code) for kind in resource_types() for one in checked(kind)}
    assert everything - met == {("Bundle", "composition"), ("Bundle", "message")}


@pytest.mark.soak
def test_the_walk_finds_what_expressions_find_in_all(
    examples: list[Resource], synthea: list[Resource], shared_data: Path
) -> None:
    guide = _guide_examples(shared_data / "us-core-6.1.0" / "us_core_610.tgz")
    assert len(guide) > 150
    wrong, met = differences([*examples, *synthea, *guide])
    assert wrong == {}
    assert len(met) > 800
    added = {(base, one.code) for one in core_search_definitions() for base in one.base}
    assert added - met <= {("Patient", "gender-identity")}
