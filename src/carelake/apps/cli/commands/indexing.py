"""``reindex``: the search index, built where it is not and compared with the resources."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

commands = shelf()


@commands.command(rich_help_panel="Record: raw bytes to FHIR")
def reindex(
    context: typer.Context,
    param: Annotated[
        str, typer.Option("--param", metavar="[TYPE.]CODE", help="This search parameter only, built anew.")
    ] = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the resources and change nothing; exit 1 on a difference.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """Register the account's SearchParameter resources and index what was kept before; others go on meanwhile.

    A run that was ended goes on where it was.
    """
    run("indexing:reindex", options_of(context), json_out=json, param=param, verify=verify)
