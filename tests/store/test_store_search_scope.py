"""A permit limited to one patient: no other resource decides on anything in the answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.search_oracle import World, hospital
from tests.store.test_store_search import observation_pairs, person_pairs

from carelake.core.errors import Refused
from carelake.fhir.compartment import owner
from carelake.fhir.query import parse


@pytest.fixture
def filled(record: Any) -> tuple[Any, list[dict[str, Any]]]:
    resources = hospital(7)
    record.keep(*resources)
    return record, resources


def limited(record: Any, patient: str) -> Any:
    return record.permit_for(*record.permit.grants, scope=("account", f"patient:{patient}"))


_many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
searches = st.one_of(
    st.tuples(st.just("Observation"), st.lists(observation_pairs, max_size=2)),
    st.tuples(st.just("Patient"), st.lists(person_pairs, max_size=2)),
)
sorts = st.sampled_from(["", "_id", "-_lastUpdated"])


@given(search=searches, patient=st.sampled_from("123"), sort=sorts)
@_many
def test_the_answer_is_that_of_a_record_without_the_others(
    filled: Any, planned: str, search: tuple[str, list[tuple[str, str]]], patient: str, sort: str
) -> None:
    record, resources = filled
    kind, said = search
    # Texts of codes are of the account, not of one patient: who searches by them learns a code's name, and no more.
    said = [pair for pair in said if pair[0] != "code:text"]
    world = World([one for one in resources if owner(one) == patient])
    order = [("_sort", sort)] if sort else []
    query = parse(kind, [*said, *order, ("_count", "1000"), ("_total", "accurate")])
    result = record.resources.search(limited(record, patient), query)
    assert {(kind, one["id"]) for one in result.matches} == world.matches(query)
    assert result.total == len(result.matches)
    counted = parse(kind, [*said, ("_summary", "count")])
    assert record.resources.search(limited(record, patient), counted).total == result.total


@pytest.mark.parametrize(
    "text",
    [
        "Patient?_include=Patient:general-practitioner",
        "Patient?_revinclude=Observation:subject&_revinclude=Encounter:patient&_revinclude:iterate=Observation:encounter",
        "Observation?_include=*&_include:iterate=*",
        "Patient?_revinclude=*&_include:iterate=*&_revinclude:iterate=*",
    ],
)
def test_includes_are_of_the_patient(filled: Any, text: str) -> None:
    record, resources = filled
    owners = {(one["resourceType"], one["id"]): owner(one) for one in resources}
    result = record.search(text, permit=limited(record, "2"))
    assert result.matches
    shown = [*result.matches, *result.included]
    assert {owners[one["resourceType"], one["id"]] for one in shown} == {"2"}
    assert len({(one["resourceType"], one["id"]) for one in shown}) == len(shown)


def test_pages_stay_within_the_scope(filled: Any) -> None:
    record, resources = filled
    mine = {one["id"] for one in resources if one["resourceType"] == "Observation" and owner(one) == "2"}
    permit = limited(record, "2")
    for sort in ("", "&_sort=-date", "&_sort=code,_id"):
        seen: list[str] = []
        page = ""
        while True:
            result = record.search(f"Observation?_count=2{sort}", page, permit=permit)
            seen += [one["id"] for one in result.matches]
            page = result.next
            if not page:
                break
        assert sorted(seen) == sorted(mine)


def test_hierarchies_and_lists_stay_within_the_scope(filled: Any) -> None:
    record, _ = filled
    permit = limited(record, "2")
    assert record.ids("Organization?partof:below=Organization/1", permit=permit) == []
    assert record.ids("Observation?_list=l", permit=permit) == []


@pytest.mark.parametrize("scope", [("department:4",), ("patient:",), ("patient:1", "patient:2")])
def test_what_no_predicate_is_for_denies(filled: Any, scope: tuple[str, ...]) -> None:
    record, _ = filled
    with pytest.raises(Refused):
        record.search("Patient", permit=record.permit_for(*record.permit.grants, scope=scope))
