"""JSON Merge Patch: the cases of RFC 7396 appendix A that are about objects, and what is left as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from carelake.fhir.patch import merge_patch


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "foo"}, {"b": None}, {"a": "foo"}),
    ],
)
def test_rfc_7396(before: dict[str, Any], change: dict[str, Any], after: dict[str, Any]) -> None:
    given = copy.deepcopy((before, change))
    assert merge_patch(before, change) == after
    assert (before, change) == given
