"""Paths over FHIR's JSON: choices, primitives with extensions, types, references, services, the strict mode."""

from __future__ import annotations

import pickle
from decimal import Decimal
from typing import Any

import pytest

from carelake.core.canonical import load
from carelake.core.errors import CarelakeError, Invalid, Unavailable
from carelake.fhir.path import Services, compile, evaluate

Resource = dict[str, Any]

CHILD: Resource = load(b"""{
  "resourceType": "Patient", "id": "p2", "active": true, "gender": "male",
  "birthDate": "2020-05",
  "_birthDate": {"extension": [{"url": "http://x.test/t", "valueDateTime": "2020-05-01T10:00Z"}]},
  "name": [{"family": "Made", "given": [null, "Up"],
            "_given": [{"id": "g1", "extension": [{"url": "http://x.test/why", "valueCode": "unknown"}]}, null]},
           {"text": "Made Up"}],
  "_gender": {"id": "g"},
  "deceasedDateTime": "2024-01-01",
  "multipleBirthInteger": 2,
  "contained": [{"resourceType": "Practitioner", "id": "d", "name": [{"family": "In"}]}],
  "generalPractitioner": [{"reference": "#d"}, {"reference": "Organization/o1"}, {"display": "nobody"}],
  "extension": [{"url": "http://x.test/weight",
                 "valueQuantity": {"value": 3.10, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}},
                {"url": "http://x.test/limit", "valueQuantity": {"value": 3, "comparator": "<", "code": "kg"}},
                {"url": "http://x.test/age",
                 "valueAge": {"value": 4, "system": "http://unitsofmeasure.org", "code": "a"}}],
  "text": {"status": "generated", "div": "<div xmlns=\\"http://www.w3.org/1999/xhtml\\"><p>Made up</p></div>"}
}""")

CASES: list[tuple[str, list[Any]]] = [
    ("Patient.name.given", [{"id": "g1", "extension": [{"url": "http://x.test/why", "valueCode": "unknown"}]}, "Up"]),
    ("name.given.count()", [2]),
    ("name.given.hasValue()", [False]),
    ("name.given.where(hasValue())", ["Up"]),
    ("name.given.select(hasValue())", [False, True]),
    ("name.given[0].getValue()", []),
    ("name.given[1].getValue()", ["Up"]),
    ("name.given.extension('http://x.test/why').value", ["unknown"]),
    ("name.given.id", ["g1"]),
    ("name.given.join('')", ["Up"]),
    ("name.given contains 'Up'", [True]),
    ("name.exists(family)", [True]),
    ("Resource.id", ["p2"]),
    ("DomainResource.text.status", ["generated"]),
    ("Encounter.id", []),
    ("birthDate", ["2020-05"]),
    ("birthDate = @2020-05", [True]),
    ("birthDate = @2020-05-01", []),
    ("birthDate = '2020-05'", [False]),
    ("birthDate.extension.value is dateTime", [True]),
    ("birthDate.extension.value", ["2020-05-01T10:00Z"]),
    ("birthDate.value", ["2020-05"]),
    ("birthDate + 2 months", ["2020-07"]),
    ("gender.id", ["g"]),
    ("deceased", ["2024-01-01"]),
    ("deceased is dateTime", [True]),
    ("deceased is boolean", [False]),
    ("deceased.ofType(dateTime).exists()", [True]),
    ("(deceased as boolean).empty()", [True]),
    ("deceased != false", [True]),
    ("deceasedDateTime", []),
    ("multipleBirth + 1", [3]),
    ("multipleBirth is integer", [True]),
    ("multipleBirth.type().name", ["integer"]),
    ("name.first().type().name", ["HumanName"]),
    ("gender.is(string)", [True]),
    ("gender.ofType(string)", []),
    ("extension('http://x.test/weight').value = 3.1 'kg'", [True]),
    ("extension('http://x.test/weight').value = 3100 'g'", [True]),
    ("extension('http://x.test/weight').value > 3 'kg'", [True]),
    ("extension('http://x.test/weight').value.value", [Decimal("3.10")]),
    ("extension('http://x.test/weight').value.value.precision()", [2]),
    ("extension('http://x.test/weight').value.toString()", ["3.10 'kg'"]),
    ("extension('http://x.test/limit').value = 3 'kg'", [False]),
    ("extension('http://x.test/age').value is Quantity", [True]),
    ("extension('http://x.test/age').value is Duration", [False]),
    ("extension('http://x.test/age').value.ofType(Quantity).value", [4]),
    ("generalPractitioner.resolve().name.family", ["In"]),
    ("generalPractitioner.where(resolve() is Organization).reference", ["Organization/o1"]),
    ("generalPractitioner.where(resolve() is Practitioner).reference", ["#d"]),
    ("contained.name.family", ["In"]),
    ("contained.ofType(Practitioner).id", ["d"]),
    ("contained.where($this is Patient)", []),
    ("text.div.htmlChecks()", [True]),
    ("text.htmlChecks()", []),
    ("children().count() = name.count() + 14", [True]),
    ("descendants().where($this is HumanName).count()", [3]),
    ("%resource.id = %context.id and %rootResource.id = id", [True]),
    ("conformsTo('http://hl7.org/fhir/StructureDefinition/Patient')", [True]),
    ("conformsTo('http://hl7.org/fhir/StructureDefinition/Group')", [False]),
    ("checkModifiers('http://x.test/m').id", ["p2"]),
    ("getResourceKey()", ["p2"]),
    ("generalPractitioner.getReferenceKey(Organization)", ["o1"]),
    ("generalPractitioner.getReferenceKey(Patient)", []),
    ("unknown", []),
]


@pytest.mark.parametrize(("expression", "wanted"), CASES)
def test_result(expression: str, wanted: list[Any]) -> None:
    assert evaluate(expression, CHILD) == wanted


def test_elements_are_those_of_the_data_and_lists_are_new(patient: Resource) -> None:
    (name,) = evaluate("Patient.name", patient)
    assert name is patient["name"][0]
    evaluate("name", patient).clear()
    evaluate("name.given", patient).clear()
    assert evaluate("name.given", patient) == ["Ada", "B."]


def test_decimals_keep_their_digits(observation: Resource) -> None:
    assert [str(value) for value in evaluate("value.value", observation)] == ["166.80"]
    assert evaluate("value.value.toString()", observation) == ["166.80"]
    assert evaluate("value.ofType(Quantity).value = 166.8", observation) == [True]


def test_plain_json_with_floats_does_too(observation: Resource) -> None:
    observation["valueQuantity"]["value"] = 166.8
    assert evaluate("value.value.toString()", observation) == ["166.8"]
    assert evaluate("value > 1 'm'", observation) == [True]


def test_data_beyond_the_definitions_is_walked(patient: Resource) -> None:
    patient["favourite"] = {"colours": ["red", "blue"], "valueString": "x"}
    assert evaluate("favourite.colours.count()", patient) == [2]
    assert evaluate("favourite.value", patient) == ["x"]
    assert evaluate("a.b + 1", {"a": {"b": 1}}) == [2]


def test_elements_and_nothing_may_be_the_focus() -> None:
    assert evaluate("given.first()", {"given": ["A"]}, kind="HumanName") == ["A"]
    assert evaluate("$this = 'a'", "a", kind="code") == [True]
    assert evaluate("1 + 1", None) == [2]
    assert evaluate("%resource.id", {"family": "x"}, kind="HumanName", variables={"resource": CHILD}) == ["p2"]
    assert compile("%rootResource.id | %resource.id")(
        {}, kind="HumanName", resource={"id": "a"}, root={"id": "b"}
    ) == [
        "b",
        "a",
    ]


def test_a_resolver_is_asked_and_bundles_are_looked_through(patient: Resource) -> None:
    asked = []

    def resolver(reference: str) -> Resource | None:
        asked.append(reference)
        return {"resourceType": "Practitioner", "id": "d1"} if reference == "Practitioner/d1" else None

    services = Services(resolver=resolver)
    assert evaluate("generalPractitioner.resolve().id", patient, services=services) == ["d1"]
    assert evaluate("generalPractitioner.resolve()", patient) == []
    assert asked == ["Practitioner/d1"]
    entry = {"fullUrl": "http://x.test/Practitioner/d1", "resource": {"resourceType": "Practitioner", "id": "d1"}}
    bundle = {"resourceType": "Bundle", "entry": [{"resource": patient}, entry]}
    assert evaluate("entry.resource.ofType(Patient).generalPractitioner.resolve().id", bundle) == ["d1"]


class Codes:
    def member_of(self, coded: Any, value_set: str) -> bool | None:
        return coded == "male" if value_set == "http://x.test/vs" else None

    def subsumes(self, one: Any, other: Any) -> bool | None:
        return bool(one["code"] < other["code"])

    def expand(self, url: str, options: Any = None) -> Resource:
        return {"resourceType": "ValueSet", "url": url}


def test_terminology_is_asked() -> None:
    services = Services(terminology=Codes())
    assert evaluate("gender.memberOf('http://x.test/vs')", CHILD, services=services) == [True]
    assert evaluate("gender.memberOf('http://x.test/other')", CHILD, services=services) == []
    assert evaluate("{}.memberOf('http://x.test/vs')", CHILD, services=services) == []
    codings = {"a": {"code": "1"}, "b": {"code": "2"}}
    assert evaluate("%a.subsumes(%b)", CHILD, variables=codings, services=services) == [True]
    assert evaluate("%a.subsumedBy(%b)", CHILD, variables=codings, services=services) == [False]
    assert evaluate("%terminologies.expand('http://x.test/vs').url", CHILD, services=services) == ["http://x.test/vs"]


@pytest.mark.parametrize(
    "expression",
    [
        "gender.memberOf('x')",
        "elementDefinition()",
        "slice('x', 'y')",
        "conformsTo('http://hl7.org/fhir/StructureDefinition/bodyheight')",
    ],
)
def test_a_missing_service_is_said(expression: str) -> None:
    with pytest.raises(Unavailable) as caught:
        evaluate(expression, CHILD)
    assert caught.value.code == "fhirpath.service"


def test_definitions_and_traces_go_through_services() -> None:
    seen = []
    services = Services(
        conforms=lambda value, url: url.endswith("mine"),
        elements=lambda value, kind: {"path": kind},
        slices=lambda values, structure, name: values[:1],
        trace=lambda name, values: seen.append((name, values)),
    )
    assert evaluate("conformsTo('http://x.test/mine')", CHILD, services=services) == [True]
    assert evaluate("name.first().elementDefinition().path", CHILD, services=services) == ["HumanName"]
    assert evaluate("name.slice('x', 'y').count()", CHILD, services=services) == [1]
    assert evaluate("name.trace('n', family).count()", CHILD, services=services) == [2]
    assert seen == [("n", ["Made"])]


def test_modifier_extensions_that_are_not_known_stop() -> None:
    with pytest.raises(Invalid):
        evaluate("checkModifiers('a')", {"resourceType": "Patient", "modifierExtension": [{"url": "b"}]})


@pytest.mark.parametrize(
    "div",
    [
        "<div><script>x</script></div>",
        '<div onclick="x">x</div>',
        "<div><p>x</div>",
        "<div> </div>",
        "<p>x</p>",
        "<div>x</div><div>y</div>",
        '<div><a href="javascript:x">x</a></div>',
        "<div>a & b</div>",
        "<div><!DOCTYPE x>x</div>",
        "<div>" * 5000,
    ],
)
def test_narratives_that_are_not_safe(div: str) -> None:
    resource = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    assert evaluate("text.div.htmlChecks()", resource) == [False]


@pytest.mark.parametrize(
    "expression",
    [
        "name.nothing",
        "Encounter.status",
        "(birthDate as HumanName).family",
        "children().first()",
        "deceasedDateTime",
        "name.where(nothing = 1)",
        "name.first().given.family",
    ],
)
def test_strict_mode_finds_what_can_never_be(expression: str) -> None:
    evaluate(expression, CHILD)
    with pytest.raises(Invalid):
        evaluate(expression, CHILD, strict=True)


NEVER = {"Encounter.id", "unknown", "deceasedDateTime"}


@pytest.mark.parametrize("expression", [case[0] for case in CASES if case[0] not in NEVER])
def test_strict_mode_lets_through_what_may_be(expression: str) -> None:
    evaluate(expression, CHILD, strict=True)


def test_as_filters_when_it_is_told_to() -> None:
    with pytest.raises(Invalid):
        evaluate("name.as(HumanName)", CHILD)
    assert len(evaluate("name.as(HumanName)", CHILD, filters=True)) == 2
    assert len(compile("descendants().as(HumanName)")(CHILD, filters=True)) == 3


def test_readers_give_the_same(patient: Resource, observation: Resource) -> None:
    read = compile("name.given | birthDate").reader("Patient")
    assert read(patient) == ["Ada", "B.", "1961-02-28"]
    assert len(read(CHILD)) == 3
    assert compile("%resource.id").reader("Observation")(observation) == ["o1"]


def test_invariants_hold_or_not(patient: Resource) -> None:
    assert compile("name.exists()").holds(patient)
    assert not compile("name.empty()").holds(patient)
    assert not compile("{}").holds(patient)


DAMAGE = [{"name": "text"}, {"name": [1]}, {"name": {"given": {"a": 1}}}, {"birthDate": [[1]]}]


def error_of(expression: str, resource: Resource) -> CarelakeError | None:
    try:
        evaluate(expression, resource)
    except CarelakeError as error:
        return error
    return None


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("expression", ["name.given.upper()", "name.given = 'x'", "birthDate + 1 day", "name.family"])
def test_data_that_is_not_fhir_gives_an_error_or_an_answer(damage: Resource, expression: str) -> None:
    error = error_of(expression, {"resourceType": "Patient", **damage})
    assert error is None or error.code.startswith("fhirpath.")


@pytest.mark.parametrize(
    "expression", ["name.family + 1", "name.single()", "name.family.matches('(')", "name.family.toChars().single()"]
)
def test_messages_hold_no_values(expression: str) -> None:
    error = error_of(expression, CHILD)
    assert error is not None
    assert "Made" not in error.message
    assert pickle.loads(pickle.dumps(error)).facts == error.facts
