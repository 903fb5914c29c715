"""The order of an incremental import: an older version of a resource never takes the place of a newer one."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.conftest import Record

from carelake.store.import_order import age_of
from carelake.store.write import parsed

MAY, JUNE, JULY = "2020-05-01T00:00:00Z", "2020-06-01T00:00:00+00:00", "2020-07-01T00:00:00.000Z"


def patient(when: str, version: str, gender: str, key: str = "p") -> dict[str, Any]:
    meta = {"lastUpdated": when, "versionId": version} if when else {}
    return {"resourceType": "Patient", "id": key, "gender": gender, **({"meta": meta} if meta else {})}


def load(record: Record, *resources: dict[str, Any], landing: str = "landing:1") -> dict[str, int]:
    """Import a page; how often each verdict fell."""
    order, permit = record.resources.order, record.permit
    with record.vault.database.transaction(permit) as tx:
        page = order.ordered([parsed(one) for one in resources])
        found = order.verdicts(permit, tx, page)
        kept = [one for one, verdict in zip(page, found, strict=True) if verdict == "stored"]
        assert record.resources.keep(permit, tx, landing, kept).stored == len(kept)
    return dict(Counter(found))


def now(record: Record) -> tuple[str, str]:
    read = record.resources.read(record.permit, "Patient", "p")
    return read["gender"], read["meta"]["versionId"]


def test_the_rule(record_on_each: Record) -> None:
    record = record_on_each
    three = (patient(JUNE, "3", "other"), patient(MAY, "10", "male"), patient(MAY, "9", "female"))
    assert load(record, *three) == {"stored": 3}
    assert now(record) == ("other", "3")
    assert load(record, patient(MAY, "11", "unknown")) == {"superseded": 1}
    assert load(record, patient(JULY, "4", "other")) == {"unchanged": 1}
    assert load(record, patient(JUNE, "3", "male")) == {"conflict": 1}
    assert load(record, patient(JUNE, "4", "male")) == {"stored": 1}
    assert now(record) == ("male", "4")
    assert load(record, patient("", "", "unknown")) == {"stored": 1}
    assert now(record) == ("unknown", "5")


def test_what_was_written_here_is_as_old_as_it_says(record: Record) -> None:
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.update(record.permit, tx, patient(MAY, "1", "male"))
    assert load(record, patient("2026-01-02T03:04:04Z", "9", "other")) == {"superseded": 1}
    assert load(record, patient("2026-01-02T03:04:06Z", "1", "other")) == {"stored": 1}
    record.clock.move(seconds=10)
    with record.vault.database.transaction(record.permit) as tx:
        record.resources.delete(record.permit, tx, "Patient", "p")
    assert load(record, patient("2026-01-02T03:04:08Z", "2", "other")) == {"superseded": 1}
    assert load(record, patient("2027-01-01T00:00:00Z", "2", "other")) == {"stored": 1}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_whatever_the_order_of_files_the_newest_stays(record: Record, order: tuple[int, ...]) -> None:
    files = (patient(MAY, "1", "male"), patient(JUNE, "2", "female"), patient(JULY, "3", "other"))
    for number in order:
        load(record, files[number], landing=f"landing:{number}")
    assert now(record)[0] == "other"


@settings(max_examples=200, deadline=None)
@given(st.none() | st.integers() | st.text(max_size=30), st.none() | st.integers() | st.text(max_size=30))
def test_any_meta_has_an_age_or_none(when: Any, version: Any) -> None:
    age = age_of({"lastUpdated": when, "versionId": version})
    assert age is None or isinstance(age[1], int)


def test_ages_are_ordered_by_time_and_then_by_number() -> None:
    told = [
        age_of({"lastUpdated": when, "versionId": version})
        for when, version in ((MAY, "10"), (MAY, "9"), (JUNE, "1"))
    ]
    assert [None not in told, told[1] < told[0] < told[2]] == [True, True]  # type: ignore[operator]
    assert age_of({}) is None
    assert age_of("x") is None
