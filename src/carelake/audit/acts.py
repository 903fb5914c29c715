"""Acts: who did what to which thing, for what purpose, with which outcome (decision D3).

A write's act is a row in the transaction of its data: the vault flushes the permit's log just before it commits.
A read's act is committed before its answer leaves the gate. A job writes ``start``, one ``page`` per transaction,
and ``done`` or ``failed``; a ``start`` whose process is gone without an end is reported as ``interrupted``.

An act keeps the clock's time in ``at``. Where that is behind what the trail has seen (the clock was set back, or two
machines differ), ``after`` says how far the trail had come: the order of acts is that of ``seq``, never of clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import json
from sqlalchemy import Connection, update

from carelake.audit.counters import begin, take
from carelake.audit.tables import act
from carelake.core import canonical
from carelake.core.clock import Clock, instant, iso
from carelake.vault.database import Database, bulk, rows_of, scope_of

__all__ = ["ActDraft", "ActHeader", "ActRow", "Phase", "append", "commit", "prepared", "write"]

Phase = Literal["start", "page", "done", "failed", "refused", "interrupted"]

_COLUMNS = ("correlation", "phase", "at", "principal", "account", "purpose", "action", "target")
_INSERT = f"INSERT INTO act (seq, {', '.join(_COLUMNS)}, facts) VALUES ({', '.join('?' * (len(_COLUMNS) + 2))})"

_TYPED = ", ".join(f"{name} text" for name in (*_COLUMNS, "facts"))
_AT_ONCE = f"""
WITH taken AS (
    UPDATE trail_counter SET last = last + ?, at = CASE WHEN at < ? THEN ? ELSE at END
    WHERE name = 'act' AND at <= ? RETURNING last, at
), given AS (
    SELECT taken.last - ? + said.number AS seq, said.* FROM taken, ROWS FROM (
        json_to_recordset(CAST(? AS json)) AS ({_TYPED}, people json)
    ) WITH ORDINALITY AS said ({", ".join(_COLUMNS)}, facts, people, number)
), acts AS (
    INSERT INTO act (seq, {", ".join(_COLUMNS)}, facts) SELECT seq, {", ".join(_COLUMNS)}, facts FROM given
), patients AS (
    INSERT INTO act_patient (seq, patient)
    SELECT seq, decode(one, 'hex') FROM given, json_array_elements_text(given.people) AS one
)
SELECT last, at FROM taken
"""
"""For PostgreSQL, from one text of JSON: numbers taken, acts and their patients written.

Nothing is, where the trail had come further than the fourth value. The counter's row is held until the commit: so it
is right beside other writers without their turn, too.
"""

_EVER = "9999"

_LISTED = 50
"""Refs named one by one on an act; more than these are counted and digested."""

_BEHIND = timedelta(seconds=1)
"""Acts of several writers may be so much out of the order of their clocks; more than this is noted."""


@dataclass(frozen=True, slots=True)
class ActHeader:
    """What is known of an act before it happens."""

    correlation: str
    principal: str
    account: str
    purpose: str
    action: str
    target: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActRow:
    """One act that is ready to be written, but for its number.

    Attributes:
        at: the clock's time.
        columns: of the table, without ``seq`` and ``facts``.
        facts: everything else that it says.
        patients: ``patient:HEX`` of all whose records were touched.
    """

    at: datetime
    columns: Mapping[str, str]
    facts: Mapping[str, Any]
    text: str
    patients: Sequence[str] = ()


class ActDraft:
    """The `carelake.core.permit.ActLog` of one permit: collects, and writes acts when the vault commits."""

    def __init__(self, header: ActHeader, clock: Clock, *, job: bool) -> None:
        self._header = header
        self._clock = clock
        self._job = job
        self._reads: dict[str, None] = {}
        self._writes: dict[str, None] = {}
        self._patients: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self._keys: dict[str, None] = {}
        self._notes: dict[str, str | list[str]] = {}
        self.flushed = False
        self.ended = False

    def read(self, *refs: str) -> None:
        self._reads.update(dict.fromkeys(refs))

    def wrote(self, *refs: str) -> None:
        self._writes.update(dict.fromkeys(refs))

    def patients(self, *refs: str) -> None:
        self._patients.update(dict.fromkeys(refs))

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self._counts[name] = self._counts.get(name, 0) + number

    def key(self, name: str) -> None:
        self._keys[name] = None

    def note(self, **facts: str | list[str]) -> None:
        self._notes.update(facts)

    def pending(self) -> bool:
        """Whether something was noted that no act tells yet."""
        return any((self._reads, self._writes, self._patients, self._counts, self._keys, self._notes))

    def flush(self, connection: Connection) -> None:
        """Write what was noted since the last flush: a job's page, or the act itself."""
        if self._job:
            if self._writes or self._counts or self._notes:
                self._append(connection, "page")
        elif self.pending() or not self.flushed:
            self._append(connection, "done")

    def prepare(self, phase: Phase, **facts: object) -> ActRow:
        """One act of what was noted, which is forgotten then: the caller writes the act, or fails."""
        said = {
            **self._header.facts,
            **facts,
            **_named("read", self._reads),
            **_named("wrote", self._writes),
        }
        if self._counts:
            said["counts"] = dict(self._counts)
        if self._keys:
            said["keys"] = sorted(self._keys)
        if self._notes:
            said["changed"] = dict(self._notes)
        row = prepared(self._header, phase, self._clock, said, self._patients)
        self.flushed = True
        noted: tuple[dict[str, Any], ...] = (self._reads, self._writes, self._patients)
        for one in (*noted, self._counts, self._keys, self._notes):
            one.clear()
        return row

    def _append(self, connection: Connection, phase: Phase) -> None:
        # What was seen was seen, also when this transaction is undone; what was written and counted was not.
        seen = [(noted, dict(noted)) for noted in (self._reads, self._patients, self._keys)]
        scope = scope_of(connection)
        scope.undo.append(lambda: _restore(seen))
        scope.keep(append, self.prepare(phase))


def _restore(seen: Iterable[tuple[dict[str, None], Mapping[str, None]]]) -> None:
    for noted, before in seen:
        noted.update(before)


def _named(name: str, refs: Mapping[str, None]) -> dict[str, object]:
    if not refs:
        return {}
    if len(refs) <= _LISTED:
        return {name: list(refs)}
    return {name + "_count": len(refs), name + "_digest": canonical.digest(sorted(refs))}


def prepared(
    header: ActHeader, phase: Phase, clock: Clock, facts: Mapping[str, Any], patients: Iterable[str] = ()
) -> ActRow:
    """An act as it will be written. Patients are named, or counted and digested; the table holds them all."""
    people = sorted(patients)
    said = {**facts, **_named("patients", dict.fromkeys(people))}
    now = clock.now()
    columns = {
        "correlation": header.correlation,
        "phase": phase,
        "at": iso(now),
        "principal": header.principal,
        "account": header.account,
        "purpose": header.purpose,
        "action": header.action,
        "target": header.target,
    }
    return ActRow(now, columns, said, canonical.dump(said).decode(), people)


def commit(database: Database, rows: Sequence[ActRow]) -> None:
    """Append acts in a transaction of their own; see `append`.

    PostgreSQL is asked once: an answer leaves after it, and each round that is waited for lasts as long as it takes
    this process to be given a processor again.
    """
    if database.dialect == "postgresql":
        latest, late = iso(max(row.at for row in rows)), iso(min(row.at for row in rows) + _BEHIND)
        # One that is late has to say so, which is known when the counter was read.
        if latest <= late and database.ledger_at_once(_AT_ONCE, *_values(rows, latest, late)):
            return
    with database.ledger(keys=False) as connection:
        append(connection, rows)


def append(connection: Connection, rows: Sequence[ActRow]) -> None:
    """Append acts in the open transaction, in this order and without a gap."""
    latest = iso(max(row.at for row in rows))
    if connection.dialect.name == "postgresql":
        _append_at_once(connection, rows, latest)
        return
    first, reached = take(connection, "act", len(rows), latest)
    behind = instant(reached) - _BEHIND
    written: list[tuple[Any, ...]] = []
    people: list[tuple[int, bytes]] = []
    for seq, row in enumerate(rows, first):
        text = row.text if row.at >= behind else _late(row, reached)
        written.append((seq, *(row.columns[name] for name in _COLUMNS), text))
        people += [(seq, bytes.fromhex(one.partition(":")[2])) for one in row.patients]
    bulk(connection, _INSERT, written)
    bulk(connection, "INSERT INTO act_patient (seq, patient) VALUES (?, ?)", people)


def _late(row: ActRow, reached: str) -> str:
    return canonical.dump({**row.facts, "after": reached}).decode()


def _append_at_once(connection: Connection, rows: Sequence[ActRow], latest: str) -> None:
    """By one statement: of PostgreSQL each answer is waited for."""
    values = _values(rows, latest, _EVER)
    found = rows_of(connection, _AT_ONCE, *values)
    if not found:
        begin(connection, "act", latest)
        found = rows_of(connection, _AT_ONCE, *values)
    last, reached = found[0]
    behind = instant(reached) - _BEHIND
    for seq, row in enumerate(rows, last - len(rows) + 1):
        if row.at < behind:
            connection.execute(update(act).where(act.c.seq == seq).values(facts=_late(row, reached)))


def _values(rows: Sequence[ActRow], latest: str, late: str) -> tuple[Any, ...]:
    """For `_AT_ONCE`."""
    people = [[one.partition(":")[2] for one in row.patients] for row in rows]
    said = [{**row.columns, "facts": row.text, "people": some} for row, some in zip(rows, people, strict=True)]
    return len(rows), latest, latest, late, len(rows), json.encode(said).decode()


def write(connection: Connection, header: ActHeader, phase: Phase, clock: Clock, facts: Mapping[str, Any]) -> None:
    """Append one act."""
    append(connection, [prepared(header, phase, clock, facts)])
