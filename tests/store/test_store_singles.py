"""Writes of several callers kept as one page: as if each had been alone, accounted for each, and failing alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.store.conftest import GRANTS

from carelake.audit.acts import ActDraft, ActHeader
from carelake.core.errors import Conflict, Invalid, Refused
from carelake.core.permit import Permit
from carelake.store import Written
from carelake.vault.groups import ALONE, Work


class Callers:
    """Callers with a log of their own each, and their writes as groups do them."""

    def __init__(self, record: Any) -> None:
        self.record = record
        self.made = 0

    def permit(self, grants: Sequence[str] = GRANTS, **other: Any) -> Permit:
        self.made += 1
        act = f"{self.made:032x}"
        header = ActHeader(act, "tester", other.get("account", "production"), "TREAT", "test:act", "test")
        permit: Permit = self.record.permit_for(
            *grants, act=act, log=ActDraft(header, self.record.clock, job=False), **other
        )
        return permit

    def work(self, resource: dict[str, Any], expect: Any = None, **other: Any) -> Work[Written]:
        record, permit = self.record.resources, self.permit(**other)
        item = record.single(permit, resource, expect=expect)

        def alone(tx: Any) -> Written:
            if expect is None:
                return record.create(permit, tx, resource, valid=True)  # type: ignore[no-any-return]
            expect(record.version(permit, tx, resource["resourceType"], resource["id"]))
            return record.update(permit, tx, resource, valid=True)  # type: ignore[no-any-return]

        return Work(alone, permit.log.flush, record.singles.put if item is not None else None, item)

    def run(self, *works: Work[Any]) -> list[Any]:
        found: list[Any] = self.record.vault.database.grouped_all(works)
        return found

    def acts(self) -> dict[str, str]:
        """Correlation -> facts; of each act there is one row."""
        rows = self.record.rows("SELECT correlation, facts FROM act ORDER BY seq")
        assert len({one for one, _ in rows}) == len(rows)
        return dict(rows)


@pytest.fixture
def callers(record: Any) -> Callers:
    return Callers(record)


@pytest.fixture
def callers_on_each(record_on_each: Any) -> Callers:
    return Callers(record_on_each)


def whatever(_version: int) -> None:
    pass


def at(version: int) -> Callable[[int], None]:
    def check(now: int) -> None:
        if now != version:
            raise Conflict("test.version", "It is at another version.")

    return check


def patient(key: str = "x", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def pulse(key: str, of: str, value: int = 60) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": f"Patient/{of}"},
        "valueQuantity": {"value": value, "unit": "/min"},
    }


def pages(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the pages that are asked for from here on, of what each kept."""
    sizes: list[int] = []
    writer = callers.record.resources._writer
    keep = writer.keep_each

    def counted(tx: Any, permits: Sequence[Permit], *more: Any) -> Any:
        sizes.append(len(permits))
        return keep(tx, permits, *more)

    monkeypatch.setattr(writer, "keep_each", counted)
    return sizes


def test_a_page_is_what_each_would_have_been(callers_on_each: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    callers, record = callers_on_each, callers_on_each.record
    record.keep(patient("a"), patient("b"), patient("same", gender="male"), landing="")
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Patient", "b")
    sizes = pages(callers, monkeypatch)
    works = [
        callers.work(patient(name=[{"family": "New"}])),
        callers.work(patient("a", active=True), whatever),
        callers.work(patient("b", active=True), whatever),
        callers.work(patient("same", gender="male"), whatever),
        callers.work(patient("mine"), whatever),
        callers.work(pulse("x", "a", 71)),
        callers.work({"resourceType": "Basic", "code": {"text": "of a type that was not there"}}),
    ]
    new, a, b, same, mine, value, basic = found = callers.run(*works)
    assert sizes == [len(works)]
    assert [(one.version, one.created, one.changed) for one in found] == [
        (1, True, True),
        (2, False, True),
        (3, True, True),
        (1, False, False),
        (1, True, True),
        (1, True, True),
        (1, True, True),
    ]
    for one in found:
        assert record.resources.read(record.permit, one.type, one.id) == one.resource
    assert len({one.ref for one in found}) == len(found)
    assert record.ids("Patient?family=new") == [new.id]
    assert set(record.ids("Patient?active=true")) == {a.id, b.id}
    assert record.ids("Observation?value-quantity=71&subject=Patient/a") == [value.id]
    assert record.ids("Basic") == [basic.id]
    assert [one.version for one in record.resources.history(record.permit, "Patient", "a").versions] == [2, 1]
    assert record.resources.verify_index(record.permit).differences == []
    assert (mine.id, same.id) == ("mine", "same")


def test_each_has_its_own_act(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    callers.record.keep(patient("same"), landing="")
    sizes = pages(callers, monkeypatch)
    works = [callers.work(patient()), callers.work(pulse("x", "p")), callers.work(patient("same"), whatever)]
    new, value, same = callers.run(*works)
    assert sizes == [3]
    acts = callers.acts()
    told = [acts[work.item.permit.act] for work in works]
    assert new.ref in told[0]
    assert '"counts":{"stored":1,"unchanged":0}' in told[0]
    assert value.ref in told[1]
    assert new.ref not in told[1]
    assert '"counts":{"stored":0,"unchanged":1}' in told[2]
    assert same.ref not in told[2]
    assert all('"keys":["production/patient/v1","production/reference/v1"]' in one for one in told)
    assert all(one.count("patient:") == 1 for one in told)
    versions = callers.record.rows("SELECT act FROM resource_version ORDER BY seq")[1:]
    assert versions == [(works[0].item.permit.act,), (works[1].item.permit.act,)]


def test_one_that_is_too_late_fails_alone(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    callers.record.keep(patient("a"), patient("b"), landing="")
    sizes = pages(callers, monkeypatch)
    works = [
        callers.work(patient("a", active=True), at(1)),
        callers.work(patient("b", active=True), at(7)),
        callers.work(patient("c"), at(0)),
    ]
    a, b, c = callers.run(*works)
    assert (a.version, c.version) == (2, 1)
    assert isinstance(b, Conflict)
    assert sizes == [2]
    assert works[1].item.permit.act not in callers.acts()


def test_two_of_one_id_are_two_versions(callers: Callers) -> None:
    callers.record.keep(patient("a"), landing="")
    first, second, other = callers.run(
        callers.work(patient("a", active=True), whatever),
        callers.work(patient("a", active=False), whatever),
        callers.work(patient("b"), whatever),
    )
    assert sorted((first.version, second.version)) == [2, 3]
    assert other.version == 1
    assert callers.record.resources.read(callers.record.permit, "Patient", "a") == second.resource
    assert callers.record.resources.verify_index(callers.record.permit).differences == []


def test_what_fails_in_the_page_is_found_out_alone(callers_on_each: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    callers = callers_on_each
    sizes = pages(callers, monkeypatch)
    works = [
        callers.work(patient(name=[{"family": "One"}])),
        callers.work(patient(), grants=GRANTS[:-1]),  # which is found out once a key is asked for
        callers.work({"resourceType": "Basic", "code": {"text": "x"}}),
    ]
    one, failed, other = callers.run(*works)
    assert sizes == [3]
    assert isinstance(failed, Refused)
    assert (one.version, other.version) == (1, 1)
    acts = callers.acts()
    assert '"counts":{"stored":1,"unchanged":0}' in acts[works[0].item.permit.act]
    assert acts[works[0].item.permit.act].count("resource:") == 1
    assert works[1].item.permit.act not in acts
    record = callers.record
    assert len(record.resources.history(record.permit).versions) == 2
    assert record.ids("Patient?family=one") == [one.id]
    assert record.resources.verify_index(record.permit).differences == []


def test_other_sights_and_accounts_are_not_in_the_page(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    record = callers.record
    record.keep(patient("p"), patient("q"), landing="")
    bounded = callers.permit(scope=("patient:p",), action="record:write")
    assert record.resources.single(bounded, patient("p"), expect=whatever) is None

    def mine(tx: Any) -> Written:
        made: Written = record.resources.update(bounded, tx, patient("p", active=True), valid=True)
        return made

    sizes = pages(callers, monkeypatch)
    found = callers.run(
        callers.work(patient()),
        callers.work(patient("r"), whatever, account="research"),
        callers.work(patient("q"), whatever),
        record.vault.database.work(bounded, mine),
    )
    assert [one.version for one in found] == [1, 1, 1, 2]
    assert sizes == [2]
    # Each account has its own.
    kinds = record.rows("SELECT DISTINCT s.space FROM resource r JOIN symbol s ON s.key = r.kind ORDER BY 1")
    assert kinds == [("kind:production",), ("kind:research",)]
    asked = record.resources.single(callers.permit(), patient(), expect=None)
    item = asked._replace(permit=bounded)
    with record.vault.database.transaction(record.permit) as tx:
        assert record.resources.singles.put(tx, [asked, item])[1] is ALONE


def test_keys_and_symbols_of_a_page_that_was_undone_are_made_anew(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = callers.record
    keep = record.resources._writer.keep_each

    def breaks(*told: Any) -> Any:
        keep(*told)
        raise Invalid("test.fails", "It fails when all is written.")

    with monkeypatch.context() as patched:
        patched.setattr(record.resources._writer, "keep_each", breaks)
        first, second = callers.run(
            callers.work(patient("a", identifier=[{"system": "urn:new", "value": "1"}]), whatever),
            callers.work(pulse("x", "a")),
        )
    assert (first.version, second.version) == (1, 1)
    (third, fourth) = callers.run(callers.work(pulse("x", "a")), callers.work(patient("a", active=True), whatever))
    assert (third.version, fourth.version) == (1, 2)
    assert record.ids("Patient?identifier=urn:new|1") == []  # replaced
    assert len(record.ids("Observation?subject=Patient/a")) == 2
    assert record.resources.verify_index(record.permit).differences == []
    assert len(callers.acts()) == 4


def test_many_callers_at_once(callers: Callers) -> None:
    """Counting up by threads that retry: no update is lost, and no version has a hole."""
    record = callers.record
    record.keep(*(patient(key, multipleBirthInteger=0) for key in "abc"), landing="")
    done: list[int] = []
    lock = threading.Lock()

    def count(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            keys = rng.sample("abc", 2)
            with lock:
                now = [record.resources.read(record.permit, "Patient", key) for key in keys]
                works = [
                    callers.work(
                        {**one, "multipleBirthInteger": one["multipleBirthInteger"] + 1},
                        at(int(one["meta"]["versionId"])),
                    )
                    for one in now
                ]
            found = callers.run(*works, callers.work(patient()))
            with lock:
                done.extend(1 for one in found[:2] if isinstance(one, Written))

    threads = [threading.Thread(target=count, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    total = 0
    for key in "abc":
        versions = record.resources.history(record.permit, "Patient", key, count=200).versions
        assert [one.version for one in versions] == list(range(len(versions), 0, -1))
        total += record.resources.read(record.permit, "Patient", key)["multipleBirthInteger"]
        assert len(versions) == 1 + record.resources.read(record.permit, "Patient", key)["multipleBirthInteger"]
    assert total == len(done)
    seqs = [one.seq for one in record.resources.changes(record.permit, 0, 2000)]
    assert seqs == list(range(1, len(seqs) + 1))
