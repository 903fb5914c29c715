"""Composites: conditions on one resource, and rows of parts that meet in one element."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.definitions import resource_types, search_definitions
from carelake.fhir.path import compile
from carelake.fhir.search import BASE, Registry, SearchParameter, definition, extract
from carelake.fhir.search.general import emitter, typed

Resource = dict[str, Any]


def composites() -> list[tuple[str, SearchParameter]]:
    return [
        (name, one)
        for name in sorted(resource_types())
        for one in BASE.parameters(name).values()
        if one.type == "composite"
    ]


def test_every_composite_is_offered_whole() -> None:
    found = composites()
    assert {one.url for _, one in found} == {one.url for one in search_definitions() if one.type == "composite"}
    for _, one in found:
        assert len(one.components) > 1
        assert one.root or one.parts
        assert len(one.root) in (0, len(one.components))
        assert len(one.parts) in (0, len(one.components))
        assert not one.uses
        assert [part.inner for part in one.parts] in ([], [component.type for component in one.components])


def test_composites_of_observations() -> None:
    offered = BASE.parameters("Observation")
    both = offered["combo-code-value-quantity"]
    assert [[use.source.name for use in uses] for uses in both.root] == [["token:code"], ["quantity:value[Quantity]"]]
    assert [part.name for part in both.parts] == [
        "part:component#token:code",
        "part:component#quantity:value.as(Quantity)",
    ]
    assert offered["component-code-value-quantity"].parts == both.parts
    assert offered["component-code-value-quantity"].root == ()
    assert offered["code-value-quantity"].root == both.root
    assert offered["code-value-quantity"].parts == ()
    assert [[use.source.name for use in uses] for uses in offered["code-value-date"].root] == [
        ["token:code"],
        ["date:value"],
    ]


def test_relations_of_documents_read_code_and_target() -> None:
    parameter = BASE.parameters("DocumentReference")["relationship"]
    assert [component.type for component in parameter.components] == ["token", "reference"]
    document = {
        "resourceType": "DocumentReference",
        "relatesTo": [
            {"code": "replaces", "target": {"reference": "DocumentReference/1"}},
            {"code": "appends", "target": {"reference": "https://x.test/DocumentReference/2"}},
        ],
    }
    code, target = (part.name for part in parameter.parts)
    system = "http://hl7.org/fhir/document-relationship-type"
    assert set(extract(document).parts) == {
        (code, 0, "replaces", 0.0, 0.0, system, ""),
        (target, 0, "1", 0.0, 0.0, "DocumentReference", ""),
        (code, 1, "appends", 0.0, 0.0, system, ""),
        (target, 1, "https://x.test/DocumentReference/2", 0.0, 0.0, "DocumentReference", ""),
    }


def test_what_the_resource_says_goes_with_each_element() -> None:
    sequence = {
        "resourceType": "MolecularSequence",
        "referenceSeq": {"chromosome": {"coding": [{"code": "X"}]}, "windowStart": 1, "windowEnd": 9},
        "variant": [{"start": 2, "end": 3}, {"start": 4}],
    }
    rows = extract(sequence).parts
    chromosome, start, end = (
        part.name for part in BASE.parameters("MolecularSequence")["chromosome-variant-coordinate"].parts
    )
    assert {row[1:3] for row in rows if row[0] == chromosome} == {(0, "X"), (1, "X")}
    assert {(row[1], row[3], row[4]) for row in rows if row[0] == start} == {(0, 2.0, 2.0), (1, 4.0, 4.0)}
    assert {(row[1], row[3], row[4]) for row in rows if row[0] == end} == {(0, 3.0, 3.0)}
    window = BASE.parameters("MolecularSequence")["chromosome-window-coordinate"].parts
    assert {row[1] for row in rows if row[0] in {part.name for part in window}} == {0}


def test_characteristics_of_groups() -> None:
    group = {
        "resourceType": "Group",
        "characteristic": [
            {"code": {"coding": [{"code": "a"}]}, "valueBoolean": False},
            {"code": {"coding": [{"code": "b"}]}, "valueCodeableConcept": {"coding": [{"code": "v"}], "text": "t"}},
            {"code": {"text": "c"}, "valueRange": {"low": {"value": 1}}},
        ],
    }
    code, value = (part.name for part in BASE.parameters("Group")["characteristic-value"].parts)
    rows = extract(group).parts
    assert [row[1:3] for row in rows if row[0] == code] == [(0, "a"), (1, "b"), (2, "")]
    assert [row[1:3] for row in rows if row[0] == value] == [(0, "false"), (1, "v")]


def oracle(resource: Resource, parameter: SearchParameter) -> set[tuple[Any, ...]]:
    """Part rows as FHIRPath finds them, the code system of plain codes left out."""
    found: set[tuple[Any, ...]] = set()
    for part in parameter.parts:
        elements = [
            item for text in part.items for item in compile(text).items(resource, resource["resourceType"], None)
        ]
        for number, (value, kind, _) in enumerate(elements):
            focus = (resource, resource["resourceType"]) if part.own else (value, kind.path or kind.name)
            rows = IndexValues()
            emit = emitter("x", part.inner)
            for item in compile(part.expression).items(*focus, filters=True):
                emit(*typed(item), rows)
            found |= {(part.name, number, code, 0.0, 0.0) for name, _, code in rows.tokens if name == "x"}
            found |= {(part.name, number, "", low, high) for _, low, high, _, _ in rows.quantities}
            found |= {(part.name, number, key or url, 0.0, 0.0) for _, _, key, url in rows.references}
    return found


def test_parts_are_what_expressions_find(examples: list[Resource]) -> None:
    met: dict[str, int] = defaultdict(int)
    quantity = {"value": Decimal("5.40"), "unit": "mg"}
    concept = {"coding": [{"system": "s", "code": "c", "display": "D"}], "text": "t"}
    contexts = [
        {
            "resourceType": name,
            "useContext": [
                {"code": {"system": "s", "code": "age"}, "valueRange": {"low": quantity}},
                {"code": {"system": "s", "code": "focus"}, "valueCodeableConcept": concept},
                {"code": {"system": "s", "code": "age"}, "valueQuantity": quantity},
            ],
        }
        for name, one in composites()
        if one.code == "context-type-quantity"
    ]
    by_type: dict[str, list[SearchParameter]] = defaultdict(list)
    for name, one in composites():
        by_type[name].append(one)
    for resource in [*examples, *contexts]:
        rows = {row[:5] for row in extract(resource).parts}
        for one in by_type[resource["resourceType"]]:
            names = {part.name for part in one.parts}
            found = {row for row in rows if row[0] in names}
            assert found == oracle(resource, one), one.url
            met[one.url] += bool(found)
    assert {url for url, count in met.items() if count} >= {one.url for _, one in composites() if one.parts} - {
        "http://hl7.org/fhir/SearchParameter/DocumentReference-relationship",
        "http://hl7.org/fhir/SearchParameter/MolecularSequence-referenceseqid-window-coordinate",
    }


def test_parts_over_what_is_no_element_of_the_resource(observation: Resource) -> None:
    told = {
        "resourceType": "SearchParameter",
        "url": "http://own.test/pair",
        "code": "pair",
        "base": ["Observation"],
        "type": "composite",
        "expression": "Observation.component.where(code.exists()) | Observation.referenceRange",
        "component": [
            {"definition": "http://hl7.org/fhir/SearchParameter/clinical-code", "expression": "code | appliesTo"},
            {
                "definition": "http://hl7.org/fhir/SearchParameter/Observation-value-quantity",
                "expression": "value.ofType(Quantity) | low",
            },
        ],
    }
    observation["referenceRange"] = [
        {"low": {"value": 1, "unit": "mg"}, "appliesTo": [{"coding": [{"code": "all"}]}]}
    ]
    registry = Registry([definition(told)])
    code, value = (part.name for part in registry.parameters("Observation")["pair"].parts)
    rows = extract(observation, registry).parts
    assert {row[1:3] for row in rows if row[0] == code} == {(0, "part"), (1, "all")}
    assert {(row[1], row[3], row[6]) for row in rows if row[0] == value} == {(0, 5.4, "mg"), (1, 1.0, "mg")}
