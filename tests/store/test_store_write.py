"""Create, update, delete, conditions and history of the record, on each database; and what a scope keeps apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carelake.core.errors import Conflict, Gone, Invalid, NotFound, Refused, Unavailable
from carelake.store.history import Span

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def weight(key: str, *people: str, **more: Any) -> dict[str, Any]:
    """An Observation of one patient, or none."""
    subject = {"subject": {"reference": f"Patient/{people[0]}"}} if people else {}
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"text": "weight"},
        **subject,
        **more,
    }


def put(record: Any, *resources: dict[str, Any], permit: Any = None, **how: Any) -> Any:
    permit = permit or record.permit
    with record.vault.database.transaction(permit) as tx:
        return [record.resources.update(permit, tx, one, **how) for one in resources][-1]


def gone(record: Any, kind: str, key: str, permit: Any = None, **how: Any) -> Any:
    permit = permit or record.permit
    with record.vault.database.transaction(permit) as tx:
        return record.resources.delete(permit, tx, kind, key, **how)


def told(page: Any) -> list[tuple[str, int, str]]:
    return [(one.id, one.version, one.method) for one in page.versions]


def all_of(record: Any, *of: str, count: int, **how: Any) -> list[tuple[str, int, str]]:
    """All pages of a history."""
    page = record.resources.history(how.pop("permit", record.permit), *of, count=count, **how)
    found = told(page)
    while page.next:
        page = record.resources.history(record.permit, *of, count=count, page=page.next, **how)
        found += told(page)
    return found


def test_versions_are_expected(record: Any) -> None:
    put(record, patient("a"))
    assert put(record, patient("a", active=True), expected=1).version == 2
    for wrong in (1, 3, 0):
        with pytest.raises(Conflict, match="not at the version"):
            put(record, patient("a", active=False), expected=wrong)
    with pytest.raises(Conflict):
        put(record, patient("none"), expected=1)
    with pytest.raises(Conflict):
        gone(record, "Patient", "a", expected=1)
    with pytest.raises(Conflict):
        gone(record, "Patient", "none", expected=1)
    assert gone(record, "Patient", "a", expected=2).version == 3
    with pytest.raises(Conflict):
        gone(record, "Patient", "a", expected=3)


def test_an_update_alone_creates_nothing(record: Any) -> None:
    with pytest.raises(NotFound):
        put(record, patient("a"), create=False)
    put(record, patient("a"))
    assert put(record, patient("a", active=True), create=False).version == 2
    gone(record, "Patient", "a")
    with pytest.raises(Gone):
        put(record, patient("a"), create=False)
    back = put(record, patient("a"))
    assert (back.version, back.created) == (4, True)


def test_what_the_record_says_itself_is_not_taken_from_the_sender(record: Any) -> None:
    sent = {"versionId": "7", "lastUpdated": "1999-01-01T00:00:00Z", "_lastUpdated": {"id": "x"}}
    made = put(record, patient("a", meta=sent))
    assert made.resource["meta"] == {"versionId": "1", "lastUpdated": "2026-01-02T03:04:05.000Z"}
    assert not put(record, patient("a", meta={"versionId": "9"})).changed
    kept = put(record, patient("a", meta={**sent, "source": "urn:x"}))
    assert (kept.changed, kept.resource["meta"]["source"]) == (True, "urn:x")


def test_a_transaction_sees_its_own_writes(record_on_each: Any) -> None:
    record = record_on_each
    with record.vault.database.transaction(record.permit) as tx:
        made = record.resources.create(record.permit, tx, patient("", active=True) | {"gender": "male"})
        other = {"resourceType": "Patient", "gender": "male"}
        assert record.resources.found(record.permit, tx, "Patient", "gender=male") == [made.id]
        record.resources.create(record.permit, tx, other)
        assert len(record.resources.found(record.permit, tx, "Patient", "?gender=male")) == 2
        assert len(record.resources.found(record.permit, tx, "Patient", "Patient?gender=male", 1)) == 1
        assert record.resources.read(record.permit, "Patient", made.id) == made.resource
        record.resources.delete(record.permit, tx, "Patient", made.id)
        assert made.id not in record.resources.found(record.permit, tx, "Patient", "gender=male")
        assert record.resources.version(record.permit, tx, "Patient", made.id) == 0
    for wrong in ("", "gender", "_count=1", "_sort=_id", "Observation?code=x", "nothing=1", "_include=Patient:link"):
        with record.vault.database.transaction(record.permit) as tx, pytest.raises(Invalid):
            record.resources.found(record.permit, tx, "Patient", wrong)


def test_what_fails_in_a_transaction_is_not_there(record_on_each: Any) -> None:
    record = record_on_each
    put(record, patient("a"))

    def work() -> None:
        with record.vault.database.transaction(record.permit) as tx:
            record.resources.update(record.permit, tx, patient("a", active=True))
            record.resources.create(record.permit, tx, {"resourceType": "Patient", "gender": "male"})
            record.resources.update(record.permit, tx, patient("a"), expected=1)

    with pytest.raises(Conflict):
        work()
    assert record.resources.read(record.permit, "Patient", "a")["meta"]["versionId"] == "1"
    assert record.ids("Patient?gender=male") == []
    assert told(record.resources.history(record.permit)) == [("a", 1, "POST")]
    assert put(record, patient("a", active=True)).version == 2


# --- history ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moving", [True, False])
def test_history_is_newest_first_whatever_the_clock_does(record_on_each: Any, moving: bool) -> None:
    record = record_on_each
    expected: list[tuple[str, int, str]] = []
    for number in range(4):
        for key in ("a", "b", "c"):
            put(record, patient(key, multipleBirthInteger=number))
            expected.insert(0, (key, number + 1, "PUT" if number else "POST"))
            if moving:
                record.clock.move(seconds=1)
    gone(record, "Patient", "b")
    put(record, weight("o"))
    expected = [("o", 1, "POST"), ("b", 5, "DELETE"), *expected]
    for size in (1, 2, 5, 100):
        assert all_of(record, count=size) == expected
        assert all_of(record, "Patient", count=size) == expected[1:]
        assert all_of(record, "Patient", "a", count=size) == [one for one in expected if one[0] == "a"]
    assert record.resources.history(record.permit, "Patient", "a", count=1).total == 4
    assert record.resources.history(record.permit, "Encounter").versions == ()
    with pytest.raises(NotFound):
        record.resources.history(record.permit, "Patient", "nobody")
    with pytest.raises(Invalid):
        record.resources.history(record.permit, "Patient", "a", page="x")


def test_history_of_a_time(record_on_each: Any) -> None:
    record = record_on_each
    start = int(record.clock.now().timestamp()) * 1_000_000
    for number in range(5):  # one version every ten seconds
        put(record, patient("a", multipleBirthInteger=number))
        record.clock.move(seconds=10)
    gone(record, "Patient", "a")

    def at(low: int, high: int, *of: str) -> list[int]:
        span = Span(None, start + low * 1_000_000, start + high * 1_000_000)
        return [one.version for one in record.resources.history(record.permit, *of, span=span).versions]

    for of in (("Patient", "a"), ("Patient",), ()):
        since = Span(start + 30_000_000)
        assert [one.version for one in record.resources.history(record.permit, *of, span=since).versions] == [6, 5, 4]
        assert at(15, 16, *of) == [2]
        assert at(15, 21, *of) == [3, 2]
        assert at(20, 21, *of) == [3]
        assert at(0, 1000, *of) == [6, 5, 4, 3, 2, 1]
        assert at(-10, 0, *of) == []
        assert at(60, 70, *of) == []


# --- scope --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bound(record: Any, permit_for: Callable[..., Any]) -> Any:
    """A permit for the record of patient a; b has one too, and there is what is nobody's."""
    put(record, patient("a"), patient("b"), weight("of-a", "a"), weight("of-b", "b"), weight("of-none"))
    return permit_for(*GRANTS, scope=("patient:a",), action="record:write")


def state(record: Any) -> Any:
    return told(record.resources.history(record.permit))


def test_in_a_patients_record_one_writes(record: Any, bound: Any) -> None:
    assert put(record, weight("of-a", "a", issued="2026-01-01T00:00:00Z"), permit=bound).version == 2
    with record.vault.database.transaction(bound) as tx:
        made = record.resources.create(bound, tx, weight("x", "a"))
    assert record.resources.read(bound, "Observation", made.id)
    assert gone(record, "Observation", made.id, bound).changed
    back = put(record, weight(made.id, "a"), permit=bound)
    assert (back.version, back.created) == (3, True)
    assert put(record, patient("a", active=True), permit=bound).version == 2


@pytest.mark.parametrize("person", ["b", ""])
def test_nothing_is_put_out_of_a_patients_record(record: Any, bound: Any, person: str) -> None:
    before = state(record)
    people = (person,) if person else ()
    for sent in (weight("of-a", *people), weight("of-a", "a", performer=[{"reference": "Patient/b"}])):
        with pytest.raises(Refused, match="outside"):
            put(record, sent, permit=bound)
    with pytest.raises(Refused), record.vault.database.transaction(bound) as tx:
        record.resources.create(bound, tx, weight("x", *people))
    with pytest.raises(Refused), record.vault.database.transaction(bound) as tx:
        record.resources.create(bound, tx, {"resourceType": "Patient"})
    assert state(record) == before


def test_what_is_not_in_sight_is_as_what_is_not_there(record: Any, bound: Any) -> None:
    """Another's id, nobody's, one that was deleted, and one that never was: not one answer tells them apart."""
    gone(record, "Observation", "of-none")
    before = state(record)
    for key in ("of-b", "of-none", "never"):
        for sent, how in (
            (weight(key, "a"), {}),
            (weight(key, "a"), {"create": False}),
        ):
            with pytest.raises(NotFound) as caught:
                put(record, sent, permit=bound, **how)
            assert (type(caught.value), caught.value.code) == (NotFound, "store.no_such_resource")
        for version in (1, 2):
            with pytest.raises(Conflict) as clash:
                put(record, weight(key, "a"), permit=bound, expected=version)
            assert clash.value.code == "store.version_conflict"
            with pytest.raises(Conflict):
                gone(record, "Observation", key, bound, expected=version)
        assert gone(record, "Observation", key, bound) is None
        with record.vault.database.transaction(bound) as tx:
            assert record.resources.version(bound, tx, "Observation", key) == 0
            assert record.resources.found(bound, tx, "Observation", f"_id={key}") == []
        with pytest.raises(NotFound) as caught:
            record.resources.history(bound, "Observation", key)
        assert caught.value.code == "store.no_such_resource"
    for key in ("b", "c"):
        with pytest.raises((NotFound, Refused)) as either:
            put(record, patient(key), permit=bound)
        assert either.value.code == "store.no_such_resource"
    assert state(record) == before


def test_histories_are_of_what_is_in_sight(record: Any, bound: Any, permit_for: Callable[..., Any]) -> None:
    put(record, weight("of-a", "b", issued="2026-01-01T00:00:00Z"), weight("of-b", "a"))
    reading = permit_for(*GRANTS, scope=("patient:a",), action="record:search")
    assert told(record.resources.history(reading)) == [("of-b", 2, "PUT"), ("of-a", 1, "POST"), ("a", 1, "POST")]
    assert told(record.resources.history(reading, "Observation", "of-b")) == [("of-b", 2, "PUT")]
    assert record.resources.history(reading, "Observation", "of-b").total == 1
    with pytest.raises(NotFound):
        record.resources.history(reading, "Observation", "of-a")
    page = record.resources.history(reading, count=1)
    with pytest.raises(Invalid):
        record.resources.history(record.permit, count=1, page=page.next)


def test_a_condition_is_given_little_time(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All other writers wait for it."""
    record.keep(*(patient(f"p{n}", name=[{"family": f"Family{n}"}]) for n in range(300)))
    monkeypatch.setattr("carelake.store.resources._CONDITION_SECONDS", -1.0)
    monkeypatch.setattr("carelake.vault.sql.sqlcipher._LOOK", 100)
    with record.vault.database.transaction(record.permit) as tx:
        with pytest.raises(Unavailable, match="longer"):
            record.resources.found(record.permit, tx, "Patient", "name:contains=zz")
        # Only that question is given up.
        record.resources.update(record.permit, tx, patient("after"))
    assert record.resources.read(record.permit, "Patient", "after")
