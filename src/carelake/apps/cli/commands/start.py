"""Commands that make a workspace and show where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Start"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    root: Annotated[
        str | None, typer.Option(help="Where the root key is: file, passphrase, keyring or kms; default file.")
    ] = None,
    kms_key: Annotated[str | None, typer.Option(help="For --root kms: id, ARN or alias of the KMS key.")] = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql://USER@HOST:PORT/DATABASE, an empty one; default a file.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File that holds the database's password.")] = None,
    json: JsonOut = False,
) -> None:
    """Make a workspace: encrypted, with its root key kept outside of it."""
    rows = {"database": database, "password_file": password_file}
    run(
        "start:init",
        options_of(context),
        json_out=json,
        opens=False,
        folder=folder,
        root=root,
        kms_key=kms_key,
        **rows,
    )


@commands.command(rich_help_panel=_PANEL)
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to leave the workspace.")] = Path(
        "demo-workspace"
    ),
    patients: Annotated[int, typer.Option(help="Patients of the synthetic hospital.", min=50)] = 2600,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic hospital.")] = 7,
    json: JsonOut = False,
) -> None:
    """Run the whole loop on a synthetic hospital: record, lake, model, endpoint, drift, proof."""
    run("demo:demo", options_of(context), json_out=json, opens=False, folder=folder, patients=patients, seed=seed)


@commands.command(rich_help_panel=_PANEL)
def status(context: typer.Context, json: JsonOut = False) -> None:
    """Show where the loop stands: counts and states, no patient data."""
    run("start:status", options_of(context), json_out=json)


@commands.command(rich_help_panel=_PANEL)
def synth(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    patients: Annotated[int, typer.Option(help="How many patients.", min=1, max=100_000_000)] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    shift: Annotated[
        str | None, typer.Option(help="Name of a population shift; `synth --help` of docs lists.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="First day of the window, YYYY-MM-DD.")] = None,
    years: Annotated[float | None, typer.Option(help="Length of the window.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1, max=16)] = 2,
    vitals: Annotated[
        bool, typer.Option("--vitals", help="Vital signs every six hours of each stay too: for deterioration.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """Make a synthetic hospital with known truth, as FHIR NDJSON."""
    run(
        "start:synth",
        options_of(context),
        json_out=json,
        opens=False,
        out=out,
        patients=patients,
        seed=seed,
        shift=shift,
        start=start,
        years=years,
        workers=workers,
        vitals=vitals,
    )
