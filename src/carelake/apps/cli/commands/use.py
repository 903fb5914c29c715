"""Commands of endpoints and monitors."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Use: endpoints and monitors"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def predict(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name or ref of an endpoint.")],
    patient: Annotated[str | None, typer.Option(help="Id of one patient.")] = None,
    days: Annotated[
        float | None, typer.Option(help="Morning list: everyone whose last stay ended within so many days.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Predict for one patient, with reasons, or for the morning list; each prediction is kept and proven."""
    run("use:predict", options_of(context), json_out=json, endpoint=endpoint, patient=patient, days=days)


endpoint_group = group(commands, "endpoint", "Endpoints that remember every prediction.", _PANEL)


@endpoint_group.command("list")
def endpoint_list(context: typer.Context, json: JsonOut = False) -> None:
    """List endpoints and the models behind them."""
    run("use:endpoint_list", options_of(context), json_out=json)


monitor = group(commands, "monitor", "Checks over what was predicted.", _PANEL)


@monitor.command("check")
def monitor_check(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name or ref of an endpoint.")],
    since: Annotated[str | None, typer.Option(help="Only predictions made at or after this instant.")] = None,
    json: JsonOut = False,
) -> None:
    """Compare captured predictions with the model's baseline."""
    run("use:monitor_check", options_of(context), json_out=json, endpoint=endpoint, since=since)


@commands.command(rich_help_panel=_PANEL)
def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another one than loopback needs TLS (serve.tls_certificate).")
    ] = "127.0.0.1",
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer; default: serve.workers, 1.", min=1, max=64)
    ] = None,
) -> None:
    """Serve FHIR, predictions, health, metrics and a start page over HTTP."""
    run("serving:serve", options_of(context), opens=False, port=port, host=host, workers=workers)
