"""Bodies of InvokeEndpoint: what is taken, what is refused, and nothing of a body is ever quoted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import CarelakeError, Invalid, Unsupported
from carelake.serving import formats

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = ("age", "sodium")


class Model:
    """As much of an endpoint as a body needs: the names of its features."""

    files: Any = SimpleNamespace(scorer=SimpleNamespace(names=NAMES))


def x(body: str | bytes, kind: str = "application/json") -> np.ndarray:
    sent = body.encode() if isinstance(body, str) else body
    return formats.parse(sent, kind, NOW).asked(Model()).x  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"instances": [[60, null], [61.5, 3]]}', "application/json; charset=utf-8"),
        ('{"instances": [{"features": [60, null]}, {"features": [61.5, 3]}]}', ""),
        ('{"instances": [{"age": 60}, {"sodium": 3, "age": 61.5}]}', "application/json"),
        ('{"features": [60, null]}\n\n[61.5, 3]\n', "application/jsonlines"),
        ("60,\n61.5,3\n", "text/csv"),
        ("sodium,age,subject_id\n,60,p1\n3,61.5,p2\n", "text/csv"),
    ],
)
def test_the_same_rows_in_every_form(body: str, kind: str) -> None:
    assert np.array_equal(x(body, kind), [[60, np.nan], [61.5, 3]], equal_nan=True)


def test_whom_a_row_is_about() -> None:
    row = {"age": 1, "subject_id": "p1", "encounter_id": "e1", "prediction_time": "2026-01-01T08:00:00Z"}
    asked = formats.parse(json.dumps({"instances": [row, [1, 2]]}).encode(), "", NOW).asked(Model())  # type: ignore[arg-type]
    assert (asked.subject, asked.encounter) == (["p1", ""], ["e1", ""])
    assert asked.at == [datetime(2026, 1, 1, 8, tzinfo=UTC), NOW]


@pytest.mark.parametrize(
    "body",
    [
        "secret",
        '{"instances": []}',
        '{"instances": [[1]]}',
        '{"instances": [{"secret": 1}]}',
        '{"instances": [{"age": "secret"}]}',
        '{"instances": [{"age": 1, "secret": 2}]}',
        '{"instances": [{"age": 1, "encounter_id": "secret"}]}',
        '{"instances": [{"age": 1, "prediction_time": "secret"}]}',
        '{"instances": [{"features": [1, 2], "age": 3}]}',
        '{"instances": [[1, 1e999]]}',
        '{"instances": [[1, 2]], "secret": 1}',
        '{"instances": [{"": 5, "age": 1}]}',
        '{"instances": [{"age": 1' + "0" * 400 + "}]}",
    ],
)
def test_what_is_wrong_is_refused_without_quoting_it(body: str) -> None:
    with pytest.raises(Invalid) as caught:
        x(body)
    assert caught.value.code == "serving.rows"
    assert "secret" not in caught.value.message


def test_unknown_types_are_refused() -> None:
    with pytest.raises(Unsupported):
        x("1,2", "application/x-npy")
    with pytest.raises(Unsupported):
        formats.answer((), "image/png")
    assert formats.answer((), "*/*") == (b'{"predictions":[]}', "application/json")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(formats.ACCEPTED))
def test_no_body_does_more_than_to_be_refused(body: bytes, kind: str) -> None:
    try:
        found = x(body, kind)
    except CarelakeError:
        return
    assert found.shape[1] == 2
