"""Grants of a permit hold in every way to a resource, on both databases, and for what is written before and after."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.conftest import Record

from carelake.core.errors import CarelakeError, Gone, NotFound, Refused
from carelake.core.permit import Permit
from carelake.store.scopes import bounded, covers, owner_of
from carelake.store.sights import sight_of

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
Json = dict[str, Any]


def observation(key: str, patient: str, code: str, **said: Any) -> Json:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "urn:s", "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        **said,
    }


def permit(record: Record, *scope: str, action: str = "record:read") -> Permit:
    return record.permit_for(*GRANTS, scope=("account", *scope), action=action)


@pytest.fixture
def held(record_on_each: Record) -> Record:
    record = record_on_each
    record.keep({"resourceType": "Patient", "id": "p1"}, {"resourceType": "Patient", "id": "p2"})
    record.keep(observation("a1", "p1", "a"), observation("b1", "p1", "b"), observation("a2", "p2", "a"))
    record.keep(observation("turned", "p1", "b"), {"resourceType": "Practitioner", "id": "d1"})
    record.keep(observation("turned", "p1", "a"))
    return record


def seen(record: Record, told: Permit) -> set[str]:
    """What can be read, each by its id."""
    found = set()
    for kind, key in [
        *(("Observation", key) for key in ("a1", "b1", "a2", "turned")),
        ("Patient", "p1"),
        ("Patient", "p2"),
        ("Practitioner", "d1"),
    ]:
        try:
            found.add(record.resources.read(told, kind, key)["id"])
        except NotFound:
            continue
    return found


EVERYTHING = {"a1", "b1", "a2", "turned", "p1", "p2", "d1"}


SEEN: list[tuple[tuple[str, ...], set[str]]] = [
    ((), EVERYTHING),
    (("only:/*.r",), EVERYTHING),
    (("only:/*.s",), set()),
    (("only:/Observation.r",), {"a1", "b1", "a2", "turned"}),
    (("only:/Observation.r?code=a", "only:/Patient.r"), {"a1", "a2", "turned", "p1", "p2"}),
    (("only:/Observation.r?code=a&patient=p2",), {"a2"}),
    (("only:/Observation.r?code=a%2Cb&_id=a1%2Cb1",), {"a1", "b1"}),
    (("only:/Observation.r?code=urn:s|a", "only:p1/Observation.r"), {"a1", "b1", "a2", "turned"}),
    (("only:p1/*.r",), {"a1", "b1", "turned", "p1"}),
    (("only:p1/*.r", "only:/Practitioner.r"), {"a1", "b1", "turned", "p1", "d1"}),
    (
        ("only:p1/*.r", "only:p2/Patient.r", "only:/Observation.r?_id=a2"),
        {"a1", "b1", "turned", "p1", "p2", "a2"},
    ),
    (("patient:p1", "only:/*.r"), {"a1", "b1", "turned", "p1"}),
    (("patient:p1", "only:/Observation.r?code=a"), {"a1", "turned"}),
    (("patient:p1", "only:p2/*.r"), set()),
    (("only:/Device.r",), set()),
    (("only:/Observation.r?code=zzz",), set()),
]


def test_what_grants_cover_is_read_and_nothing_else(held: Record) -> None:
    for scope, expected in SEEN:
        covered_alike(held, scope, expected)


def covered_alike(held: Record, scope: tuple[str, ...], expected: set[str]) -> None:
    told = permit(held, *scope)
    assert seen(held, told) == expected, scope
    of_p1 = {one["id"] for _, one in held.resources.resources_of(told, "p1")}
    assert of_p1 == expected & {"a1", "b1", "turned", "p1"}
    refs = held.resources.refs_of(told, ["p1", "p2"], ["Observation"])
    assert sum(map(len, refs.values())) == len(expected & {"a1", "b1", "a2", "turned"})
    assert {one.id for one in held.resources.changes(told, 0)} == expected
    for_search = permit(held, *(name.replace(".r", ".s", 1) for name in scope), action="record:search")
    if scope != ("only:/*.s",):
        found = {
            key for kind in ("Observation", "Patient", "Practitioner") for key in held.ids(kind, permit=for_search)
        }
        assert found == expected


def test_past_versions_of_what_is_seen_by_conditions_are_not_seen(held: Record) -> None:
    by_code = permit(held, "only:/Observation.r?code=a")
    assert held.resources.vread(by_code, "Observation", "turned", "2")["id"] == "turned"
    with pytest.raises(NotFound):
        held.resources.vread(by_code, "Observation", "turned", "1")
    whole = permit(held, "only:/Observation.r")
    assert held.resources.vread(whole, "Observation", "turned", "1")["id"] == "turned"
    assert [one.version for one in held.resources.changes(by_code, 0) if one.id == "turned"] == [2]


def test_what_was_deleted_is_not_there_by_conditions(held: Record) -> None:
    with held.vault.database.transaction(held.permit) as tx:
        held.resources.delete(held.permit, tx, "Observation", "a1")
    with pytest.raises(Gone):
        held.resources.read(permit(held, "only:/Observation.r"), "Observation", "a1")
    with pytest.raises(NotFound):
        held.resources.read(permit(held, "only:/Observation.r?code=a"), "Observation", "a1")


@pytest.mark.parametrize("name", ["only:", "only:Observation.r", "only:/Obs.r", "only:/*.r?code=a", "only", "some:1"])
def test_a_scope_that_cannot_be_read_denies(record: Record, name: str) -> None:
    with pytest.raises(CarelakeError):
        record.resources.read(permit(record, name), "Patient", "p1")


def test_who_knows_no_grants_is_denied_them(record: Record) -> None:
    with pytest.raises(Refused) as caught:
        owner_of(permit(record, "only:/*.cruds"))
    assert caught.value.code == "store.unknown_scope"
    assert bounded(permit(record, "only:/*.r"))
    assert not bounded(permit(record, "only:/*.r"), "Patient")
    assert bounded(permit(record, "only:/*.s"), "Patient")
    assert covers(permit(record, "only:/Patient.cu"), "Patient", "u")
    assert not covers(permit(record, "only:/Patient.cu"), "Patient", "d")
    assert sight_of(permit(record)).of("Patient", ("r",)) is None


# -- writing ---------------------------------------------------------------------------------------------------------


class Undone(Exception):
    """Ends a transaction, so that the next one finds what this one found."""


def write(record: Record, scope: tuple[str, ...], resource: Json) -> str:
    told = permit(record, *scope, action="record:write")
    try:
        with record.vault.database.transaction(told) as tx:
            made = record.resources.update(told, tx, resource)
            raise Undone("created" if made.created else "updated")
    except CarelakeError as error:
        return error.code
    except Undone as undone:
        return str(undone)


def remove(record: Record, scope: tuple[str, ...], key: str) -> str:
    told = permit(record, *scope, action="record:write")
    try:
        with record.vault.database.transaction(told) as tx:
            return "deleted" if record.resources.delete(told, tx, "Observation", key) else "nothing"
    except CarelakeError as error:
        return error.code


WRITES: list[tuple[tuple[str, ...], Json, str]] = [
    (("only:/Observation.c",), observation("new", "p1", "a"), "created"),
    (("only:/Observation.u",), observation("new", "p1", "a"), "store.outside_scope"),
    (("only:/Observation.c",), observation("a1", "p1", "c"), "store.outside_scope"),
    (("only:/Observation.u",), observation("a1", "p1", "c"), "updated"),
    (("only:/Observation.cu?code=a",), observation("a1", "p1", "a", status="amended"), "updated"),
    (("only:/Observation.cu?code=a",), observation("a1", "p1", "b"), "store.outside_scope"),
    (("only:/Observation.cu?code=a",), observation("b1", "p1", "a"), "store.no_such_resource"),
    (("only:/Observation.u?code=a", "only:/Observation.c"), observation("b1", "p1", "a"), "store.outside_scope"),
    (("only:/Observation.cu?code=a",), observation("a2", "p2", "a", status="amended"), "updated"),
    (("patient:p1", "only:/Observation.cu"), observation("a1", "p2", "a"), "store.outside_scope"),
    (("patient:p1", "only:/Observation.cu"), observation("a2", "p2", "b"), "store.no_such_resource"),
    (("only:p1/Observation.u", "only:/Patient.u"), observation("a1", "p2", "a"), "store.outside_scope"),
    (("only:p1/Observation.u", "only:/Patient.u"), observation("a1", "p1", "b"), "updated"),
    (("only:/Observation.u?code=a", "only:/Observation.s"), observation("b1", "p1", "a"), "store.outside_scope"),
    (("only:/Patient.cu",), observation("a1", "p1", "b"), "store.no_such_resource"),
]


def test_a_write_is_covered_before_and_after(held: Record) -> None:
    before = held.rows("SELECT count(*) FROM resource_version")
    for scope, resource, expected in WRITES:
        assert write(held, scope, resource) == expected, (scope, resource)
    assert held.rows("SELECT count(*) FROM resource_version") == before


def test_a_deletion_is_covered(held: Record) -> None:
    assert remove(held, ("only:/Observation.cu",), "a1") == "store.outside_scope"
    assert remove(held, ("only:/Observation.d?code=b",), "a1") == "nothing"
    assert remove(held, ("only:/Observation.d?code=b", "only:/Observation.u"), "a1") == "store.outside_scope"
    assert remove(held, ("only:p2/Observation.d",), "a1") == "nothing"
    assert held.resources.read(held.permit, "Observation", "a1")["id"] == "a1"
    assert remove(held, ("only:/Observation.d?code=a",), "a1") == "deleted"


def test_who_may_write_may_not_read_for_that(held: Record) -> None:
    for scope, seen_too in (("/Observation.cud", False), ("/Observation.cr", True), ("/Observation.u?code=a", False)):
        told = permit(held, f"only:{scope}", action="record:write")
        try:
            held.resources.read(told, "Observation", "a1")
            assert seen_too, scope
        except NotFound:
            assert not seen_too, scope


def test_what_a_writer_searches_needs_the_letter_of_searches(held: Record) -> None:
    def found(*scope: str) -> list[str]:
        told = permit(held, *scope, action="record:write")
        with held.vault.database.transaction(told) as tx:
            return held.resources.found(told, tx, "Observation", "status=final", limit=10)

    assert found("only:/Observation.c") == []
    assert len(found("only:/Observation.cs")) == 4
    assert len(found("only:/Observation.c", "only:/Observation.s?code=b")) == 1
