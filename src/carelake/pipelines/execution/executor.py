"""Takes an execution for this process: one carries it out at a time, and what a killed one left is taken up again.

A row says who carries an execution out. When that process is gone, whoever comes next goes on where it stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from carelake.access.gate import Gate
from carelake.access.identity import Identity
from carelake.audit.nouns import Nouns
from carelake.audit.processes import alive, elsewhere, this_process
from carelake.audit.readings import Acts
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.pipelines.definition.document import Definition, Step, parse
from carelake.pipelines.execution import callbacks, reuse
from carelake.pipelines.execution.carrying import Carrying, Told
from carelake.pipelines.execution.launching import Launcher
from carelake.pipelines.execution.rows import ENDED, Execution, Rows, StepRow
from carelake.pipelines.jobs.catalogue import JOBS, Job, job_of, named
from carelake.vault.workspace import Vault

__all__ = ["Executor"]

_ENDS = ("done", "failed", "interrupted")


@dataclass(frozen=True)
class Executor:
    """Carries executions out in this process, their steps by a launcher.

    Attributes:
        policies: digest of the policies under which its steps see what they see.
        parallel: steps at once, where neither the execution nor its pipeline says.
        gate, identity: are asked what the starter of an execution may do, before a result is used again.
    """

    vault: Vault
    nouns: Nouns
    outbox: Outbox
    launcher: Launcher
    policies: str
    parallel: int = 2
    jobs: Mapping[str, Job] = field(default_factory=lambda: JOBS)
    gate: Gate = field(kw_only=True)
    identity: Identity = field(kw_only=True)

    def carry_out(
        self, permit: Permit, execution: str, *, told: Told = lambda _definition, _steps: None
    ) -> Execution:
        """Carry an execution out to its end, or until nothing is left but callbacks that did not come back.

        Args:
            permit: for ``pipeline:run``, a job's; what the steps do has permits of its own.

        Raises:
            Conflict: ``pipelines.running``, ``pipelines.running_elsewhere``: another process carries it out.
            NotFound: ``pipelines.no_such_execution``.
        """
        one, definition, steps = self._claim(permit, execution)
        if one.status in ENDED:
            return one
        if name := reuse.unlent(self, permit, one, steps):
            return self._unfit(permit, one, _not_lent(name))
        try:
            carrying = Carrying(self, permit, one, definition, steps, told)
        except Invalid as error:
            return self._unfit(permit, one, f"{error.code}: {error.message}")
        return carrying.through()

    def _unfit(self, permit: Permit, one: Execution, reason: str) -> Execution:
        """Failed before its first step: nobody shall take it up again and again."""
        now = iso(self.vault.clock.now())
        with self.vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            rows.change_execution(one.id, status="Failed", reason=reason[:1300], process="", modified=now)
            said = {"pipeline": one.pipeline, "execution": one.id, "status": "Failed"}
            self.outbox.publish(tx, one.account, "pipeline.execution", f"run:{one.id}", said)
            return rows.execution(one.id)

    def _claim(self, permit: Permit, name: str) -> tuple[Execution, Definition, dict[str, StepRow]]:
        with self.vault.database.transaction(permit) as tx:
            rows = Rows(tx, permit.account)
            one = rows.execution(name)
            definition = parse(rows.definition(one.pipeline, one.version).definition)
            if one.status not in ENDED:
                self.check_free(tx, one)
                rows.change_execution(name, process=_holder(permit))
                if one.selected and not rows.steps(name):
                    for step in _taken(rows.steps(one.source) if one.source else {}, one):
                        rows.put_step(name, step)
            return one, definition, rows.steps(name)

    def check_free(self, tx: Any, one: Execution) -> None:
        """Let pass one that nobody carries out any more. Write transactions are served one at a time.

        Raises:
            Conflict: ``pipelines.running``, ``pipelines.running_elsewhere``.
        """
        if one.process in ("", callbacks.WAITING):
            return
        holder = canonical.load(one.process)
        if elsewhere(holder):
            until = holder.get("until", "")
            ended = any(act["phase"] in _ENDS for act in Acts(tx).of(holder.get("act", "")))
            if until and not ended and self.vault.clock.now() < instant(until):
                raise Conflict(
                    "pipelines.running_elsewhere",
                    "A process on another machine is carrying out this execution, or was killed there. Wait for it; "
                    f"any command on that machine ends what was killed, and at {until} it is free by itself.",
                    execution=one.id,
                )
        elif alive(holder) and {**holder, **this_process()} != holder:
            raise Conflict("pipelines.running", "Another process is carrying out this execution.", execution=one.id)

    def job(self, step: Step) -> Job:
        """The job of a step."""
        return named(str(job_of(step)), self.jobs)


def _not_lent(step: str) -> str:
    return (
        f"access.denied: Step {step} is taken from an execution that did what the starter of this one may not do, or "
        "which was before such was noted; select that step, too."
    )


def _taken(source: Mapping[str, StepRow], one: Execution) -> list[StepRow]:
    """Results of another execution for the steps that were not selected."""
    found = (row for row in source.values() if row.name not in one.selected and row.status == "Succeeded")
    return [replace(row, source=one.source, hit="", key="", attempts=0, milliseconds=0) for row in found]


def _holder(permit: Permit) -> str:
    """Who carries an execution out, under which act, and until when it may: what is kept in the row."""
    return canonical.dump({**this_process(), "act": permit.act, "until": iso(permit.expires)}).decode()
