"""Commands about principals and what they may do."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Who may"

commands = shelf()


principal_group = group(commands, "principal", "People and services that may act.", _PANEL)


@principal_group.command("list")
def principal_list(context: typer.Context, json: JsonOut = False) -> None:
    """List principals with their roles and accounts."""
    run("who:principals", options_of(context), json_out=json)


@principal_group.command("add")
def principal_add(
    context: typer.Context,
    name: str,
    role: Annotated[list[str], typer.Option(help="Role; may be given more than once.")],
    in_: Annotated[list[str] | None, typer.Option("--in", help="Account it belongs to; default production.")] = None,
    json: JsonOut = False,
) -> None:
    """Add a principal."""
    run("who:add", options_of(context), json_out=json, name=name, roles=role, accounts=in_ or ["production"])


@principal_group.command("disable")
def principal_disable(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Refuse a principal everything from now on."""
    run("who:disable", options_of(context), json_out=json, name=name)


@commands.command(rich_help_panel=_PANEL)
def token(
    context: typer.Context,
    role: Annotated[str | None, typer.Option(help="Only this role of the principal's.")] = None,
    seconds: Annotated[int | None, typer.Option(help="How long it is valid.", min=1, max=86_400)] = None,
    json: JsonOut = False,
) -> None:
    """Issue an access token for the HTTP door: carelake token --as NAME --purpose TREAT."""
    run("who:token", options_of(context), json_out=json, role=role, seconds=seconds)


access = group(commands, "access", "Who may do what, and why.", _PANEL)


@access.command("explain")
def access_explain(
    context: typer.Context, name: str, action: str, target: str, purpose_code: str, json: JsonOut = False
) -> None:
    """Say whether NAME may do ACTION on TARGET for PURPOSE, and which policies decide."""
    run(
        "who:explain",
        options_of(context),
        json_out=json,
        name=name,
        action=action,
        target=target,
        purpose=purpose_code,
    )
