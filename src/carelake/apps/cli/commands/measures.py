"""Commands of quality measures and summaries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()

measure = group(commands, "measure", "Quality measures and summaries over the lake.", _PANEL)


@measure.command("list")
def measure_list(context: typer.Context, json: JsonOut = False) -> None:
    """List the measures, what they follow, and what of that is simplified."""
    run("measures:listed", options_of(context), json_out=json, opens=False)


@measure.command("run")
def measure_run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of `measure list`, or population, or utilisation.")],
    period: Annotated[str, typer.Option("--period", help="2025, 2025-Q3, 2025-06 or 2025-01-01/2025-06-30.")],
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="A snapshot's ref, a tag, a day or an instant; default: the newest snapshot."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", help="Counts below are left out; default: lake.k.", min=0)
    ] = None,
    value_sets: Annotated[
        Path | None, typer.Option("--value-sets", help="TOML with value sets in the place of ours.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table, json, or fhir (a MeasureReport).")] = "table",
    json: JsonOut = False,
) -> None:
    """Counts, rate and interval of a measure, in all and by age, sex and race."""
    run(
        "measures:run_measure",
        options_of(context),
        json_out=json,
        name=name,
        period=period,
        as_of=as_of,
        threshold=threshold,
        value_sets_at=value_sets,
        form=format_,
    )
