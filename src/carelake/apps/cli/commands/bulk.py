"""``export`` and ``import``: the record in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Record: raw bytes to FHIR"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def export(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new or empty folder, or one of an export to go on with.")
    ],
    type_: Annotated[str | None, typer.Option("--type", metavar="T,T", help="These types only.")] = None,
    since: Annotated[str | None, typer.Option(help="Changed after this instant; deletions are told too.")] = None,
    until: Annotated[str | None, typer.Option(help="Not changed after this instant.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="TYPE?SEARCH", help="Of a type what matches; of several, one must."),
    ] = None,
    elements: Annotated[
        str | None, typer.Option(metavar="E,TYPE.E", help="These outermost elements only; tagged as SUBSETTED.")
    ] = None,
    patients: Annotated[bool, typer.Option("--patients", help="Only what is in patients' compartments.")] = False,
    json: JsonOut = False,
) -> None:
    """Export resources as NDJSON in the clear, with a manifest, as of one moment; a run that was ended goes on."""
    run(
        "bulk:export",
        options_of(context),
        json_out=json,
        out=out,
        types=type_,
        since=since,
        until=until,
        filters=tuple(filters or ()),
        elements=elements,
        patients=patients,
    )


@commands.command("import", rich_help_panel=_PANEL)
def import_(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST_OR_FOLDER", help="A manifest, a folder of FHIR files, or one file; .gz too."
        ),
    ],
    mode: Annotated[
        str | None,
        typer.Option(
            help="incremental: an older version never replaces a newer one; initial: each line is the newest."
        ),
    ] = None,
    outcomes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write what became of each line into this folder.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Import NDJSON, with an outcome for each line; a run that was ended goes on, a second one changes nothing."""
    run("bulk_import:import_", options_of(context), json_out=json, source=source, mode=mode, outcomes=outcomes)
