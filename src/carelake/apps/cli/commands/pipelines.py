"""Commands of pipelines: define, start, watch, stop and resume; what starts them by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

Name = Annotated[str, typer.Argument(help="Name of the pipeline.")]
Execution = Annotated[str, typer.Argument(help="Id or ARN of an execution, or a pipeline's name for its newest.")]
Parameters = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE; may be given several times.")
]

commands = shelf()
pipelines = group(commands, "pipelines", "Pipelines in SageMaker's form, their executions and triggers.", _PANEL)


@pipelines.command("create")
def create(
    context: typer.Context,
    name: Name,
    definition: Annotated[Path, typer.Argument(help="File of SageMaker Pipelines JSON.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    json: JsonOut = False,
) -> None:
    """Enter a pipeline, or its new definition; it is checked first, and an error names the step."""
    run(
        "pipelines:create",
        options_of(context),
        json_out=json,
        name=name,
        definition=definition,
        description=description,
    )


@pipelines.command("list")
def list_pipelines(context: typer.Context, json: JsonOut = False) -> None:
    """List pipelines and when each was last started."""
    run("pipelines:list_pipelines", options_of(context), json_out=json)


@pipelines.command("show")
def show(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Show a pipeline with its definition."""
    run("pipelines:show_pipeline", options_of(context), json_out=json, name=name)


@pipelines.command("delete")
def delete(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Delete a pipeline; its executions stay known."""
    run("pipelines:delete", options_of(context), json_out=json, name=name)


@pipelines.command("start")
def start(
    context: typer.Context,
    name: Name,
    parameters: Parameters = None,
    steps: Annotated[
        list[str] | None, typer.Option("--step", help="Only this step; may be given several times.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Execution whose results are taken for the steps that are not done.")
    ] = None,
    parallel: Annotated[int | None, typer.Option(help="Steps at once.", min=1, max=64)] = None,
    token: Annotated[str, typer.Option(help="ClientRequestToken: the same again is the same execution.")] = "",
    wait: Annotated[bool, typer.Option(help="Carry it out now, or leave it to `serve` and `follow`.")] = True,
    json: JsonOut = False,
) -> None:
    """Start an execution and carry it out; what its cache knows is not done again."""
    run(
        "pipelines:start",
        options_of(context),
        json_out=json,
        name=name,
        parameters=parameters or [],
        steps=steps or [],
        source=source,
        parallel=parallel,
        token=token,
        wait=wait,
    )


@pipelines.command("resume")
def resume(context: typer.Context, execution: Execution, json: JsonOut = False) -> None:
    """Go on with an execution that was killed, failed, was stopped, or waits for nothing any more."""
    run("pipelines:resume", options_of(context), json_out=json, execution=execution)


@pipelines.command("stop")
def stop(context: typer.Context, execution: Execution, json: JsonOut = False) -> None:
    """Stop an execution: its steps' processes are ended."""
    run("pipelines:stop", options_of(context), json_out=json, execution=execution)


@pipelines.command("status")
def status(
    context: typer.Context,
    execution: Execution,
    all_: Annotated[bool, typer.Option("--all", help="Every execution of the pipeline.")] = False,
    json: JsonOut = False,
) -> None:
    """Show how far an execution is, and why it failed."""
    run("pipelines:status", options_of(context), json_out=json, execution=execution, every=all_)


@pipelines.command("steps")
def steps_of(context: typer.Context, execution: Execution, json: JsonOut = False) -> None:
    """List the steps of an execution: states, times, attempts, what came from the cache."""
    run("pipelines:steps", options_of(context), json_out=json, execution=execution)


@pipelines.command("callback")
def callback(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="The token that the step gave out.")],
    success: Annotated[bool, typer.Option("--success/--fail", help="What came of it.")] = True,
    outputs: Annotated[list[str] | None, typer.Option("--output", help="NAME=VALUE of an output parameter.")] = None,
    reason: Annotated[str, typer.Option(help="Why it failed.")] = "",
    json: JsonOut = False,
) -> None:
    """Send a callback step's token back; then `resume`, `serve` or `follow` goes on."""
    run(
        "pipelines:callback",
        options_of(context),
        json_out=json,
        token=token,
        success=success,
        outputs=outputs or [],
        reason=reason,
    )


@pipelines.command("follow")
def follow(
    context: typer.Context,
    once: Annotated[bool, typer.Option(help="Do what is due now, and end.")] = False,
    json: JsonOut = False,
) -> None:
    """Carry out what is started, resume what was killed, and mind the triggers, until it is ended."""
    run("pipelines:follow", options_of(context), json_out=json, once=once)


trigger = group(pipelines, "trigger", "What starts pipelines by itself.", _PANEL)


@trigger.command("add")
def trigger_add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the trigger.")],
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    schedule: Annotated[
        str | None, typer.Option(help="at(2026-12-01T06:00:00), rate(1 day) or cron(0 6 ? * MON-FRI *), in UTC.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--on", help="Type of event, for example record.changed or monitor.alarm.")
    ] = None,
    wanted: Annotated[
        list[str] | None, typer.Option("--where", help="NAME=VALUE that the event's data must have.")
    ] = None,
    parameters: Parameters = None,
    json: JsonOut = False,
) -> None:
    """Start a pipeline on a schedule or whenever an event tells of something; `serve` and `follow` do so."""
    run(
        "pipelines:trigger_add",
        options_of(context),
        json_out=json,
        name=name,
        pipeline=pipeline,
        schedule=schedule,
        event=event,
        wanted=wanted or [],
        parameters=parameters or [],
    )


@trigger.command("list")
def trigger_list(context: typer.Context, json: JsonOut = False) -> None:
    """List triggers: what each waits for, and when it last started something."""
    run("pipelines:trigger_list", options_of(context), json_out=json)


@trigger.command("confirm")
def trigger_confirm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the trigger.")],
    version: Annotated[int | None, typer.Option(help="The version of the pipeline that you looked at.")] = None,
    json: JsonOut = False,
) -> None:
    """Let a trigger start its pipeline as that is defined now, in your name; until then it is held."""
    run("pipelines:trigger_confirm", options_of(context), json_out=json, name=name, version=version)


@trigger.command("remove")
def trigger_remove(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the trigger.")], json: JsonOut = False
) -> None:
    """Remove a trigger."""
    run("pipelines:trigger_remove", options_of(context), json_out=json, name=name)


@trigger.command("enable")
def trigger_enable(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the trigger.")], json: JsonOut = False
) -> None:
    """Let a trigger start its pipeline again."""
    run("pipelines:trigger_state", options_of(context), json_out=json, name=name, state="ENABLED")


@trigger.command("disable")
def trigger_disable(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the trigger.")], json: JsonOut = False
) -> None:
    """Keep a trigger, but let it start nothing."""
    run("pipelines:trigger_state", options_of(context), json_out=json, name=name, state="DISABLED")
