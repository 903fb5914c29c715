"""Commands of the trail and of lineage."""

from __future__ import annotations

from pathlib import Path
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
    depth: Annotated[int | None, typer.Option(help="Follow so many arrows at most.", min=1, max=1_000_000)] = None,
    limit: Annotated[int, typer.Option(help="At most this many nouns.", min=1, max=1_000_000)] = 100_000,
    json: JsonOut = False,
) -> None:
    """Every noun from REF back to the landing object and its byte range."""
    run("prove:lineage", options_of(context), json_out=json, ref=ref, forward=forward, depth=depth, limit=limit)


@commands.command(rich_help_panel=_PANEL)
def nouns(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(help="One kind only, for example model.")] = None,
    json: JsonOut = False,
) -> None:
    """List what was made: landings, snapshots, training sets, models, endpoints, predictions, findings."""
    run("prove:nouns", options_of(context), json_out=json, kind=kind)


audit = group(commands, "audit", "The trail of every act.", _PANEL)


_Who = Annotated[str | None, typer.Option("--principal", help="Only this principal's acts.")]
_Action = Annotated[str | None, typer.Option("--action", help="Only this action, for example record:read.")]
_Target = Annotated[str | None, typer.Option("--target", help="Only acts on this target, for example Patient.")]
_Phase = Annotated[str | None, typer.Option("--phase", help="Only this phase, for example refused.")]
_Purpose = Annotated[str | None, typer.Option("--for-purpose", help="Only acts for this purpose, for example TREAT.")]
_Account = Annotated[str | None, typer.Option("--in-account", help="Only acts in this account.")]
_Patient = Annotated[
    str | None,
    typer.Option("--patient", help="Only acts that touched this patient: an id in your account, or patient:HEX."),
]
_Ref = Annotated[str | None, typer.Option("--ref", help="Only acts that read, wrote or name this ref.")]
_Since = Annotated[str | None, typer.Option("--since", help="Only from this time on, for example 2026-11-22.")]
_Until = Annotated[str | None, typer.Option("--until", help="Only before this time.")]


@audit.command("verify")
def audit_verify(
    context: typer.Context,
    trail_only: Annotated[bool, typer.Option("--trail-only", help="Leave out the stored objects.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Leave out segments sealed before this time: quicker, and proves less.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Verify segments, signatures, rows, the outside head and every stored object; exit 6 when not intact."""
    run("prove:verify", options_of(context), json_out=json, opens=False, trail_only=trail_only, since=since)


@audit.command("list")
def audit_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1, max=100_000)] = 50,
    principal: _Who = None,
    action: _Action = None,
    target: _Target = None,
    phase: _Phase = None,
    purpose: _Purpose = None,
    account: _Account = None,
    patient: _Patient = None,
    ref: _Ref = None,
    since: _Since = None,
    until: _Until = None,
    json: JsonOut = False,
) -> None:
    """List acts, newest first."""
    run(
        "trail:acts",
        options_of(context),
        json_out=json,
        limit=limit,
        principal=principal,
        action=action,
        target=target,
        phase=phase,
        purpose=purpose,
        account=account,
        patient=patient,
        ref=ref,
        since=since,
        until=until,
    )


@audit.command("show")
def audit_show(
    context: typer.Context,
    act: Annotated[str, typer.Argument(help="An act's id (correlation, X-Request-Id) or the number of a row.")],
    json: JsonOut = False,
) -> None:
    """Show one act: its rows, keys, patients and nouns, and the proof that it is sealed."""
    run("trail:show_act", options_of(context), json_out=json, act=act)


@audit.command("export")
def audit_export(
    context: typer.Context,
    format_: Annotated[
        str, typer.Option("--format", help="jsonl (with proofs and a verifier), auditevent (FHIR), or ocsf.")
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder.")],
    principal: _Who = None,
    action: _Action = None,
    target: _Target = None,
    phase: _Phase = None,
    purpose: _Purpose = None,
    account: _Account = None,
    patient: _Patient = None,
    ref: _Ref = None,
    since: _Since = None,
    until: _Until = None,
    json: JsonOut = False,
) -> None:
    """Export the sealed trail for somebody else to check or to read."""
    run(
        "trail:export",
        options_of(context),
        json_out=json,
        format_=format_,
        out=out,
        principal=principal,
        action=action,
        target=target,
        phase=phase,
        purpose=purpose,
        account=account,
        patient=patient,
        ref=ref,
        since=since,
        until=until,
    )
