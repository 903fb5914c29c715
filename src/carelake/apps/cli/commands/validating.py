"""Command of validation."""

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
def validate(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Files of JSON (one resource) or NDJSON (one a line), .gz too; or folders."
        ),
    ],
    profile: Annotated[
        str | None, typer.Option(help="Canonical url of a profile that each resource of its type must follow.")
    ] = None,
    package: Annotated[
        list[Path] | None, typer.Option(help="A FHIR package (.tgz) whose profiles are known too; may be repeated.")
    ] = None,
    level: Annotated[str, typer.Option(help="strict, structure or minimal.")] = "strict",
    limit: Annotated[int, typer.Option(help="List at most so many issues; all are counted.", min=1)] = 1000,
    json: JsonOut = False,
) -> None:
    """Validate FHIR R4 files, with the line of each issue; needs no workspace. Exit 2 when something is wrong."""
    run(
        "validating:validate",
        options_of(context),
        json_out=json,
        opens=False,
        paths=paths,
        profile=profile,
        package=package or [],
        level=level,
        limit=limit,
    )
