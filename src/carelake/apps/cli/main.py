"""``carelake``: the commands, by the journey of the data. Nothing heavy is imported, so that help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from carelake import __version__
from carelake.apps.cli.arguments import hoist
from carelake.apps.cli.commands import (
    backup,
    bulk,
    datasets,
    endpoints,
    erase,
    events,
    features,
    flight,
    indexing,
    keys,
    lake,
    learn,
    measures,
    models,
    monitors,
    objects,
    omop,
    pipelines,
    prove,
    record,
    rights,
    start,
    upkeep,
    use,
    validating,
    views,
    who,
)
from carelake.apps.cli.grouping import JourneyGroup
from carelake.apps.cli.session import Options, answers_only, note

__all__ = ["main"]

app = typer.Typer(
    name="carelake",
    help="Raw clinical data to a governed, monitored prediction, with proof. Start with: carelake demo",
    no_args_is_help=True,
    add_completion=False,
    cls=JourneyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    workspace: Annotated[
        Path | None, typer.Option("-w", "--workspace", help="The workspace's folder. [env: CARELAKE_WORKSPACE]")
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", help="Principal to act as; default: yours.")] = None,
    purpose: Annotated[
        str | None, typer.Option(help="HL7 PurposeOfUse code; default HOPERAT. [env: CARELAKE_PURPOSE]")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to act in; default production.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Global options; they may also stand after the command."""
    if version:
        typer.echo(f"carelake {__version__}")
        raise typer.Exit
    context.obj = Options(workspace, as_, purpose, account)


for _shelf in (
    start,
    record,
    indexing,
    bulk,
    validating,
    erase,
    lake,
    views,
    omop,
    pipelines,
    measures,
    features,
    datasets,
    learn,
    models,
    use,
    endpoints,
    monitors,
    flight,
    prove,
    who,
    keys,
    rights,
    upkeep,
    events,
    objects,
    backup,
):
    app.add_typer(_shelf.commands)


def main() -> None:
    """Entry point of the ``carelake`` command."""
    answers_only()
    try:
        " ".join(sys.argv[1:]).encode()
    except UnicodeEncodeError:
        note("carelake: An argument is not UTF-8 text, as every name and path here is. [apps.arguments]")
        raise SystemExit(2) from None
    app(args=hoist(sys.argv[1:]))
