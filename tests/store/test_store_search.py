"""Search against an oracle that looks at every resource."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.core.errors import CarelakeError, Conflict, Invalid
from carelake.core.records import IndexValues
from carelake.fhir.query import Condition, Query, parse_text
from carelake.fhir.search import extract

SYSTEMS = ["http://loinc.org", "urn:x", ""]
CODES = ["a", "b", "A|b"]
DATES = ["2020", "2020-02", "2020-02-29", "2020-02-29T10:00:00Z", "2021-01-01", "1999-12-31"]
NUMBERS = [1, 1.0, 1.5, 2, -3, 100]
FAMILIES = ["Smith", "Smithers", "Śmith", "de la Cruz", "O'Neil"]


def observation(rng: random.Random, key: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "id": key,
        "status": rng.choice(["final", "amended"]),
        "code": {"coding": [_coding(rng) for _ in range(rng.randint(0, 2))], "text": "t"},
    }
    if not made["code"]["coding"]:
        del made["code"]["coding"]
    if rng.random() < 0.8:
        made["subject"] = {"reference": f"{rng.choice(['Patient', 'Group'])}/{rng.choice('123')}"}
    if rng.random() < 0.8:
        made["effectiveDateTime"] = rng.choice(DATES)
    if rng.random() < 0.8:
        made["valueQuantity"] = {
            "value": rng.choice(NUMBERS),
            "unit": "mg",
            "system": "urn:u",
            "code": rng.choice("mg"),
        }
    return made


def _coding(rng: random.Random) -> dict[str, str]:
    system = rng.choice(SYSTEMS)
    return {"code": rng.choice(CODES), **({"system": system} if system else {})}


def people(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "resourceType": "Patient",
            "id": key,
            **({"gender": rng.choice(["male", "female"])} if rng.random() < 0.8 else {}),
            **({"birthDate": rng.choice(DATES[1:3])} if rng.random() < 0.8 else {}),
            **({"name": [{"family": rng.choice(FAMILIES)}]} if rng.random() < 0.8 else {}),
        }
        for key in "1234"
    ]


# -- the oracle ----------------------------------------------------------------------------------------------


def holds(resource: dict[str, Any], condition: Condition, everything: list[dict[str, Any]]) -> bool:
    values: IndexValues = extract(resource)
    if condition.type == "id":
        return resource["id"] in [v.code for v in condition.values]
    rows = {
        "token": values.tokens,
        "string": values.strings,
        "date": values.dates,
        "number": values.quantities,
        "quantity": values.quantities,
        "reference": values.references,
        "uri": values.uris,
    }[condition.type]
    mine = [row[1:] for row in rows if row[0] == condition.param]
    if condition.modifier == "missing":
        return (not mine) == condition.missing
    if condition.chain is not None:
        inner = condition.chain
        targets = [
            (other["resourceType"], other["id"])
            for other in everything
            if other["resourceType"] == inner.type and all(holds(other, c, everything) for c in inner.conditions)
        ]
        return any(tuple(row[:2]) in targets for row in mine)
    found = any(test(row, value, condition) for row in mine for value in condition.values)
    return not found if condition.modifier == "not" else found


def test(row: Any, value: Any, condition: Condition) -> bool:
    return {
        "TokenValue": token,
        "StringValue": string,
        "DateValue": date,
        "NumberValue": number,
        "ReferenceValue": link,
    }[type(value).__name__](row, value, condition.modifier)


test.__test__ = False  # type: ignore[attr-defined]


def token(row: Any, value: Any, _: str) -> bool:
    return value.system in (None, row[0]) and value.code in (None, row[1])


def string(row: Any, value: Any, modifier: str) -> bool:
    if modifier == "exact":
        return bool(row[1] == value.text)
    if not value.folded:
        return False
    return value.folded in row[0] if modifier == "contains" else row[0].startswith(value.folded)


def date(row: Any, value: Any, _: str) -> bool:
    low, high = row
    inside = value.low <= low and high <= value.high
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > value.high,
        "lt": low < value.low,
        "ge": high > value.high or inside,
        "le": low < value.low or inside,
        "sa": low >= value.high,
        "eb": high <= value.low,
        "ap": low < value.high and value.low < high,
    }[value.prefix]


def number(row: Any, value: Any, _: str) -> bool:
    low, high, system, code = row
    middle = (low + high) / 2
    inside = value.low <= low and high <= value.high
    if value.system not in (None, system) or value.code not in (None, code):
        return False
    return {
        "eq": inside,
        "ne": not inside,
        "gt": middle > value.number,
        "sa": middle > value.number,
        "lt": middle < value.number,
        "eb": middle < value.number,
        "ge": middle > value.number or inside,
        "le": middle < value.number or inside,
        "ap": low < value.high and value.low < high,
    }[value.prefix]


def link(row: Any, value: Any, _: str) -> bool:
    if value.url:
        return bool(row[2] == value.url)
    return row[1] == value.id and value.type in ("", row[0]) and not row[2]


# -- queries -------------------------------------------------------------------------------------------------

prefix = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
token_text = st.sampled_from(["a", "b", "http://loinc.org|a", "|a", "urn:x|", "A\\|b", "a,b", "none", "urn:none|a"])
pairs = st.one_of(
    st.tuples(st.sampled_from(["code", "code:not"]), token_text),
    st.tuples(st.sampled_from(["status", "status:not"]), st.sampled_from(["final", "amended", "final,amended", "x"])),
    st.tuples(st.just("date"), st.builds(str.__add__, prefix, st.sampled_from(DATES))),
    st.tuples(
        st.just("value-quantity"),
        st.builds(
            lambda p, n, u: f"{p}{n}{u}",
            prefix,
            st.sampled_from(NUMBERS),
            st.sampled_from(["", "||m", "|urn:u|g", "|no|m"]),
        ),
    ),
    st.tuples(
        st.sampled_from(["subject", "subject:Patient"]), st.sampled_from(["1", "Patient/1", "9", "1,Patient/2"])
    ),
    st.tuples(st.just("patient"), st.sampled_from(["1", "Patient/1", "Patient/9"])),
    st.tuples(
        st.sampled_from(["date:missing", "subject:missing", "value-quantity:missing"]),
        st.sampled_from(["true", "false"]),
    ),
    st.tuples(st.just("_id"), st.sampled_from(["o1", "o1,o2", "zz"])),
    st.tuples(st.just("patient.gender"), st.sampled_from(["male", "female"])),
    st.tuples(st.just("subject:Patient.family"), st.sampled_from(["smith", "o'neil"])),
)
names = st.sampled_from(["Smith", "smi", "ith", "ŚMITH", "cruz", "de", "x", "o'n"])
person_pairs = st.one_of(
    st.tuples(st.sampled_from(["family", "family:exact", "family:contains", "name"]), names),
    st.tuples(st.sampled_from(["gender", "gender:not"]), st.sampled_from(["male", "female"])),
    st.tuples(st.just("birthdate"), st.builds(str.__add__, prefix, st.sampled_from(DATES))),
    st.tuples(st.sampled_from(["family:missing", "gender:missing"]), st.sampled_from(["true", "false"])),
)


@pytest.fixture
def filled(record: Any) -> tuple[Any, list[dict[str, Any]]]:
    rng = random.Random(5)
    resources = people(rng) + [observation(rng, f"o{i}") for i in range(60)]
    record.keep(
        *[{**one, "status": "amended"} if "status" in one else {**one, "gender": "other"} for one in resources]
    )
    record.keep(*resources)
    return record, resources


_slow = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(filled: tuple[Any, list[dict[str, Any]]], kind: str, said: list[tuple[str, str]]) -> None:
    from carelake.fhir.query import parse

    record, resources = filled
    query: Query = parse(kind, [*said, ("_count", "1000")])
    wanted = {
        one["id"]
        for one in resources
        if one["resourceType"] == kind and all(holds(one, c, resources) for c in query.conditions)
    }
    result = record.resources.search(record.permit, query)
    assert {one["id"] for one in result.resources} == wanted
    assert result.total == len(result.resources) == len(wanted)


@given(said=st.lists(pairs, max_size=3))
@_slow
def test_observations_as_the_oracle_finds_them(filled: Any, said: list[tuple[str, str]]) -> None:
    check(filled, "Observation", said)


@given(said=st.lists(person_pairs, max_size=3))
@_slow
def test_patients_as_the_oracle_finds_them(filled: Any, said: list[tuple[str, str]]) -> None:
    check(filled, "Patient", said)


@given(
    st.lists(
        st.sampled_from(["date", "-date", "status", "-status", "value-quantity", "-_id", "_lastUpdated"]), max_size=3
    ),
    st.integers(1, 7),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_give_each_match_once_in_order(filled: Any, order: list[str], count: int) -> None:
    record, resources = filled
    text = "Observation?code=a" + (f"&_sort={','.join(order)}" if order else "")
    whole = record.ids(f"{text}&_count=1000")
    pages, page = [], ""
    while True:
        result = record.search(f"{text}&_count={count}", page)
        pages += [one["id"] for one in result.resources]
        page = result.next
        if not page:
            break
    assert pages == whole
    assert len(set(whole)) == len(whole)
    if order[:1] == ["date"]:
        low = {
            one["id"]: min([d[1] for d in extract(one).dates if d[0] == "date"], default=None) for one in resources
        }
        values = [low[key] for key in whole]
        known = [v for v in values if v is not None]
        assert known == sorted(known)
        assert values[len(known) :] == [None] * (len(values) - len(known))


def test_a_page_whose_last_match_changed_is_a_conflict(filled: Any) -> None:
    record, _ = filled
    first = record.search("Patient?_sort=-birthdate&_count=2")
    record.keep({"resourceType": "Patient", "id": first.resources[-1]["id"], "active": True})
    with pytest.raises(Conflict):
        record.search("Patient?_sort=-birthdate&_count=2", first.next)
    for bad in ("x", "-1", "9" * 40, "1;"):
        with pytest.raises(Invalid):
            record.search("Patient", bad)


def test_without_order_a_change_meanwhile_skips_nothing(filled: Any) -> None:
    record, _ = filled
    first = record.search("Patient?_count=2")
    record.keep({"resourceType": "Patient", "id": first.resources[-1]["id"], "active": True})
    rest = record.search("Patient?_count=10", first.next)
    assert {one["id"] for one in [*first.resources, *rest.resources]} == set("1234")


def test_totals_counts_and_elements(filled: Any) -> None:
    record, _ = filled
    assert record.search("Observation?_total=none").total is None
    assert record.search("Observation").total == 60
    assert len(record.search("Observation").resources) == 50
    counted = record.search("Observation?_summary=count")
    assert (counted.total, counted.resources) == (60, [])
    (one,) = record.search("Patient?_id=1&_elements=gender").resources
    assert set(one) <= {"resourceType", "id", "meta", "gender"}
    assert one["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_last_updated(record: Any) -> None:
    record.keep({"resourceType": "Patient", "id": "1"})
    record.clock.move(days=1)
    record.permit = record.permit_for(*record.permit.grants)
    record.keep({"resourceType": "Patient", "id": "2"}, {"resourceType": "Patient", "id": "1"})
    assert record.ids("Patient?_lastUpdated=2026-01-02") == ["1"]
    assert record.ids("Patient?_lastUpdated=gt2026-01-02") == ["2"]
    assert record.ids("Patient?_lastUpdated=2026-01-03T03:04:05.000Z") == ["2"]
    assert record.ids("Patient?_sort=-_lastUpdated") == ["2", "1"]
    record.keep({"resourceType": "Patient", "id": "1", "active": True})
    assert record.ids("Patient?_lastUpdated=2026-01-02") == []


@pytest.mark.parametrize(
    "text", ["Patient?colour=red", "Patient?name:loud=x", "Starship?name=x", "Patient?birthdate=soon"]
)
def test_what_is_not_offered_is_an_error(record: Any, text: str) -> None:
    with pytest.raises(CarelakeError):
        parse_text(text)


@pytest.mark.parametrize(
    "text", ["Patient?family=%25", "Patient?family=_", "Patient?family:contains=%25", "Patient?family='"]
)
def test_signs_of_sql_are_only_signs(filled: Any, text: str, request: Any) -> None:
    record, _ = filled
    found: Callable[[str], list[str]] = record.ids
    assert found(text) == [] or "'" in text
