"""Lines and columns: of what an issue is about, of text that is no JSON, of keys that come twice."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.canonical import dump_pretty
from carelake.fhir.lines import repeated
from carelake.fhir.outcome import operation_outcome
from carelake.fhir.validate import validate, validate_text

Resource = dict[str, Any]

TEXT = """{
  "resourceType": "Patient",
  "gender": "x",
  "name": [{"family": "a"},
           {"family": "b", "famly": "c", "_family": {"extension": [{"url": "http://x"}]}}],
  "deceasedBoolean": true, "deceasedDateTime": "2020",
  "_birthDate": {"extension": [{"url": "http://x", "valueBoolean": 1}]},
  "contact": [{"g\\u0065nder": "male", "telecom": {}}], "communication": [{"preferred": true}],
  "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>\\"{[ü\\u00e9</div>"}, "link": []
}"""


def at(mark: str) -> tuple[int, int]:
    """Line and column of the only place in `TEXT` that reads so."""
    before, _, after = TEXT.partition(mark)
    assert mark not in after
    return before.count("\n") + 1, len(before) - before.rfind("\n")


PLACES = {
    "Patient.gender": at('"gender"'),
    "Patient.name[1].famly": at('"famly"'),
    "Patient.name[1].family.extension[0]": at('{"url": "http://x"}'),
    "Patient.deceased": at('"deceasedBoolean"'),
    "Patient.birthDate.extension[0].valueBoolean": at('"valueBoolean"'),
    "Patient.contact[0].telecom": at('"telecom"'),
    "Patient.communication[0].language": at('{"preferred"'),
    "Patient.link": at('"link"'),
}


def test_each_issue_has_its_line_and_column() -> None:
    assert {i.expression: (i.line, i.column) for i in validate_text(TEXT.encode())} == PLACES
    assert {i.expression: (i.line, i.column) for i in validate_text(TEXT)} == PLACES


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_ends_of_lines_count_the_same(end: str) -> None:
    assert {i.expression: (i.line, i.column) for i in validate_text(TEXT.replace("\n", end))} == PLACES


def test_strict_issues_have_lines_too() -> None:
    text = (
        '{"resourceType": "Patient", "birthDate": "2020",\n "name": [{"period": {"start": "2021", "end": "2020"}}]}'
    )
    (issue,) = (i for i in validate_text(text) if i.bad)
    assert (issue.expression, issue.line, issue.column) == ("Patient.name[0].period", 2, 12)


def test_an_outcome_says_line_and_column_as_the_standard_does() -> None:
    outcome = operation_outcome(validate_text('{"resourceType": "Patient",\n "gender": "x"}'))
    assert validate(outcome) == []
    assert outcome["issue"][0]["expression"] == ["Patient.gender"]
    base = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-"
    assert outcome["issue"][0]["extension"] == [
        {"url": f"{base}line", "valueInteger": 2},
        {"url": f"{base}col", "valueInteger": 2},
    ]


NO_JSON: list[tuple[bytes, tuple[int, int]]] = [
    (b"", (1, 1)),
    (b"{", (1, 2)),
    (b'{"a": 1,\n "b": }', (2, 7)),
    (b'{"a": 1,\n}', (2, 1)),
    (b'{"a": "\xff"}', (1, 8)),
    ('{"ü": "é",\n "b": x}'.encode(), (2, 7)),
    (b'{"a": 1}\n{', (2, 2)),
    (b'{"a": 01}', (1, 8)),
    (b'{"a": "b\nc"}', (1, 9)),
    (b"\xef\xbb\xbf{}", (1, 1)),
]


@pytest.mark.parametrize(("data", "place"), NO_JSON, ids=[repr(data) for data, _ in NO_JSON])
def test_what_is_no_json_has_a_place(data: bytes, place: tuple[int, int]) -> None:
    (issue,) = validate_text(data)
    assert (issue.severity, issue.bad) == ("fatal", True)
    assert (issue.line, issue.column) == place


def test_keys_that_come_twice() -> None:
    text = '{"resourceType": "Patient",\n "gender": "male",\n "gender": "female",'
    text += '\n "name": [{}, {"text": "a", "text": "b"}]}'
    found = [(i.expression, i.line, i.column) for i in validate_text(text) if "twice" in i.message]
    assert found == [("Patient.gender", 3, 2), ("Patient.name[1].text", 4, 29)]
    escaped = '{"resourceType": "Patient", "gender": "male", "g\\u0065nder": "male"}'
    assert [i.code for i in validate_text(escaped)] == ["structure"]
    secret = '{"resourceType": "Patient", "Zaphod B.": 1, "Zaphod B.": 2}'
    assert "Zaphod" not in repr(validate_text(secret))
    assert [
        i for i in validate_text('{"resourceType": "Patient", "id": "\\"\\u0022{"}') if "twice" in i.message
    ] == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 1]), st.booleans())
def test_any_json_is_read_through(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps({"resourceType": "Patient", "x": value}, indent=indent, ensure_ascii=ascii_only)
    assert list(repeated(text)) == []
    if text.isascii():  # unpaired surrogates are no UTF-8
        assert all(i.line for i in validate_text(text))


def test_the_line_of_an_issue_holds_what_it_names(examples: list[Resource]) -> None:
    """Every element that gets a wrong value, in an indented text: its line begins with its name."""
    rng = random.Random(11)
    done = 0
    for resource in rng.sample(examples, 60):
        made = json.loads(dump_pretty(resource))
        for key in [k for k in made if k not in ("resourceType", "contained")]:
            kept, made[key] = made[key], {"nothing": 1}
            text = dump_pretty(made)
            for issue in validate_text(text, mode="structure"):
                if issue.expression.startswith(f"{resource['resourceType']}.{key.removeprefix('_')}"):
                    line = text.splitlines()[issue.line - 1]
                    assert f'"{key}"' in line or '"nothing"' in line
                    assert line[issue.column - 1] == '"'
                    done += 1
            made[key] = kept
    assert done > 300


def test_a_large_text_with_many_issues_takes_no_time() -> None:
    entry = {"resource": {"resourceType": "Patient", "gender": "x", "name": [{"family": "a" * 50}] * 20}}
    text = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [entry] * 3000})
    before = time.perf_counter()
    found = validate_text(text)
    assert len(found) == 100
    assert len({i.column for i in found}) == 100
    assert time.perf_counter() - before < 10
