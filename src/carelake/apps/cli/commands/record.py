"""Commands from raw bytes to the FHIR record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Record: raw bytes to FHIR"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def ingest(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders; .gz too.")],
    json: JsonOut = False,
) -> None:
    """Read FHIR files into the record; what is not valid goes to quarantine with its line and the reason."""
    run("record:ingest", options_of(context), json_out=json, paths=paths)


quarantine = group(commands, "quarantine", "What was refused at ingest, and why.", _PANEL)


@quarantine.command("list")
def quarantine_list(
    context: typer.Context,
    limit: Annotated[
        int | None, typer.Option(help="At most this many; default all.", min=1, max=1_000_000_000)
    ] = None,
    json: JsonOut = False,
) -> None:
    """List refusals: source, line, path, code, message."""
    run("record:quarantine", options_of(context), json_out=json, limit=limit)


@commands.command(rich_help_panel=_PANEL)
def search(
    context: typer.Context,
    query: Annotated[
        str,
        typer.Argument(
            help="A FHIR search: Type?name=value&..., ?_type=A,B&... or Patient/ID/Type?...; in quotes, since shells "
            "take & ? * and $ for themselves (single quotes where there is a $)."
        ),
    ],
    limit: Annotated[int | None, typer.Option(help="At most this many matches.", min=1, max=1_000_000_000)] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Leave out parameters that are not known, and say which.")
    ] = False,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Without --json: a column of the table, as FHIRPath; may be given again."),
    ] = None,
    json: JsonOut = False,
) -> None:
    """Search the record: all matches, page by page; with _count one page. An unknown parameter is an error.

    carelake search "Patient?gender=female&_sort=-birthdate" --limit 20 --column birthDate

    carelake search "Observation?subject:Patient.name=peter&_include=Observation:subject&_sort=-date" --json

    carelake search 'Observation?code-value-quantity=8867-4$gt100' --json
    """
    run(
        "finding:search",
        options_of(context),
        json_out=json,
        query=query,
        limit=limit,
        lenient=lenient,
        columns=tuple(column or ()),
    )


@commands.command(rich_help_panel=_PANEL)
def read(
    context: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="TYPE/ID", help="For example Patient/123.")],
    json: JsonOut = False,
) -> None:
    """Read one resource."""
    run("record:read", options_of(context), json_out=json, reference=reference)
