"""The compartment, the change feed, lineage, scopes and what the act is told."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core import canonical
from carelake.core.errors import CarelakeError, Corrupt, NotFound, Refused
from carelake.store import read

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")


def patient(key: str, **other: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **other}


def visit(key: str, subject: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": key,
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{subject}"},
    }


@pytest.fixture
def ward(record: Any) -> Any:
    record.keep(patient("p1"), visit("e2", "p1"), visit("e1", "p1"), patient("p2"), visit("e3", "p2"))
    record.keep({"resourceType": "Organization", "id": "o", "name": "General"})
    return record


def test_all_of_a_patient(ward: Any) -> None:
    found = ward.resources.resources_of(ward.permit, "p1")
    assert [(r["resourceType"], r["id"]) for _, r in found] == [
        ("Encounter", "e1"),
        ("Encounter", "e2"),
        ("Patient", "p1"),
    ]
    assert found[2][0] == ward.resources.ref(ward.permit, "Patient", "p1")
    assert ward.resources.resources_of(ward.permit, "nobody") == []
    assert ward.resources.resources_of(ward.permit, "") == []


def test_a_resource_that_moves_to_another_patient(ward: Any) -> None:
    ward.keep(visit("e1", "p2"))
    assert [r["id"] for _, r in ward.resources.resources_of(ward.permit, "p1")] == ["e2", "p1"]
    assert [r["id"] for _, r in ward.resources.resources_of(ward.permit, "p2")] == ["e1", "e3", "p2"]
    assert ward.resources.vread(ward.permit, "Encounter", "e1", "1")["subject"]["reference"] == "Patient/p1"


def test_the_feed_gives_every_version_in_order(ward: Any) -> None:
    ward.keep(patient("p1", active=True))
    feed, after = [], 0
    while page := ward.resources.changes(ward.permit, after, 2):
        assert len(page) <= 2
        feed += page
        after = page[-1].seq
    assert [c.seq for c in feed] == list(range(1, 8))
    assert [(c.type, c.id, c.version, c.owner) for c in feed][-2:] == [
        ("Organization", "o", 1, ""),
        ("Patient", "p1", 2, "p1"),
    ]
    assert canonical.load(feed[-1].body) == patient("p1", active=True)
    assert feed[0].last_updated == "2026-01-02T03:04:05.000Z"
    assert ward.resources.last_seq(ward.permit) == 7


def test_lineage_leads_to_the_landing(ward: Any) -> None:
    ref = ward.resources.ref(ward.permit, "Encounter", "e1")
    noun = ward.resources.lineage(ward.permit, ref)
    assert noun.ref == ref
    assert noun.made_from == ("landing:1",)
    assert noun.body == {"type": "Encounter", "version": 1, "offset": 2, "length": 0, "line": 0}
    assert noun.state == "current"
    ward.keep(visit("e1", "p2"))
    assert ward.resources.lineage(ward.permit, ref).state == "superseded"
    for bad in (ref[:-1] + "0", ref[:-1], "resource:" + "z" * 64, "resource:" + "f" * 64, "landing:1", ""):
        assert bad == ref or ward.resources.lineage(ward.permit, bad) is None


def test_refs_differ_between_equal_bodies(ward: Any) -> None:
    changes = ward.resources.changes(ward.permit, 0)
    assert len({c.ref for c in changes}) == len(changes)


def test_a_patient_scope_is_part_of_every_reading(ward: Any) -> None:
    scoped = ward.permit_for(*GRANTS, scope=("account", "patient:p1"))
    assert ward.ids("Encounter", permit=scoped) == ["e2", "e1"]
    assert ward.ids("Encounter?_id=e1,e3", permit=scoped) == ["e1"]
    assert ward.search("Encounter?_summary=count", permit=scoped).total == 2
    assert ward.search("Organization", permit=scoped).total == 0
    assert ward.ids("Encounter?subject:Patient._id=p2", permit=scoped) == []
    assert ward.ids("Encounter?status:not=planned", permit=scoped) == ["e2", "e1"]
    assert {c.owner for c in ward.resources.changes(scoped, 0)} == {"p1"}
    assert ward.resources.resources_of(scoped, "p2") == []
    assert ward.resources.read(scoped, "Patient", "p1")
    for kind, key in (("Patient", "p2"), ("Encounter", "e3"), ("Organization", "o")):
        with pytest.raises(NotFound):
            ward.resources.read(scoped, kind, key)


def test_scopes_that_nobody_knows_deny(ward: Any) -> None:
    for scope in (("unit:7",), ("patient:",), ("patient",), ("account", "everything"), ("patient:p1", "patient:p2")):
        permit = ward.permit_for(*GRANTS, scope=scope)
        for call in (
            lambda p=permit: ward.search("Patient", permit=p),
            lambda p=permit: ward.resources.read(p, "Patient", "p1"),
            lambda p=permit: ward.resources.changes(p, 0),
            lambda p=permit: ward.resources.resources_of(p, "p1"),
        ):
            with pytest.raises(Refused):
                call()


def test_the_act_is_told_what_was_read_and_written(ward: Any) -> None:
    permit = ward.permit_for(*GRANTS)
    ward.resources.read(permit, "Patient", "p1")
    ref = ward.resources.ref(permit, "Patient", "p1")
    assert permit.log.reads == [ref]
    ward.keep(patient("p9"), patient("p8"), permit=permit)
    assert len(permit.log.writes) == 1
    assert permit.log.counts["stored"] == 2
    assert "p9" not in repr(permit.log.writes)


def test_a_body_cannot_be_passed_off_as_another(ward: Any) -> None:
    with ward.vault.database.transaction(ward.permit) as tx:
        tx.exec_driver_sql(
            "UPDATE resource_version SET body = (SELECT body FROM resource_version WHERE id = 'e2') WHERE id = 'e1'"
        )
    with pytest.raises(Corrupt):
        ward.resources.read(ward.permit, "Encounter", "e1")


def test_an_erased_patient_is_gone_from_the_feed_and_searches(ward: Any) -> None:
    permit = ward.permit_for(*GRANTS, "rows:erase")
    with ward.vault.database.transaction(permit) as tx:
        ward.vault.sealer.forget(permit, tx, "p1")
    feed = ward.resources.changes(ward.permit, 0)
    assert [c.id for c in feed if c.deleted] == ["p1", "e2", "e1"]
    assert all(not c.body for c in feed if c.deleted)
    assert ward.ids("Encounter") == ["e3"]
    assert ward.resources.resources_of(ward.permit, "p1") == []
    with pytest.raises(NotFound):
        ward.resources.read(ward.permit, "Patient", "p1")


def test_readings_of_a_group_are_looked_up_at_once(record_on_each: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of an account reads for all of it; each sees its own alone, and what it would have seen by itself."""
    record, asked = record_on_each, []
    other = record.permit_for(*GRANTS, account="research")
    record.keep(*(visit(f"e{n}", "p1") for n in range(20)), patient("p1"), patient("p2"))
    record.keep(patient("p1", active=True), permit=other)
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Encounter", "e3")
    one = record.permit_for(*GRANTS, scope=("patient:p2",))
    each = [*((record.permit, "Encounter", f"e{n}") for n in range(21)), (other, "Patient", "p1")]
    each += [(one, "Patient", key) for key in ("p1", "p2")] + [(other, "Encounter", "e1")]

    def told() -> list[Any]:
        found = []
        for permit, kind, key in each:
            try:
                found.append(record.resources.shown(permit, kind, key))
            except CarelakeError as error:
                found.append(error.code)
        return found

    alone = told()
    assert {"store.deleted", "store.no_such_resource"} == {one for one in alone if isinstance(one, str)}
    rows_of = read.rows_of
    monkeypatch.setattr(read, "rows_of", lambda tx, sql, *said: (asked.append(sql), rows_of(tx, sql, *said))[1])
    with record.vault.database.together({(kind, key) for _, kind, key in each}):
        assert told() == alone
    assert len(asked) == 2  # one for each account
    with record.vault.database.together({("Patient", "p2"), ("Patient", "p1")}):
        assert record.resources.shown(record.permit, "Encounter", "e1") == alone[1]  # which nobody expected
