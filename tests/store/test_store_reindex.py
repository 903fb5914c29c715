"""Reindex: what is not built refuses, what is built is whole, and a kill or a foreign writer loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, update
from tests.store.conftest import Record

from carelake.core.errors import Conflict, NotFound
from carelake.fhir.query import parse_text
from carelake.fhir.search import BASE, Registry
from carelake.fhir.search.registry import RULES
from carelake.store import Resources
from carelake.store.indexed import Indexed
from carelake.store.tables import INDEXES, index_registry, index_state, ix_token, symbol
from carelake.store.write import parsed


@pytest.fixture
def record(record_on_each: Record) -> Record:
    """A record on each database."""
    return record_on_each


CODES = ("final", "amended", "registered")


def observation(number: int, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": CODES[number % 3],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": f"c{number % 5}", "display": f"Test {number % 5}"}]
        },
        "subject": {"reference": f"Patient/p{number % 4}"},
        "valueQuantity": {"value": number, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"},
        "note": [{"text": f"said {number % 2}"}],
        **more,
    }


def said(code: str = "said", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "SearchParameter",
        "id": f"sp-{code}",
        "url": f"http://example.org/{code}",
        "name": code,
        "status": "active",
        "description": "What a note says",
        "code": code,
        "base": ["Observation"],
        "type": "string",
        "expression": "Observation.note.text",
        **more,
    }


def rows(record: Any) -> dict[str, list[Any]]:
    return {table.name: sorted(record.rows(f"SELECT * FROM {table.name}")) for table in INDEXES}


def ids(record: Any, text: str) -> list[str]:
    registry = record.resources.registry(record.permit)
    found = record.resources.search(record.permit, parse_text(text, registry=registry))
    return [one["id"] for one in found.matches]


def fill(record: Any, count: int = 30) -> None:
    record.keep(*(observation(number) for number in range(count)))
    record.keep({"resourceType": "Patient", "id": "p1", "name": [{"family": "Núñez"}]})


def test_what_is_kept_from_the_first_resource_on_is_built(record: Any) -> None:
    fill(record)
    assert ids(record, "Observation?code=c1&_count=100") == [f"o{n}" for n in range(30) if n % 5 == 1]
    report = record.resources.verify_index(record.permit)
    assert report.differences == []
    assert report.resources == 31


def test_a_custom_parameter_is_refused_until_it_is_built(record: Any) -> None:
    fill(record)
    record.keep(said())
    assert "said" not in record.resources.registry(record.permit).parameters("Observation")
    report = record.resources.reindex(record.permit)
    assert report.registered == ["http://example.org/said"]
    assert report.sources == 1
    assert report.resources == 30
    assert ids(record, "Observation?said=said 1&_count=100") == [f"o{n}" for n in range(30) if n % 2]
    record.keep(observation(99))
    assert "o99" in ids(record, "Observation?said=said 1&_count=100")
    assert record.resources.verify_index(record.permit).differences == []


def test_of_a_retired_parameter_nothing_is_left_that_answers(record: Any) -> None:
    fill(record)
    record.keep(said())
    record.resources.reindex(record.permit)
    record.keep(said(status="retired"))
    report = record.resources.reindex(record.permit)
    assert report.registered == []
    # Kept while nobody indexed it, and found once it is registered again.
    record.keep(observation(99))
    record.keep(said())
    assert record.resources.reindex(record.permit).resources == 31
    assert "o99" in ids(record, "Observation?said=said 1&_count=100")
    assert record.resources.verify_index(record.permit).differences == []


def test_a_definition_that_cannot_be_used_is_named_with_its_reason(record: Any) -> None:
    fill(record, 3)
    record.keep(
        said(), said("bad", expression="Observation.nowhere"), said("code", expression="Observation.note.text")
    )
    report = record.resources.reindex(record.permit)
    assert report.registered == ["http://example.org/said"]
    assert set(report.refused) == {"http://example.org/bad", "http://example.org/code"}


def test_a_writer_that_knows_old_definitions_only_indexes_by_the_new_ones(record: Any) -> None:
    fill(record, 3)
    record.keep(said())
    other = Resources(record.vault)
    other.registry(record.permit)
    record.resources.reindex(record.permit)
    with record.vault.database.transaction(record.permit) as tx:
        other.keep(record.permit, tx, "", [parsed(observation(7))], registry=BASE)
    assert "o7" in ids(record, "Observation?said=said 1")


def test_writers_and_readers_go_on_while_it_is_built(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carelake.store.reindex._PAGE", 10)
    monkeypatch.setattr("carelake.store.reindex._NEXT", _limited(10))
    fill(record, 50)
    record.keep(said())
    seen = []

    def meanwhile(done: int, of: int) -> None:
        if done <= 30:
            with pytest.raises(Conflict) as caught:
                ids(record, "Observation?said=said 1")
            seen.append((done, of, caught.value.code))
            assert ids(record, "Observation?code=c1&_count=1") == ["o1"]
            # One that is walked already, one that is not yet, and a new one.
            record.keep(observation(done - 1, note=[{"text": "anew"}]), observation(45, note=[{"text": "anew"}]))
            record.keep(observation(100 + done, note=[{"text": "anew"}]))

    record.resources.reindex(record.permit, progress=meanwhile)
    assert [done for done, _, _ in seen] == [10, 20, 30]
    assert {code for _, _, code in seen} == {"store.index_partial"}
    assert record.resources.verify_index(record.permit).differences == []
    assert len(ids(record, "Observation?said=anew&_count=100")) == 7


def _limited(number: int) -> Any:
    from carelake.store import reindex

    return reindex._NEXT.limit(None).limit(number)


def test_one_parameter_is_built_anew_and_a_damaged_index_is_told_of(record: Any) -> None:
    fill(record)
    before = rows(record)
    with record.vault.database.transaction(record.permit) as tx:
        param = tx.execute(select(symbol.c.key).where(symbol.c.text == "token:code")).scalars().all()
        some = tx.execute(select(ix_token.c.seq).where(ix_token.c.param.in_(param)).limit(4)).scalars().all()
        tx.execute(delete(ix_token).where(ix_token.c.param.in_(param), ix_token.c.seq.in_(some)))
        tx.exec_driver_sql(f"INSERT INTO ix_token (param, code, system, seq) VALUES ({param[0]}, 'x', 0, 1)")
        tx.exec_driver_sql(f"INSERT INTO ix_token (param, code, system, seq) VALUES ({param[0]}, 'x', 0, 777)")
    report = record.resources.verify_index(record.permit, "Observation.code")
    (difference,) = report.differences
    assert (difference.type, difference.source) == ("Observation", "token:code")
    assert (difference.missing, difference.extra) == (4, 2)
    record.resources.reindex(record.permit, "Observation.code")
    assert [one.extra for one in record.resources.verify_index(record.permit).differences] == [1]  # of no version
    with record.vault.database.transaction(record.permit) as tx:
        tx.execute(delete(ix_token).where(ix_token.c.seq == 777))
    assert rows(record) == before


def test_a_parameter_that_nobody_has_is_an_error(record: Any) -> None:
    fill(record, 3)
    for name in ("nonsense", "Observation.nonsense", "Device.code"):
        with pytest.raises(NotFound):
            record.resources.reindex(record.permit, name)


def test_sources_that_an_older_carelake_did_not_know_are_refused_and_repaired(record: Any) -> None:
    """As after a new release: the index was built by other definitions, and writers of those did not index it."""
    fill(record)
    before = rows(record)
    with record.vault.database.transaction(record.permit) as tx:
        params = tx.execute(select(symbol.c.key).where(symbol.c.text == "token:status")).scalars().all()
        tx.execute(delete(index_state).where(index_state.c.param.in_(params)))
        tx.execute(delete(ix_token).where(ix_token.c.param.in_(params)))
        tx.execute(update(index_registry).values(base=f"{RULES}/older", stamp=1))
    fresh = Resources(record.vault)
    with pytest.raises(Conflict) as caught:
        fresh.search(record.permit, parse_text("Observation?status=final"))
    assert caught.value.code == "store.index_partial"
    assert "reindex --param Observation.status" in caught.value.message
    for text in (
        "Patient?_has:Observation:patient:status=final",
        "Observation?_sort=status",
        "Observation?has-member.status=final",
    ):
        with pytest.raises(Conflict):
            fresh.search(record.permit, parse_text(text))
    fresh.search(record.permit, parse_text("Observation?code=c1"))
    assert fresh.reindex(record.permit).sources == 1
    assert rows(record) == before
    fresh.search(record.permit, parse_text("Observation?status=final"))


def test_other_rules_make_everything_to_be_built(record: Any) -> None:
    fill(record, 3)
    with record.vault.database.transaction(record.permit) as tx:
        tx.execute(update(index_registry).values(base="1/older", stamp=1))
        Indexed(record.resources._symbols).current(tx, "production")
    with pytest.raises(Conflict):
        record.search("Observation?code=c1")
    record.resources.reindex(record.permit)
    record.search("Observation?code=c1")


def test_content_is_built_when_it_is_switched_on(record: Any) -> None:
    fill(record, 3)
    fresh = Resources(record.vault)
    fresh._indexed._bare = Registry(content=True)
    query = parse_text("Observation?_content=said", registry=fresh._indexed._bare)
    with record.vault.database.transaction(record.permit) as tx:
        fresh._indexed.current(tx, "production")
    with pytest.raises(Conflict):
        fresh.search(record.permit, query)


def test_two_accounts_have_their_own(record: Any) -> None:
    fill(record, 3)
    there = record.permit_for(*record.permit.grants, account="research")
    record.keep(observation(1), permit=there)
    record.keep(said(), permit=there)
    record.resources.reindex(there)
    assert "said" in record.resources.registry(there).parameters("Observation")
    assert "said" not in record.resources.registry(record.permit).parameters("Observation")


def test_rows_of_other_rules_are_refused_before_anybody_writes(record: Any) -> None:
    fill(record)
    before = rows(record)
    with record.vault.database.transaction(record.permit) as tx:
        tx.execute(update(index_registry).values(base=f"{RULES - 1}/older", stamp=1))
    fresh = Resources(record.vault)
    with pytest.raises(Conflict, match="reindex"):
        fresh.search(record.permit, parse_text("Observation?status=final"))
    fresh.reindex(record.permit)
    assert rows(record) == before
    assert fresh.search(record.permit, parse_text("Observation?status=final")).matches
