"""Commands of the trail and of lineage."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Prove: trail and lineage"

commands = shelf()


@commands.command(rich_help_panel=_PANEL)
def lineage(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help="Ref of any noun, for example prediction:1f0a...")],
    forward: Annotated[bool, typer.Option("--forward", help="What was made from it, instead.")] = False,
    json: JsonOut = False,
) -> None:
    """Every noun from REF back to the landing object and its byte range."""
    run("prove:lineage", options_of(context), json_out=json, ref=ref, forward=forward)


@commands.command(rich_help_panel=_PANEL)
def nouns(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="One kind only, for example model.")] = None,
    json: JsonOut = False,
) -> None:
    """List what was made: landings, snapshots, training sets, models, endpoints, predictions, findings."""
    run("prove:nouns", options_of(context), json_out=json, kind=kind)


audit = group(commands, "audit", "The trail of every act.", _PANEL)


@audit.command("verify")
def audit_verify(
    context: typer.Context,
    trail_only: Annotated[bool, typer.Option("--trail-only", help="Leave out the stored objects.")] = False,
    json: JsonOut = False,
) -> None:
    """Verify segments, signatures, rows, the outside head and every stored object; exit 6 when not intact."""
    run("prove:verify", options_of(context), json_out=json, opens=False, trail_only=trail_only)


@audit.command("list")
def audit_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1)] = 50,
    principal: Annotated[str | None, typer.Option(help="Only this principal's acts.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only this phase, for example refused.")] = None,
    json: JsonOut = False,
) -> None:
    """List acts, newest first."""
    run(
        "prove:acts", options_of(context), json_out=json, limit=limit, principal=principal, action=action, phase=phase
    )
