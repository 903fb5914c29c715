"""Commands from the record to an approved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

# Data sets of prediction studies (`features.datasets`), which need no recipe of their own.
_STUDIES = ("deterioration", "mortality")
_NAMES = ", ".join(("readmission", "utilisation", *_STUDIES, "uci-readmission"))

commands = shelf()


@commands.command("run", rich_help_panel=_PANEL)
def run_recipe(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help=f"A recipe: {_NAMES}; or a study's file of TOML.")],
    approve_as: Annotated[
        str, typer.Option(help="Principal who approves the model; must not be its author.")
    ] = "reviewer",
    new: Annotated[bool, typer.Option("--new", help="Do not resume an interrupted run.")] = False,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Make the training set of then, and no model: a snapshot, a tag, a day."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="readmission: what makes the rows, duckdb or spark; default: lake.engine.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="uci-readmission: the UCI file to learn from.")] = None,
    score: Annotated[Path | None, typer.Option(help="uci-readmission: a file of strangers to score.")] = None,
    out: Annotated[Path | None, typer.Option(help="uci-readmission: where their risks go, as CSV.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of a study's model: risk (default), logistic, boosting, event_time.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Run a pipeline from the record to a deployed endpoint; an interrupted run resumes at its step."""
    study = recipe in _STUDIES or recipe.endswith(".toml")
    if as_of and (study or recipe in ("uci-readmission", "utilisation")):
        raise typer.BadParameter("--as-of is of recipes whose training set is made as of a moment: readmission.")
    if engine and recipe != "readmission":
        raise typer.BadParameter("--engine is of recipes whose rows either engine makes: readmission.")
    if recipe != "uci-readmission" and (source or score or out):
        raise typer.BadParameter("--source, --score and --out are of the recipe uci-readmission.")
    if kind and not study:
        raise typer.BadParameter("--kind is of studies.")
    if recipe == "uci-readmission":
        run("uci:run_uci", options_of(context), json_out=json, source=source, score=score, out=out)
    if recipe == "utilisation":
        run("utilisation:run_utilisation", options_of(context), json_out=json, new=new)
    if study:
        run("study:run_study", options_of(context), json_out=json, recipe=recipe, kind=kind, new=new)
    run(
        "learn:run_recipe",
        options_of(context),
        json_out=json,
        recipe=recipe,
        approve_as=approve_as,
        new=new,
        as_of=as_of,
        engine=engine,
    )
