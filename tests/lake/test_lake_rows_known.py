"""Elements that are known are not looked for again, and one that is new is never left out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection as Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.lake import rows
from carelake.lake.engines.engine import connect
from carelake.lake.schema import Record

MOMENT = datetime(2025, 1, 1, tzinfo=UTC)
TEXTS = st.sampled_from(['":', ':"x', "plain", '{"a":1}', '","b":', "[,", '\\":', '"', "a:", ',"c":2'])


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with connect() as opened:
        yield opened


def changes(resources: list[dict[str, Any] | None]) -> pa.Table:
    many = len(resources)
    columns = [
        list(range(1, many + 1)),
        [f"o{number}" for number in range(many)],
        [1] * many,
        [MOMENT] * many,
        [None] * many,
        [one is None for one in resources],
        [None] * many,
        [None if one is None else canonical.dump(one).decode() for one in resources],
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, rows.CHANGES, strict=True)], schema=rows.CHANGES)


def observation(number: int, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": f"o{number}", "status": "final", "code": {"text": "x"}, **more}


PARTS: dict[str, Any] = {
    "valueString": TEXTS,
    "note": st.lists(st.fixed_dictionaries({"text": TEXTS}), min_size=1, max_size=2),
    "valueQuantity": st.fixed_dictionaries({"unit": TEXTS}, optional={"code": TEXTS}),
    "extension": st.lists(st.fixed_dictionaries({"url": TEXTS, "valueInteger": st.just(3)}), min_size=1, max_size=2),
    "_status": st.just({"id": "s"}),
    "component": st.lists(
        st.fixed_dictionaries({"code": st.just({"text": "y"})}, optional={"valueString": TEXTS}),
        min_size=1,
        max_size=2,
    ),
    "performer": st.lists(st.sampled_from([{"display": '":'}, {"type": "Patient"}]), min_size=1, max_size=2),
}
SOME = st.lists(st.none() | st.fixed_dictionaries({}, optional=PARTS), max_size=5)


@settings(max_examples=40, deadline=None)
@given(before=SOME, now=SOME)
def test_known_is_what_a_look_at_all_finds(
    connection: Connection, before: list[dict[str, Any] | None], now: list[dict[str, Any] | None]
) -> None:
    first, second = (
        changes([None if one is None else observation(number, **one) for number, one in enumerate(some)])
        for some in (before, now)
    )
    record, _ = rows.known(connection, "Observation", None, first)
    assert record == rows.occurs(connection, "Observation", first)
    found, made = rows.known(connection, "Observation", record, second)
    assert set(rows.occurs(connection, "Observation", second).fields) <= set(found.fields)
    expected = rows.rows(connection, found, second)
    assert made.equals(expected)
    restored = [
        canonical.dump(one) for one in rows.restore("Observation", found, made.filter(~made["deleted"].to_numpy()))
    ]
    assert restored == [canonical.dump(observation(n, **one)) for n, one in enumerate(now) if one is not None]


def test_what_is_known_is_looked_for_no_more(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    table = changes([observation(number, valueString='a "quoted": text') for number in range(3)])
    record, _ = rows.known(connection, "Observation", None, table)

    def looked(*_: Any) -> Record:
        raise AssertionError("it was looked for")

    monkeypatch.setattr(rows, "occurs", looked)
    assert rows.known(connection, "Observation", record, table)[0] == record
    with pytest.raises(AssertionError, match="looked for"):
        rows.known(connection, "Observation", record, changes([observation(1, valueBoolean=True)]))
