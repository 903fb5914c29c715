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

_File = Annotated[Path, typer.Argument(help="A ViewDefinition, JSON, or the name of a ready-made view.")]
_AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="A snapshot's ref, a tag, a day or an instant; default: the newest snapshot."),
]


_Engine = Annotated[str | None, typer.Option("--engine", help="duckdb or spark; default: the setting lake.engine.")]
_Name = Annotated[str, typer.Argument(help="Name of a saved view.")]
_NewName = Annotated[str | None, typer.Option("--name", help="What it is called; default: the view's own name.")]


@view.command("run")
def view_run(
    context: typer.Context,
    view: Annotated[str, typer.Argument(help="A ViewDefinition, JSON, or the name of a saved or ready-made view.")],
    format_: Annotated[str, typer.Option("--format", help=f"table, {_FORMATS}")] = "table",
    as_of: _AsOf = None,
    engine: _Engine = None,
    json: JsonOut = False,
) -> None:
    """The rows of a view, on stdout."""
    run("views:run_view", options_of(context), json_out=json, view=view, form=format_, as_of=as_of, engine=engine)


@view.command("save")
def view_save(context: typer.Context, file: _File, name: _NewName = None, json: JsonOut = False) -> None:
    """Save the view in FILE by its name: a relation in `sql`, computed when it is asked for."""
    run("views:save", options_of(context), json_out=json, file=file, name=name)


@view.command("materialise")
def view_materialise(context: typer.Context, file: _File, name: _NewName = None, json: JsonOut = False) -> None:
    """Save the view in FILE and keep its rows; each sync brings them up to the record."""
    run("views:keep", options_of(context), json_out=json, file=file, name=name)


@view.command("list")
def view_list(
    context: typer.Context,
    ready: Annotated[
        bool, typer.Option("--ready", help="List those that come with carelake: US Core as rows.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """List saved views, and whether what is kept of them is fresh."""
    if ready:
        run("ready:listed", options_of(context), json_out=json, opens=False)
    run("views:listed", options_of(context), json_out=json)


@view.command("show")
def view_show(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of a ready-made view.")]
) -> None:
    """The ViewDefinition of a ready-made view, as JSON: to read, or to begin one's own with."""
    run("ready:shown", options_of(context), json_out=True, opens=False, name=name)


@view.command("refresh")
def view_refresh(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Names of saved views; default: all.")] = None,
    json: JsonOut = False,
) -> None:
    """Bring views that are kept up to the lake's tables, without a sync."""
    run("views:refresh", options_of(context), json_out=json, names=names or [])


@view.command("drop")
def view_drop(context: typer.Context, name: _Name, json: JsonOut = False) -> None:
    """Forget a saved view, and what is kept of it."""
    run("views:drop", options_of(context), json_out=json, name=name)


@view.command("export")
def view_export(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="ViewDefinitions, JSON.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files, NAME.FORMAT each; made where missing.")],
    format_: Annotated[str, typer.Option("--format", help=_FORMATS)] = "parquet",
    as_of: _AsOf = None,
    engine: _Engine = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="By shards of patients in so many processes: NAME/part-00001.FORMAT and so on. The same command "
            "again goes on with an export that was broken off.",
        ),
    ] = None,
    json: JsonOut = False,
) -> None:
    """Write the rows of views to files, in the clear, for you alone."""
    run(
        "views:export",
        options_of(context),
        json_out=json,
        files=files,
        out=out,
        form=format_,
        as_of=as_of,
        engine=engine,
        workers=workers,
    )


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
