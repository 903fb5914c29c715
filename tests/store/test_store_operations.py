"""``$everything``, ``$lastn`` and labels over the record, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.store.conftest import GRANTS, Record

from carelake.core.errors import Gone, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.fhir.query import parse_text
from carelake.fhir.search import parameters
from carelake.fhir.search.values import date_range
from carelake.store import SearchResult
from carelake.store.everything import CARE_DATES, STANDING, Asked


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def observation(key: str, of: str = "p", **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    said = {"resourceType": "Observation", "id": key, "status": "final", "code": code}
    return {**said, "subject": {"reference": f"Patient/{of}"}, **more}


def encounter(key: str, of: str = "p", start: str = "2024-03-01", **more: Any) -> dict[str, Any]:
    said = {"resourceType": "Encounter", "id": key, "status": "finished", "class": {"code": "AMB"}}
    return {**said, "subject": {"reference": f"Patient/{of}"}, "period": {"start": start, "end": start}, **more}


def everything(record: Record, key: str = "p", page: str = "", permit: Permit | None = None, **asked: Any) -> Any:
    asked.setdefault("kind", "Patient")
    return record.resources.operations.everything(permit or record.permit, Asked(id=key, **asked), page)


def named(result: SearchResult) -> tuple[set[str], set[str]]:
    return ({f"{one.type}/{one.id}" for one in result.found}, {f"{one.type}/{one.id}" for one in result.along})


def day(text: str, end: bool = False) -> int:
    return date_range(text)[end]


WARD = {"resourceType": "Location", "id": "ward", "managingOrganization": {"reference": "Organization/clinic"}}
CLINIC = {"resourceType": "Organization", "id": "clinic", "partOf": {"reference": "Organization/trust"}}
TRUST = {"resourceType": "Organization", "id": "trust"}
ALONE = {"resourceType": "Organization", "id": "unrelated"}
DOCTOR = {"resourceType": "Practitioner", "id": "dr"}
DRUG = {"resourceType": "Medication", "id": "drug"}


def furnish(record: Record) -> None:
    record.keep(WARD, CLINIC, TRUST, ALONE, DOCTOR, DRUG)
    record.keep(
        patient("p"),
        patient("q"),
        encounter("e", location=[{"location": {"reference": "Location/ward"}}]),
        encounter("later", start="2024-09-01"),
        observation("o", performer=[{"reference": "Practitioner/dr"}], encounter={"reference": "Encounter/e"}),
        observation("hers", of="q"),
        {
            "resourceType": "MedicationRequest",
            "id": "m",
            "status": "active",
            "intent": "order",
            "subject": {"reference": "Patient/p"},
            "authoredOn": "2024-03-01",
            "medicationReference": {"reference": "Medication/drug"},
        },
        {
            "resourceType": "Condition",
            "id": "old",
            "subject": {"reference": "Patient/p"},
            "onsetDateTime": "2001-01-01",
        },
        {"resourceType": "Device", "id": "pump", "patient": {"reference": "Patient/p"}},
        # In the records of both, so sealed for neither.
        {
            "resourceType": "Appointment",
            "id": "both",
            "status": "booked",
            "participant": [
                {"actor": {"reference": "Patient/p"}, "status": "accepted"},
                {"actor": {"reference": "Patient/q"}, "status": "accepted"},
            ],
        },
    )


HIS = {
    "Patient/p",
    "Encounter/e",
    "Encounter/later",
    "Observation/o",
    "MedicationRequest/m",
    "Condition/old",
    "Device/pump",
    "Appointment/both",
}
BESIDE = {"Location/ward", "Organization/clinic", "Organization/trust", "Practitioner/dr", "Medication/drug"}


def test_the_record_and_what_it_refers_to(record_on_each: Record) -> None:
    furnish(record_on_each)
    found = everything(record_on_each)
    assert named(found) == (HIS, BESIDE)
    assert (found.total, found.next) == (len(HIS), "")
    assert named(everything(record_on_each, "q"))[0] == {"Patient/q", "Observation/hers", "Appointment/both"}


@pytest.mark.parametrize("count", [1, 2, 0])
def test_the_one_asked_for_is_first_whenever_it_was_written(record: Record, count: int) -> None:
    furnish(record)
    record.keep(patient("p", active=True))
    record.keep(encounter("e", start="2024-03-02"))
    found = everything(record, count=count)
    assert (found.found[0].type, found.found[0].id) == ("Patient", "p")
    assert sum(one.type == "Patient" for one in pages(record, found, count)) == 1
    assert everything(record, "e", kind="Encounter", count=count).found[0].id == "e"
    assert not any(one.type == "Patient" for one in everything(record, types=("Observation",), count=count).found)


def pages(record: Record, found: SearchResult, count: int) -> list[Any]:
    told = [*found.found]
    while found.next:
        found = everything(record, page=found.next, count=count)
        told += found.found
    return told


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 13])
def test_pages_hold_everything_once(record: Record, count: int) -> None:
    furnish(record)
    seen: list[str] = []
    page, pages = "", 0
    while True:
        found = everything(record, page=page, count=count)
        assert len(found.found) + len(found.along) <= count
        assert found.total == len(HIS)
        seen += [f"{one.type}/{one.id}" for one in (*found.found, *found.along)]
        pages += 1
        if not found.next:
            break
        page = found.next
    assert sorted(seen) == sorted(HIS | BESIDE)
    assert pages == -(-len(seen) // count)


def test_what_is_written_between_two_pages_is_not_missed(record: Record) -> None:
    furnish(record)
    first = everything(record, count=3)
    seen = named(first)[0]
    record.keep(observation("new"), patient("p", gender="female"))
    page = first.next
    while page:
        found = everything(record, page=page, count=3)
        seen |= named(found)[0] | named(found)[1]
        page = found.next
    assert seen == HIS | BESIDE | {"Observation/new"}


def test_care_between_two_days(record_on_each: Record) -> None:
    furnish(record_on_each)
    standing = {"Patient/p", "Condition/old", "Device/pump", "Appointment/both", "Observation/o"}
    march = everything(record_on_each, start=day("2024-03-01"), end=day("2024-03-31", True))
    assert named(march)[0] == standing | {"Encounter/e", "MedicationRequest/m"}
    autumn = everything(record_on_each, start=day("2024-08-01"))
    assert named(autumn)[0] == standing | {"Encounter/later"}
    assert named(autumn)[1] == {"Practitioner/dr"}  # the ward is that of another encounter
    before = everything(record_on_each, end=day("2000-01-01"))
    assert named(before)[0] == standing - {"Condition/old"}


def test_only_what_changed_since(record: Record) -> None:
    furnish(record)
    record.clock.move(seconds=60)
    since = int(record.clock.now().timestamp() * 1_000_000)
    record.keep(observation("new"))
    assert named(everything(record, since=since)) == ({"Observation/new"}, set())


def test_only_some_types(record: Record) -> None:
    furnish(record)
    found = everything(record, types=("Observation", "Organization", "Encounter"))
    assert named(found) == (
        {"Observation/o", "Encounter/e", "Encounter/later"},
        {"Organization/clinic", "Organization/trust"},
    )


def test_the_record_of_an_encounter(record: Record) -> None:
    furnish(record)
    found = everything(record, "e", kind="Encounter")
    assert named(found) == (
        {"Encounter/e", "Patient/p", "Observation/o"},
        {"Location/ward", "Organization/clinic", "Organization/trust", "Practitioner/dr"},
    )


def test_there_is_none_or_no_more(record: Record) -> None:
    furnish(record)
    with pytest.raises(NotFound, match="no such resource"):
        everything(record, "nobody")
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Patient", "p")
    with pytest.raises(Gone):
        everything(record)


def test_a_page_is_good_for_its_own_request_only(record: Record) -> None:
    furnish(record)
    page = everything(record, count=2).next
    assert everything(record, page=page, count=5).found
    for other in ({"key": "q"}, {"types": ("Observation",)}, {"since": 1}):
        with pytest.raises(Invalid, match="not a page of this request"):
            everything(record, page=page, **other)
    with pytest.raises(Invalid, match="not a page of this request"):
        everything(record, page="nonsense")


def test_who_sees_one_patient_sees_no_other_by_this_way(record: Record, permit_for: Callable[..., Permit]) -> None:
    furnish(record)
    own = permit_for(*GRANTS, scope=("patient:p",))
    assert named(everything(record, permit=own)) == (HIS - {"Appointment/both"}, set())
    with pytest.raises(NotFound):
        everything(record, "q", permit=own)


def test_the_records_that_a_patient_has_taken_over(record: Record) -> None:
    def link(kind: str, key: str) -> dict[str, Any]:
        return {"type": kind, "other": {"reference": f"Patient/{key}"}}

    record.keep(
        patient("new", link=[link("replaces", "old")]),
        patient("old", active=False, link=[link("replaced-by", "new"), link("replaces", "oldest")]),
        patient("oldest", active=False, link=[link("replaced-by", "old")]),
        patient("friend", link=[link("seealso", "new")]),
        observation("o1", of="new"),
        observation("o2", of="old"),
        observation("o3", of="oldest"),
        observation("o4", of="friend"),
    )
    all_three = {"Patient/new", "Patient/old", "Patient/oldest", "Observation/o1", "Observation/o2", "Observation/o3"}
    # A Patient that links to one is in that one's compartment by R4's own definition; its record is not.
    assert named(everything(record, "new"))[0] == all_three | {"Patient/friend"}
    assert named(everything(record, "oldest"))[0] == {"Patient/oldest", "Patient/old", "Observation/o3"}


def test_dates_of_care_are_dates() -> None:
    for table in (CARE_DATES, STANDING):
        for name, codes in table.items():
            assert codes
            assert all(parameters(name)[code].type == "date" for code in codes)


# --- $lastn -------------------------------------------------------------------------------------------------------


def lastn(record: Record, text: str, most: int = 1) -> list[str]:
    return [one.id for one in record.resources.operations.lastn(record.permit, parse_text(text), most).found]


def code(*codings: str, text: str = "") -> dict[str, Any]:
    listed = [{"system": "http://loinc.org", "code": one} for one in codings]
    return {"code": {**({"coding": listed} if listed else {}), **({"text": text} if text else {})}}


def test_the_newest_of_each_code(record_on_each: Record) -> None:
    record_on_each.keep(
        patient("p"),
        patient("q"),
        *(observation(f"a{n}", **code("A"), effectiveDateTime=f"2024-01-0{n}") for n in (3, 1, 2)),
        *(observation(f"b{n}", **code("B"), effectiveDateTime=f"2024-02-0{n}") for n in (1, 2)),
        observation("undated", **code("A")),
        observation("hers", of="q", **code("A"), effectiveDateTime="2024-05-01"),
    )
    assert lastn(record_on_each, "Observation?patient=p&code=A,B") == ["b2", "a3"]
    assert lastn(record_on_each, "Observation?patient=p&code=A,B", 2) == ["b2", "b1", "a3", "a2"]
    assert lastn(record_on_each, "Observation?patient=p&code=A", 9) == ["a3", "a2", "a1", "undated"]
    assert lastn(record_on_each, "Observation?patient=p&code=A&date=lt2024-01-02") == ["a1"]
    assert lastn(record_on_each, "Observation?patient=p&code=C") == []


def test_translations_are_of_one_kind(record: Record) -> None:
    record.keep(
        patient("p"),
        observation("1", **code("A", "B"), effectiveDateTime="2024-01-01"),
        observation("2", **code("B", "C"), effectiveDateTime="2024-01-02"),
        observation("3", **code("C"), effectiveDateTime="2024-01-03"),
        observation("4", **code("D", text="Pulse"), effectiveDateTime="2024-01-04"),
        observation("5", **code(text="Pulse"), effectiveDateTime="2024-01-05"),
        observation("6", **code(text="pulse"), effectiveDateTime="2024-01-06"),
        # The code of the same letters in another system is another one.
        observation("7", code={"coding": [{"system": "http://other", "code": "A"}]}, effectiveDateTime="2023-01-01"),
    )
    # A and C are one kind by B; texts count where there is no coding.
    assert lastn(record, "Observation?patient=p") == ["6", "4", "3", "7"]
    # Only what matches joins kinds: without the second, the first and the third have nothing in common.
    assert lastn(record, "Observation?patient=p&_id=1,3") == ["3", "1"]


def test_as_a_search_shows_them(record: Record) -> None:
    record.keep(DOCTOR, patient("p"), observation("o", performer=[{"reference": "Practitioner/dr"}]))
    query = parse_text("Observation?patient=p&_elements=status&_include=Observation:performer")
    found = record.resources.operations.lastn(record.permit, query, 1)
    assert set(found.matches[0]) == {"resourceType", "id", "meta", "status", "code"}
    assert [one.id for one in found.along] == ["dr"]


def test_too_many_to_look_through(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carelake.store.lastn.MOST", 3)
    record.keep(patient("p"), *(observation(f"o{n}") for n in range(4)))
    with pytest.raises(Invalid, match="More than 3 observations"):
        lastn(record, "Observation?patient=p")


# --- labels ---------------------------------------------------------------------------------------------------------


def labelled(key: str, *tags: tuple[str, str], profile: str = "", **more: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"tag": [{"system": system, "code": code} for system, code in tags]} if tags else {}
    meta |= {"profile": [profile]} if profile else {}
    return patient(key, **({"meta": meta} if meta else {}), **more)


def test_the_labels_of_a_type(record_on_each: Record) -> None:
    record_on_each.keep(
        labelled("1", ("http://a", "x"), ("http://a", "y"), profile="http://p/1"),
        labelled("2", ("http://b", "x"), profile="http://p/2"),
        *(labelled(f"n{n}", ("http://a", "x")) for n in range(5)),
        {
            "resourceType": "Group",
            "id": "g",
            "type": "person",
            "actual": True,
            "meta": {"security": [{"system": "http://s", "code": "R"}]},
        },
    )
    labels = record_on_each.resources.operations.labels
    found = labels(record_on_each.permit, ("Patient",))
    assert found["profile"] == ["http://p/1", "http://p/2"]
    said = [(one["system"], one["code"]) for one in found["tag"]]
    assert said == [("http://a", "x"), ("http://b", "x"), ("http://a", "y")]
    assert "security" not in found
    assert labels(record_on_each.permit, ("Group", "Patient", "Device"))["security"] == [
        {"system": "http://s", "code": "R"}
    ]
    record_on_each.keep(labelled("2"))
    assert labels(record_on_each.permit, ("Patient",))["profile"] == ["http://p/1"]


def test_who_sees_a_part_is_not_told_of_all(record: Record, permit_for: Callable[..., Permit]) -> None:
    record.keep(labelled("1", ("http://a", "x")))
    with pytest.raises(Refused, match="a part of the record"):
        record.resources.operations.labels(permit_for(*GRANTS, scope=("patient:1",)), ("Patient",))


# --- narrowed credentials (SMART scopes) ----------------------------------------------------------------------------


def test_a_narrowed_credential_sees_by_operations_what_it_sees_by_searches(
    record: Record, permit_for: Callable[..., Permit]
) -> None:
    furnish(record)
    record.keep(observation("a", **code("A")), observation("b", **code("B")))
    grants = ("only:p/Patient.rs", "only:p/Observation.rs?code=http://loinc.org|A", "only:/Practitioner.rs")
    narrow = permit_for(*GRANTS, scope=("account", *grants), action="record:search")
    types = ("Patient", "Observation", "Practitioner", "Encounter", "Organization")
    found = everything(record, permit=narrow, types=types)
    assert named(found) == ({"Patient/p", "Observation/a"}, set())
    assert found.total == 2
    newest = record.resources.operations.lastn(narrow, parse_text("Observation?patient=p&code=A,B"), 1)
    assert [one.id for one in newest.found] == ["a"]
    with pytest.raises(NotFound):
        everything(record, "q", permit=narrow)
    with pytest.raises(Refused):
        record.resources.operations.labels(narrow, ("Patient",))
