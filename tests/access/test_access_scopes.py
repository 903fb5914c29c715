"""SMART scopes are read exactly or not at all, and what they leave is never more than there was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.access.narrowed import (
    NEEDS,
    checked_scopes,
    granted,
    left_of,
    read_grant,
    shown,
    wanted,
)
from carelake.access.policy import Decision
from carelake.access.scopes import LETTERS, Scope, common, read_scopes
from carelake.core.errors import Invalid
from carelake.fhir.definitions import resource_types

LAB = "http://terminology.hl7.org/CodeSystem/observation-category|laboratory"
ALLOWED = Decision(True, ("it is permitted",), ("account",), ("base.cedar#0",))


@pytest.mark.parametrize(
    ("said", "level", "kind", "letters", "query"),
    [
        ("patient/Observation.read", "patient", "Observation", "rs", ""),
        ("user/*.*", "user", "*", "cruds", ""),
        ("system/*.write", "system", "*", "cud", ""),
        ("patient/Observation.rs", "patient", "Observation", "rs", ""),
        ("system/Patient.cruds", "system", "Patient", "cruds", ""),
        ("user/Patient.d", "user", "Patient", "d", ""),
        (f"patient/Observation.rs?category={LAB}", "patient", "Observation", "rs", f"category={LAB}"),
        ("patient/Observation.s?status=final&code=a,b", "patient", "Observation", "s", "code=a%2Cb&status=final"),
        ("user/Observation.r?_id=1&date=ge2020", "user", "Observation", "r", "_id=1&date=ge2020"),
    ],
)
def test_scopes_of_both_versions(said: str, level: str, kind: str, letters: str, query: str) -> None:
    (one,) = read_scopes(said).resources
    assert (one.level, one.type, one.letters, one.query, one.said) == (level, kind, letters, query, said)


@pytest.mark.parametrize(
    "said",
    [
        "patient/Observation",
        "patient/Observation.",
        "patient/Observation.sr",
        "patient/Observation.rr",
        "patient/Observation.rx",
        "patient/Observation.RS",
        "patient/Observation.Read",
        "patient/Observation.reads",
        "Patient/Observation.rs",
        "patients/Observation.rs",
        "patient//Observation.rs",
        "/Observation.rs",
        "patient/observation.rs",
        "patient/Obs.rs",
        "patient/Resource.rs",
        "patient/DomainResource.rs",
        "patient/**.rs",
        "patient/*.rs?code=a",
        "patient/*.rs.rs",
        "patient/Observation.read?code=a",
        "patient/Observation.*?code=a",
        "patient/Observation.rs?",
        "patient/Observation.rs?code",
        "patient/Observation.rs?code=",
        "patient/Observation.rs?=a",
        "patient/Observation.rs?colour=a",
        "patient/Observation.rs?code:not=a",
        "patient/Observation.rs?code:missing=true",
        "patient/Observation.rs?code:in=http://v.test/one",
        "patient/Observation.rs?subject:Patient.gender=male",
        "patient/Observation.rs?subject.gender=male",
        "patient/Observation.rs?_has:Observation:has-member:code=a",
        "patient/Observation.rs?_list=1",
        "patient/Observation.rs?_text=a",
        "patient/Observation.rs?_include=Observation:subject",
        "patient/Observation.rs?_count=1",
        "patient/Observation.rs?_elements=id",
        "patient/Observation.rs?_type=Patient",
        "patient/Observation.rs?code=a&code:not=b",
        "patient/Observation.rs?code=a#b&code:x=c",
        "patient/Observation.rs?code=%ff",
        "patient/Observation.rs?code=a%00",
        "patient/Observation.rs?value-quantity=5",
        "launch/practitioner",
        "fhiruser",
    ],
)
def test_what_is_not_exactly_a_scope_is_none(said: str) -> None:
    found = read_scopes(f"openid {said}")
    assert found.resources == ()
    assert found.unknown == (said,)
    assert granted(found.resources, "p1") == ()


@pytest.mark.parametrize(
    "text", ["a" * 9000, " ".join(f"a{n}" for n in range(201)), "a\tb", 'a"b', "a\\b", "ä", "a\nb"]
)
def test_what_is_no_list_of_scopes_is_an_error(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_scopes(text)
    assert caught.value.code == "access.scope"


def test_a_patients_scopes_are_nothing_without_a_patient() -> None:
    said = read_scopes("patient/Observation.rs user/Patient.r").resources
    assert granted(said, "p1") == ("p1/Observation.rs", "/Patient.r")
    for none in ("", "p/1", "Patient/p1", "p 1", "x" * 65, "p1\n", "*"):
        assert granted(said, none) == ("/Patient.r",)


def test_scopes_for_our_own_tokens_are_exact() -> None:
    assert checked_scopes("openid  patient/*.read patient/*.read", "p1") == "openid patient/*.read"
    for text, patient in [("patient/*.rs", ""), ("user/*.rs", "p1"), ("user/*.rs x", ""), ("openid", ""), ("", "")]:
        with pytest.raises(Invalid):
            checked_scopes(text, patient)


# -- what they leave -------------------------------------------------------------------------------------------------


def test_a_credential_without_scopes_leaves_all() -> None:
    assert left_of(ALLOWED, None, "record:read", "Patient") is ALLOWED


@pytest.mark.parametrize("action", ["record:erase", "record:ingest", "endpoint:invoke", "audit:read"])
def test_what_no_letter_is_for_is_denied(action: str) -> None:
    assert not left_of(ALLOWED, ("/*.cruds",), action, "").allowed


def test_an_import_is_for_who_may_write_everything() -> None:
    assert left_of(ALLOWED, ("/*.cruds",), "record:import", "").allowed
    for less in ("/Patient.cud", "p1/*.cud", "/*.cu", "/*.rs"):
        assert not left_of(ALLOWED, (less, "/Observation.cruds"), "record:import", "").allowed


def test_what_cannot_be_read_denies() -> None:
    for text in ("*", "/Observation.", "/Obs.rs", "p/1/Patient.r", "/*.rs?code=a", "/Observation.sr", ""):
        assert not left_of(ALLOWED, ("/*.cruds", text), "record:read", "Patient").allowed


def test_one_patient_alone_is_the_predicate_that_there_is() -> None:
    assert left_of(ALLOWED, ("p1/*.rs", "p1/Patient.r"), "record:read", "Patient").scope == (
        "account",
        "only:/*.rs",
        "only:/Patient.r",
        "patient:p1",
    )
    mixed = left_of(ALLOWED, ("p1/Observation.rs", "/Patient.r"), "record:read", "Patient")
    assert mixed.scope == ("account", "only:/Patient.r", "only:p1/Observation.rs")


def test_acts_tell_no_patient_and_no_value() -> None:
    scope = ("account", "only:/Observation.rs?code=urn:s|x&date=2020-01-01", "only:p1/*.r", "patient:p1")
    assert shown(scope) == ["account", "only:/Observation.rs?code&date", "only:patient/*.r", "patient"]


levels = st.sampled_from(["patient", "user", "system"])
kinds = st.sampled_from(["*", "Patient", "Observation", "Condition"])
letters = st.sets(st.sampled_from(LETTERS), min_size=1).map(lambda some: "".join(sorted(some, key=LETTERS.index)))
queries = st.sampled_from(["", "", "code=a", "code=b", "code=a&status=final", "date=ge2020"])


@st.composite
def scopes(draw: st.DrawFn) -> str:
    kind = draw(kinds)
    query = draw(queries) if kind == "Observation" else ""
    return f"{draw(levels)}/{kind}.{draw(letters)}{'?' + query if query else ''}"


lists = st.lists(scopes(), max_size=4).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(lists)
def test_a_scope_written_out_is_the_same_scope(text: str) -> None:
    read = read_scopes(text).resources
    assert len(read) == len(set(text.split()))
    again = read_scopes(" ".join(one.text for one in read)).resources
    assert [one.text for one in again] == [one.text for one in read]
    for carried in granted(read, "p1"):
        assert read_grant(carried).text == carried


@settings(max_examples=200, deadline=None)
@given(st.text("patient/user*.crudsObservation?=code&a: ", max_size=60))
def test_no_text_is_read_as_more_than_it_says(text: str) -> None:
    try:
        found = read_scopes(text)
    except Invalid:
        return
    for one in found.resources:
        level, _, rest = one.said.partition("/")
        assert (level, rest.partition(".")[0]) == (one.level, one.type)
        assert bool(one.query) == ("?" in one.said)
        access = rest.partition(".")[2].partition("?")[0]
        assert one.letters == {"read": "rs", "write": "cud", "*": LETTERS}.get(access, access)


@settings(max_examples=200, deadline=None)
@given(lists, st.sampled_from(sorted(NEEDS)), st.sampled_from(["", "Patient", "Observation", "Device"]))
def test_a_decision_is_only_ever_narrowed(text: str, action: str, kind: str) -> None:
    carried = granted(read_scopes(text).resources, "p1")
    left = left_of(ALLOWED, carried, action, kind)
    named = [one for one in read_scopes(text).resources if one.type in ("*", kind or one.type)]
    if action == "record:import":
        named = [one for one in named if one.type == "*" and one.level != "patient"]
    assert left.allowed == any(set(need) <= set(one.letters) for one in named for need in NEEDS[action])
    assert not left.allowed or set(ALLOWED.scope) < set(left.scope)
    assert left.allowed or left.scope == ()
    denied = Decision(False, ("no",))
    assert left_of(denied, carried, action, kind) is denied


def _opens(some: tuple[Scope, ...], letter: str, kind: str, level: str, met: frozenset[str]) -> bool:
    """Whether scopes open one resource of a type, that meets some conditions, to one interaction."""
    return any(
        letter in one.letters
        and one.type in ("*", kind)
        and one.level == level
        and all(pair in met for pair in one.query.split("&") if pair)
        for one in some
    )


@settings(max_examples=200, deadline=None)
@given(lists, lists)
def test_what_is_asked_for_and_given_opens_exactly_what_both_open(asked: str, given_: str) -> None:
    one, other = read_scopes(asked).resources, read_scopes(given_).resources
    both = common(one, other)
    for kind in ("Patient", "Observation", "Device"):
        for level in ("patient", "user", "system"):
            for met in (
                frozenset[str](),
                frozenset({"code=a", "status=final"}),
                frozenset({"code=b", "date=ge2020"}),
            ):
                for letter in LETTERS:
                    expected = _opens(one, letter, kind, level, met) and _opens(other, letter, kind, level, met)
                    assert _opens(both, letter, kind, level, met) == expected, (asked, given_, both)


def test_every_letter_is_of_actions_that_there_are() -> None:
    from carelake.access.actions import actions

    assert set(NEEDS) <= set(actions())
    assert wanted("record:write") == ("r", "s")
    assert wanted("record:write", searching=True) == ("s",)
    assert wanted("record:read", searching=True) == ("r",)
    assert wanted("record:erase") == ()
    assert len(resource_types()) > 100


def test_a_service_that_is_asked_on_behalf_of_a_token_is_narrowed_too() -> None:
    from dataclasses import replace

    from carelake.access.principals import Principal

    told: Any = Principal("ann", "person", ("operator",), ("production",))
    speaker = replace(told, narrowed=("/Patient.r",))
    assert Principal("pipeline", "service", ("pipeline",), ("production",)).spoken_for_by(speaker).narrowed == (
        "/Patient.r",
    )
