"""Index values of resources that nobody checked: any shape may come."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.fhir.search import BASE, extract

Resource = dict[str, Any]

ELEMENTS = ["coding", "system", "code", "display", "text", "value", "reference", "type", "start", "url", "extension"]
ELEMENTS += ["family", "given", "line", "low", "unit", "event", "identifier", "valueCoding", "div", "component"]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["Patient/1", "2020", "a|b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(ELEMENTS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NAMES = sorted({step.steps[0].name for step in BASE.sources("Patient").values() if step.steps} | {"text"})
KINDS = {"tokens": 3, "strings": 3, "references": 4, "uris": 2, "words": 2, "displays": 4}


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), SHAPES, max_size=4))
def test_any_shape_is_indexed_loosely(elements: Resource) -> None:
    rows = extract({**elements, "resourceType": "Patient"}, loose=True)
    for field, width in KINDS.items():
        for row in getattr(rows, field):
            assert len(row) == width
            assert all(type(member) is str for member in row), field
    assert all(type(member) is float for row in rows.quantities for member in row[1:3])


def test_what_a_wrong_shape_breaks_takes_no_other_with_it(patient: Resource) -> None:
    broken = {**patient, "name": "Ada", "identifier": [{"value": 1}], "birthDate": "soon"}
    with pytest.raises((AttributeError, TypeError, ValueError)):
        extract(broken)
    rows, whole = extract(broken, loose=True), extract(patient)
    lost = ("token:identifier", "string:name.")
    assert set(rows.tokens) == {row for row in whole.tokens if not row[0].startswith(lost)}
    assert set(rows.strings) == {row for row in whole.strings if not row[0].startswith(lost)}
    assert rows.dates == []
