"""Who saw this patient: acts name patients by HMAC, and the lists beside them are what was sealed."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.audit.readings import Acts, Filter
from carelake.core.errors import Invalid


def people(count: int, start: int = 0) -> list[str]:
    return [f"patient:{n:064x}" for n in range(start, start + count)]


def find(ward: Any, **wanted: str) -> list[int]:
    with ward.vault.database.ledger_reading() as connection:
        return [told["seq"] for told in Acts(connection).find(Filter(**wanted))]


def test_acts_are_found_by_patient_named_or_digested(ward: Any) -> None:
    ward.act(1, *people(2))
    ward.act(1, *people(60, start=1))
    ward.act(1)
    assert find(ward, patient=people(1)[0]) == [1]
    assert find(ward, patient=people(2)[1]) == [2, 1]
    assert find(ward, patient=people(1, start=60)[0]) == [2]
    assert find(ward, patient=people(1, start=61)[0]) == []
    with ward.vault.database.ledger_reading() as connection:
        few, many = (Acts(connection).find(Filter(patient=people(2)[1]))[at] for at in (1, 0))
        assert few["patients"] == people(2)
        assert (many["patients_count"], "patients" in many) == (60, False)
        assert Acts(connection).patients(2) == people(60, start=1)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM act_patient WHERE seq = 1",
        "DELETE FROM act_patient WHERE seq = 2 AND patient = (SELECT max(patient) FROM act_patient)",
        "UPDATE act_patient SET patient = zeroblob(32) WHERE seq = 2 AND hex(patient) LIKE '%10'",
        "INSERT INTO act_patient VALUES (3, zeroblob(32))",
        "INSERT INTO act_patient VALUES (9, zeroblob(32))",
        "UPDATE act_patient SET seq = 3 WHERE seq = 1",
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_changed_list_is_found(ward: Any, sql: str, sealed: bool) -> None:
    ward.act(1, *people(3, start=5))
    ward.act(1, *people(60, start=1))
    ward.act(1)
    if sealed:
        ward.seal()
    assert ward.verify().intact
    ward.sql(sql)
    assert [one.kind for one in ward.verify().problems] in (["act"], ["act", "act"])


def test_filters(ward: Any, clock: Any) -> None:
    ward.act(2)
    clock.move(minutes=10)
    with ward.gate.enter(ward.who["operator"], "status:read", "nouns", "HPAYMT", account="research") as permit:
        permit.log.read("model:" + "1" * 64)
    assert find(ward, principal="auditor") == [2, 1]
    assert find(ward, action="status:read", account="research", purpose="HPAYMT", target="nouns", phase="done") == [3]
    assert find(ward, ref="model:" + "1" * 64) == [3]
    assert find(ward, since="2026-01-02T03:10:00Z") == [3]
    assert find(ward, until="2026-01-02T04:10:00+01:00") == [2, 1]
    for wrong in ({"since": "yesterday"}, {"patient": "patient:x"}, {"patient": "p1"}):
        with pytest.raises(Invalid):
            find(ward, **wrong)
