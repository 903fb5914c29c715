"""Commands of data sets: point-in-time training sets with their proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()

dataset = group(commands, "dataset", "Training sets: build, verify, list, show.", _PANEL)

_Ref = Annotated[str, typer.Argument(help="A training set's ref: trainingset:...")]


@dataset.command("build")
def dataset_build(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe (`dataset recipes` lists them), or a TOML file of your own.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Parquet file to write the rows to, in the clear, for you alone.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="A snapshot's ref, a tag, a day; default: the newest snapshot.")
    ] = None,
    data_end: Annotated[
        str | None, typer.Option("--data-end", help="The end of the data, an instant; default: found in the data.")
    ] = None,
    meds: Annotated[Path | None, typer.Option("--meds", help="Take the rows of this MEDS 0.4 data set.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="MEDS labels, a Parquet file; with --meds.")] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="duckdb or spark (readmission); default: the setting lake.engine.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Build a training set: labels of a design, features as of each prediction time, proof and leak report."""
    run(
        "datasets:build",
        options_of(context),
        json_out=json,
        recipe=recipe,
        out=out,
        as_of=as_of,
        data_end=data_end,
        meds=meds,
        labels=labels,
        engine=engine,
    )


@dataset.command("verify")
def dataset_verify(
    context: typer.Context,
    ref: _Ref,
    meds: Annotated[
        Path | None, typer.Option("--meds", help="The MEDS data set that its rows were taken from.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="The labels that it was built with.")] = None,
    json: JsonOut = False,
) -> None:
    """Check the kept rows and make them again from their sources as of then; exit 6 when anything differs."""
    run("datasets:verify", options_of(context), json_out=json, ref=ref, meds=meds, labels=labels)


@dataset.command("list")
def dataset_list(context: typer.Context, json: JsonOut = False) -> None:
    """List training sets, newest first."""
    run("datasets:list_sets", options_of(context), json_out=json)


@dataset.command("show")
def dataset_show(context: typer.Context, ref: _Ref, json: JsonOut = False) -> None:
    """Show a training set: recipe, attrition, split, leak report and proof; no rows."""
    run("datasets:show_set", options_of(context), json_out=json, ref=ref)


@dataset.command("recipes")
def dataset_recipes(context: typer.Context, json: JsonOut = False) -> None:
    """List the recipes that come with carelake."""
    run("datasets:list_recipes", options_of(context), json_out=json, opens=False)


@dataset.command("labels")
def dataset_labels(
    context: typer.Context,
    ref: _Ref,
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write, in the clear, for you alone.")],
    json: JsonOut = False,
) -> None:
    """Write a training set's labels as MEDS 0.4 labels, with the subject ids of `meds export`."""
    run("datasets:labels", options_of(context), json_out=json, ref=ref, out=out)
