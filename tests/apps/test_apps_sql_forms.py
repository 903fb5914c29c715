"""Rows of a statement in their forms: pages that leave nothing out, cells of every kind, forms by name and header."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.apps.http.sql import forms
from carelake.core.errors import Unsupported


class Held(NamedTuple):
    held: Sequence[pa.RecordBatch]

    @property
    def num_record_batches(self) -> int:
        return len(self.held)

    def get_batch(self, number: int) -> pa.RecordBatch:
        return self.held[number]


def batches(sizes: list[int], width: int = 1) -> Held:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    made = [
        pa.record_batch({"n": range(start, start + size), "t": ["x" * width] * size})
        for start, size in zip(starts, sizes, strict=True)
    ]
    return Held([one.cast(pa.schema([("n", pa.int64()), ("t", pa.string())])) for one in made])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 50))
def test_pages_leave_nothing_out_and_give_nothing_twice(sizes: list[int], rows: int) -> None:
    held, seen, place = batches(sizes), [], (0, 0)
    for _ in range(sum(sizes) + 2):
        page = forms.page_of(held, place, rows)
        assert len(page.rows) <= rows
        seen += [row[0] for row in page.rows]
        if page.after is None:
            break
        place = page.after
    assert seen == list(range(sum(sizes)))


def test_a_page_of_large_rows_is_shorter() -> None:
    held, place, pages = batches([10], 1_000_000), (0, 0), []
    while place is not None:
        page = forms.page_of(held, place, 10)
        pages.append(len(page.rows))
        place = page.after
    assert sum(pages) == 10
    assert max(pages) <= 5


@pytest.mark.parametrize(
    ("said", "accepted", "form"),
    [
        (None, "", "json"),
        ("csv", "application/json", "csv"),
        (None, "application/vnd.apache.arrow.stream", "arrow"),
        (None, "TEXT/CSV; charset=utf-8", "csv"),
        (None, "text/html, application/x-ndjson;q=0.5, */*;q=0.1", "ndjson"),
        (None, "text/csv;q=0, */*", "json"),
    ],
)
def test_the_form_is_what_is_asked_for(said: str | None, accepted: str, form: str) -> None:
    assert forms.form_of(said, accepted) == form


@pytest.mark.parametrize(("said", "accepted"), [("xml", ""), (None, "image/png"), ("", ""), (None, "text/csv;q=0")])
def test_other_forms_are_refused(said: str | None, accepted: str) -> None:
    with pytest.raises(Unsupported):
        forms.form_of(said, accepted)


KINDS = pa.record_batch(
    {
        "nested": pa.array([{"a": [1, None]}, None]),
        "raw": pa.array([b"\x00x", None]),
        "at": pa.array([1_577_880_000_000_000_001, None], pa.timestamp("ns", "UTC")),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(2),
        "nan": pa.array([float("nan"), 1e300]),
    }
)


def test_cells_of_every_kind_are_told() -> None:
    first, second = (
        json.loads(line) for line in b"".join(forms.STREAMED["ndjson"](KINDS.schema, [KINDS])).splitlines()
    )
    assert first["nested"] == {"a": [1, None]}
    assert first["raw"] == "AHg="
    assert first["at"] == "2020-01-01T12:00:00Z"
    assert first["map"] == [["k", 1]]
    assert first["nan"] is None
    assert second == {"nested": None, "raw": None, "at": None, "map": None, "nothing": None, "nan": 1e300}
    lines = b"".join(forms.STREAMED["csv"](KINDS.schema, [KINDS])).decode().splitlines()
    assert len(lines) == 3
    assert '"{""a"":[1,null]}"' in lines[1]


ODD = pa.record_batch(
    {
        "day": pa.array([2**31 - 1, 6_585_442, 0, None], pa.date32()),
        "time": pa.array([36_000_123_456_789, None, None, None], pa.time64("ns")),
        "in": pa.array([{"t": [6_585_442]}, None, None, None], pa.struct([("t", pa.list_(pa.date32()))])),
        "ns": pa.array([[1_577_880_000_000_000_001], None, None, None], pa.list_(pa.timestamp("ns"))),
    }
)


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_moments_that_python_has_none_of_are_told(form: str) -> None:
    told = b"".join(forms.STREAMED[form](ODD.schema, [ODD])).decode()
    assert told.count("20000-04-30") == 2
    assert "1970-01-01" in told
    assert "10:00:00.123456" in told
    assert "2020-01-01T12:00:00" in told
    assert forms.page_of(Held([ODD]), (0, 0), 9).rows[2][0] == date(1970, 1, 1)


def test_columns_of_one_name_have_names_of_their_own() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array([n]) for n in range(4)], names=["a", "a", "a_1", "a"])
    (line,) = b"".join(forms.STREAMED["ndjson"](batch.schema, [batch])).splitlines()
    assert sorted(json.loads(line).values()) == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["arrow", "csv", "ndjson"])
def test_no_rows_are_a_result_too(form: str) -> None:
    schema = pa.schema([("a", pa.int64())])
    made = b"".join(forms.STREAMED[form](schema, []))
    if form == "arrow":
        assert pa.ipc.open_stream(made).read_all().num_rows == 0
    else:
        assert made.decode() == {"csv": '"a"\n', "ndjson": ""}[form]
