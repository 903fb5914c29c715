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

from sqlalchemy import Connection

from carelake.audit.counters import take
from carelake.core import canonical
from carelake.core.clock import Clock, instant, iso
from carelake.vault.database import bulk, scope_of

__all__ = ["ActDraft", "ActHeader", "ActRow", "Phase", "append", "prepared", "write"]

Phase = Literal["start", "page", "done", "failed", "refused", "interrupted"]

_COLUMNS = ("correlation", "phase", "at", "principal", "account", "purpose", "action", "target")
_INSERT = f"INSERT INTO act (seq, {', '.join(_COLUMNS)}, facts) VALUES ({', '.join('?' * (len(_COLUMNS) + 2))})"

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


def append(connection: Connection, rows: Sequence[ActRow]) -> None:
    """Append acts in the open transaction, in this order and without a gap."""
    latest = max(row.at for row in rows)
    first, reached = take(connection, "act", len(rows), iso(latest))
    behind = instant(reached) - _BEHIND
    written: list[tuple[Any, ...]] = []
    people: list[tuple[int, bytes]] = []
    for seq, row in enumerate(rows, first):
        text = row.text
        if row.at < behind:
            text = canonical.dump({**row.facts, "after": reached}).decode()
        written.append((seq, *(row.columns[name] for name in _COLUMNS), text))
        people += [(seq, bytes.fromhex(one.partition(":")[2])) for one in row.patients]
    bulk(connection, _INSERT, written)
    bulk(connection, "INSERT INTO act_patient (seq, patient) VALUES (?, ?)", people)


def write(connection: Connection, header: ActHeader, phase: Phase, clock: Clock, facts: Mapping[str, Any]) -> None:
    """Append one act."""
    append(connection, [prepared(header, phase, clock, facts)])
