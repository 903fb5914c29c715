"""Versions: made when something changed, unchanged when nothing did, in order, with exactly their index rows."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.errors import Gone, Invalid, NotFound
from carelake.store.write import parsed

INDEXES = ("ix_owner", "ix_token", "ix_string", "ix_date", "ix_quantity", "ix_reference", "ix_uri")


def patient(key: str, **other: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **other}


def index(record: Any) -> dict[str, list[tuple[Any, ...]]]:
    return {name: sorted(record.rows(f"SELECT * FROM {name}")) for name in INDEXES}


def test_same_body_is_unchanged_and_another_is_a_version(record: Any) -> None:
    assert record.keep(patient("a"), patient("b"))[:2] == (2, 0)
    assert record.keep(patient("a"), patient("b"))[:2] == (0, 2)
    assert record.keep(patient("a", active=True), patient("b"))[:2] == (1, 1)
    assert record.resources.read(record.permit, "Patient", "a")["meta"]["versionId"] == "2"
    first = record.resources.vread(record.permit, "Patient", "a", "1")
    assert "active" not in first
    assert first["meta"] == {"versionId": "1", "lastUpdated": "2026-01-02T03:04:05.000Z"}


def test_one_id_many_times_in_a_page(record: Any) -> None:
    bodies = [patient("a", active=True), patient("a", active=False), patient("a", active=False), patient("a")]
    kept = record.keep(*bodies)
    assert kept[:2] == (3, 1)
    assert (kept.first, kept.last) == (1, 3)
    versions = [record.resources.vread(record.permit, "Patient", "a", str(v)) for v in (1, 2, 3)]
    assert [v.get("active") for v in versions] == [True, False, None]
    assert record.search("Patient?active=true").total == 0
    assert len(record.rows("SELECT * FROM ix_owner")) == 1


def test_index_rows_are_those_of_the_current_version_only(record: Any) -> None:
    full = patient(
        "a",
        gender="male",
        birthDate="1950-02-03",
        name=[{"family": "Zoë", "given": ["A", "B"]}],
        generalPractitioner=[{"reference": "Practitioner/p"}],
        identifier=[{"system": "s", "value": "v"}],
        meta={"profile": ["http://example.org/p"]},
    )
    record.keep(full)
    before = index(record)
    assert all(rows for name, rows in before.items() if name != "ix_quantity")
    record.keep(patient("a"))
    # Owner, and "deceased", which a patient without deceased[x] answers with false.
    assert sum(len(rows) for rows in index(record).values()) == 2
    record.keep(full)
    after = index(record)
    assert {name: [row[:-1] for row in rows] for name, rows in after.items()} == {
        name: [row[:-1] for row in rows] for name, rows in before.items()
    }


def test_a_rolled_back_page_leaves_nothing(record: Any) -> None:
    def broken_off() -> None:
        with record.vault.database.transaction(record.permit) as tx:
            record.resources.keep(record.permit, tx, "landing:1", [parsed(patient("a", gender="male"))])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert record.rows("SELECT * FROM symbol") == []
    assert record.keep(patient("a", gender="male")).stored == 1
    assert record.ids("Patient?gender=male") == ["a"]
    assert record.resources.changes(record.permit, 0)[0].seq == 1


def test_the_same_place_of_the_same_landing_is_unchanged_when_read_again(record: Any) -> None:
    record.keep(patient("a"), patient("a", active=True), landing="landing:1")
    record.keep(patient("a", gender="male"), landing="landing:2")
    assert record.keep(patient("a"), patient("a", active=True), landing="landing:1", again=True).stored == 0
    assert record.keep(patient("a"), landing="landing:1", again=True, offsets=7).stored == 1


def test_accounts_do_not_see_each_other(record: Any) -> None:
    other = record.permit_for(*("clinical:read", "rows:read", "rows:write"), account="research")
    record.keep(patient("a", gender="male"))
    record.keep(patient("a", gender="female"), patient("b", gender="male"), permit=other)
    assert record.ids("Patient?gender=male") == ["a"]
    assert record.ids("Patient?gender=male", permit=other) == ["b"]
    assert record.resources.read(other, "Patient", "a")["gender"] == "female"
    assert [c.account if hasattr(c, "account") else c.id for c in record.resources.changes(other, 0)] == ["a", "b"]
    assert len(record.resources.resources_of(record.permit, "a")) == 1
    ref = record.resources.ref(other, "Patient", "b")
    assert record.resources.lineage(record.permit, ref) is None
    assert record.resources.lineage(other, ref) is not None


def test_create_update_delete(record: Any) -> None:
    with record.vault.database.transaction(record.permit) as tx:
        made = record.resources.create(record.permit, tx, {"resourceType": "Patient", "id": "x", "gender": "male"})
        key = made.id
        again = record.resources.update(record.permit, tx, {**made.resource, "gender": "male"})
    assert (made.version, made.created, made.changed) == (1, True, True)
    assert (again.version, again.created, again.changed) == (1, False, False)
    assert key != "x"
    assert made.ref == again.ref == record.resources.ref(record.permit, "Patient", key)
    assert made.resource == again.resource == record.resources.read(record.permit, "Patient", key)
    with record.vault.database.transaction(record.permit) as tx:
        gone = record.resources.delete(record.permit, tx, "Patient", key)
        again = record.resources.delete(record.permit, tx, "Patient", key)
    assert (gone.version, gone.changed, gone.resource) == (2, True, None)
    assert (again.version, again.changed) == (2, False)
    with pytest.raises(Gone):
        record.resources.read(record.permit, "Patient", key)
    assert record.search("Patient").total == 0
    assert record.search("Patient?gender=male").total == 0
    assert record.resources.resources_of(record.permit, key) == []
    assert record.resources.vread(record.permit, "Patient", key, "1")["gender"] == "male"
    change = record.resources.changes(record.permit, 0)[-1]
    assert (change.deleted, change.body) == (True, b"")
    record.keep(patient(key, gender="male"))
    assert record.search("Patient").total == 1
    with record.vault.database.transaction(record.permit) as tx:
        assert record.resources.delete(record.permit, tx, "Patient", "nobody") is None


def test_invalid_resources_are_refused_without_their_values(record: Any) -> None:
    with record.vault.database.transaction(record.permit) as tx:
        for bad in ({"resourceType": "Patient", "gender": "Canary"}, {"resourceType": "Canary"}):
            with pytest.raises(Invalid) as caught:
                record.resources.create(record.permit, tx, bad)
            assert "Canary" not in caught.value.message


@pytest.mark.parametrize(("kind", "key"), [("Patient", "nobody"), ("Nothing", "a"), ("Patient", "a' OR 1=1 --")])
def test_what_is_not_there(record: Any, kind: str, key: str) -> None:
    record.keep(patient("a"))
    with pytest.raises(NotFound):
        record.resources.read(record.permit, kind, key)
    for version in ("2", "0", "x", "9" * 30, ""):
        with pytest.raises(NotFound):
            record.resources.vread(record.permit, "Patient", "a", version)


def test_decimals_keep_their_digits(record: Any) -> None:
    from carelake.core import canonical

    text = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10}}'
    )
    record.keep(canonical.load(text))
    assert b'"value":1.10' in canonical.dump(record.resources.read(record.permit, "Observation", "o"))
