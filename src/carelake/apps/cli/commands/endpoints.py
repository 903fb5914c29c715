"""Commands of endpoints: what serves, how traffic moves to it, what it answers, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Use: endpoints and monitors"

commands = shelf()

endpoint = group(
    commands, "endpoint", "Endpoints: deploy, invoke, roll back; they remember every prediction.", _PANEL
)

Name = Annotated[str, typer.Argument(help="Name of an endpoint.")]


@endpoint.command("list")
def endpoint_list(context: typer.Context, json: JsonOut = False) -> None:
    """List endpoints and the models behind them."""
    run("endpoints:endpoint_list", options_of(context), json_out=json)


@endpoint.command("deploy")
def endpoint_deploy(
    context: typer.Context,
    name: Name,
    model: Annotated[
        str | None, typer.Option("--model", help="Ref of an approved version; default: the newest of that name.")
    ] = None,
    policy: Annotated[str, typer.Option(help="How traffic moves: all-at-once, canary, or linear.")] = "all-at-once",
    percent: Annotated[int, typer.Option(help="First part of a canary, or each step of linear.", min=1, max=50)] = 10,
    wait: Annotated[int, typer.Option(help="Seconds that each step bakes.", min=0, max=3600)] = 300,
    keep: Annotated[int, typer.Option(help="Seconds more before the old version goes.", min=0, max=3600)] = 0,
    timeout: Annotated[int, typer.Option(help="Seconds after which a rollout is taken back; 0: never.")] = 0,
    alarm: Annotated[list[str] | None, typer.Option(help="Alarms that take it back; default: all.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="JSON file with DeploymentConfig, ProductionVariants, ShadowProductionVariants."),
    ] = None,
    shadow: Annotated[
        list[str] | None, typer.Option(help="Ref of a version that scores along and is never answered.")
    ] = None,
    sandbox: Annotated[
        bool | None,
        typer.Option(
            "--sandbox/--no-sandbox",
            help="Score in attested processes that can reach nothing (docs/sandbox.md); default: as what serves now.",
        ),
    ] = None,
    json: JsonOut = False,
) -> None:
    """Deploy an approved model version: at once, or step by step with alarms that take traffic back by themselves."""
    run(
        "endpoints:endpoint_deploy",
        options_of(context),
        json_out=json,
        name=name,
        model=model,
        told={
            "policy": policy,
            "percent": percent,
            "wait": wait,
            "keep": keep,
            "timeout": timeout,
            "alarms": alarm or [],
            "shadows": shadow or [],
        },
        config=config,
        sandbox=sandbox,
    )


@endpoint.command("attest")
def endpoint_attest(
    context: typer.Context,
    name: Name,
    model: Annotated[
        str | None, typer.Option("--model", help="Ref of an approved version; default: the newest of that name.")
    ] = None,
    nonce: Annotated[str | None, typer.Option(help="Hex, which the document is to hold; default: random.")] = None,
    json: JsonOut = False,
) -> None:
    """Measure a sandbox as a deployment would begin it here, and sign its attestation; nothing is released."""
    run("endpoints:endpoint_attest", options_of(context), json_out=json, name=name, model=model, nonce=nonce)


@endpoint.command("status")
def endpoint_status(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Show the stage of an endpoint, who has which share of the traffic, and the alarms with their figures."""
    run("endpoints:endpoint_status", options_of(context), json_out=json, name=name)


@endpoint.command("rollback")
def endpoint_rollback(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Take all traffic back to what served before."""
    run("endpoints:endpoint_rollback", options_of(context), json_out=json, name=name)


@endpoint.command("delete")
def endpoint_delete(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Take an endpoint out; what it captured stays."""
    run("endpoints:endpoint_delete", options_of(context), json_out=json, name=name)


@endpoint.command("invoke")
def endpoint_invoke(
    context: typer.Context,
    name: Name,
    patient: Annotated[str | None, typer.Option(help="Id of a patient whose record is looked up.")] = None,
    body: Annotated[
        Path | None, typer.Option("--in", help="File of rows, JSON, JSON lines or CSV; - for stdin.")
    ] = None,
    content_type: Annotated[str | None, typer.Option(help="Of the rows; default: by the file's ending.")] = None,
    accept: Annotated[str, typer.Option(help="Of the answer.")] = "application/json",
    variant: Annotated[str | None, typer.Option(help="Name of the variant that is to answer.")] = None,
    json: JsonOut = False,
) -> None:
    """Predict for a patient, or score rows as SageMaker's InvokeEndpoint; each request is numbered and captured."""
    run(
        "endpoints:endpoint_invoke",
        options_of(context),
        json_out=json,
        name=name,
        patient=patient,
        body=body,
        content_type=content_type,
        accept=accept,
        variant=variant,
    )


@endpoint.command("transform")
def endpoint_transform(
    context: typer.Context,
    name: Name,
    source: Annotated[Path, typer.Option("--in", help="Rows: Parquet, CSV with a header, or JSON lines.")],
    out: Annotated[Path, typer.Option("--out", help="Where the answers go: .parquet, .csv or .jsonl.")],
    rows: Annotated[int, typer.Option(help="Rows of a page; each is captured whole.", min=1, max=10_000)] = 1000,
    json: JsonOut = False,
) -> None:
    """Score a file, page by page; broken off and begun again, it goes on where it was."""
    run(
        "endpoints:endpoint_transform",
        options_of(context),
        json_out=json,
        name=name,
        source=source,
        out=out,
        rows=rows,
    )


@endpoint.command("outcomes")
def endpoint_outcomes(
    context: typer.Context,
    name: Name,
    labels: Annotated[
        Path | None, typer.Option(help="Ground truth, JSON lines as SageMaker has them; default: the record's.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Join what came of it to what was predicted, once the follow-up has ended."""
    run("endpoints:endpoint_outcomes", options_of(context), json_out=json, name=name, labels=labels)


@endpoint.command("shadows")
def endpoint_shadows(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Compare what shadows said with what was answered to the same rows."""
    run("endpoints:endpoint_shadows", options_of(context), json_out=json, name=name)


captures = group(endpoint, "captures", "What an endpoint captured.", _PANEL)


@captures.command("verify")
def captures_verify(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Check that every request is there, numbered without a gap, with its act and its predictions."""
    run("endpoints:captures_verify", options_of(context), json_out=json, name=name)
