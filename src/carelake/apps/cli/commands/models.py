"""Commands about model versions: what there is, who lets it through, what it says of itself, and change plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()

model = group(
    commands, "model", "Model versions: list, show, approve, reject, card, plan, lifecycle, export.", _PANEL
)

Said = Annotated[str, typer.Option(help="Why; it is kept with the decision.")]
Reauth = Annotated[
    bool,
    typer.Option("--reauth", help="Show that it is you: a fresh access token, asked for, or from CARELAKE_TOKEN."),
]


@model.command("list")
def model_list(
    context: typer.Context,
    group_: Annotated[str | None, typer.Option("--group", help="Of one group.")] = None,
    json: JsonOut = False,
) -> None:
    """List model versions and their states."""
    run("models:model_list", options_of(context), json_out=json, group=group_)


@model.command("groups")
def model_groups(context: typer.Context, json: JsonOut = False) -> None:
    """List model groups, with how many versions they have, the approved one, and the change plan in force."""
    run("models:model_groups", options_of(context), json_out=json)


@model.command("show")
def model_show(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Show a model version: metrics beside baselines, evidence, who approved it, the change plan's verdict."""
    run("models:model_show", options_of(context), json_out=json, ref=ref)


@model.command("approve")
def model_approve(
    context: typer.Context, ref: str, description: Said = "", reauth: Reauth = False, json: JsonOut = False
) -> None:
    """Approve a model version (as a principal who did not train it); what was approved is signed."""
    run(
        "models:model_decide",
        options_of(context),
        json_out=json,
        ref=ref,
        approve=True,
        description=description,
        reauth=reauth,
    )


@model.command("reject")
def model_reject(
    context: typer.Context, ref: str, description: Said = "", reauth: Reauth = False, json: JsonOut = False
) -> None:
    """Reject a model version; where it is deployed, the approved one before it is put back."""
    run(
        "models:model_decide",
        options_of(context),
        json_out=json,
        ref=ref,
        approve=False,
        description=description,
        reauth=reauth,
    )


@model.command("card")
def model_card(
    context: typer.Context,
    ref: str,
    form: Annotated[
        str, typer.Option("--format", help="html; xml (CHAI Applied Model Card); json; tripod (checklist, JSON).")
    ] = "html",
    out: Annotated[Path | None, typer.Option(help="File to write; default model-card.html, .xml or .json.")] = None,
    json: JsonOut = False,
) -> None:
    """Write a model version's card."""
    run("models:model_card", options_of(context), json_out=json, ref=ref, form=form, out=out)


@model.command("lifecycle")
def model_lifecycle(
    context: typer.Context,
    ref: str,
    stage: Annotated[str | None, typer.Argument(help="For example QA; without one the stage is shown.")] = None,
    status: Annotated[str | None, typer.Argument(help="For example PendingApproval.")] = None,
    description: Said = "",
    json: JsonOut = False,
) -> None:
    """Show or set the stage of a model version; who decides on one does it as a reviewer."""
    run(
        "models:model_lifecycle",
        options_of(context),
        json_out=json,
        ref=ref,
        stage=stage,
        status=status,
        description=description,
    )


@model.command("delete")
def model_delete(context: typer.Context, ref: str, json: JsonOut = False) -> None:
    """Delete a model version that no endpoint serves; what was decided on it stays on record."""
    run("models:model_delete", options_of(context), json_out=json, ref=ref)


@model.command("export")
def model_export(
    context: typer.Context,
    ref: str,
    out: Annotated[Path, typer.Option(help="New or empty folder.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="With model.onnx, if it says the same as the model.")] = False,
    json: JsonOut = False,
) -> None:
    """Write a model version as a signed folder that OpenSSF Model Signing verifies, too."""
    run("models:model_export", options_of(context), json_out=json, ref=ref, out=out, onnx=onnx)


@model.command("verify")
def model_verify(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What `model export` wrote.")],
    key: Annotated[Path | None, typer.Option(help="Public key as PEM; default: this workspace's.")] = None,
    json: JsonOut = False,
) -> None:
    """Check an exported folder: its signature, every file, and that there is no other."""
    options = options_of(context)
    if key is not None:
        run("models:model_verify_by", options, json_out=json, opens=False, folder=folder, key=key)
    run("models:model_verify", options, json_out=json, folder=folder)


plan = group(model, "plan", "Change plans (FDA PCCP): what may change within which bounds.", _PANEL)


@plan.command("set")
def plan_set(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="GROUP")],
    file: Annotated[Path, typer.Option(help="The plan, YAML; see docs/change-plan.md.")],
    json: JsonOut = False,
) -> None:
    """Write a group's change plan, a new version of it; a second person puts it in force."""
    run("model_plans:plan_set", options_of(context), json_out=json, group=name, file=file)


@plan.command("show")
def plan_show(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="GROUP")], json: JsonOut = False
) -> None:
    """Show a group's change plans and the one in force."""
    run("model_plans:plan_show", options_of(context), json_out=json, group=name)


@plan.command("approve")
def plan_approve(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="GROUP")],
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
    reauth: Reauth = False,
    json: JsonOut = False,
) -> None:
    """Put a change plan in force, as a reviewer who did not write it."""
    run(
        "model_plans:plan_decide",
        options_of(context),
        json_out=json,
        group=name,
        version=version,
        approve=True,
        reauth=reauth,
    )


@plan.command("reject")
def plan_reject(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="GROUP")],
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
    json: JsonOut = False,
) -> None:
    """Turn a change plan down, or take it out of force."""
    run(
        "model_plans:plan_decide",
        options_of(context),
        json_out=json,
        group=name,
        version=version,
        approve=False,
        reauth=False,
    )


@plan.command("check")
def plan_check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="GROUP")],
    file: Annotated[Path | None, typer.Option(help="Read this plan only, and say whether it is one.")] = None,
    ref: Annotated[str | None, typer.Option("--model", help="Version to check; default: the newest.")] = None,
    json: JsonOut = False,
) -> None:
    """Hold a version against the plan in force and keep the verdict: the traceability table. Exit 1: out of plan."""
    options = options_of(context)
    if file is not None:
        run("model_plans:plan_read", options, json_out=json, opens=False, group=name, file=file)
    run("model_plans:plan_check", options, json_out=json, group=name, ref=ref)
