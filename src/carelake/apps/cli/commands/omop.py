"""Commands of the lake in other models: OMOP and MEDS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()

omop = group(commands, "omop", "The lake as OMOP CDM 5.4.", _PANEL)
meds = group(commands, "meds", "The lake as MEDS 0.4.", _PANEL)

_Out = Annotated[Path, typer.Option("--out", help="A new folder, or one that an interrupted export was written to.")]
_AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="A snapshot's ref, a tag, a day or an instant; default: the newest snapshot."),
]
_Vocabulary = Annotated[
    Path | None, typer.Option("--vocabulary", help="Your own vocabulary: the folder that Athena gives.")
]
_Folder = Annotated[Path, typer.Argument(help="The folder that was written.")]


@omop.command("export")
def omop_export(
    context: typer.Context,
    out: _Out,
    vocabulary: _Vocabulary = None,
    format_: Annotated[str, typer.Option("--format", help="parquet or csv.")] = "parquet",
    as_of: _AsOf = None,
    json: JsonOut = False,
) -> None:
    """Write the tables of the CDM, in the clear, for you alone, and validate them; run again, it goes on."""
    run(
        "omop:export",
        options_of(context),
        json_out=json,
        out=out,
        vocabulary_at=vocabulary,
        form=format_,
        as_of=as_of,
    )


@omop.command("validate")
def omop_validate(
    context: typer.Context, folder: _Folder, vocabulary: _Vocabulary = None, json: JsonOut = False
) -> None:
    """Check tables against the field list of the CDM: columns, types, what is required, keys and concepts."""
    run("omop:check", options_of(context), json_out=json, opens=False, folder=folder, vocabulary_at=vocabulary)


@meds.command("export")
def meds_export(context: typer.Context, out: _Out, as_of: _AsOf = None, json: JsonOut = False) -> None:
    """Write a MEDS dataset, in the clear, for you alone; run again, it goes on."""
    run("omop:export_meds", options_of(context), json_out=json, out=out, as_of=as_of)


@meds.command("validate")
def meds_validate(context: typer.Context, folder: _Folder, json: JsonOut = False) -> None:
    """Check a MEDS dataset, anybody's: columns, order, subjects, codes and splits."""
    run("omop:check_meds", options_of(context), json_out=json, opens=False, folder=folder)
