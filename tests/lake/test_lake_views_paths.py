"""Every expression that has an SQL form gives on DuckDB what the FHIRPath evaluator gives."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from carelake.core.errors import CarelakeError
from carelake.lake.views import run

sys.path.insert(0, str(Path(__file__).parent))
from views_data import RESOURCES, same

PATIENT = [
    "birthDate.lowBoundary()",
    "birthDate.highBoundary()",
    "meta.lastUpdated.lowBoundary()",
    "meta.lastUpdated.highBoundary()",
    "name[0].period.start.lowBoundary()",
    "name[0].period.lowBoundary()",
    "deceased.ofType(dateTime).highBoundary()",
    "link.first().other.getReferenceKey()",
    "link[0].other.getReferenceKey(Patient)",
    "link[1].other.getReferenceKey(Patient)",
    "managingOrganization.getReferenceKey(Organization)",
    "managingOrganization.getReferenceKey('Patient')",
    "getResourceKey() = link.other.getReferenceKey(Patient)",
    "getResourceKey() = link[0].other.getReferenceKey(Patient)",
    "getResourceKey() = link[0].other.getReferenceKey(Practitioner)",
    "link.other.getReferenceKey(RelatedPerson)",
    "extension('http://b').value.ofType(decimal)",
    "birthDate.extension('http://bt').value.ofType(dateTime)",
    "meta.profile.first()",
    "name.exists(use='official')",
    "name.all(given.exists())",
    "name.count()",
    "name.given.count()",
    "active.not()",
    "active or {}",
    "active and {}",
    "active xor true",
    "active implies gender='x'",
    "gender = 'male' and active",
    "gender in ('male'|'female')",
    "('a'|'b') contains gender",
    "iif(active, 'y', 'n')",
    "iif(active, name.family.first())",
    "gender.startsWith('m')",
    "gender.endsWith('e')",
    "gender.contains('al')",
    "gender.indexOf('l')",
    "gender.upper()",
    "gender.substring(1)",
    "gender.substring(1,2)",
    "gender.length()",
    "gender.replace('m','f')",
    "gender.matches('^m')",
    "gender.matchesFull('ma.*')",
    "gender.replaceMatches('[a-l]','_')",
    "name.given.join(',')",
    "name[0].given.join()",
    "name.family.first() + ' ' + name.given.first()",
    "name.family.first() & name.given.last()",
    "name.last().family",
    "name.family.last()",
    "multipleBirth.ofType(integer) + 1",
    "multipleBirth.ofType(integer) / 2",
    "multipleBirth.ofType(integer) div 2",
    "multipleBirth.ofType(integer) mod 2",
    "-multipleBirth.ofType(integer)",
    "multipleBirth.ofType(integer) * 3 - 1",
    "multipleBirth.exists()",
    "deceased.exists()",
    "deceased.empty()",
    "deceased is boolean",
    "deceased is dateTime",
    "deceased as boolean",
    "(deceased as dateTime)",
    "deceased.ofType(boolean).not()",
    "birthDate < @1975",
    "birthDate = @1970-06",
    "birthDate > @1970-06-01",
    "birthDate <= @1969",
    "deceased.ofType(dateTime) > @2019-12-31",
    "deceased.ofType(dateTime) = @2020-01-01T08:00:00Z",
    "deceased.ofType(dateTime) > @2020-01-01",
    "telecom.rank.sum()",
    "telecom.rank.first().toString()",
    "'12'.toInteger()",
    "gender.toInteger()",
    "'1.50'.toDecimal()",
    "active.toString()",
    "name.given.distinct().count()",
    "name.given.isDistinct()",
    "coalesce(gender, 'none')",
    "gender ~ 'MALE'",
    "gender != 'male'",
    "gender !~ 'x'",
    "name.given = ('John' | 'James' | 'Jane')",
    "$this.gender",
    "Patient.gender",
    "where(gender='male').id",
    "where(active).exists()",
    "exists()",
    "1",
    "1.5",
    "'a\\'b\"c'",
    "true",
    "@2020-01-01",
    "%resource.id",
    "%loinc",
    "%`vs-x`",
    "'x'.trim()",
    "(1.5).round()",
    "(1.55).floor()",
    "5.abs()",
    "(2).sqrt()",
    "name.where(use='official').period.start",
    "gender.hasValue()",
    "name.hasValue()",
    "contact.where(telecom.where(system='email').exists()).name.family",
    "maritalStatus.coding.where(system='s').code",
    "maritalStatus.coding.exists(system='s' and code='M')",
    "name.given.first().substring(5)",
    "id.toInteger()",
    "0.1+0.2",
    "(0.1+0.2)=0.3",
    "identifier.exists()",
    "photo.count()",
    "name.family.first().length() > 3 or active",
    "address.line.where($this='a')",
    "address.line.exists($this='b')",
]

PATIENT_MANY = [
    "link.other.getReferenceKey()",
    "name.family",
    "name.given",
    "name.where(given.exists()).given",
    "name.select(given.first())",
    "name.select(family & 'x')",
    "telecom.system.distinct()",
    "contact.telecom.system.distinct()",
    "telecom | contact.telecom",
    "telecom.system | contact.telecom.system",
    "name.given.skip(1)",
    "name.given.take(2)",
    "name.given.tail()",
    "birthDate",
    "extension('http://a').extension('n').value.ofType(Coding).code",
    "name.given.where($index > 0)",
    "(name.family | name.given)",
    "name.given.combine(name.family)",
    "name.given.exclude(name.family)",
    "name.given.intersect('Jane')",
    "extension.url",
    "identifier.value",
    "{}",
]

OBSERVATION = [
    "value.ofType(Quantity).value.lowBoundary()",
    "value.ofType(Quantity).value.highBoundary()",
    "value.ofType(integer).lowBoundary()",
    "effective.ofType(dateTime).lowBoundary()",
    "effective.ofType(dateTime).highBoundary()",
    "value.ofType(time).lowBoundary()",
    "value.ofType(time).highBoundary()",
    "effective.ofType(Period).start.highBoundary()",
    "effective.ofType(instant).lowBoundary()",
    "issued.highBoundary()",
    "effective.ofType(Period).lowBoundary()",
    "effective.ofType(Period).highBoundary()",
    "value.ofType(dateTime).highBoundary()",
    "value.exists()",
    "value.ofType(Quantity).value",
    "value.ofType(Quantity).unit",
    "value.ofType(integer)",
    "component.value.ofType(Quantity).value.sum()",
    "component.value.exists()",
    "component.value.ofType(string)",
    "component.where(value.ofType(Quantity).value > 2).code.text",
    "component.where(value.exists()).count()",
    "component.value.count()",
    "component.value.first().exists()",
    "effective.exists()",
    "effective is Period",
    "value is Quantity",
    "code.coding.exists(system=%loinc)",
    "subject.getReferenceKey(Patient)",
    "value.ofType(Quantity).value * 2",
    "value.ofType(Quantity).value + 0.1",
    "component.value.ofType(Quantity).value.max()",
    "component.value.ofType(Quantity).value.avg()",
    "value.unit",
    "value.where(true).exists()",
    "component.select(value.ofType(string))",
    "issued > @2015-02-07T11:28:17Z",
    "issued = @2015-02-07T11:28:17.239Z",
    "value.ofType(time) > @T12:00:00",
    "value.ofType(time) = @T12:34",
]

CONSTANTS: list[tuple[str, Any, str]] = [
    ("String", "official", "name.where(use = %k).family"),
    ("Code", "official", "name.where(use = %k).family"),
    ("Date", "1970-06", "birthDate = %k"),
    ("DateTime", "2020-01-01T08:00:00Z", "deceased.ofType(dateTime) = %k"),
    ("Instant", "2020-01-01T00:00:00Z", "meta.lastUpdated < %k"),
    ("Integer", 2, "multipleBirth.ofType(integer) = %k"),
    ("PositiveInt", 2, "multipleBirth.ofType(integer) >= %k"),
    ("UnsignedInt", 1, "multipleBirth.ofType(integer) > %k"),
    ("Decimal", 1.5, "extension('http://b').value.ofType(decimal) = %k"),
    ("Boolean", True, "active = %k"),
    ("Uri", "http://a", "extension(%k).exists()"),
    ("Url", "http://a", "extension(%k).url"),
    ("Canonical", "http://p1", "meta.profile.where($this = %k)"),
    ("Id", "p1", "id = %k"),
    ("Oid", "urn:oid:1", "%k"),
    ("Uuid", "urn:uuid:1", "%k"),
    ("Time", "12:00:00", "%k"),
    ("Base64Binary", "aGk=", "%k"),
    ("Markdown", "x", "%k"),
    ("Integer64", "5", "%k"),
]


def of_columns(resource: str, paths: list[str], **options: Any) -> dict[str, Any]:
    columns = [{"name": f"c{n}", "path": path, **options} for n, path in enumerate(paths)]
    return {"resource": resource, "select": [{"column": columns}]}


@pytest.mark.parametrize(
    ("resource", "paths", "options"),
    [
        ("Patient", PATIENT, {}),
        ("Patient", PATIENT_MANY, {"collection": True}),
        ("Patient", PATIENT[::3], {"collection": True}),
        ("Observation", OBSERVATION, {}),
    ],
    ids=["patient", "patient-many", "patient-lists", "observation"],
)
def test_every_path_gives_the_same(resource: str, paths: list[str], options: dict[str, Any]) -> None:
    view = of_columns(resource, paths, **options)
    wanted, found = run(view, RESOURCES, engine="oracle"), run(view, RESOURCES)
    assert len(wanted) == len(found) > 0
    for one_row, other in zip(wanted, found, strict=True):
        different = [
            (path, one_row[f"c{n}"], other[f"c{n}"])
            for n, path in enumerate(paths)
            if not same(one_row[f"c{n}"], other[f"c{n}"])
        ]
        assert different == []


def test_constants_of_every_type_are_literals() -> None:
    constants = [{"name": f"k{n}", f"value{kind}": value} for n, (kind, value, _) in enumerate(CONSTANTS)]
    paths = [path.replace("%k", f"%k{n}") for n, (_, _, path) in enumerate(CONSTANTS)]
    view = {**of_columns("Patient", paths), "constant": constants}
    wanted, found = run(view, RESOURCES, engine="oracle"), run(view, RESOURCES)
    assert same(wanted, found)
    first = list(wanted[0].values())
    assert first[:4] == ["Smith", "Smith", True, None]
    assert first[-1] == 5


@pytest.mark.parametrize(
    "path", ["name.family", "name.single().family", "name.given.upper()", "name.use = 'a' and true"]
)
def test_several_values_where_one_is_expected_are_an_error(path: str) -> None:
    view = of_columns("Patient", [path])
    if path.endswith("true"):
        assert same(run(view, RESOURCES, engine="oracle"), run(view, RESOURCES))
        return
    for engine in ("oracle", "duckdb"):
        with pytest.raises(CarelakeError) as told:
            run(view, RESOURCES, engine=engine)  # type: ignore[arg-type]
        assert told.value.code == "lake.view_cardinality"
        assert told.value.facts["path"] == "select[0].column[0].path"


def test_columns_of_complex_types_are_objects() -> None:
    columns = [
        {"name": "names", "path": "name", "collection": True, "type": "HumanName"},
        {"name": "status", "path": "maritalStatus", "type": "CodeableConcept"},
        {"name": "extensions", "path": "extension", "collection": True, "type": "Extension"},
        {"name": "meta", "path": "meta", "type": "Meta"},
    ]
    view = {"resource": "Patient", "select": [{"column": columns}]}
    wanted, found = run(view, RESOURCES, engine="oracle"), run(view, RESOURCES)
    assert wanted[0]["names"][0]["given"] == ["John", "James"]
    assert [sorted_names(row) for row in wanted] == [sorted_names(row) for row in found]


def sorted_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: sorted_names(value[name]) for name in sorted(value)}
    return [sorted_names(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "path",
    ["value", "name.repeat(period)", "children()", "contained", "birthDate + 1 year", "now()", "name = name"],
)
def test_what_has_no_sql_form_is_told(path: str) -> None:
    resource = "Observation" if path == "value" else "Patient"
    with pytest.raises(CarelakeError) as told:
        run(of_columns(resource, [path], collection=True), RESOURCES)
    assert told.value.code == "lake.view_sql"
    run(of_columns(resource, [path], collection=True), RESOURCES, engine="oracle")


@pytest.mark.parametrize("text", ["'", "\\", "a'b\"c", "*/ DROP", "\u0001", "$$", "{0}", "🙂"])
def test_texts_of_the_view_are_texts_in_sql(text: str) -> None:
    view = {
        **of_columns("Patient", ["%k", "%k = %k", "%k & gender"]),
        "constant": [{"name": "k", "valueString": text}],
    }
    assert same(run(view, RESOURCES, engine="oracle"), run(view, RESOURCES))
    assert run(view, RESOURCES)[0]["c0"] == text
