"""One execution of a pipeline for a command: the one that was broken off, or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.pipelines.api import Pipelines
from carelake.pipelines.execution import pinning
from carelake.pipelines.execution.executor import Executor
from carelake.pipelines.execution.rows import Rows, StepRow
from carelake.pipelines.names import execution_of
from carelake.vault.workspace import Vault

__all__ = ["begin_or_resume", "enter"]

_OURS = "run-"
"""Tokens of what `begin_or_resume` began start so."""


def enter(permit: Permit, vault: Vault, outbox: Outbox, name: str, definition: str, *, replace: bool = True) -> None:
    """See that the account has a pipeline of that name with this definition; who it is of stays as it was.

    Args:
        replace: where there is one with another definition, this one is its new version.
    """
    now = iso(vault.clock.now())
    with vault.database.transaction(permit) as tx:
        rows = Rows(tx, permit.account)
        known = rows.find_pipeline(name)
        if known is not None and not replace:
            return
        version = rows.add_version(name, definition, now)
        if known is not None and known.version == version:
            return
        said: dict[str, Any] = {"version": version, "modified": now, "modified_by": permit.principal}
        if known is None:
            said |= {"display": "", "description": "", "role": "", "parallel": 0, "token": ""}
            said |= {"created": now, "created_by": permit.principal}
        rows.keep_pipeline(name, said, new=known is None)
        pinning.tell(permit, tx, outbox, name)


def begin_or_resume(
    permit: Permit,
    pipelines: Pipelines,
    executor: Executor,
    name: str,
    parameters: Mapping[str, str],
    *,
    new: bool = False,
    local: bool = False,
    **request: Any,
) -> tuple[str, dict[str, StepRow]]:
    """The id of an execution that was broken off with these parameters, or of a new one; and the steps it has.

    Others that this began, and that were broken off, are Stopped. What a trigger or a client started is left to
    whoever carries those out.

    Args:
        new: begin afresh, whatever was broken off.
        local: see `Pipelines.start_pipeline_execution`.

    Raises:
        Conflict: ``pipelines.running``, when another process carries one of these out at the moment;
            ``pipelines.running_elsewhere``, when one on another machine does, or was killed there.
    """
    with executor.vault.database.transaction(permit) as tx:
        rows = Rows(tx, permit.account)
        version = rows.pipeline(name).version
        for one in rows.executions(name, status=("Executing",)):
            same = dict(one.parameters) == dict(parameters) and one.version == version
            if one.cause or not (one.token.startswith(_OURS) or (same and not new)):
                continue
            executor.check_free(tx, one)
            if same and not new:
                return one.id, rows.steps(one.id)
            now = iso(executor.vault.clock.now())
            rows.change_execution(one.id, status="Stopped", reason="It was begun anew.", process="", modified=now)
    given = [{"Name": key, "Value": value} for key, value in parameters.items()]
    said = {**request, "PipelineName": name, "PipelineParameters": given}
    said.setdefault("ClientRequestToken", _OURS + executor.vault.ids.new())
    answer = pipelines.start_pipeline_execution(permit, said, local=local)
    return execution_of(answer["PipelineExecutionArn"], permit.account), {}
