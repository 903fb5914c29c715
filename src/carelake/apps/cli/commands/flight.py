"""The command that serves Arrow Flight."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

commands = shelf()


@commands.command(rich_help_panel="Use: endpoints and monitors")
def flight(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8815,
    host: Annotated[str, typer.Option(help="Loopback only, but with serve.tls_certificate.")] = "127.0.0.1",
) -> None:
    """Serve large results of SQL over Arrow Flight."""
    run("flight:fly", options_of(context), port=port, host=host)
