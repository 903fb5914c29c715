"""A search that takes the database too long is ended, on each database, and the next one is answered."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.conftest import Record

from carelake.core.errors import Unavailable
from carelake.vault.database import bounded

_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_question_that_takes_too_long_is_ended(record_on_each: Record) -> None:
    record = record_on_each
    patient: dict[str, Any] = {"resourceType": "Patient", "id": "p", "gender": "female"}
    record.keep(patient)
    with pytest.raises(Unavailable) as caught, record.vault.database.reading(record.permit) as tx, bounded(tx, 0.2):
        tx.exec_driver_sql(_ENDLESS).all()
    assert caught.value.code == "vault.too_long"
    assert record.ids("Patient?gender=female") == ["p"]


def test_a_bound_ends_with_its_block(record_on_each: Record) -> None:
    with record_on_each.vault.database.reading(record_on_each.permit) as tx:
        with bounded(tx, 0.001):
            pass
        some = _ENDLESS.replace("FROM n)", "FROM n WHERE i < 200000)")
        assert tx.exec_driver_sql(some).scalar() == 200000
