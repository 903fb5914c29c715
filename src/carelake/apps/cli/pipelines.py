"""``pipelines``: definitions, executions and triggers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from carelake.apps import pipelining
from carelake.apps.cli.session import Session, answer, existing, note
from carelake.apps.cli.tables import progress, show
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Invalid, NotFound
from carelake.pipelines.definition.document import BYTES
from carelake.pipelines.execution.rows import ENDED, StepRow
from carelake.pipelines.execution.triggers import Triggers
from carelake.pipelines.names import execution_arn, execution_of
from carelake.pipelines.resuming import enter
from carelake.pipelines.shipped import shipped

__all__ = [
    "callback",
    "create",
    "delete",
    "follow",
    "list_pipelines",
    "resume",
    "show_pipeline",
    "start",
    "status",
    "steps",
    "stop",
    "trigger_add",
    "trigger_confirm",
    "trigger_list",
    "trigger_remove",
    "trigger_state",
]

_FAILED = 1
"""Exit code of a command whose execution failed: it was told, and is no error of the command."""


def create(session: Session, *, json_out: bool, name: str, definition: Path, description: str) -> None:
    """Enter a pipeline, or another version of its definition."""
    pipelines = pipelining.pipelines_of(session.workspace)
    said = {"PipelineName": name, "PipelineDefinition": _text(existing(definition))}
    said |= {"PipelineDescription": description} if description else {}
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        try:
            pipelines.describe_pipeline(permit, {"PipelineName": name})
        except NotFound:
            made = pipelines.create_pipeline(permit, said)
        else:
            made = pipelines.update_pipeline(permit, said)
        triggers = Triggers(session.workspace.vault).all(permit)
    _told(json_out, made, f"Pipeline {name} is defined.")
    held = [one["name"] for one in triggers if one["pipeline"] == name and one["held"]]
    if held and not json_out:
        note(f"Held until they are confirmed: {', '.join(held)} (`carelake pipelines trigger confirm`).")


def list_pipelines(session: Session, *, json_out: bool) -> None:
    """List pipelines."""
    with session.workspace.enter(session.caller(), "pipeline:read", "pipelines") as permit:
        asked = {"SortBy": "Name", "SortOrder": "Ascending"}
        found = pipelining.pipelines_of(session.workspace).list_pipelines(permit, asked)["PipelineSummaries"]
    if json_out:
        answer(_json(found))
    else:
        columns = ("PipelineName", "LastModifiedTime", "LastExecutionTime", "PipelineDescription")
        show(columns, _json(found))


def show_pipeline(session: Session, *, json_out: bool, name: str) -> None:
    """Show a pipeline."""
    with session.workspace.enter(session.caller(), "pipeline:read", "pipelines") as permit:
        found = pipelining.pipelines_of(session.workspace).describe_pipeline(permit, {"PipelineName": name})
    if json_out:
        answer(_json(found))
    else:
        show(["what", "is"], [{"what": k, "is": v} for k, v in _json(found).items() if k != "PipelineDefinition"])
        note(found["PipelineDefinition"])


def delete(session: Session, *, json_out: bool, name: str) -> None:
    """Delete a pipeline."""
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        gone = pipelining.pipelines_of(session.workspace).delete_pipeline(permit, {"PipelineName": name})
    _told(json_out, gone, f"Pipeline {name} is deleted.")


def start(
    session: Session,
    *,
    json_out: bool,
    name: str,
    parameters: list[str],
    steps: list[str],
    source: str | None,
    parallel: int | None,
    token: str,
    wait: bool,
) -> int:
    """Start an execution, and carry it out unless it is left to others."""
    request: dict[str, Any] = {"PipelineName": name, "PipelineParameters": _named(parameters)}
    request |= {"ParallelismConfiguration": {"MaxParallelExecutionSteps": parallel}} if parallel else {}
    request |= {"ClientRequestToken": token} if token else {}
    if steps:
        selective: dict[str, Any] = {"SelectedSteps": [{"StepName": one} for one in steps]}
        selective |= {"SourcePipelineExecutionArn": source} if source else {}
        request["SelectiveExecutionConfig"] = selective
    caller = session.caller()
    if name in shipped():
        with session.workspace.enter(caller, "pipeline:define", name) as permit:
            workspace = session.workspace
            enter(permit, workspace.vault, workspace.outbox, name, shipped()[name], replace=False)
    with session.workspace.enter(caller, "pipeline:run", "pipelines") as permit:
        made = pipelining.pipelines_of(session.workspace).start_pipeline_execution(permit, request, local=True)
        execution = execution_of(made["PipelineExecutionArn"], permit.account)
    if not wait:
        _told(json_out, made, f"Execution {execution} is started; `serve` or `pipelines follow` carries it out.")
        return 0
    return _carry(session, caller, execution, json_out=json_out)


def resume(session: Session, *, json_out: bool, execution: str) -> int:
    """Go on with an execution."""
    caller = session.caller()
    with session.workspace.enter(caller, "pipeline:run", "pipelines") as permit:
        arn, name = _execution(session, permit, execution)
        pipelining.pipelines_of(session.workspace).retry_pipeline_execution(permit, {"PipelineExecutionArn": arn})
    return _carry(session, caller, name, json_out=json_out)


def stop(session: Session, *, json_out: bool, execution: str) -> None:
    """Stop an execution; one that nobody carries out is stopped here."""
    caller, pipelines = session.caller(), pipelining.pipelines_of(session.workspace)
    with session.workspace.enter(caller, "pipeline:run", "pipelines") as permit:
        arn, name = _execution(session, permit, execution)
        pipelines.stop_pipeline_execution(permit, {"PipelineExecutionArn": arn})
    try:
        with pipelining.launching(session.workspace, session.options.as_, caller, warm=False) as launcher:
            one, _ = pipelining.carry_out(session.workspace, caller, launcher, name)
        said = one.status
    except CarelakeError as error:
        if not error.code.startswith("pipelines.running"):
            raise
        said = "Stopping"  # by whoever carries it out
    _told(json_out, {"PipelineExecutionArn": arn, "PipelineExecutionStatus": said}, f"Execution {name} is {said}.")


def status(session: Session, *, json_out: bool, execution: str, every: bool) -> None:
    """Show an execution, or all of a pipeline."""
    pipelines = pipelining.pipelines_of(session.workspace)
    with session.workspace.enter(session.caller(), "pipeline:read", "pipelines") as permit:
        if every:
            asked = {"PipelineName": execution}
            found = pipelines.list_pipeline_executions(permit, asked)["PipelineExecutionSummaries"]
        else:
            arn, _ = _execution(session, permit, execution)
            found = pipelines.describe_pipeline_execution(permit, {"PipelineExecutionArn": arn})
    if json_out:
        answer(_json(found))
    elif every:
        columns = ("PipelineExecutionArn", "PipelineExecutionStatus", "StartTime", "PipelineExecutionFailureReason")
        show(columns, _json(found))
    else:
        show(["what", "is"], [{"what": key, "is": value} for key, value in _json(found).items()])


def steps(session: Session, *, json_out: bool, execution: str) -> None:
    """List an execution's steps."""
    with session.workspace.enter(session.caller(), "pipeline:read", "pipelines") as permit:
        arn, _ = _execution(session, permit, execution)
        asked = {"PipelineExecutionArn": arn, "SortOrder": "Ascending"}
        found = pipelining.pipelines_of(session.workspace).list_pipeline_execution_steps(permit, asked)
    rows = _json(found["PipelineExecutionSteps"])
    if json_out:
        answer(rows)
    else:
        show(
            ["StepName", "StepStatus", "from", "AttemptCount", "StartTime", "EndTime", "FailureReason"],
            [{**row, "from": _from(row)} for row in rows],
        )


def callback(session: Session, *, json_out: bool, token: str, success: bool, outputs: list[str], reason: str) -> None:
    """Send a token back."""
    pipelines = pipelining.pipelines_of(session.workspace)
    with session.workspace.enter(session.caller(), "pipeline:run", "pipelines") as permit:
        if success:
            said = {"CallbackToken": token, "OutputParameters": _named(outputs)}
            found = pipelines.send_pipeline_execution_step_success(permit, said)
        else:
            found = pipelines.send_pipeline_execution_step_failure(
                permit, {"CallbackToken": token, "FailureReason": reason}
            )
    _told(json_out, found, "The token came back; `pipelines resume` goes on, or whoever follows.")


def follow(session: Session, *, json_out: bool, once: bool) -> None:
    """Carry out what is to be done, until SIGINT or SIGTERM."""
    from carelake.apps.pipeline_follower import Follower

    caller = session.caller()
    with Follower(session.workspace, caller, session.options.as_, lambda code: note(f"carelake: {code}")) as one:
        if not once:
            note("Following; end with Ctrl-C.")
        done = one.turn() if once else one.until_ended()
    if json_out:
        answer({"carried_out": done})
    else:
        note(f"{done} executions carried out.")


def trigger_add(
    session: Session,
    *,
    json_out: bool,
    name: str,
    pipeline: str,
    schedule: str | None,
    event: str | None,
    wanted: list[str],
    parameters: list[str],
) -> None:
    """Add a trigger."""
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        made = Triggers(session.workspace.vault).add(
            permit,
            name,
            pipeline,
            schedule=schedule or "",
            event=event or "",
            wanted=_pairs(wanted),
            parameters=_pairs(parameters),
        )
    _told(json_out, made, f"Trigger {name} starts {pipeline}.")


def trigger_list(session: Session, *, json_out: bool) -> None:
    """List triggers."""
    with session.workspace.enter(session.caller(), "pipeline:read", "pipelines") as permit:
        rows = Triggers(session.workspace.vault).all(permit)
    if json_out:
        answer(rows)
    else:
        show(["name", "pipeline", "schedule", "event", "state", "due", "last", "held"], rows)
        if any(row["held"] for row in rows):
            note("What is held starts nothing: its pipeline is not the one that it was added to. Look at that")
            note("(`carelake pipelines show`), then confirm the trigger (`pipelines trigger confirm`), or remove it.")


def trigger_remove(session: Session, *, json_out: bool, name: str) -> None:
    """Remove a trigger."""
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        Triggers(session.workspace.vault).remove(permit, name)
    _told(json_out, {"name": name, "removed": True}, f"Trigger {name} is removed.")


def trigger_confirm(session: Session, *, json_out: bool, name: str, version: int | None) -> None:
    """Let a trigger start its pipeline as that is defined now."""
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        said = Triggers(session.workspace.vault).confirm(permit, name, version)
    _told(json_out, said, f"Trigger {name} starts {said['pipeline']} as it is now, as {said['principal']}.")


def trigger_state(session: Session, *, json_out: bool, name: str, state: str) -> None:
    """Enable or disable a trigger."""
    with session.workspace.enter(session.caller(), "pipeline:define", "pipelines") as permit:
        said = Triggers(session.workspace.vault).set_state(permit, name, state)
    _told(json_out, said, f"Trigger {name} is {state}.")


def _carry(session: Session, caller: Any, execution: str, *, json_out: bool) -> int:
    """Carry an execution out with progress, and tell how it ended."""
    workspace = session.workspace
    with workspace.enter(caller, "pipeline:read", "pipelines") as permit:
        modules = pipelining.modules_of(workspace, permit, execution)
    with (
        progress() as bars,
        pipelining.launching(workspace, session.options.as_, caller, modules=modules) as launcher,
    ):
        task = bars.add_task("Execution", total=None)

        def tell(definition: Any, found: Mapping[str, StepRow]) -> None:
            under_way = [row.output.get("title", "") for row in found.values() if row.status == "Executing"]
            done = sum(row.status in ENDED for row in found.values())
            title = ", ".join(under_way) or "Execution"
            bars.update(task, completed=done, total=len(definition.steps), description=title)

        one, found = pipelining.carry_out(workspace, caller, launcher, execution, told=tell)
    tokens = [
        row.output["metadata"]["Callback"]["CallbackToken"]
        for row in found.values()
        if row.type == "Callback" and row.status == "Executing"
    ]
    said = {
        "PipelineExecutionArn": execution_arn(one.account, one.pipeline, one.id),
        "PipelineExecutionStatus": one.status,
        **({"FailureReason": one.reason} if one.reason else {}),
        **({"CallbackTokens": tokens} if tokens else {}),
        "Steps": [
            {
                "StepName": row.name,
                "StepStatus": row.status,
                "CacheHit": bool(row.hit),
                "Milliseconds": row.milliseconds,
                "Outputs": row.output.get("outputs", {}),
            }
            for row in found.values()
        ],
    }
    if json_out:
        answer(said)
    else:
        show(["StepName", "StepStatus", "CacheHit", "Milliseconds"], said["Steps"])
        note(f"Execution {one.id} is {one.status}. {one.reason}".strip())
        for token in tokens:
            note(f"It waits for the token {token}: `carelake pipelines callback {token} --success`.")
    return _FAILED if one.status == "Failed" else 0


def _execution(session: Session, permit: Any, text: str) -> tuple[str, str]:
    """ARN and id of what was typed: an id, an ARN, or a pipeline's name for its newest execution."""
    try:
        name = execution_of(text, permit.account)
    except Invalid:
        pipelines = pipelining.pipelines_of(session.workspace)
        found = pipelines.list_pipeline_executions(permit, {"PipelineName": text, "MaxResults": 1})
        if not found["PipelineExecutionSummaries"]:
            raise NotFound("pipelines.no_such_execution", "The pipeline was never started.") from None
        arn = found["PipelineExecutionSummaries"][0]["PipelineExecutionArn"]
        return arn, execution_of(arn, permit.account)
    told = pipelining.pipelines_of(session.workspace).arn_of(permit, name)
    return told, name


def _text(path: Path) -> str:
    """A definition; what is longer than one may be is read no further, and refused where it is checked."""
    with open(path, "rb") as file:
        data = file.read(4 * BYTES + 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(
            "pipelines.json", "The definition is not valid JSON; expected SageMaker Pipelines JSON."
        ) from None


def _named(given: list[str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in _pairs(given).items()]


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    if any(not mark or not name for name, mark, _ in pairs):
        raise Invalid("apps.pair", "Expected NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _from(row: Mapping[str, Any]) -> str:
    return "cache" if "CacheHitResult" in row else "source" if "SelectiveExecutionResult" in row else ""


def _json(value: Any) -> Any:
    """An answer with its times as text."""
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, dict):
        return {key: _json(one) for key, one in value.items()}
    return [_json(one) for one in value] if isinstance(value, list) else value


def _told(json_out: bool, said: Mapping[str, Any], words: str) -> None:
    if json_out:
        answer(_json(dict(said)))
    else:
        note(words)
