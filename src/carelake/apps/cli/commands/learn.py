"""Commands from the record to an approved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()


@commands.command("run", rich_help_panel=_PANEL)
def run_recipe(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of a recipe: readmission.")],
    approve_as: Annotated[
        str, typer.Option(help="Principal who approves the model; must not be its author.")
    ] = "reviewer",
    new: Annotated[bool, typer.Option("--new", help="Do not resume an interrupted run.")] = False,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Make the training set of then, and no model: a snapshot, a tag, a day."),
    ] = None,
    json: JsonOut = False,
) -> None:
    """Run a pipeline from the record to a deployed endpoint; an interrupted run resumes at its step."""
    run(
        "learn:run_recipe",
        options_of(context),
        json_out=json,
        recipe=recipe,
        approve_as=approve_as,
        new=new,
        as_of=as_of,
    )


model = group(commands, "model", "Model versions: list, show, approve, reject, card.", _PANEL)


@model.command("list")
def model_list(context: typer.Context, json: JsonOut = False) -> None:
    """List model versions and their states."""
    run("learn:model_list", options_of(context), json_out=json)


@model.command("show")
def model_show(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Show a model version: metrics beside baselines, subgroups, state."""
    run("learn:model_show", options_of(context), json_out=json, ref=ref)


@model.command("approve")
def model_approve(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Approve a model version (as a principal who did not train it)."""
    run("learn:model_decide", options_of(context), json_out=json, ref=ref, approve=True)


@model.command("reject")
def model_reject(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Reject a model version."""
    run("learn:model_decide", options_of(context), json_out=json, ref=ref, approve=False)


@model.command("card")
def model_card(
    context: typer.Context,
    ref: str,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("model-card.html"),
    json: JsonOut = False,
) -> None:
    """Write a model version's card as one HTML page."""
    run("learn:model_card", options_of(context), json_out=json, ref=ref, out=out)
