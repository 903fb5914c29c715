"""Commands of monitors."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Use: endpoints and monitors"

commands = shelf()
monitor = group(commands, "monitor", "Checks over what was predicted.", _PANEL)
schedule = typer.Typer(help="Checks that run by themselves.", no_args_is_help=True, rich_markup_mode=None)
monitor.add_typer(schedule, name="schedule")


class Kind(StrEnum):
    """SageMaker's monitoring types."""

    DATA = "DataQuality"
    MODEL = "ModelQuality"
    BIAS = "ModelBias"
    WHY = "ModelExplainability"


Endpoint = Annotated[str, typer.Argument(help="Name or ref of an endpoint.")]
Since = Annotated[str | None, typer.Option(help="Only predictions made at or after this instant.")]
Until = Annotated[str | None, typer.Option(help="Only predictions made before this instant.")]
Name = Annotated[str, typer.Argument(help="Name of the schedule.")]


@monitor.command("check")
def monitor_check(context: typer.Context, endpoint: Endpoint, since: Since = None, json: JsonOut = False) -> None:
    """Compare captured predictions with the model's baseline."""
    run("monitors:check", options_of(context), json_out=json, endpoint=endpoint, since=since)


@monitor.command("run")
def monitor_run(
    context: typer.Context,
    endpoint: Endpoint,
    kind: Annotated[list[Kind] | None, typer.Option(help="Kind of check, once or more; default: all four.")] = None,
    since: Since = None,
    until: Until = None,
    out: Annotated[Path | None, typer.Option(help="Folder for SageMaker's JSON files, one folder a kind.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 5 when there is a violation.")] = False,
    json: JsonOut = False,
) -> None:
    """Check data quality, model quality, bias and explanations; each makes a finding."""
    kinds = [one.value for one in kind] if kind else [one.value for one in Kind]
    run(
        "monitors:run_kinds",
        options_of(context),
        json_out=json,
        endpoint=endpoint,
        kinds=kinds,
        since=since,
        until=until,
        out=out,
        strict=strict,
    )


@monitor.command("report")
def monitor_report(
    context: typer.Context,
    endpoint: Endpoint,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    since: Since = None,
    until: Until = None,
    json: JsonOut = False,
) -> None:
    """Run all checks and draw them: one HTML file that needs nothing but itself."""
    run("monitors:report", options_of(context), json_out=json, endpoint=endpoint, out=out, since=since, until=until)


@monitor.command("list")
def monitor_list(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Argument(help="Name or ref of an endpoint; default: all.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=10_000)] = 50,
    json: JsonOut = False,
) -> None:
    """List findings, the newest first."""
    run("monitors:listed", options_of(context), json_out=json, endpoint=endpoint, limit=limit)


@monitor.command("baseline")
def monitor_baseline(
    context: typer.Context,
    endpoint: Endpoint,
    out: Annotated[Path | None, typer.Option(help="Folder for statistics.json and constraints.json.")] = None,
    json: JsonOut = False,
) -> None:
    """Show what an endpoint is compared with: its model's baseline."""
    run("monitors:baseline", options_of(context), json_out=json, endpoint=endpoint, out=out)


@monitor.command("compare")
def monitor_compare(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(help="Parquet file, or folder of them, that the other is compared with.")],
    after: Annotated[Path, typer.Argument(help="Parquet file, or folder of them, to check.")],
    owner: Annotated[
        str | None, typer.Option(help="Column that says whose a row is; rows of one go together.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for SageMaker's JSON files.")] = None,
    json: JsonOut = False,
) -> None:
    """Check data quality of one table against another, numbers and text, without a workspace."""
    run(
        "monitors:compare",
        options_of(context),
        json_out=json,
        opens=False,
        before=before,
        after=after,
        owner=owner,
        out=out,
    )


@monitor.command("follow")
def monitor_follow(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Run what is due now, and end.")] = False,
    seconds: Annotated[float, typer.Option(help="Between two looks.", min=1, max=3600)] = 60.0,
    json: JsonOut = False,
) -> None:
    """Run schedules as they fall due, until ended."""
    run("monitor_schedules:follow", options_of(context), json_out=json, once=once, seconds=seconds)


@schedule.command("create")
def schedule_create(
    context: typer.Context,
    name: Name,
    endpoint: Annotated[str, typer.Option(help="Name of the endpoint.")],
    kind: Annotated[Kind, typer.Option(help="Kind of check.")] = Kind.DATA,
    when: Annotated[
        str, typer.Option(help="cron(0 * ? * * *), cron(0 H ? * * *), cron(0 H/N ? * * *), or NOW.")
    ] = "cron(0 0 ? * * *)",
    start: Annotated[
        str | None, typer.Option(help="The window's start, from the due time: for example -P30D.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="The window's end, from the due time: for example PT0H.")] = None,
    json: JsonOut = False,
) -> None:
    """Make a schedule."""
    run(
        "monitor_schedules:create",
        options_of(context),
        json_out=json,
        name=name,
        endpoint=endpoint,
        kind=kind.value,
        when=when,
        start=start,
        end=end,
    )


@schedule.command("list")
def schedule_list(context: typer.Context, json: JsonOut = False) -> None:
    """List schedules."""
    run("monitor_schedules:listed", options_of(context), json_out=json)


@schedule.command("show")
def schedule_show(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Show a schedule and its last execution, in SageMaker's shape."""
    run("monitor_schedules:show_one", options_of(context), json_out=json, name=name)


@schedule.command("executions")
def schedule_executions(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of the schedule; default: all.")] = None,
    json: JsonOut = False,
) -> None:
    """List what schedules ran."""
    run("monitor_schedules:executions", options_of(context), json_out=json, name=name)


@schedule.command("stop")
def schedule_stop(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Stop a schedule."""
    run("monitor_schedules:switch", options_of(context), json_out=json, name=name, to="stop")


@schedule.command("start")
def schedule_start(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Start a stopped schedule again."""
    run("monitor_schedules:switch", options_of(context), json_out=json, name=name, to="start")


@schedule.command("delete")
def schedule_delete(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Delete a schedule with its executions; its findings stay."""
    run("monitor_schedules:switch", options_of(context), json_out=json, name=name, to="delete")
