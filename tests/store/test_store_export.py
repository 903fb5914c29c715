"""What a bulk export has, and its lines: spliced bytes mean what a parser would have made of them."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.conftest import GRANTS, Record

from carelake.core import canonical
from carelake.core.errors import Conflict, Corrupt, NotFound
from carelake.fhir.query import parse_text
from carelake.fhir.terminology import SHIPPED, LocalTerminology
from carelake.store.export import Wanted
from carelake.store.export_lines import Liner, spliced
from carelake.store.export_lists import pack_seqs, pieces, unpack_seqs
from carelake.store.jobs import Entry, Jobs

TERMS = LocalTerminology(SHIPPED)


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **more}


def observation(key: str, of: str, **more: Any) -> dict[str, Any]:
    told = {"status": "final", "code": {"text": "x"}, **more}
    return {"resourceType": "Observation", "id": key, "subject": {"reference": f"Patient/{of}"}, **told}


def exported(record: Record, wanted: Wanted, permit: Any = None) -> dict[bool, list[str]]:
    """Ids of resources, and of deletions."""
    exports, permit = record.resources.exports, permit or record.permit
    found: dict[bool, list[str]] = {False: [], True: []}
    with record.vault.database.reading(permit) as tx:
        for one in exports.select(permit, tx, wanted, TERMS).lists:
            if one.deleted:
                for _, text in exports.deletions(permit, tx, one.seqs):
                    bundles = [json.loads(line) for line in text.splitlines()]
                    found[True] += [bundle["entry"][0]["request"]["url"] for bundle in bundles]
            else:
                for count, text in exports.lines(permit, tx, one.seqs, Liner(), within=wanted.within):
                    lines = [json.loads(line) for line in text.splitlines()]
                    assert len(lines) == count
                    found[False] += [f"{line['resourceType']}/{line['id']}" for line in lines]
    return found


def test_it_is_of_one_moment_whatever_is_written_meanwhile(record_on_each: Record) -> None:
    record = record_on_each
    record.keep(*(patient(f"p{n}", gender="male") for n in range(5)))
    exports, permit = record.resources.exports, record.permit
    with record.vault.database.reading(permit) as tx:
        chosen = exports.select(permit, tx, Wanted(("Patient",)), TERMS)
    record.clock.move(seconds=1)
    record.keep(patient("p0", gender="female"), patient("new"), offsets=10)
    with record.vault.database.reading(permit) as tx:
        ((_, text),) = exports.lines(permit, tx, chosen.lists[0].seqs, Liner())
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["id"] for line in lines] == [f"p{n}" for n in range(5)]
    assert {line["gender"] for line in lines} == {"male"}
    assert all(line["meta"] == {"versionId": "1", "lastUpdated": "2026-01-02T03:04:05.000Z"} for line in lines)


def test_bounds_of_time_patients_and_filters(record_on_each: Record) -> None:
    record = record_on_each
    record.keep(patient("a", gender="male"), patient("b"), observation("oa", "a"), observation("ob", "b"))
    with record.vault.database.reading(record.permit) as tx:
        then = record.resources.exports.select(record.permit, tx, Wanted(("Patient",)), TERMS).updated
    record.clock.move(seconds=1)
    both = {"resourceType": "Appointment", "id": "ab", "status": "proposed"}
    both["participant"] = [{"actor": {"reference": f"Patient/{n}"}, "status": "accepted"} for n in "ab"]
    none = {"resourceType": "Observation", "id": "nobody", "status": "final", "code": {"text": "x"}}
    record.keep(both, none, observation("oa2", "a"), offsets=10)
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Observation", "ob")
    types = ("Appointment", "Observation", "Patient")
    assert exported(record, Wanted(types, since=then)) == {
        False: ["Appointment/ab", "Observation/nobody", "Observation/oa2"],
        True: ["Observation/ob"],
    }
    assert exported(record, Wanted(types, until=then))[False] == ["Observation/oa", "Patient/a", "Patient/b"]
    compartments = exported(record, Wanted((*types, "Practitioner"), within=True))[False]
    assert compartments == ["Appointment/ab", "Observation/oa", "Observation/oa2", "Patient/a", "Patient/b"]
    of_b = Wanted(types, since=then, within=True, patients=frozenset("b"))
    assert exported(record, of_b) == {False: ["Appointment/ab"], True: ["Observation/ob"]}
    males = Wanted(types, filters={"Patient": (parse_text("Patient?gender=male"), parse_text("Patient?_id=none"))})
    assert [one for one in exported(record, males)[False] if one.startswith("Patient")] == ["Patient/a"]


def test_the_scope_of_a_permit_holds(record_on_each: Record) -> None:
    record = record_on_each
    record.keep(patient("a"), patient("b"), observation("oa", "a"), observation("ob", "b"))
    with record.vault.database.transaction(record.permit) as tx:
        for key in ("oa", "ob"):
            record.resources.delete(record.permit, tx, "Observation", key)
    permit = record.permit_for(*GRANTS, scope=("patient:a",))
    wanted = Wanted(("Observation", "Patient"), since=0)
    assert exported(record, wanted, permit) == {False: ["Patient/a"], True: ["Observation/oa"]}
    assert exported(record, wanted, record.permit_for(*GRANTS, account="research")) == {False: [], True: []}


def test_what_was_erased_since_is_left_out(record: Record) -> None:
    record.keep(patient("a"), patient("b"))
    permit = record.permit_for(*GRANTS, "rows:erase")
    with record.vault.database.transaction(permit) as tx:
        record.vault.sealer.forget(permit, tx, "a")
    assert exported(record, Wanted(("Patient",)))[False] == ["Patient/b"]


JSON = st.recursive(
    st.text(alphabet='a{}"\\:,[]\n', max_size=6) | st.integers(0, 9),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "meta", "a{"]), inner, max_size=2)
    ),
    max_leaves=6,
)
META = st.dictionaries(
    st.sampled_from(["extension", "id", "profile", "tag", "versionId", "lastUpdated", "zone"]), JSON, max_size=4
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["aa", "name", "zz", "text"]), JSON, max_size=3), st.none() | META)
def test_splicing_is_what_parsing_gives(rest: dict[str, Any], meta: dict[str, Any] | None) -> None:
    if any(_nests(value) for value in (*rest.values(), *(meta or {}).values())):
        return  # a resource within has its own meta: FHIR has such in contained alone, which is parsed
    resource = {"resourceType": "Patient", "id": "a", **rest, **({} if meta is None else {"meta": meta})}
    line = spliced("Patient", canonical.dump(resource), 7, b"2026-01-01T00:00:00.000Z", {})
    told = {**(meta or {}), "versionId": "7", "lastUpdated": "2026-01-01T00:00:00.000Z"}
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert canonical.load(line) == {**resource, "meta": told}


def _nests(value: Any) -> bool:
    if isinstance(value, dict):
        return "meta" in value or any(map(_nests, value.values()))
    return isinstance(value, list) and any(map(_nests, value))


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Patient", "contained": [{"resourceType": "Patient", "meta": {"versionId": "1"}}]},
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient", "meta": {"versionId": "1"}}}]},
        {"resourceType": "Patient", "meta": {"extension": [{"url": "a", "extension": [{"url": "b"}]}]}},
    ],
)
def test_resources_within_keep_their_own_meta(resource: dict[str, Any]) -> None:
    line = spliced(resource["resourceType"], canonical.dump(resource), 7, b"2026", {})
    meta = {**resource.get("meta", {}), "versionId": "7", "lastUpdated": "2026"}
    assert canonical.load(line) == {**resource, "meta": meta}


@given(st.lists(st.integers(1, 2**62), unique=True).map(sorted))
def test_lists_come_back(seqs: list[int]) -> None:
    assert list(unpack_seqs(pack_seqs(seqs))) == seqs
    assert [one for piece in pieces(array("q", seqs), 3) for one in piece] == seqs


def test_a_damaged_list_is_told() -> None:
    with pytest.raises(Corrupt):
        unpack_seqs(b"nonsense")


def test_jobs_are_held_given_back_and_dropped(record_on_each: Record) -> None:
    record = record_on_each
    jobs, permit = Jobs(record.vault), record.permit
    database = record.vault.database
    with database.transaction(permit) as tx:
        job = jobs.begin(permit, tx, "export", {"types": ["Patient"]})
        jobs.plan(permit, tx, job, [Entry("output", "Patient", b"x", 3, "a.ndjson")], seq=9, updated=1)
    with database.transaction(permit) as tx, pytest.raises(Conflict, match="Another process"):
        jobs.claim(permit, tx, job)
    with database.reading(permit) as tx:
        assert jobs.waiting(tx, ("export",)) == []
    with database.transaction(permit) as tx:
        jobs.release(tx, job)
    with database.transaction(permit) as tx:
        (waiting,) = jobs.waiting(tx, ("export",))
        found = jobs.claim(permit, tx, waiting.id)
        jobs.advance(tx, job, 1, done=True, lines=3)
        jobs.end(tx, job, seconds=60)
    assert (found.asked, found.seq) == ({"types": ["Patient"]}, 9)
    stranger = record.permit_for(*GRANTS, principal="stranger")
    with database.reading(stranger) as tx, pytest.raises(NotFound):
        jobs.get(stranger, tx, job)
    record.clock.move(seconds=61)
    with database.transaction(permit) as tx:
        assert [one.over for one in jobs.waiting(tx, ("export",))] == [True]
        jobs.sweep(permit, tx)
        assert jobs.parts(tx, job) == []
        with pytest.raises(NotFound):
            jobs.get(permit, tx, job)
        with pytest.raises(Conflict, match="cancelled"):
            jobs.hold(tx, job)
