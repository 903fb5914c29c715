"""Commands of endpoints, and the server."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
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
