"""Searches that ask for too much: they end soon, with an answer or an error that says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.store.conftest import Record
from tests.store.search_oracle import World, hospital

from carelake.core.clock import FixedClock
from carelake.core.errors import Invalid
from carelake.core.ids import SequenceIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.fhir.query import parse, parse_text
from carelake.store.search import lookups, plan
from carelake.vault.workspace import Vault


@pytest.fixture
def record(record_on_each: Record) -> Record:
    """A record on each database."""
    return record_on_each


def many(form: str, number: int = 1000) -> str:
    return ",".join(form.replace("#", str(n)).replace("@", f"{n % 60:02d}") for n in range(number))


HOSTILE = [
    "Observation?date=" + many("2020-01-01T00:00:@.#Z"),
    "Observation?date=" + many("ge2020-01-01T00:00:@.#Z"),
    "Observation?_lastUpdated=" + many("2020-01-01T00:00:@.#Z"),
    "Observation?value-quantity=" + many("gt#|http://unitsofmeasure.org|mg"),
    "Observation?component-code-value-quantity=" + many("a$gt#"),
    "Observation?combo-code-value-quantity=" + many("a$gt#|http://unitsofmeasure.org|mg"),
    "Patient?name:contains=" + many("x#"),
    "Patient?" + "&".join("name=" + many(f"s#x{n}", 190) for n in range(100)),
    "Patient?" + "_has:Observation:patient:patient:Patient." * 5 + "family=" + many("x#"),
    "Patient?family=smith&" + "_has:Observation:patient:patient:Patient." * 5 + "family=nobody",
    "Observation?" + "_has:Observation:has-member:" * 12 + "code=a",
    "Observation?code:not=a&" + "_has:Observation:has-member:" * 11 + "code=" + many("x#"),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_they_end(record: Record, text: str) -> None:
    record.keep(*hospital(6))
    began = time.monotonic()
    try:
        record.search(text)
    except Invalid as error:
        assert error.code in ("store.search_too_wide", "search.too_many")  # noqa: PT017  # some may be answered
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("lead", ["", "&_id=1", "&_sort=-_lastUpdated", "&gender:not=other"])
@pytest.mark.parametrize(
    "hops",
    [
        "_has:Observation:patient:patient:Patient._has:Observation:patient:status=final",
        "_has:Observation:subject:subject:Patient._has:Encounter:patient:patient:Patient.family=smith",
    ],
)
def test_there_and_back_again_finds_what_one_by_one_does(record: Record, hops: str, lead: str) -> None:
    resources = hospital(6)
    record.keep(*resources)
    query = parse_text(f"Patient?{hops}{lead}&_count=1000")
    found = {("Patient", one["id"]) for one in record.resources.search(record.permit, query).matches}
    assert found == World(resources).matches(query)


def test_places_of_all_points_together_have_a_bound(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.keep(*hospital(6))
    there = len(record.ids("Location?near=42.2|-83.4|40|km"))
    assert there
    monkeypatch.setattr(lookups, "_PLACES", 100)
    assert len(record.ids("Location?near=" + many("42.2|-83.4|40|km"))) == there
    with pytest.raises(Invalid, match="places"):
        record.search("Location?near=" + many("42.2|-83.4|40.#|km"))


def test_value_sets_together_have_a_bound(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.keep(*hospital(3))
    monkeypatch.setattr(lookups, "MAX_CODES", 3)
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    with pytest.raises(Invalid, match="more than 3 codes"):
        record.search(f"Patient?gender:in={url}")


def test_contains_is_of_any_value(record: Record) -> None:
    record.keep(*hospital(6))
    each = {one for text in ("mit", "one") for one in record.ids(f"Patient?name:contains={text}")}
    assert set(record.ids("Patient?name:contains=mit,one")) == each


def ordered(record: Record, text: str, count: int) -> list[str]:
    found: list[str] = []
    page = ""
    while True:
        result = record.search(f"{text}&_count={count}", page)
        found += [f"{one['resourceType']}/{one['id']}" for one in result.matches]
        page = result.next
        if not page:
            return found


def encounter(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": f"e{number:03d}",
        "status": "finished" if number % 10 else "planned",
        "class": {"code": "AMB"},
        "period": {"start": f"2020-01-{number % 28 + 1:02d}"},
    }


@pytest.mark.parametrize("descending", ["", "-"])
def test_a_walk_that_ends_among_equals_is_gathered(
    record: Record, monkeypatch: pytest.MonkeyPatch, descending: str
) -> None:
    record.keep(*(encounter(n) for n in range(300)))
    text = f"Encounter?class=AMB&_sort={descending}status,-date"
    wanted = ordered(record, text, 1000)
    monkeypatch.setattr(plan, "FEW", 1)
    monkeypatch.setattr(plan, "_LEAST_ROOM", 1)
    monkeypatch.setattr(plan, "_root", lambda number: 1)
    walks = []
    budget = plan.Plan._budget
    monkeypatch.setattr(plan.Plan, "_budget", lambda me, room: walks.append(room) or budget(me, room))
    assert ordered(record, text, 7) == wanted
    assert walks


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_key_that_one_type_has_no_value_of(record: Record, count: int) -> None:
    people = [
        {"resourceType": "Person", "id": f"p{n}", "gender": "male", "telecom": [{"value": "1"}]} for n in (1, 2)
    ]
    patients = [{"resourceType": "Patient", "id": f"a{n}", "gender": "male"} for n in (1, 2, 3)]
    record.keep(*patients[:2], *people, *patients[2:])
    for sort in ("gender,phone", "phone", "gender,email"):
        found = ordered(record, f"?_type=Patient,Person&_sort={sort}", count)
        assert sorted(found) == ["Patient/a1", "Patient/a2", "Patient/a3", "Person/p1", "Person/p2"]
        assert found == ordered(record, f"?_type=Patient,Person&_sort={sort}", 100)


def test_what_is_included_already_hides_nothing(
    tmp_path: Path, clock: FixedClock, permit_for: Callable[..., Permit]
) -> None:
    settings = Settings(workspace="b" * 32)
    with Vault.create(
        tmp_path / "w", settings=settings, key_dir=tmp_path / "k", clock=clock, ids=SequenceIds()
    ) as vault:
        record = Record(vault, clock, permit_for)
        record.resources._searches._included = 3
        matches = [f"m{n}" for n in range(9)]
        hub = {"resourceType": "Organization", "id": "hub"}
        record.keep(hub, *({**hub, "id": one, "partOf": {"reference": "Organization/hub"}} for one in matches))
        record.keep({**hub, "id": "late", "partOf": {"reference": "Organization/hub"}})
        found = record.search(f"Organization?_id=hub,{','.join(matches)}&_revinclude=Organization:partof")
        assert [one["id"] for one in found.included] == ["late"]
        assert not found.cut


def test_plans_of_a_writer_are_as_before(record: Record) -> None:
    record.keep(*hospital(2))
    if not record.vault.settings.database.url:
        return
    asked = "SELECT name, setting FROM pg_settings WHERE name LIKE 'enable%%' OR name = 'jit' ORDER BY name"
    with record.vault.database.transaction(record.permit) as tx:
        before = tx.exec_driver_sql(asked).all()
        assert record.ids("Patient?_id=1")
        assert tx.exec_driver_sql(asked).all() == before


def test_our_own_addresses_are_found(record: Record) -> None:
    def named(number: int, reference: str) -> dict[str, Any]:
        said = {"reference": reference}
        return {
            "resourceType": "Flag",
            "id": f"f{number}",
            "status": "active",
            "code": {"text": "x"},
            "subject": said,
        }

    here = "http://here/fhir"
    forms = ("Patient/1", f"{here}/Patient/1", f"{here}/Patient/1/_history/3", "http://there/fhir/Patient/1")
    record.keep(*(named(n, form) for n, form in enumerate(forms)))
    for pair in (("subject", "Patient/1"), ("patient", "1"), ("subject", f"{here}/Patient/1"), ("subject", "1")):
        query = parse("Flag", [pair], base=here)
        found = [one["id"] for one in record.resources.search(record.permit, query).matches]
        assert found[:3] == ["f0", "f1", "f2"]
        assert len(found) == 3
