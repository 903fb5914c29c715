"""Gold spans agree with the notes to the character, and leave no identifier out."""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter, defaultdict

import pytest

from carelake.synth import tables

PHI = {"NAME", "DATE", "AGE", "ID", "ADDRESS", "PHONE_OR_FAX", "EMAIL"}


@pytest.fixture(scope="module")
def notes(hospital, first_chunk):
    """[(text, spans, patient)] of the first chunk."""
    spans = defaultdict(list)
    for row in hospital.truth("notes"):
        spans[row["document_id"]].append(row)
    patients = {r["id"]: r for r in first_chunk if r["resourceType"] == "Patient"}
    out = []
    for r in first_chunk:
        if r["resourceType"] == "DocumentReference":
            text = b64decode(r["content"][0]["attachment"]["data"]).decode()
            owner = patients[r["subject"]["reference"].removeprefix("Patient/")]
            out.append((text, spans[r["id"]], owner))
    return out


def test_every_note_has_gold_and_all_gold_a_note(hospital, notes):
    assert len(notes) > 800
    assert all(spans for _, spans, _ in notes)
    assert (
        len({row["document_id"] for row in hospital.truth("notes")}) == hospital.summary.counts["DocumentReference"]
    )


def test_spans_hold_exactly_what_they_say(notes):
    shapes = {
        "DATE": r"\d\d/\d\d/\d{4}|\d{4}-\d\d-\d\d|[A-Z][a-z]+ \d{1,2}, \d{4}|\d{1,2} [A-Z][a-z]{2} \d{4}",
        "AGE": r"\d{2,3}",
        "ID": r"\d{10}",
        "PHONE_OR_FAX": r"\d{3}-555-\d{4}|\(\d{3}\) 555-\d{4}|\d{3}\.555\.\d{4}",
        "ADDRESS": r"\d+ [\w ]+, [\w ]+, MA \d{5}",
        "EMAIL": r"[a-z]+\.[a-z]+@example\.org",
        "NAME": r"(Dr\. )?[\w'’]+(,? [\w'’]+)*",
    }
    for text, spans, _ in notes:
        end = 0
        for span in spans:
            assert end <= span["start"] < span["end"] <= len(text)
            end = span["end"]
            words = text[span["start"] : span["end"]]
            assert words == words.strip()
            if span["layer"] == "phi":
                assert re.fullmatch(shapes[span["kind"]], words), span["kind"]


def test_no_identifier_of_the_patient_stands_outside_the_gold(notes):
    for text, spans, owner in notes:
        covered, at = "", 0
        for span in (one for one in spans if one["layer"] == "phi"):
            covered += text[at : span["start"]] + "\0"
            at = span["end"]
        covered += text[at:]
        name, address = owner["name"][0], owner["address"][0]
        for secret in (name["family"], name["given"][0], owner["identifier"][0]["value"], address["line"][0],
                       address["city"], owner["telecom"][0]["value"]):  # fmt: skip
            assert not re.search(rf"\b{re.escape(secret)}\b", covered)
        assert not re.search(r"\d{4}-\d\d-\d\d|\d\d/\d\d/\d{4}|555", covered)


def test_entities_carry_codes_of_the_tables_and_each_assertion_occurs(notes):
    codes = tables.codes()
    drugs = {code: name for name, (code, _) in codes.drugs.items()}
    kinds, assertions = Counter(), Counter()
    for text, spans, _ in notes:
        for span in spans:
            words = text[span["start"] : span["end"]]
            if span["layer"] == "phi":
                assert span["kind"] in PHI
                assert span["code"] == ""
                continue
            kinds[span["kind"]] += 1
            assertions[span["assertion"]] += 1
            assert span["code"]
            if span["kind"] == "GENERIC_NAME":
                assert drugs[span["code"]] == words
            if span["assertion"] == "absent":
                before = text[: span["start"]].rsplit("\n", 1)[-1].lower()
                assert re.search(r"\b(no|denie[sd]|not|negative)\b|;|\.", before)
    assert set(kinds) == {"DX_NAME", "GENERIC_NAME", "TEST_NAME", "PROCEDURE_NAME"}
    assert set(assertions) == {"present", "absent", "possible", "family", "hypothetical"}
    assert min(assertions.values()) > 30


def test_text_is_not_all_ascii_so_that_offsets_matter(notes):
    assert any(not text.isascii() for text, _, _ in notes)


def test_templates_have_no_unknown_slot_left(notes):
    assert not [text for text, _, _ in notes if "{" in text or "}" in text]
