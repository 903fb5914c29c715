"""Consents hide patients in every way to their records, on both databases, from the write on that says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.store.conftest import Record
from tests.store.test_store_erase import erase

from carelake.access.consents import Withheld, withheld
from carelake.access.projection import counted
from carelake.core.errors import Gone, NotFound, Unavailable
from carelake.core.permit import Permit
from carelake.fhir.terminology import SHIPPED, LocalTerminology
from carelake.store.everything import Asked
from carelake.store.export import Wanted
from carelake.store.export_lines import Liner
from carelake.store.reproject import Consents
from carelake.store.write import parsed

TERMS = LocalTerminology(SHIPPED)

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
Json = dict[str, Any]


def consent(key: str, patient: str, says: str, *purposes: str, status: str = "active", **said: Any) -> Json:
    provision = {"type": says, **said}
    if purposes:
        provision["purpose"] = [{"system": REASON, "code": one} for one in purposes]
    return {
        "resourceType": "Consent",
        "id": key,
        "status": status,
        "scope": {"coding": [{"system": SCOPE, "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": {"text": "ours"},
        "provision": provision,
    }


def patient(key: str) -> Json:
    return {"resourceType": "Patient", "id": key, "name": [{"family": f"Name{key}"}], "birthDate": "1970-01-01"}


def observation(key: str, *patients: str, **said: Any) -> Json:
    told = {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "urn:s", "code": "a"}]},
        "subject": {"reference": f"Patient/{patients[0]}"},
        **said,
    }
    if len(patients) > 1:
        told["performer"] = [{"reference": f"Patient/{one}"} for one in patients[1:]]
    return told


def permit(record: Record, purpose: str = "TREAT", scope: str = "consent:out", **said: Any) -> Permit:
    return record.permit_for(
        *GRANTS, **{"scope": ("account", scope), "purpose": purpose, "action": "record:read", **said}
    )


@pytest.fixture
def held(record_on_each: Record) -> Record:
    record = record_on_each
    record.keep(
        *(patient(one) for one in ("p1", "p2", "p3")),
        observation("o1", "p1"),
        observation("o2", "p2"),
        observation("o3", "p3"),
        observation("both", "p1", "p2"),
        {"resourceType": "Practitioner", "id": "d1"},
    )
    return record


def seen(record: Record, told: Permit) -> set[str]:
    """What can be read and what is found, which must be the same."""
    found = set()
    for kind, key in [
        *(("Observation", key) for key in ("o1", "o2", "o3", "both")),
        *(("Patient", key) for key in ("p1", "p2", "p3")),
        ("Practitioner", "d1"),
    ]:
        try:
            found.add(record.resources.read(told, kind, key)["id"])
        except (NotFound, Gone):
            continue
    searched = {one for kind in ("Observation", "Patient", "Practitioner") for one in record.ids(kind, permit=told)}
    assert searched == found
    return found


EVERYTHING = {"o1", "o2", "o3", "both", "p1", "p2", "p3", "d1"}


def test_a_denial_hides_for_its_purpose_from_the_write_on(held: Record) -> None:
    assert seen(held, permit(held)) == EVERYTHING
    held.keep(consent("c1", "p1", "deny", "TREAT"))
    assert seen(held, permit(held)) == EVERYTHING - {"p1", "o1", "both"}
    assert seen(held, permit(held, "HOPERAT")) == EVERYTHING
    assert seen(held, held.permit_for(*GRANTS)) == EVERYTHING
    held.keep(consent("c1", "p1", "deny", "TREAT", status="inactive"))
    assert seen(held, permit(held)) == EVERYTHING


def test_a_permission_shows_where_one_is_asked_for(held: Record) -> None:
    assert seen(held, permit(held, "HRESCH", "consent:in")) == {"d1"}
    held.keep(consent("c2", "p2", "permit", "HRESCH"))
    assert seen(held, permit(held, "HRESCH", "consent:in")) == {"d1", "p2", "o2"}
    held.keep(consent("c1", "p1", "permit"))
    assert seen(held, permit(held, "HRESCH", "consent:in")) == {"d1", "p1", "p2", "o1", "o2", "both"}
    with held.vault.database.reading(held.permit) as tx:
        assert withheld(permit(held, "HRESCH", "consent:in"), tx) == Withheld(False, frozenset({"p1", "p2"}))


# -- no way round ----------------------------------------------------------------------------------------------------

PRACTITIONER = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Doc"}]}


def world(*patients: str) -> list[Json]:
    """A hospital with some patients; whatever is of several of them is of those who are there."""
    found = [PRACTITIONER]
    for one in patients:
        doctor = {"generalPractitioner": [{"reference": "Practitioner/d1"}]}
        found.append({"resourceType": "Patient", "id": one, "name": [{"family": f"Name{one}"}], **doctor})
        code = {"code": {"coding": [{"system": "urn:s", "code": f"only-{one}"}]}, "effectiveDateTime": "2026-01-01"}
        category = [{"coding": [{"system": "urn:c", "code": "lab"}]}]
        found.append(observation(f"o-{one}", one, category=category, **code))
        found.append(observation(f"x-{one}", one, category=category, effectiveDateTime="2026-01-02"))
    return found


QUESTIONS = [
    "Patient?_total=accurate",
    "Patient?_summary=count",
    "Patient?_id=p1,p2",
    "Patient?name=Namep1",
    "Patient?_has:Observation:subject:code=only-p1",
    "Patient?_revinclude=Observation:subject",
    "Patient?_sort=-name",
    "Observation?_summary=count",
    "Observation?_include=Observation:subject",
    "Observation?_include=*&_include:iterate=*",
    "Observation?_sort=-date&_count=2&_total=accurate",
    "Observation?code=only-p1",
    "Observation?code:not=a",
    "Observation?patient=p1",
    "Observation?subject:Patient.name=Namep1",
    "Observation?subject:Patient.general-practitioner.name=Doc",
    "Practitioner?_has:Patient:general-practitioner:name=Namep1",
    "Practitioner?_has:Patient:general-practitioner:_has:Observation:subject:code=only-p1",
    "Practitioner?_revinclude=Patient:general-practitioner&_revinclude:iterate=Observation:subject",
]


@pytest.mark.parametrize("opt_in", [False, True])
def test_every_question_is_answered_as_if_they_were_not_there(record_on_each: Record, opt_in: bool) -> None:
    record = record_on_each
    other = record.permit_for(*GRANTS, account="research")
    record.keep(*world("p1", "p2", "p3"))
    record.keep(*world("p2", "p3"), permit=other)
    if opt_in:
        record.keep(consent("c2", "p2", "permit"), consent("c3", "p3", "permit"))
        record.keep(consent("c2", "p2", "permit"), consent("c3", "p3", "permit"), permit=other)
    else:
        record.keep(consent("c1", "p1", "deny"))
    told = permit(record, scope="consent:in" if opt_in else "consent:out", action="record:search")
    for text in QUESTIONS:
        seen, expected = record.search(text, permit=told), record.search(text, permit=other)
        assert seen.total == expected.total, text
        for of in ("matches", "included"):
            listed = [[(one["resourceType"], one["id"]) for one in getattr(each, of)] for each in (seen, expected)]
            assert listed[0] == listed[1], text
    for key in ("o-p1", "x-p1"):
        with pytest.raises(NotFound):
            record.resources.read(told, "Observation", key)


def test_past_versions_and_lists_tell_nothing(held: Record) -> None:
    record, resources = held, held.resources
    record.keep(observation("o1", "p1", issued="2026-01-01T00:00:00Z"))
    record.keep(
        {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": [of("p1"), of("p2")]}
    )
    record.keep({"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": [of("p2")]})
    record.keep({"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "TmFtZXAx"})
    record.keep(consent("c1", "p1", "deny"))
    told = permit(record)
    for kind, key, version in (("Observation", "o1", "1"), ("Observation", "o1", "2"), ("Group", "g", "1")):
        with pytest.raises(NotFound):
            resources.vread(told, kind, key, version)
    assert resources.vread(told, "Group", "g", "2")["id"] == "g"
    for kind, key in (("Patient", "p1"), ("Observation", "o1"), ("Binary", "b")):
        with pytest.raises(NotFound):
            resources.history(told, kind, key)
    everything = [(one.type, one.id) for one in resources.history(told, count=100).versions]
    assert ("Observation", "o2") in everything
    assert not {("Observation", "o1"), ("Patient", "p1"), ("Consent", "c1"), ("Binary", "b")} & set(everything)
    assert resources.history(told, "Group", "g").total == 1
    assert resources.resources_of(told, "p1") == []
    assert resources.refs_of(told, ["p1"], ["Observation"]) == {"p1": []}
    assert {one.id for one in resources.changes(told, 0)} & {"p1", "o1", "c1", "both", "b"} == set()
    ref = resources.ref(record.permit, "Observation", "o1")
    assert resources.lineage(told, ref) is None
    assert resources.lineage(record.permit, ref) is not None
    with pytest.raises(NotFound):
        resources.operations.everything(told, Asked(kind="Patient", id="p1"))
    sought = {**patient("p1"), "id": "x"}
    assert "p1" in {one.patient.id for one in resources.operations.match(record.permit, sought)}
    assert "p1" not in {one.patient.id for one in resources.operations.match(told, sought)}


def of(key: str) -> Json:
    return {"entity": {"reference": f"Patient/{key}"}}


def test_an_export_has_what_may_leave(held: Record) -> None:
    held.keep(consent("c1", "p1", "deny", "HRESCH"))
    # To be looked at here, and not to be taken away.
    action = {
        "action": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentaction", "code": "use"}]}]
    }
    held.keep(consent("c2", "p2", "permit", "HRESCH", **action), consent("c3", "p3", "permit", "HRESCH"))
    found = {}
    for action_of in ("record:export", "record:search"):
        told = permit(held, "HRESCH", "consent:in", action=action_of)
        with held.vault.database.reading(told) as tx:
            chosen = held.resources.exports.select(told, tx, Wanted(("Observation", "Patient")), TERMS)
            lines = [held.resources.exports.lines(told, tx, one.seqs, Liner()) for one in chosen.lists]
            found[action_of] = sorted(
                json.loads(line)["id"] for each in lines for _, text in each for line in text.splitlines()
            )
    assert found == {"record:export": ["o3", "p3"], "record:search": ["o2", "o3", "p2", "p3"]}


# -- what is kept of them --------------------------------------------------------------------------------------------


def rows(record: Record, what: str = "*") -> list[tuple[Any, ...]]:
    return [
        row for name in ("access_consent", "access_consent_rule") for row in record.rows(f"SELECT {what} FROM {name}")
    ]


def test_a_page_a_bundle_and_a_deletion_are_projected(held: Record) -> None:
    held.keep(*(consent(f"c{n}", "p1" if n % 2 else "p2", "deny", "HRESCH") for n in range(20)))
    assert {row[0] for row in rows(held, "consent")} == {f"c{n}" for n in range(20)}
    with held.vault.database.transaction(held.permit) as tx:
        for n in range(20):
            if n % 2:
                held.resources.delete(held.permit, tx, "Consent", f"c{n}")
                assert f"c{n}" not in {row[0] for row in tx.exec_driver_sql("SELECT consent FROM access_consent")}
    assert seen(held, permit(held, "HRESCH")) == EVERYTHING - {"p2", "o2", "both"}
    held.keep(*(consent(f"c{n}", "p3", "deny", "HRESCH") for n in range(0, 20, 2)))
    assert seen(held, permit(held, "HRESCH")) == EVERYTHING - {"p3", "o3"}


def test_what_is_undone_was_never_projected(held: Record) -> None:
    def undone() -> None:
        with held.vault.database.transaction(held.permit) as tx:
            held.resources.keep(held.permit, tx, "landing:2", [parsed(consent("c1", "p1", "deny"))])
            assert tx.exec_driver_sql("SELECT count(*) FROM access_consent_rule").scalar_one() == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    assert rows(held) == []
    assert seen(held, permit(held)) == EVERYTHING


def test_who_is_erased_takes_the_rows_along(held: Record) -> None:
    kin = {"reference": "Patient/p1"}
    held.keep(consent("c1", "p1", "deny", "HRESCH"))
    held.keep(consent("c2", "p2", "permit", actor=[{"role": {"text": "kin"}, "reference": kin}]))
    held.keep(consent("moved", "p1", "deny", "HRESCH"))
    held.keep(consent("moved", "p3", "deny", "HRESCH"))
    erase(held, "p1")
    left = rows(held)
    assert left
    assert not any("p1" in str(value) for row in left for value in row)
    assert {row[0] for row in rows(held, "consent")} == {"c2", "moved"}
    assert seen(held, permit(held, "HRESCH")) - {"both"} == {"o2", "p2", "d1"}
    assert Consents(held.vault).verify(held.permit).same


def test_a_projection_is_compared_and_made_again(held: Record) -> None:
    held.keep(consent("c1", "p1", "deny"), consent("c2", "p2", "deny", status="draft"))
    whole, walker = sorted(map(str, rows(held))), Consents(held.vault)
    assert (walker.verify(held.permit).same, walker.verify(held.permit).consents) == (True, 2)
    with held.vault.database.transaction(held.permit) as tx:
        tx.exec_driver_sql("DELETE FROM access_consent_rule")
        tx.exec_driver_sql("UPDATE access_consent SET consent = 'stray' WHERE consent = 'c2'")
        tx.exec_driver_sql(
            f"{MARK} SELECT substr(space, 6), '', 0, '', 'x', 0, 0, 0 FROM symbol WHERE text = 'Consent'"
        )
    found = walker.verify(held.permit)
    assert (found.missing, found.extra) == (2, 1)
    for scope in ("consent:out", "consent:in"):
        with pytest.raises(Unavailable, match="--rebuild"):
            held.ids("Patient", permit=permit(held, scope=scope))
    assert not counted_in(held)["projected"]
    walker.rebuild(held.permit)
    assert sorted(map(str, rows(held))) == whole
    assert counted_in(held)["projected"]
    assert seen(held, permit(held)) == EVERYTHING - {"p1", "o1", "both"}


MARK = "INSERT INTO access_consent (account, consent, owner, patient, word, rules, widened, dropped)"


def counted_in(record: Record) -> Json:
    with record.vault.database.reading(record.permit) as tx:
        return counted(tx, "production")


def test_what_is_not_understood_is_counted(held: Record) -> None:
    code = {"code": [{"coding": [{"system": "http://loinc.org", "code": "1-1"}]}]}
    held.keep(
        consent("c1", "p1", "deny", "TREAT", **code),
        consent("c2", "p2", "permit", "HRESCH", **code),
        {**consent("c3", "p3", "permit"), "provision": {"period": {"start": "2026"}}},
        {name: value for name, value in consent("c4", "p1", "deny").items() if name != "patient"},
        consent("c5", "p1", "deny", status="draft"),
        consent("c6", "p3", "deny", "HMARKT"),
    )
    found = counted_in(held)
    assert (found["consents"], found["denials"], found["permissions"]) == (6, 1, 0)
    assert (found["widened"], found["dropped"], found["patients"]) == (1, 1, 1)
    assert {word: many for word, many in found["words"].items() if many} == {
        "rules": 3,
        "not active": 1,
        "unclear": 1,
        "no patient": 1,
    }
    assert seen(held, permit(held, "TREAT")) == EVERYTHING - {"p1", "o1", "both"}


def test_a_record_of_another_account_is_not_touched(held: Record) -> None:
    other = held.permit_for(*GRANTS, account="research")
    held.keep(*world("p1"), permit=other)
    held.keep(consent("c1", "p1", "deny"))
    theirs = permit(held, account="research")
    assert held.ids("Patient", permit=theirs) == ["p1"]
    held.keep(consent("c1", "p1", "deny"), permit=other)
    assert held.ids("Patient", permit=theirs) == []


def test_what_is_withheld_is_not_written_and_new_ids_are(held: Record) -> None:
    held.keep(consent("c1", "p1", "deny", "TREAT"))
    told = permit(held, action="record:write")

    def put(resource: Json, by: Permit = told) -> int:
        with held.vault.database.transaction(by) as tx:
            return held.resources.update(by, tx, resource).version

    assert put(patient("new")) == 1
    assert put(observation("o9", "p1")) == 1  # about whom one may not read of
    for resource in (patient("p1"), observation("o1", "p2"), observation("both", "p2"), observation("o9", "p2")):
        with pytest.raises(NotFound):
            put(resource)
    # Whose record it is may make it, and may not write over what it may not see.
    own = held.permit_for(*GRANTS, scope=("consent:out", "patient:p1"), purpose="TREAT", action="record:write")
    with pytest.raises(NotFound):
        put(patient("p1"), own)
    assert held.resources.read(held.permit_for(*GRANTS), "Patient", "p1")["meta"]["versionId"] == "1"
