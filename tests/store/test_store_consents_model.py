"""Any consents, written, changed and deleted: what is seen is what the JSON says, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.conftest import Record
from tests.store.consent_oracle import ACT, ACTION, REASON, SCOPE, TYPES, Question, dated, shows

from carelake.access.consents import resolved, withheld
from carelake.core.clock import instant
from carelake.core.settings import ConsentSettings
from carelake.store.reproject import Consents

GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
PATIENTS = ("p1", "p2", "p3")
ACTORS = {
    "Organization/us": "*",
    "Practitioner/ann": "ann",
    "Practitioner/bob": "bob",
    "urn:roles:nurse": "role:nurse",
}
Json = dict[str, Any]

days = st.integers(2, 28)


def some(values: list[str], most: int = 2) -> Any:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


periods = st.fixed_dictionaries({}, optional={"start": days.map(dated), "end": days.map(dated)}).filter(bool)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "period": periods,
        "purpose": some(["HRESCH", "TREAT", "CLINTRCH", "HMARKT", "PurposeOfUse", "BOGUS"]).map(
            lambda codes: [{"system": REASON, "code": code} for code in codes]
        ),
        "class": some(["Observation", "Patient", "Encounter", "Strange"]).map(
            lambda codes: [{"system": TYPES, "code": code} for code in codes]
        ),
        "action": some(["access", "use", "disclose", "collect", "correct", "shred"]).map(
            lambda codes: [{"coding": [{"system": ACTION, "code": code}]} for code in codes]
        ),
        "actor": some([*ACTORS, "Practitioner/stranger"]).map(
            lambda names: [{"role": {"text": "r"}, "reference": {"reference": name}} for name in names]
        ),
        "code": st.just([{"coding": [{"system": "http://loinc.org", "code": "1-1"}]}]),
    },
)
types = st.sampled_from(["deny", "permit"])
leaves = st.builds(lambda told, type_: {**told, "type": type_}, conditions, types)
nested = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda told, more: {**told, **({"provision": more} if more else {})}, leaves, st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)
roots = st.builds(
    lambda root, typed: root if typed else {name: value for name, value in root.items() if name != "type"},
    nested,
    st.sampled_from([True, True, False]),
)


def made(key: str, patient: str, status: str, scope: str, policy: str, provision: Json) -> Json:
    coding = {"coding": [{"system": ACT, "code": policy}]} if policy else {"text": "ours"}
    return {
        "resourceType": "Consent",
        "id": key,
        "status": status,
        "scope": {"coding": [{"system": SCOPE, "code": scope}]},
        "category": [{"text": "any"}],
        "patient": {"reference": f"Patient/{patient}"},
        "policyRule": coding,
        **({"provision": provision} if provision else {}),
    }


consents = st.builds(
    made,
    st.sampled_from(["c1", "c2", "c3"]),
    st.sampled_from(PATIENTS),
    st.sampled_from(["active", "active", "active", "inactive", "draft"]),
    st.sampled_from(["patient-privacy", "patient-privacy", "research", "treatment", "other"]),
    st.sampled_from(["", "", "OPTIN", "OPTOUT"]),
    roots,
)
steps = st.lists(st.one_of(consents, consents, st.sampled_from(["c1", "c2", "c3"])), min_size=1, max_size=5)
questions = st.lists(
    st.tuples(
        st.sampled_from(["TREAT", "HRESCH", "HPAYMT"]),
        st.sampled_from(["record:search", "record:export"]),
        st.sampled_from([("ann", "*"), ("bob", "role:nurse", "*"), ("nobody", "*")]),
        st.booleans(),
        st.integers(1, 29),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture
def filled(record_on_each: Record) -> Record:
    record_on_each.permit = record_on_each.permit_for(*GRANTS, expires=instant("2030-01-01T00:00:00Z"))
    for one in PATIENTS:
        record_on_each.keep({"resourceType": "Patient", "id": one})
        for kind, more in (("Observation", {"code": {"text": "x"}}), ("Encounter", {"class": {"code": "AMB"}})):
            status = "final" if kind == "Observation" else "finished"
            subject = {"subject": {"reference": f"Patient/{one}"}}
            record_on_each.keep({"resourceType": kind, "id": one, "status": status, **subject, **more})
    return record_on_each


_many = settings(
    max_examples=35, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(steps=steps, asked=questions)
@_many
def test_what_is_seen_is_what_the_consents_say(filled: Record, steps: list[Any], asked: list[Any]) -> None:
    record, held = filled, dict[str, Json]()
    write(record, held, *("c1", "c2", "c3"), *steps)
    for purpose, action, names, opt_in, day in asked:
        record.clock.at = instant(f"{dated(day)}T12:00:00Z")
        told = ConsentSettings(opt_in=(purpose,) if opt_in else (), actors=ACTORS)
        scope = resolved(told, ("account", "consent"), purpose, names)
        permit = record.permit_for(*GRANTS, scope=scope, purpose=purpose, action=action)
        mine = frozenset(actor for actor, name in ACTORS.items() if name in names)
        mode = "disclose" if action == "record:export" else "access"
        hidden = set[str]()
        for kind in ("Patient", "Observation", "Encounter"):
            question = Question(purpose, mode, mine, frozenset(ACTORS), kind, day)
            seen = {
                one
                for one in PATIENTS
                if shows(
                    [c for c in held.values() if c["patient"]["reference"] == f"Patient/{one}"],
                    question,
                    default=not opt_in,
                )
            }
            hidden |= set(PATIENTS) - seen
            assert set(record.ids(kind, permit=permit)) == seen, (kind, question, held)
            with record.vault.database.reading(permit) as tx:
                lake = withheld(permit, tx, kind)
                everything = withheld(permit, tx)
            assert {one for one in PATIENTS if lake.shows(one)} == seen, (kind, question, held)
            assert {one for one in PATIENTS if everything.shows(one)} <= seen
    with record.vault.database.reading(record.permit):
        assert Consents(record.vault).verify(record.permit).same


def write(record: Record, held: dict[str, Json], *steps: Any) -> None:
    """Keep Consents; a step that is an id deletes that one."""
    for step in steps:
        if isinstance(step, dict):
            record.keep(step)
            held[step["id"]] = step
        else:
            with record.vault.database.transaction(record.permit) as tx:
                record.resources.delete(record.permit, tx, "Consent", step)
            held.pop(step, None)
