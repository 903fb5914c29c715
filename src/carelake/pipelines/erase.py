"""Erasing patients everywhere, for good, with a proof (decisions D4, 0037).

One erasure is a row with a state word. It goes through steps; each may be done again, so a run that was killed goes
on at the step where it stood, under another act. Many patients share one walk over record, landings and lake.

    record    keys, versions, index rows, predictions: a page of patients is one transaction
    links     what belongs to others and names them is rewritten; texts of codes that nobody else says go
    landing   ranges are blanked, landings that held nothing else go
    lake      rows, then snapshots and files that still have them
    features  feature sets and training sets
    copies    what others registered: files of exports (`HOOKS`)
    proof     everything is read again and looked through; what was done and found is signed and kept as a noun
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Conflict, NotFound, Refused
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.features import erase as features
from carelake.ingest.erase import LandingEraser
from carelake.lake.following.sync import position, sync
from carelake.lake.statements import questions
from carelake.lake.upkeep import erase as lake
from carelake.monitor import erase as days
from carelake.pipelines.erase_holding import holder, mine, over
from carelake.pipelines.erase_proof import Prover, leaving
from carelake.pipelines.erase_targets import Target, Targets, checked_patients, checked_reason, pages, reason_context
from carelake.pipelines.export import drop_copies
from carelake.pipelines.tables import erasure as table
from carelake.serving import capture
from carelake.store import Resources
from carelake.store.erase import Survey, Taken
from carelake.vault.tables import forgotten_due, patient_key
from carelake.vault.workspace import Vault

__all__ = ["HOOKS", "Erasures", "Hook"]

Hook = Callable[[Vault, Permit, frozenset[str]], Mapping[str, int]]
"""Removes copies that another part made; given ids of patients, answers what was done, by a word for each."""

HOOKS: list[Hook] = [drop_copies, questions.forget]

STEPS = ("record", "links", "landing", "lake", "features", "copies", "proof")
DONE = "done"
REPLAYED = "erased before this copy was made"
"""The reason of an erasure that a restored copy does again."""

_VERSIONS = 200

Progress = Callable[[str, int, int], None]
Shown = Callable[[int, int], None]


@dataclass(slots=True)
class _Job:
    """An erasure under way."""

    id: str
    state: str
    counts: dict[str, int]
    started: str
    reason_ref: str
    targets: Targets
    process: str
    """Who carried it out when it was read."""
    survey: Survey | None = None
    manifests: list[str] = field(default_factory=list)


class Erasures:
    """The erasures of a workspace."""

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox, resources: Resources) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox
        self._resources = resources
        self._turn = Lock()
        self._landings = LandingEraser(vault, nouns)
        self._prover = Prover(vault, nouns, resources, self._landings)

    # -- what is asked for ----------------------------------------------------------------------------------------

    def erase(
        self,
        permit: Permit,
        patients: Sequence[str],
        reason: str,
        *,
        progress: Progress = lambda step, done, of: None,
    ) -> dict[str, Any]:
        """Erase patients of the permit's account; the proof. What was broken off before is brought to its end first.

        Raises:
            NotFound: ``pipelines.no_such_patient``: one of them is not in the record; nobody was erased.
            Refused: ``pipelines.erase_held``: a legal hold or a retention forbids it; nobody was erased.
            Conflict: ``pipelines.erasing``: another process erases; ``lake.concurrent``.
            Invalid: ``pipelines.erase_reason``, ``pipelines.erase_patients``.
        """
        wanted = checked_patients(patients)
        told = checked_reason(reason)
        with self._alone():
            for job in self._open_jobs(permit):
                asked = self._load(permit, job).asked
                proof = self._carry_out(permit, job, progress)
                if set(wanted) <= set(asked):
                    return proof
            return self._carry_out(permit, self._begin(permit, wanted, told), progress)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread of this process at a time; `_busy` tells of other processes."""
        if not self._turn.acquire(blocking=False):
            raise _busy()
        try:
            yield
        finally:
            self._turn.release()

    def resume(self, permit: Permit, *, progress: Progress = lambda step, done, of: None) -> list[dict[str, Any]]:
        """Bring to its end what was broken off; the proofs."""
        with self._alone():
            return [self._carry_out(permit, job, progress) for job in self._open_jobs(permit)]

    def broken_off(self, permit: Permit) -> list[str]:
        """Accounts with an erasure that began, did not end, and that nobody carries out now."""
        query = select(table.c.account, table.c.process).where(table.c.state != DONE).order_by(table.c.started)
        with self._vault.database.reading(permit) as tx:
            rows = tx.execute(query).all()
        busy = {row.account for row in rows if self._busy(row.process) or (mine(row.process) and self._turn.locked())}
        return list(dict.fromkeys(row.account for row in rows if row.account not in busy))

    def replay(self, permit: Permit, *, progress: Progress = lambda step, done, of: None) -> list[dict[str, Any]]:
        """Take out of a copy whoever was erased after it was made, and finish what was under way in it."""
        with self._vault.database.reading(permit) as tx:
            due = select(forgotten_due.c.patient).where(forgotten_due.c.account == permit.account)
            patients = list(tx.execute(due).scalars())
        if patients:
            self._begin(permit, patients, REPLAYED, replay=True)
        return [self._carry_out(permit, job, progress) for job in self._open_jobs(permit, anybodys=True)]

    def get(self, permit: Permit, name: str) -> dict[str, Any]:
        """Where an erasure stands, with its proof; `NotFound` ``pipelines.no_such_erasure``."""
        with self._vault.database.reading(permit) as tx:
            row = tx.execute(select(table).where(table.c.id == name, table.c.account == permit.account)).first()
            if row is None:
                raise NotFound("pipelines.no_such_erasure", "There is no such erasure in this account.")
            proof = self._nouns.get(tx, row.proof).body if row.proof else None
        told = {"erasure": row.id, "state": row.state, "started": row.started, "ended": row.ended, "ref": row.proof}
        return {**told, "proof": proof}

    def list(self, permit: Permit, limit: int = 100) -> list[dict[str, Any]]:
        """The newest erasures of the account, without their proofs."""
        query = select(table).where(table.c.account == permit.account).order_by(table.c.started.desc()).limit(limit)
        with self._vault.database.reading(permit) as tx:
            rows = tx.execute(query).mappings().all()
        return [{name: row[name] for name in ("id", "state", "proof", "started", "ended")} for row in rows]

    def _begin(self, permit: Permit, patients: Sequence[str], reason: str, *, replay: bool = False) -> _Job:
        vault = self._vault
        with vault.database.reading(permit) as tx:
            survey = self._resources.eraser.survey(permit, tx, patients)
            known = {one for one, seqs in survey.seqs.items() if seqs}
            for start in range(0, len(patients), 500):
                page = patient_key.c.patient.in_(list(patients[start : start + 500]))
                known |= set(
                    tx.scalars(select(patient_key.c.patient).where(patient_key.c.account == permit.account, page))
                )
        unknown = len(set(patients)) - len(known)
        if unknown and not replay:
            raise NotFound(
                "pipelines.no_such_patient",
                f"{unknown} of {len(set(patients))} are not in this account's record, or were erased before; nobody "
                "was erased. Check the ids.",
            )
        if not replay:
            self._check_held(permit, survey)
        now = iso(vault.clock.now())
        with vault.database.transaction(permit) as tx:
            name = vault.ids.new()
            job = _Job(name, STEPS[0], {}, now, "", Targets(vault, name), holder(permit), survey)
            job.reason_ref = vault.keyring.reference(permit, "reason", reason.encode())
            sealed = vault.sealer.seal(permit, tx, "", reason_context(name), reason.encode())
            tx.execute(
                insert(table).values(
                    id=name,
                    account=permit.account,
                    state=job.state,
                    reason=sealed,
                    reason_ref=job.reason_ref,
                    counts="{}",
                    process=job.process,
                    proof="",
                    act=permit.act,
                    started=now,
                )
            )
            job.targets.keep(permit, tx, Target(asked=list(patients)))
            if replay:
                tx.execute(delete(forgotten_due).where(forgotten_due.c.account == permit.account))
            permit.log.note(change="erasure", erasure=name)
        return job

    def _check_held(self, permit: Permit, survey: Survey) -> None:
        held = self._landings.held(permit, survey.landings)
        held += lake.held(permit, self._vault) + features.held(permit, self._vault)
        if held:
            raise Refused(
                "pipelines.erase_held",
                f"{held} objects that hold these patients' data are under a legal hold or a retention, so nobody was "
                "erased. `carelake object hold` lifts a hold; a retention ends by itself.",
                objects=held,
            )

    def _open_jobs(self, permit: Permit, *, anybodys: bool = False) -> Sequence[_Job]:
        """Args: anybodys: of a copy too, in which nobody works yet, whoever works in the one it is a copy of."""
        query = (
            select(table).where(table.c.account == permit.account, table.c.state != DONE).order_by(table.c.started)
        )
        with self._vault.database.reading(permit) as tx:
            rows = tx.execute(query).all()
        jobs = []
        for row in rows:
            if not anybodys and self._busy(row.process):
                raise _busy()
            targets = Targets(self._vault, row.id)
            counts = canonical.load(row.counts)
            jobs.append(_Job(row.id, row.state, counts, row.started, row.reason_ref, targets, row.process))
        return jobs

    def _busy(self, process: str) -> bool:
        """Whether another process carries it out; of this one `_alone` tells."""
        return not mine(process) and not over(process, self._vault.clock.now())

    # -- steps ----------------------------------------------------------------------------------------------------

    def _carry_out(self, permit: Permit, job: _Job, progress: Progress) -> dict[str, Any]:
        with self._vault.database.transaction(permit) as tx:
            held = update(table).where(table.c.id == job.id, table.c.process == job.process, table.c.state != DONE)
            if tx.execute(held.values(process=holder(permit))).rowcount != 1:
                raise _busy()  # another one took it up meanwhile
        for step in STEPS[STEPS.index(job.state) : -1]:
            work: Callable[[Permit, _Job, Shown], None] = getattr(self, f"_{step}")
            work(permit, job, partial(progress, step))
            self._ended(permit, job, STEPS[STEPS.index(step) + 1])
        return self._proof(permit, job, progress)

    def _ended(self, permit: Permit, job: _Job, state: str) -> None:
        job.state = state
        with self._vault.database.transaction(permit) as tx:
            self._count(tx, job)
            tx.execute(update(table).where(table.c.id == job.id).values(state=state))

    @staticmethod
    def _count(tx: Connection, job: _Job, more: Mapping[str, int] | None = None) -> None:
        for name, number in (more or {}).items():
            job.counts[name] = job.counts.get(name, 0) + number
        said = canonical.dump(job.counts).decode()
        tx.execute(update(table).where(table.c.id == job.id).values(counts=said))

    def _load(self, permit: Permit, job: _Job) -> Target:
        with self._vault.database.reading(permit) as tx:
            return job.targets.load(permit, tx)

    def _record(self, permit: Permit, job: _Job, progress: Shown) -> None:
        target = self._load(permit, job)
        eraser = self._resources.eraser
        left = [one for one in target.asked if one not in set(target.done)]
        survey = job.survey
        if survey is None:
            with self._vault.database.reading(permit) as tx:
                survey = eraser.survey(permit, tx, left)
        for start, end in pages([len(survey.seqs.get(one, ())) for one in left]):
            page = left[start:end]
            with self._vault.database.transaction(permit) as tx:
                taken = eraser.take_out(permit, tx, page, survey)
                told = {"patients": len(page), **taken.counts, "keys": 0, "predictions": 0}
                for one in page:
                    told["keys"] += self._vault.sealer.forget(permit, tx, one)
                    days.forget(tx, permit.account, one)  # by the predictions, so before them
                    told["predictions"] += capture.forget(tx, permit.account, one)
                job.targets.keep(permit, tx, Target.of(taken, page))
                self._count(tx, job, told)
                permit.log.count(**told)
            progress(end, len(left))

    def _links(self, permit: Permit, job: _Job, progress: Shown) -> None:
        target, eraser = self._load(permit, job), self._resources.eraser
        gone, binaries = target.gone, set(target.binaries)
        while True:
            found, _ = eraser.mentions(permit, gone, binaries, progress=progress)
            more: set[str] = set()
            for start in range(0, len(found), _VERSIONS):
                more |= self._unlink(permit, job, found[start : start + _VERSIONS], gone)
            orphans = binaries - gone.resources
            if orphans:
                with self._vault.database.transaction(permit) as tx:
                    taken = Taken()
                    eraser.drop(permit, tx, orphans, taken)
                    job.targets.keep(permit, tx, Target.of(taken))
                    self._count(tx, job, taken.counts)
                    permit.log.count(**taken.counts)
                more |= taken.resources
                binaries = set(taken.binaries)
            more -= gone.resources
            if not more:
                break
            gone.add(more)
        target = self._load(permit, job)
        with self._vault.database.transaction(permit) as tx:
            # Of bodies that could not be opened nobody knows what they said: then every text is looked at.
            shown = eraser.all_shown(permit, tx) if target.unread else target.shown
            texts = eraser.drop_shown(permit, tx, shown)
            self._count(tx, job, {"code_texts": texts})
            permit.log.count(code_texts=texts)

    def _unlink(self, permit: Permit, job: _Job, seqs: Sequence[int], gone: Any) -> set[str]:
        eraser = self._resources.eraser
        with self._vault.database.transaction(permit) as tx:
            taken = Taken()
            rewritten = eraser.rewrite(permit, tx, seqs, gone, taken)
            job.targets.keep(permit, tx, Target.of(taken, rewritten=rewritten))
            self._count(tx, job, taken.counts)
            permit.log.count(**taken.counts)
        return taken.resources

    def _landing(self, permit: Permit, job: _Job, progress: Shown) -> None:
        target = self._load(permit, job)
        told = self._landings.erase(permit, target.gone, target.ranges, progress=progress)
        job.manifests = told.manifests or []
        counts = {"landings_blanked": told.blanked, "landings_removed": told.removed, "landing_ranges": told.ranges}
        self._add(job, {**counts, "landing_bytes": told.bytes, "quarantined": told.refused})

    def _lake(self, permit: Permit, job: _Job, progress: Shown) -> None:
        if position(permit, self._vault)[1]:  # so that it has the deletions of what had been moved to them
            sync(permit, self._vault, self._resources, self._nouns)
        told = lake.erase(
            permit,
            self._vault,
            self._nouns,
            self._resources,
            leaving(self._load(permit, job)),
            mark=job.id,
            progress=progress,
        )
        self._add(job, told)

    def _features(self, permit: Permit, job: _Job, progress: Shown) -> None:
        asked = set(self._load(permit, job).asked)
        self._add(job, features.erase(permit, self._vault, self._nouns, asked, progress=progress))

    def _copies(self, permit: Permit, job: _Job, progress: Shown) -> None:
        asked = frozenset(self._load(permit, job).asked)
        for hook in HOOKS:
            self._add(job, hook(self._vault, permit, asked))

    @staticmethod
    def _add(job: _Job, told: Mapping[str, int]) -> None:
        for name, number in told.items():
            job.counts[name] = job.counts.get(name, 0) + number

    # -- the end --------------------------------------------------------------------------------------------------

    def _proof(self, permit: Permit, job: _Job, progress: Progress) -> dict[str, Any]:
        target = self._load(permit, job)
        residue = self._prover.residue(permit, target, progress)
        told = {"erasure": job.id, "reason_ref": job.reason_ref, "started": job.started, "manifests": job.manifests}
        noun = self._prover.prove(permit, target, {**told, "counts": dict(sorted(job.counts.items()))}, residue)
        report = noun.body["report"]
        with self._vault.database.transaction(permit) as tx:
            self._nouns.write(tx, noun)
            job.targets.drop(tx)
            done = {"state": DONE, "proof": noun.ref, "ended": report["ended"]}
            tx.execute(update(table).where(table.c.id == job.id).values(**done))
            permit.log.wrote(noun.ref)
            permit.log.count(residue=sum(residue.values()))
            said = {"patients": len(target.asked)}
            self._outbox.publish(tx, permit.account, "record.erased", noun.ref, said)
        signed = {name: noun.body[name] for name in ("signature", "key_version")}
        return {"ref": noun.ref, "state": noun.state, **report, **signed}


def _busy() -> Conflict:
    return Conflict("pipelines.erasing", "Another erasure is under way in this account; wait for it to end.")
