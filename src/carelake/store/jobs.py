"""Jobs of bulk export and import: what was asked for, by whom, and how far it is; a killed one is taken up again.

A job is seen by who asked for it alone. What was asked for is sealed under the zone's key, since it can name
patients. Who carries a job out holds it by its process and until a time: another process takes it when that one is
gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from carelake.audit.processes import alive, elsewhere, this_process
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, NotFound, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.store.jobs_tables import bulk_job, bulk_part
from carelake.store.scopes import bounded
from carelake.vault.database import bulk
from carelake.vault.workspace import Vault

__all__ = ["Entry", "Job", "Jobs", "Part", "Waiting"]

_J, _P = bulk_job.c, bulk_part.c
_HELD = timedelta(minutes=5)
_INSERT = (
    "INSERT INTO bulk_part (job, number, role, type, source, position, goal, lines, failed, size, object, done) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PART = (_P.number, _P.role, _P.type, _P.position, _P.goal, _P.lines, _P.failed, _P.size, _P.object, _P.done)
_LIVING = ("accepted", "running")
_ZONES = {"sql": "lake"}
"""Where the files of a kind are, if not in the clinical zone."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Attributes:
        kind: export or import, which the server carries out; dump or load, of a command; sql, a statement.
        state: accepted, running, done, failed, cancelled or expired.
        asked: what was asked for.
        seq: the newest version that an export can have.
        time: transactionTime.
        error: code of what it failed with.
    """

    id: str
    account: str
    kind: str
    state: str
    principal: str
    purpose: str
    asked: dict[str, Any]
    seq: int
    time: str
    created: str
    ended: str | None
    expires: str | None
    error: str


class Part(NamedTuple):
    """One file of a job; see `jobs_tables`."""

    number: int
    role: str
    type: str
    position: int
    goal: int
    lines: int
    failed: int
    size: int
    object: str
    done: bool


class Entry(NamedTuple):
    """A part that is new."""

    role: str
    type: str
    source: bytes
    goal: int
    object: str
    lines: int = 0
    failed: int = 0
    done: bool = False


class Waiting(NamedTuple):
    """A job that nobody carries out, or whose files have had their time."""

    id: str
    account: str
    kind: str
    principal: str
    purpose: str
    over: bool


class Jobs:
    """The jobs of a workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    # -- beginning ------------------------------------------------------------------------------------------------

    def begin(
        self, permit: Permit, tx: Connection, kind: str, asked: Mapping[str, Any], *, most: int | None = None
    ) -> str:
        """A new job, held by this process until `accept`; answers its id.

        Args:
            tx: a write transaction, of which there is one at a time: two that begin at once are counted one by one.
            most: so many of the principal's may be not at their end, with this one.

        Raises:
            Unavailable: ``store.too_many_jobs``.
        """
        if most is not None and self.running(permit, tx, kind) >= most:
            raise Unavailable(
                "store.too_many_jobs",
                "So many of your jobs run already (bulk.most_jobs); wait for one, or cancel it.",
            )
        job, now = self._vault.ids.new(), self._vault.clock.now()
        sealed = self._vault.sealer.seal(permit, tx, "", _context(job), canonical.dump(dict(asked)))
        tx.execute(
            insert(bulk_job).values(
                id=job,
                account=permit.account,
                kind=kind,
                state="running",
                principal=permit.principal,
                purpose=permit.purpose,
                scope=_scope(permit),
                asked=sealed,
                seq=0,
                time=_precise(now),
                process=self._holder(now),
                created=iso(now),
            )
        )
        permit.log.note(job=job)
        return job

    def plan(
        self, permit: Permit, tx: Connection, job: str, parts: Sequence[Entry], *, seq: int = 0, updated: int = 0
    ) -> None:
        """Write down what a job is made of.

        Args:
            updated: microseconds since 1970 of the newest version: transactionTime, where that is later than `begin`.
        """
        rows = [
            (job, number, one.role, one.type, one.source, 0, one.goal, one.lines, one.failed, 0, one.object, one.done)
            for number, one in enumerate(parts, 1)
        ]
        bulk(tx, _INSERT, rows)
        time = tx.execute(select(_J.time).where(_J.id == job)).scalar_one()
        newest = _precise(datetime.fromtimestamp(0, instant(time).tzinfo) + timedelta(microseconds=updated))
        tx.execute(update(bulk_job).where(_J.id == job).values(seq=seq, time=max(time, newest)))

    def release(self, tx: Connection, job: str, state: str = "accepted") -> None:
        """Nobody carries it out any more; whoever comes next goes on with it."""
        tx.execute(update(bulk_job).where(_J.id == job, _J.state == "running").values(state=state, process=""))

    def reopen(self, tx: Connection, job: str) -> None:
        """A job that was done has lost a file: it is to be made again."""
        tx.execute(update(bulk_job).where(_J.id == job, _J.state == "done").values(state="accepted", process=""))

    def add(self, tx: Connection, job: str, parts: Sequence[Entry]) -> None:
        """More parts, after those that are there."""
        last = tx.execute(select(func.max(_P.number)).where(_P.job == job)).scalar() or 0
        rows = [
            (job, number, one.role, one.type, one.source, 0, one.goal, one.lines, one.failed, 0, one.object, one.done)
            for number, one in enumerate(parts, last + 1)
        ]
        bulk(tx, _INSERT, rows)

    # -- reading --------------------------------------------------------------------------------------------------

    def get(self, permit: Permit, tx: Connection, job: str) -> Job:
        """A job of the permit's principal, account and purpose.

        Raises:
            NotFound: ``store.no_such_job``, also where it is another's.
        """
        row = tx.execute(select(bulk_job).where(_J.id == job, *_own(permit))).mappings().first()
        if row is None or row["state"] in ("cancelled", "expired"):
            raise NotFound("store.no_such_job", "There is no such job; it was cancelled, or its time is over.")
        return self._opened(permit, tx, row)

    def unfinished(self, permit: Permit, tx: Connection, kind: str) -> list[Job]:
        """The principal's jobs of a kind that are not at their end, newest first."""
        query = select(bulk_job).where(_J.kind == kind, _J.state.in_(_LIVING), *_own(permit))
        rows = tx.execute(query.order_by(_J.created.desc(), _J.id.desc())).mappings().all()
        return [self._opened(permit, tx, row) for row in rows]

    def wanted(self, permit: Permit, tx: Connection, kind: str) -> list[dict[str, Any]]:
        """What the account's jobs of a kind ask for that are not at their end, whoever's they are."""
        query = select(bulk_job).where(_J.kind == kind, _J.state.in_(_LIVING), _J.account == permit.account)
        return [self._opened(permit, tx, row).asked for row in tx.execute(query).mappings().all()]

    def parts(self, tx: Connection, job: str, *roles: str) -> list[Part]:
        """A job's parts in order, of some roles or all."""
        query = select(*_PART).where(_P.job == job).order_by(_P.number)
        return [Part(*tuple(row)) for row in tx.execute(query.where(_P.role.in_(roles)) if roles else query)]

    def source(self, tx: Connection, job: str, number: int) -> bytes:
        """What a part is made from."""
        return bytes(tx.execute(select(_P.source).where(_P.job == job, _P.number == number)).scalar_one())

    def waiting(self, tx: Connection, kinds: Sequence[str]) -> list[Waiting]:
        """Jobs that can be taken up now, oldest first, and those whose files have had their time."""
        now = iso(self._vault.clock.now())
        query = select(_J.id, _J.account, _J.kind, _J.principal, _J.purpose, _J.state, _J.process)
        living = query.where(_J.kind.in_(kinds), _J.state.in_(_LIVING)).order_by(_J.created, _J.id)
        found = [Waiting(*row[:5], over=False) for row in tx.execute(living) if self._free(row.process)]
        over = query.where(_J.state.in_(("done", "failed")), _J.expires < now).order_by(_J.expires)
        return [*found, *(Waiting(*row[:5], over=True) for row in tx.execute(over.limit(100)))]

    def running(self, permit: Permit, tx: Connection, kind: str) -> int:
        """How many jobs of the principal are not at their end; statements are counted by themselves."""
        like = _J.kind == "sql" if kind == "sql" else _J.kind != "sql"
        query = select(func.count()).select_from(bulk_job).where(_J.state.in_(_LIVING), like, *_own(permit))
        return int(tx.execute(query).scalar_one())

    def living(self, tx: Connection, jobs: Sequence[str]) -> set[str]:
        """Those of some jobs that are not at their end: nobody cancelled them."""
        query = select(_J.id).where(_J.id.in_(jobs), _J.state.in_(_LIVING))
        return set(tx.execute(query).scalars().all())

    # -- carrying out ---------------------------------------------------------------------------------------------

    def claim(self, permit: Permit, tx: Connection, job: str) -> Job:
        """Take a job up, in a write transaction, of which there is one at a time.

        Raises:
            Conflict: ``store.job_running``: another process carries it out. NotFound: as `get`.
        """
        found = self.get(permit, tx, job)
        process = tx.execute(select(_J.process).where(_J.id == job)).scalar_one()
        if found.state not in _LIVING or not self._free(process):
            raise Conflict("store.job_running", "Another process carries this job out; wait for it to end.", job=job)
        self.hold(tx, job)
        return found

    def advance(self, tx: Connection, job: str, number: int, **values: Any) -> None:
        """Note what a part has now, and hold the job for longer.

        Raises:
            Conflict: ``store.job_cancelled``.
        """
        self.hold(tx, job)
        tx.execute(update(bulk_part).where(_P.job == job, _P.number == number).values(**values))

    def hold(self, tx: Connection, job: str) -> None:
        """Hold a job for longer; `Conflict` ``store.job_cancelled``."""
        values = {"state": "running", "process": self._holder(self._vault.clock.now())}
        held = tx.execute(update(bulk_job).where(_J.id == job, _J.state.in_(_LIVING)).values(**values))
        if held.rowcount != 1:
            raise Conflict("store.job_cancelled", "The job was cancelled.", job=job)

    def end(self, tx: Connection, job: str, *, seconds: float, error: str = "") -> None:
        """A job is done, or failed; its files stay for so long."""
        now = self._vault.clock.now()
        values = {"state": "failed" if error else "done", "error": error[:64], "process": "", "ended": iso(now)}
        values["expires"] = iso(now + timedelta(seconds=seconds))
        tx.execute(update(bulk_job).where(_J.id == job, _J.state.in_(_LIVING)).values(**values))

    def drop(self, permit: Permit, tx: Connection, job: str, state: str) -> None:
        """Cancel a job, or let it expire: its files and what was asked for go."""
        kind = tx.execute(select(_J.kind).where(_J.id == job)).scalar()
        zone = _ZONES.get(str(kind), "clinical")
        for (name,) in tx.execute(select(_P.object).where(_P.job == job, _P.done, _P.object.like("bulk/%"))).all():
            try:
                self._vault.objects.delete(permit, zone, name)
            except NotFound:
                continue
        tx.execute(delete(bulk_part).where(_P.job == job))
        tx.execute(update(bulk_job).where(_J.id == job).values(state=state, asked=b"", process=""))
        permit.log.note(job=job, change=state)

    def forget(self, permit: Permit, tx: Connection, job: str) -> None:
        """A job that is over and left nothing for anybody to ask after: the trail alone tells of it."""
        tx.execute(delete(bulk_part).where(_P.job == job))
        tx.execute(delete(bulk_job).where(_J.id == job, *_own(permit)))
        permit.log.note(job=job, change="forgotten")

    def sweep(self, permit: Permit, tx: Connection) -> None:
        """Drop the principal's jobs whose files have had their time."""
        now = iso(self._vault.clock.now())
        over = select(_J.id).where(_J.state.in_(("done", "failed")), _J.expires < now, *_own(permit))
        for job in tx.execute(over).scalars().all():
            self.drop(permit, tx, job, "expired")

    def drop_files(self, permit: Permit, tx: Connection) -> int:
        """Drop every job of the account with its files, whoever asked: what was erased must not lie in them.

        Exports that run begin anew where they are asked for again; answers the number of jobs.
        """
        query = select(_J.id).where(_J.account == permit.account, _J.state.not_in(("cancelled", "expired")))
        jobs = tx.execute(query).scalars().all()
        for job in jobs:
            self.drop(permit, tx, job, "expired")
        return len(jobs)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _opened(self, permit: Permit, tx: Connection, row: Any) -> Job:
        asked = self._vault.sealer.open(permit, tx, "", _context(row["id"]), row["asked"])
        names = [name for name in Job.__dataclass_fields__ if name != "asked"]
        return Job(asked=canonical.load(asked), **{name: row[name] for name in names})

    def _holder(self, now: datetime) -> str:
        return canonical.dump({**this_process(), "until": iso(now + _HELD)}).decode()

    def _free(self, process: str) -> bool:
        if not process:
            return True
        holder = canonical.load(process)
        if elsewhere(holder):
            return self._vault.clock.now() >= instant(holder["until"])
        return not alive(holder)


def _own(permit: Permit) -> tuple[Any, ...]:
    """The principal's; whose token sees a part of the record has what was begun in the same sight alone."""
    within = (_J.scope == _scope(permit),) if _sees_less(permit) else ()
    return (_J.account == permit.account, _J.principal == permit.principal, _J.purpose == permit.purpose, *within)


def _sees_less(permit: Permit) -> bool:
    try:
        return bounded(permit, consents=False)  # they bound what is seen, whoever's job it is
    except Refused:  # of the lake's predicates the record knows none: each of them leaves something out
        return True


def _scope(permit: Permit) -> str:
    return sha256("\n".join(permit.scope).encode()).hexdigest()


def _context(job: str) -> bytes:
    return f"bulk|{job}".encode()


def _precise(moment: datetime) -> str:
    """An instant with microseconds: what comes after it must not have the same."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
