"""Runs: a recipe carried out step by step, each step's end written down before the next begins.

A run that was killed is resumed at the step where it stood. Steps are idempotent: what they make is named by its
content, so doing one again makes the same thing once.

Whether its process lives can be seen on the same machine only. A run of another machine is held until its act has an
end, or its permit has run out, with which it can write nothing more: the permit is its lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from carelake.audit.processes import alive, elsewhere, this_process
from carelake.audit.readings import Acts
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict
from carelake.core.permit import Permit
from carelake.pipelines.recipe import Recipe, Step
from carelake.pipelines.tables import run as run_table
from carelake.pipelines.tables import run_step
from carelake.vault.workspace import Vault

__all__ = ["Outputs", "Run", "Runs", "StepFunction"]

Outputs = dict[str, dict[str, Any]]
"""What each step gave, by the step's name."""

StepFunction = Callable[[Outputs], dict[str, Any]]
"""Does a step; an output with ``stop`` (a sentence) ends the run there, honestly and without error."""


_ENDED = ("done", "failed", "interrupted")


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        resumed_at: name of the step it was resumed at, "" for a new run.
        stopped: why the run ended before its last step, "" when it did not.
    """

    id: str
    recipe: str
    outputs: Outputs
    resumed_at: str = ""
    stopped: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


class Runs:
    """The runs of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def carry_out(
        self,
        permit: Permit,
        recipe: Recipe,
        functions: Mapping[str, StepFunction],
        parameters: Mapping[str, Any],
        *,
        new: bool = False,
        progress: Callable[[int, Step], None] = lambda _position, _step: None,
    ) -> Run:
        """Carry out a recipe, or the rest of it when a run with these parameters was interrupted.

        Args:
            functions: what each ``does`` of the recipe means.
            new: begin afresh, whatever was interrupted.
            progress: called before each step with its position.

        Raises:
            Conflict: ``pipelines.running``, when another process carries this recipe out at the moment;
                ``pipelines.running_elsewhere``, when one on another machine does, or was killed there.
        """
        run_id, outputs = self._claim(permit, recipe, parameters, new=new)
        resumed = recipe.steps[len(outputs)].name if outputs and len(outputs) < len(recipe.steps) else ""
        stopped, seconds = "", {}
        for position, step in enumerate(recipe.steps):
            if step.name not in outputs:
                progress(position, step)
                begun = time.monotonic()
                outputs[step.name] = functions[step.does](outputs)
                seconds[step.name] = time.monotonic() - begun
                self._keep(permit, run_id, position, step, outputs[step.name], seconds[step.name])
            stopped = str(outputs[step.name].get("stop", ""))
            if stopped:
                break
        self._end(permit, run_id, "stopped" if stopped else "done")
        return Run(run_id, recipe.name, outputs, resumed, stopped, seconds)

    def _claim(
        self, permit: Permit, recipe: Recipe, parameters: Mapping[str, Any], *, new: bool
    ) -> tuple[str, Outputs]:
        said = canonical.dump(dict(parameters)).decode()
        with self._vault.database.transaction(permit) as tx:
            for row in self._open_runs(tx, permit.account, recipe.name):
                self._check_free(tx, row)
                if new or row["parameters"] != said:
                    tx.execute(update(run_table).where(run_table.c.id == row["id"]).values(state="abandoned"))
                    continue
                tx.execute(update(run_table).where(run_table.c.id == row["id"]).values(process=_holder(permit)))
                return row["id"], self._outputs(tx, row["id"])
            return self._begin(tx, permit, recipe.name, said), {}

    def _check_free(self, tx: Connection, row: Mapping[str, Any]) -> None:
        """Let pass a run that nobody carries out any more. Write transactions are served one at a time."""
        holder = canonical.load(row["process"])
        if elsewhere(holder):
            until = holder.get("until", "")
            ended = any(act["phase"] in _ENDED for act in Acts(tx).of(holder.get("act", "")))
            if until and not ended and self._vault.clock.now() < instant(until):
                raise Conflict(
                    "pipelines.running_elsewhere",
                    "A process on another machine is carrying out this recipe, or was killed there. Wait for it; "
                    f"any command on that machine ends what was killed, and at {until} it is free by itself.",
                    run=row["id"],
                )
        elif alive(holder) and not _same(holder, this_process()):
            raise Conflict(
                "pipelines.running",
                "Another process is carrying out this recipe; wait for it to end.",
                run=row["id"],
            )

    @staticmethod
    def _open_runs(tx: Connection, account: str, recipe: str) -> list[dict[str, Any]]:
        query = select(run_table).where(
            run_table.c.account == account, run_table.c.recipe == recipe, run_table.c.state == "running"
        )
        return [dict(row) for row in tx.execute(query.order_by(run_table.c.started.desc())).mappings()]

    @staticmethod
    def _outputs(tx: Connection, run_id: str) -> Outputs:
        query = select(run_step.c.name, run_step.c.output).where(run_step.c.run == run_id)
        return {name: canonical.load(output) for name, output in tx.execute(query.order_by(run_step.c.position))}

    def _begin(self, tx: Connection, permit: Permit, recipe: str, parameters: str) -> str:
        run_id = self._vault.ids.new()
        tx.execute(
            insert(run_table).values(
                id=run_id,
                recipe=recipe,
                account=permit.account,
                state="running",
                parameters=parameters,
                process=_holder(permit),
                started=iso(self._vault.clock.now()),
            )
        )
        return run_id

    def _keep(
        self, permit: Permit, run_id: str, position: int, step: Step, output: dict[str, Any], seconds: float
    ) -> None:
        permit.log.count(steps=1)
        with self._vault.database.transaction(permit) as tx:
            tx.execute(
                insert(run_step).values(
                    run=run_id,
                    position=position,
                    name=step.name,
                    state="done",
                    output=canonical.dump(output).decode(),
                    milliseconds=round(seconds * 1000),
                )
            )

    def _end(self, permit: Permit, run_id: str, state: str) -> None:
        ended = iso(self._vault.clock.now())
        with self._vault.database.transaction(permit) as tx:
            tx.execute(update(run_table).where(run_table.c.id == run_id).values(state=state, ended=ended))

    def recent(self, tx: Connection, account: str, limit: int = 10) -> list[dict[str, Any]]:
        """The newest runs and where they stand."""
        query = select(run_table).where(run_table.c.account == account).order_by(run_table.c.started.desc())
        return [
            {k: row[k] for k in ("id", "recipe", "state", "started", "ended")}
            for row in tx.execute(query.limit(limit)).mappings()
        ]


def _holder(permit: Permit) -> str:
    """Who carries a run out, under which act, and until when it may: what is kept in the row."""
    return canonical.dump({**this_process(), "act": permit.act, "until": iso(permit.expires)}).decode()


def _same(holder: Mapping[str, Any], process: Mapping[str, Any]) -> bool:
    return all(holder.get(name) == value for name, value in process.items())
