"""Commands of the lake."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()

lake = group(commands, "lake", "Iceberg tables that follow the record.", _PANEL)

_AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="A snapshot's ref, a tag, a day or an instant; default: the newest snapshot."),
]


@lake.command("sync")
def lake_sync(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Stay behind the record until it is ended.")] = False,
    json: JsonOut = False,
) -> None:
    """Bring the lake up to the record's change feed."""
    run("following:follow" if follow else "lake:bring_up", options_of(context), json_out=json)


@lake.command("status")
def lake_status(context: typer.Context, json: JsonOut = False) -> None:
    """How far the lake is behind the record, and what its tables hold."""
    run("lake:status", options_of(context), json_out=json)


@lake.command("maintain")
def lake_maintain(context: typer.Context, json: JsonOut = False) -> None:
    """Merge small files, expire snapshots that nobody needs, remove files that nothing uses."""
    run("lake:upkeep", options_of(context), json_out=json)


@lake.command("tag")
def lake_tag(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A small letter, then small letters, digits, dots or dashes.")],
    as_of: _AsOf = None,
    json: JsonOut = False,
) -> None:
    """Give a snapshot a name; what has one is kept until an erasure."""
    run("lake:name_it", options_of(context), json_out=json, name=name, as_of=as_of)


@lake.command("tags")
def lake_tags(context: typer.Context, json: JsonOut = False) -> None:
    """List tags and their snapshots."""
    run("lake:tag_list", options_of(context), json_out=json)


@commands.command("sql", rich_help_panel=_PANEL)
def sql(
    context: typer.Context,
    statement: Annotated[
        str,
        typer.Argument(help="One SELECT over views (patients), tables (Patient), TYPE_history and deletions."),
    ],
    as_of: _AsOf = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Sync the lake before.")] = False,
    format_: Annotated[str, typer.Option("--format", help="table, json, csv or arrow (an IPC stream).")] = "table",
    json: JsonOut = False,
) -> None:
    """Query the lake: read-only, in memory."""
    run("lake:ask", options_of(context), json_out=json, statement=statement, as_of=as_of, fresh=fresh, form=format_)
