"""Code systems, value sets and concept maps of the record: the newest or the one named, within the caller's sight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from carelake.core.errors import CarelakeError
from carelake.fhir.terminology import LocalTerminology
from carelake.store.search import Shown
from carelake.store.terms import Systems

SYSTEM, SET, MAP = "http://a.example/s", "http://a.example/v", "http://a.example/m"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"


def system(key: str, version: str, *codes: str) -> dict[str, Any]:
    return {"resourceType": "CodeSystem", "id": key, "url": SYSTEM, "version": version, "status": "active",
            "content": "complete",
            "concept": [{"code": code, "display": f"The {code}"} for code in codes]}  # fmt: skip


def resources() -> Iterator[dict[str, Any]]:
    yield system("s2", "2", "new")
    yield system("s1", "1", "old")
    yield system("s3", "3", "newest", "x,y|z")
    include = [{"system": SYSTEM, "version": version} for version in ("1", "3")]
    yield {"resourceType": "ValueSet", "id": "v", "url": SET, "version": "1", "status": "active",
           "compose": {"include": include}}  # fmt: skip
    yield {"resourceType": "ValueSet", "id": "g", "url": GENDERS, "status": "active",
           "compose": {"include": [{"system": SYSTEM}]}}  # fmt: skip
    element = [{"code": "newest", "target": [{"code": "t", "equivalence": "equal"}]}]
    yield {"resourceType": "ConceptMap", "id": "m", "url": MAP, "status": "active",
           "group": [{"source": SYSTEM, "target": "http://a.example/t", "element": element}]}  # fmt: skip
    yield {"resourceType": "Patient", "id": "1"}
    yield {"resourceType": "Observation", "id": "o", "status": "final", "subject": {"reference": "Patient/1"},
           "code": {"coding": [{"system": SYSTEM, "code": "newest"}]}}  # fmt: skip


@pytest.fixture
def filled(record_on_each: Any) -> Any:
    for one in resources():
        with record_on_each.vault.database.transaction(record_on_each.permit) as tx:
            record_on_each.resources.update(record_on_each.permit, tx, one)
        record_on_each.clock.move(seconds=1)
    return record_on_each


def terms(record: Any, tx: Any, permit: Any = None, sees: Any = lambda kind: True) -> LocalTerminology:
    found: LocalTerminology = record.resources.terms(permit or record.permit, tx, sees)
    return found


def test_versions_and_precedence(filled: Any) -> None:
    with filled.vault.database.reading(filled.permit) as tx:
        known = terms(filled, tx)
        assert known.expand(SET) == ((SYSTEM, "newest"), (SYSTEM, "old"), (SYSTEM, "x,y|z"))
        assert known.expand(f"{SET}|1") == known.expand(SET)
        assert known.expand(GENDERS) == ((SYSTEM, "newest"), (SYSTEM, "x,y|z"))  # what is stored goes before
        assert known.lexicon(f"{SYSTEM}|2").concepts[0].display == "The new"
        assert known.tree(f"{SYSTEM}|4") is None
        assert [one.url for one in known.maps(SYSTEM)] == [MAP]
        assert [one.url for one in known.maps("http://a.example/t", to=True)] == [MAP]
        assert known.concept_map(MAP) is not None
        assert known.maps("http://a.example/t") == []


def test_what_is_not_seen_is_not_there(filled: Any) -> None:
    limited = filled.permit_for(*filled.permit.grants, scope=("account", "patient:1"))
    other = filled.permit_for(*filled.permit.grants, account="research")
    cases = [
        (limited, lambda kind: True),
        (other, lambda kind: True),
        (filled.permit, lambda kind: kind != "CodeSystem"),
    ]
    for permit, sees in cases:
        with filled.vault.database.reading(permit) as tx:
            known = terms(filled, tx, permit, sees)
            assert known.tree(SYSTEM) is None
            if sees("CodeSystem"):
                assert {system for system, _ in known.expand(GENDERS)} == {
                    "http://hl7.org/fhir/administrative-gender"
                }
                assert known.maps(SYSTEM) == []


def test_searches_within_a_patients_record_do_not_use_what_is_outside_it(filled: Any) -> None:
    assert filled.ids(f"Observation?code:in={SET}") == ["o"]
    limited = filled.permit_for(*filled.permit.grants, scope=("account", "patient:1"))
    assert filled.ids("Observation", permit=limited) == ["o"]
    with pytest.raises(CarelakeError) as caught:
        filled.ids(f"Observation?code:in={SET}", permit=limited)
    assert caught.value.code == "terminology.unknown_value_set"


def test_what_was_taken_apart_is_kept_by_its_content(filled: Any) -> None:
    def codes() -> list[str]:
        with filled.vault.database.reading(filled.permit) as tx:
            tree = terms(filled, tx).tree(SYSTEM)
            return [] if tree is None else list(tree.system.codes)

    assert codes() == codes() == ["newest", "x,y|z"]
    filled.clock.move(seconds=1)
    with filled.vault.database.transaction(filled.permit) as tx:
        filled.resources.update(filled.permit, tx, system("s3", "3", "changed"))
    assert codes() == ["changed"]
    with filled.vault.database.transaction(filled.permit) as tx:
        filled.resources.delete(filled.permit, tx, "CodeSystem", "s3")
    assert codes() == ["old"]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept = Systems(most_codes=5)
    shown = [Shown("CodeSystem", str(n), {**system(str(n), "1", "a", "b")}) for n in range(3)]
    first, _ = kept.read(shown[0]), kept.read(shown[1])
    assert kept.read(shown[1]) is kept.read(shown[1])
    kept.read(shown[2])
    assert kept.read(shown[0]) is not first
    large = Shown("CodeSystem", "l", system("l", "1", *"abcdefgh"))
    assert kept.read(large) is not kept.read(large)
