"""Commands of SQL on FHIR's views."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"
_FORMATS = "csv, ndjson, json, parquet or arrow (an IPC stream)."

commands = shelf()

view = group(commands, "view", "SQL on FHIR: ViewDefinitions over the lake.", _PANEL)

_File = Annotated[Path, typer.Argument(help="A ViewDefinition, JSON.")]
_AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="A snapshot's ref, a tag, a day or an instant; default: the newest snapshot."),
]


@view.command("run")
def view_run(
    context: typer.Context,
    file: _File,
    format_: Annotated[str, typer.Option("--format", help=f"table, {_FORMATS}")] = "table",
    as_of: _AsOf = None,
    json: JsonOut = False,
) -> None:
    """The rows of the view in FILE, on stdout."""
    run("views:run_view", options_of(context), json_out=json, file=file, form=format_, as_of=as_of)


@view.command("export")
def view_export(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="ViewDefinitions, JSON.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files, NAME.FORMAT each; made where missing.")],
    format_: Annotated[str, typer.Option("--format", help=_FORMATS)] = "parquet",
    as_of: _AsOf = None,
    json: JsonOut = False,
) -> None:
    """Write the rows of views to files, in the clear, for you alone."""
    run("views:export", options_of(context), json_out=json, files=files, out=out, form=format_, as_of=as_of)


@view.command("check")
def view_check(context: typer.Context, file: _File, json: JsonOut = False) -> None:
    """Say what is wrong with the view in FILE, or which columns it has; reads no data."""
    run("views:check", options_of(context), json_out=json, opens=False, file=file)


@view.command("report")
def view_report(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The official suite: a folder of JSON files.")],
    engine: Annotated[str, typer.Option("--engine", help="duckdb, spark or oracle.")] = "duckdb",
) -> None:
    """Run the official suite and write its report (the JSON of test_report.json) to stdout."""
    run("views:suite", options_of(context), json_out=True, opens=False, folder=folder, engine=engine)
