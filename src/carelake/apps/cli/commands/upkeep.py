"""Commands that keep a workspace in order: bring an older one up, and look after everything it leans on."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Upkeep"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def upgrade(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: JsonOut = False,
) -> None:
    """Bring a workspace of an older format up to this version. Stop what uses it, and back it up before."""
    run("upkeep:upgrade", options_of(context), json_out=json, opens=False, dry_run=dry_run)


@commands.command(rich_help_panel=_PANEL)
def doctor(context: typer.Context, json: JsonOut = False) -> None:
    """Check machine, settings, keys, files and database, and say what to do; exit 1 when something fails.

    Works when the workspace cannot be opened.
    """
    run("upkeep:doctor", options_of(context), json_out=json, opens=False)
