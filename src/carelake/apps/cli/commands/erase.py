"""Commands that end data: erase patients, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

commands = shelf()


@commands.command(rich_help_panel="Record: raw bytes to FHIR")
def erase(
    context: typer.Context,
    patient: Annotated[
        list[str] | None, typer.Option("--patient", metavar="ID", help="Who is erased; may be given many times.")
    ] = None,
    patients: Annotated[
        Path | None, typer.Option("--patients", metavar="FILE", help="A file of ids, one a line.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept sealed.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Only bring to its end what was broken off.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List erasures and their proofs.")] = False,
    json: JsonOut = False,
) -> None:
    """Erase patients from the record, landings, lake, features and predictions, for good, and print the proof.

    Run again after a kill, it goes on where it was. Exit 1 when the proof found something left.
    """
    run(
        "erase:erase",
        options_of(context),
        json_out=json,
        patient=patient or [],
        patients=patients,
        reason=reason,
        resume=resume,
        listed=listed,
    )
