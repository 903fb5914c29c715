"""Which acts touched a patient: `act_patient` sorted by patient, run after run, some way behind (decision 0041).

An index by patient would be written at a random place for nearly each act, and its answer would wait for that. So
acts that are sealed are gathered in runs of some thousand, each written once, in the order of patients. Who asks for
a patient looks once into each run, and reads through the few acts that are in none yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, Select, delete, func, insert, literal, select, union_all

from carelake.audit.tables import act_patient, patient_act, patient_run
from carelake.vault.database import rows_of

__all__ = ["ACTS", "PARTS", "Run", "acts_of", "begun", "due", "fill", "wrong"]

ACTS = 4096
"""Acts of one run."""

PARTS = 8
"""A run is written in as many transactions, by the first bits of patients: writers wait while each is done."""

_ROWS = 20_000
"""Rows after which a run ends early."""

_RUN, _SORTED, _PEOPLE = patient_run.c, patient_act.c, act_patient.c
_LAST = select(func.coalesce(func.max(_RUN.last), 0))
_NEWEST = "SELECT number, last FROM patient_run ORDER BY number DESC LIMIT 1"
_FULL = "SELECT seq FROM act_patient WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT 1 OFFSET ?"
_MISSING = (
    "SELECT r.number FROM patient_run r WHERE r.last > ? AND "
    "(SELECT count(*) FROM patient_act s WHERE s.run = r.number) <> "
    "(SELECT count(*) FROM act_patient p WHERE p.seq BETWEEN r.first AND r.last) ORDER BY r.number"
)
_ADDED = (
    "SELECT DISTINCT s.run FROM patient_act s JOIN patient_run r ON r.number = s.run "
    "LEFT JOIN act_patient p ON p.seq = s.seq AND p.patient = s.patient AND p.seq BETWEEN r.first AND r.last "
    "WHERE r.last > ? AND p.seq IS NULL ORDER BY s.run"
)


class Run(NamedTuple):
    """A run of acts."""

    number: int
    first: int
    last: int


def acts_of(patient: bytes) -> Select[tuple[int]]:
    """Numbers of the acts that touched a patient, for ``IN``.

    Args:
        patient: the HMAC, 32 bytes.
    """
    runs = select(_SORTED.seq).join(patient_run, _RUN.number == _SORTED.run).where(_SORTED.patient == patient)
    newer = select(_PEOPLE.seq).where(_PEOPLE.patient == patient, _PEOPLE.seq > _LAST.scalar_subquery())
    both = union_all(runs, newer).subquery()
    return select(both.c.seq)


def due(connection: Connection, sealed: int) -> bool:
    """Whether there are acts enough for another run among those up to ``sealed``."""
    return sealed - _newest(connection)[1] >= ACTS


def begun(connection: Connection, sealed: int) -> Run:
    """In the open transaction: the next run of acts up to ``sealed``, of which nothing is there yet."""
    number, before = _newest(connection)
    first, last = before + 1, min(before + ACTS, sealed)
    full = rows_of(connection, _FULL, first, last, _ROWS)
    last = full[0][0] if full else last
    # Of a process that died while it wrote this run.
    connection.execute(delete(patient_act).where(_SORTED.run == number + 1))
    return Run(number + 1, first, last)


def fill(connection: Connection, run: Run, part: int) -> None:
    """Write one of the `PARTS` of a run in the open transaction; after the last one it counts."""
    low, high = (bytes([at * 256 // PARTS]) if at < PARTS else b"" for at in (part, part + 1))
    rows = select(literal(run.number, _RUN.number.type), _PEOPLE.patient, _PEOPLE.seq)
    rows = rows.where(_PEOPLE.seq.between(run.first, run.last), _PEOPLE.patient >= low)
    rows = rows.where(_PEOPLE.patient < high) if high else rows
    rows = rows.order_by(_PEOPLE.patient, _PEOPLE.seq)
    connection.execute(insert(patient_act).from_select(["run", "patient", "seq"], rows))
    if part + 1 == PARTS:
        connection.execute(insert(patient_run).values(run._asdict()))


def wrong(connection: Connection, since: int = 0) -> Iterator[tuple[str, str]]:
    """Runs that do not hold what `act_patient` does, by name, with what is wrong.

    Args:
        since: leave out runs that end at this act or before it.
    """
    before = 0
    for number, first, last in rows_of(connection, "SELECT number, first, last FROM patient_run ORDER BY number"):
        if first != before + 1 or last < first:
            yield f"patients run {number}", "it does not begin where the run before it ends"
        before = last
    for (number,) in rows_of(connection, _MISSING, since):
        yield f"patients run {number}", "it has not as many rows as there are patients beside its acts"
    for (number,) in rows_of(connection, _ADDED, since):
        yield f"patients run {number}", "it names a patient that is not beside the act"


def _newest(connection: Connection) -> tuple[int, int]:
    found = rows_of(connection, _NEWEST)
    return (found[0][0], found[0][1]) if found else (0, 0)
