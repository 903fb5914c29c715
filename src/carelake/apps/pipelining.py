"""Carries executions of pipelines out for a workspace: in the foreground of a command, and beside a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.audit.processes import alive, elsewhere, this_process
from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.pipelines.api import Pipelines
from carelake.pipelines.definition.document import Definition, parse
from carelake.pipelines.execution import callbacks
from carelake.pipelines.execution.executor import Executor
from carelake.pipelines.execution.launching import InThreads, Launcher
from carelake.pipelines.execution.processes import InProcesses
from carelake.pipelines.execution.rows import Execution, Rows, StepRow
from carelake.pipelines.execution.running import Task, run_task
from carelake.pipelines.jobs.catalogue import JOBS, job_of

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["carry_out", "executor_of", "held", "launching", "modules_of", "pipelines_of"]

Told = Callable[[Definition, Mapping[str, StepRow]], None]


def pipelines_of(workspace: Workspace) -> Pipelines:
    """The pipelines of a workspace; without the libraries of learning, which take seconds to import."""
    return Pipelines(workspace.vault, workspace.outbox)


@contextmanager
def launching(
    workspace: Workspace, as_: str | None, caller: Caller, *, warm: bool = True, modules: tuple[str, ...] = ()
) -> Iterator[Launcher]:
    """Where steps' work is done, as the setting ``pipelines.isolation`` says.

    Args:
        warm: begin the process that makes those of steps now, since the first of them will come.
        modules: what it imports; default: what a learner needs.
    """
    told = workspace.settings.pipelines
    launcher: Launcher
    if told.isolation == "process":
        from carelake.apps.stepping import command

        launcher = InProcesses(command(workspace.vault.root, as_, modules), told)
        if warm:
            launcher.warm()
    else:
        launcher = InThreads(lambda task: _here(workspace, caller, task))
    try:
        yield launcher
    finally:
        launcher.close()


def _here(workspace: Workspace, caller: Caller, task: Task) -> dict[str, Any]:
    who = caller.principal
    if who.name != task["principal"]:
        who = workspace.principal(task["principal"], who)
    return run_task(workspace.platform, Caller(who, task["purpose"], task["account"]), task)


def carry_out(
    workspace: Workspace,
    caller: Caller,
    launcher: Launcher,
    execution: str,
    *,
    told: Told = lambda _definition, _steps: None,
) -> tuple[Execution, dict[str, StepRow]]:
    """Carry an execution out, as the caller; how it ended, and its steps."""
    with workspace.enter(caller, "pipeline:read", "pipeline") as permit:
        target = _target(workspace, permit, execution)
    with workspace.enter(caller, "pipeline:run", target, job=True) as permit:
        one = executor_of(workspace, launcher).carry_out(permit, execution, told=told)
        with workspace.vault.database.reading(permit) as tx:
            return one, Rows(tx, permit.account).steps(one.id)


def modules_of(workspace: Workspace, permit: Permit, execution: str) -> tuple[str, ...]:
    """The modules of the jobs that an execution may run."""
    with workspace.vault.database.reading(permit) as tx:
        rows = Rows(tx, permit.account)
        one = rows.execution(execution)
        steps = parse(rows.definition(one.pipeline, one.version).definition).steps
    names = [job_of(step) for step in steps.values() if not one.selected or step.name in one.selected]
    found = (JOBS[name].does.partition(":")[0] for name in names if name in JOBS)
    return ("pipelines.platform", *dict.fromkeys(one.removeprefix("carelake.") for one in found))


def executor_of(workspace: Workspace, launcher: Launcher) -> Executor:
    """Carries executions out by this launcher."""
    parallel = workspace.settings.pipelines.parallel
    own, policies = (workspace.vault, workspace.nouns, workspace.outbox, launcher), workspace.gate.policies.digest
    return Executor(*own, policies, parallel, gate=workspace.gate, identity=workspace.identity)


def held(one: Execution) -> bool:
    """Whether another process that lives, or may live on another machine, carries it out.

    What this process holds and does not carry out is what it broke off at an error.
    """
    if one.process in ("", callbacks.WAITING):
        return False
    holder = canonical.load(one.process)
    if {**holder, **this_process()} == holder:
        return False
    return elsewhere(holder) or alive(holder)


def _target(workspace: Workspace, permit: Permit, execution: str) -> str:
    with workspace.vault.database.reading(permit) as tx:
        return Rows(tx, permit.account).execution(execution).pipeline
