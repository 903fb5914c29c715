"""Taking patients out of the record, on each database: rows, numbers, texts, and what belongs to others."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.store.conftest import Record

from carelake.core.errors import NotFound
from carelake.fhir.gone import Gone
from carelake.store import Resources
from carelake.store.erase import Taken

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write", "rows:erase")


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "identifier": [{"system": "urn:mrn", "value": f"M-{key}"}], **more}


def seen(key: str, of: str | None, display: str = "weight", **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "urn:test", "code": display, "display": display}]}
    subject = {"subject": {"reference": f"Patient/{of}"}} if of else {}
    return {"resourceType": "Observation", "id": key, "status": "final", "code": code, **subject, **more}


def group(*members: str, **more: Any) -> dict[str, Any]:
    told = [{"entity": {"reference": f"Patient/{one}"}} for one in members]
    return {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": told, **more}


def erase(record: Record, *patients: str) -> tuple[Taken, Gone]:
    """As `pipelines.erase` does it, in one go."""
    permit, eraser = record.permit_for(*GRANTS), record.resources.eraser
    with record.vault.database.transaction(permit) as tx:
        survey = eraser.survey(permit, tx, patients)
        taken = eraser.take_out(permit, tx, patients, survey)
        for one in patients:
            record.vault.sealer.forget(permit, tx, one)
    gone = Gone(taken.resources, taken.identifiers)
    binaries = set(taken.binaries)
    found, _ = eraser.mentions(permit, gone, binaries)
    with record.vault.database.transaction(permit) as tx:
        eraser.rewrite(permit, tx, found, gone, taken)
        eraser.drop(permit, tx, binaries, taken)
        eraser.drop_shown(permit, tx, taken.shown)
    assert eraser.mentions(permit, gone, set()) == ([], eraser.mentions(permit, gone, set())[1])
    with record.vault.database.reading(permit) as tx:
        assert not any(eraser.residue(permit, tx, patients, gone).values())
    return taken, gone


def everything(record: Record) -> str:
    names = ("symbol", "resource", "resource_version", "display", "patient_key")
    names += tuple(f"ix_{one}" for one in ("owner", "token", "string", "date", "reference", "uri", "word", "part"))
    return "\n".join(str(row) for name in names for row in record.rows(f"SELECT * FROM {name}"))


def test_nothing_is_left_of_one_and_all_of_the_other(record_on_each: Record) -> None:
    record = record_on_each
    record.keep(patient("one-a"), patient("two-b"), seen("o1", "one-a", "alone"), seen("o2", "two-b"))
    record.keep(patient("one-a", birthDate="1911-11-11"), seen("o3", "one-a"))
    record.keep(group("one-a", "two-b"))
    record.keep(group("one-a", "two-b", active=True))
    taken, _ = erase(record, "one-a")
    assert taken.counts["versions"] == 4
    assert taken.counts["rewritten"] == 2
    left = everything(record)
    for word in ("one-a", "'o1'", "'o3'", "alone", "1911"):
        assert word not in left, word
    assert record.ids("Observation?code:text=weight") == ["o2"]
    assert record.ids("Group?member=Patient/two-b") == ["g"]
    assert record.resources.read(record.permit, "Group", "g")["member"] == [
        {"entity": {"reference": "Patient/two-b"}}
    ]
    first = record.resources.vread(record.permit, "Group", "g", "1")
    assert len(first["member"]) == 1
    with pytest.raises(NotFound):
        record.resources.read(record.permit, "Observation", "o1")
    assert record.resources.verify_index(record.permit).differences == []


def test_other_processes_do_not_use_what_went(record_on_each: Record) -> None:
    record = record_on_each
    record.keep(patient("p"), seen("o", "p", "rare"))
    other = Resources(record.vault)
    assert other.read(record.permit, "Observation", "o")
    with record.vault.database.transaction(record.permit) as tx:
        other.update(record.permit, tx, seen("x", "p", "rare"))  # it remembers the patient's number and the text
    erase(record, "p")
    with record.vault.database.transaction(record.permit) as tx:
        other.update(record.permit, tx, patient("p"))
        other.update(record.permit, tx, seen("o", "p", "rare"))
    for resources in (other, record.resources, Resources(record.vault)):
        assert resources.read(record.permit, "Observation", "o")["subject"] == {"reference": "Patient/p"}
    assert record.ids("Observation?code:text=rare") == ["o"]
    assert record.ids("Observation?patient=p") == ["o"]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a"), ("a", "b", "a"), ("b", "a", "b")])
def test_a_resource_that_was_anothers_too(record: Record, order: tuple[str, ...]) -> None:
    """The versions of the other stay, and none of them is made current again where it had been moved away."""
    record.keep(patient("a"), patient("b"))
    for number, owner in enumerate(order):
        record.keep(seen("o", owner, valueInteger=number))
    taken, _ = erase(record, "a")
    # What follows another version than before is told to the lake.
    assert bool(taken.relinked) == (order != ("b", "a"))
    for number, owner in enumerate(order):
        if owner == "b":
            told = record.resources.vread(record.permit, "Observation", "o", str(number + 1))
            assert told["valueInteger"] == number
        else:
            with pytest.raises(NotFound):
                record.resources.vread(record.permit, "Observation", "o", str(number + 1))
    assert record.ids("Observation?_id=o") == (["o"] if order[-1] == "b" else [])
    record.keep(seen("o", "b", valueInteger=9))
    assert record.resources.read(record.permit, "Observation", "o")["valueInteger"] == 9
    assert record.resources.verify_index(record.permit).differences == []


def test_what_is_only_about_them_goes_with_them(record: Record) -> None:
    target = {"resourceType": "Provenance", "recorded": "2020-01-01T00:00:00Z", "agent": [{"who": {"display": "x"}}]}
    picture = {"resourceType": "Binary", "contentType": "text/plain", "data": "eHg="}
    note = {"resourceType": "DocumentReference", "status": "current"}
    content = [{"attachment": {"url": "Binary/b1"}}, {"attachment": {"url": "Binary/b2"}}]
    record.keep(patient("p"), patient("q"), seen("o", "p"), {**picture, "id": "b1"}, {**picture, "id": "b2"})
    record.keep(
        {**note, "id": "d1", "subject": {"reference": "Patient/p"}, "content": content},
        {**note, "id": "d2", "subject": {"reference": "Patient/q"}, "content": content[1:]},
        {**target, "id": "v1", "target": [{"reference": "Observation/o"}]},
        {**target, "id": "v2", "target": [{"reference": "Observation/o"}, {"reference": "Patient/q"}]},
    )
    erase(record, "p")
    left = {f"{row[0]}" for row in record.rows("SELECT id FROM resource")}
    assert left == {"q", "b2", "d2", "v2"}


def test_bodies_that_are_large_are_read_too(record_on_each: Record) -> None:
    record = record_on_each
    noise = random.Random(1).randbytes(150_000).hex()
    long = [{"url": "http://test", "valueString": noise}]
    record.keep(patient("p"), patient("q"), seen("o", "p", note=[{"text": noise}]), seen("o2", "q"))
    record.keep(group("p", "q", extension=long))
    record.keep(group("p", "q", extension=long, active=True))
    taken, _ = erase(record, "p")
    assert (taken.counts["versions"], taken.counts["rewritten"]) == (2, 2)
    assert record.resources.read(record.permit, "Group", "g")["extension"] == long
    assert len(record.resources.vread(record.permit, "Group", "g", "1")["member"]) == 1
    assert {row[0] for row in record.rows("SELECT id FROM resource")} == {"q", "o2", "g"}


def test_short_ids_hit_nobody_else(record: Record) -> None:
    record.keep(patient("1"), patient("11"), seen("1", "11"), seen("2", "1"))
    record.keep(seen("3", "11", note=[{"text": "see http://elsewhere/fhir/Patient/1 and Patient/1x"}]))
    before = record.resources.read(record.permit, "Observation", "3")
    erase(record, "1")
    assert record.resources.read(record.permit, "Observation", "3") == before
    assert record.resources.read(record.permit, "Observation", "1")["subject"] == {"reference": "Patient/11"}
