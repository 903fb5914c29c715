"""Acts: who did what to which thing, for what purpose, with which outcome (decision D3).

A write's act is a row in the transaction of its data: the vault flushes the permit's log just before it commits.
A read's act is committed before its answer leaves the gate. A job writes ``start``, one ``page`` per transaction,
and ``done`` or ``failed``; a ``start`` whose process is gone without an end is reported as ``interrupted``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, insert, select

from carelake.audit.tables import act
from carelake.core import canonical
from carelake.core.clock import Clock, iso

__all__ = ["ActDraft", "ActHeader", "Acts", "Phase", "alive", "as_json", "close_interrupted", "this_process", "write"]

Phase = Literal["start", "page", "done", "failed", "refused", "interrupted"]

_LISTED = 50
"""Refs named one by one on an act; more than these are counted and digested."""


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


class ActDraft:
    """The `carelake.core.permit.ActLog` of one permit: collects, and writes acts when the vault commits."""

    def __init__(self, header: ActHeader, clock: Clock, *, job: bool) -> None:
        self._header = header
        self._clock = clock
        self._job = job
        self._reads: dict[str, None] = {}
        self._writes: dict[str, None] = {}
        self._counts: dict[str, int] = {}
        self._keys: dict[str, None] = {}
        self.flushed = False

    def read(self, *refs: str) -> None:
        self._reads.update(dict.fromkeys(refs))

    def wrote(self, *refs: str) -> None:
        self._writes.update(dict.fromkeys(refs))

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self._counts[name] = self._counts.get(name, 0) + number

    def key(self, name: str) -> None:
        self._keys[name] = None

    def pending(self) -> bool:
        """Whether something was noted that no act tells yet."""
        return bool(self._reads or self._writes or self._counts or self._keys)

    def flush(self, connection: Connection) -> None:
        """Write what was noted since the last flush: a job's page, or the act itself."""
        if self._job:
            if self._writes or self._counts:
                self.record(connection, "page")
        elif self.pending() or not self.flushed:
            self.record(connection, "done")

    def record(self, connection: Connection, phase: Phase, **facts: object) -> None:
        """Write one act and forget what it told."""
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
        write(connection, self._header, phase, self._clock, said)
        self.flushed = True
        for noted in (self._reads, self._writes, self._counts, self._keys):
            noted.clear()


def _named(name: str, refs: Mapping[str, None]) -> dict[str, object]:
    if not refs:
        return {}
    if len(refs) <= _LISTED:
        return {name: list(refs)}
    return {name + "_count": len(refs), name + "_digest": canonical.digest(sorted(refs))}


def write(connection: Connection, header: ActHeader, phase: Phase, clock: Clock, facts: Mapping[str, Any]) -> None:
    """Append one act row."""
    connection.execute(
        insert(act).values(
            correlation=header.correlation,
            phase=phase,
            at=iso(clock.now()),
            principal=header.principal,
            account=header.account,
            purpose=header.purpose,
            action=header.action,
            target=header.target,
            facts=canonical.dump(dict(facts)).decode(),
        )
    )


class Acts:
    """Readings of the trail."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def count(self) -> int:
        """How many acts there are."""
        return int(self._connection.exec_driver_sql("SELECT count(*) FROM act").scalar_one())

    def after(self, seq: int, limit: int = 100_000) -> Iterator[dict[str, Any]]:
        """Acts in order, as JSON objects: the form that is sealed and exported."""
        rows = self._connection.execute(select(act).where(act.c.seq > seq).order_by(act.c.seq).limit(limit))
        for row in rows.mappings():
            yield as_json(row)

    def find(self, *, limit: int = 100, **equal: str) -> list[dict[str, Any]]:
        """The newest acts whose columns equal what is given, newest first."""
        query = select(act).order_by(act.c.seq.desc()).limit(limit)
        for name, value in equal.items():
            query = query.where(act.c[name] == value)
        return [as_json(row) for row in self._connection.execute(query).mappings()]

    def unfinished(self) -> list[dict[str, Any]]:
        """``start`` acts that have no end."""
        ended = select(act.c.correlation).where(act.c.phase.in_(("done", "failed", "interrupted")))
        query = select(act).where(act.c.phase == "start", act.c.correlation.not_in(ended)).order_by(act.c.seq)
        return [as_json(row) for row in self._connection.execute(query).mappings()]


def as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """One act row as the JSON object that is sealed."""
    return {**canonical.load(row["facts"]), **{k: v for k, v in row.items() if k != "facts"}}


def this_process() -> dict[str, int]:
    """Names this process so that a later one can tell whether it still runs (a pid alone is used again)."""
    return {"pid": os.getpid(), "started": _start_ticks(os.getpid())}


def alive(process: Mapping[str, int]) -> bool:
    """Whether the process that `this_process` named still runs on this machine."""
    pid = process.get("pid", 0)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return _start_ticks(pid) == process.get("started", 0)


def _start_ticks(pid: int) -> int:
    # Field 22 of /proc/PID/stat (proc(5)); 0 where there is no /proc, and then the pid alone decides.
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def close_interrupted(connection: Connection, clock: Clock) -> int:
    """Append ``interrupted`` for each job whose process is gone; answers how many."""
    gone = [a for a in Acts(connection).unfinished() if not alive(a.get("process", {}))]
    for a in gone:
        header = ActHeader(a["correlation"], a["principal"], a["account"], a["purpose"], a["action"], a["target"])
        write(connection, header, "interrupted", clock, {})
    return len(gone)
