"""Commands about decisions: explain and test them, give rights for a time, break the glass, review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Who may"

commands = shelf()

access = group(commands, "access", "Who may do what, and why.", _PANEL)

Reason = Annotated[str, typer.Option(help="Why; it is kept sealed, the trail names its digest.")]


@access.command("explain")
def access_explain(
    context: typer.Context, name: str, action: str, target: str, purpose_code: str, json: JsonOut = False
) -> None:
    """Say whether NAME may do ACTION on TARGET for PURPOSE, which policies decide, and what would change it.

    An action on a zone is given as object:read with the target zone/landing.
    """
    run(
        "rights:explain",
        options_of(context),
        json_out=json,
        name=name,
        action=action,
        target=target,
        purpose=purpose_code,
    )


@access.command("actions")
def access_actions(context: typer.Context, json: JsonOut = False) -> None:
    """List the actions that the gate knows, and their groups."""
    run("rights:known", options_of(context), json_out=json, opens=False)


@access.command("test")
def access_test(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(help="Default: the shipped tests and policies/tests.")] = None,
    json: JsonOut = False,
) -> None:
    """Run policy tests against the workspace's policies; exit 1 when one fails."""
    run("rights:test", options_of(context), json_out=json, folder=folder)


@access.command("consents")
def access_consents(
    context: typer.Context,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Project the account's Consents anew, before.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the Consents with their projection; exit 1 on a difference.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """Count what patients' consents come to in --account, and what of them was not understood; nobody is named."""
    run("consents:consents", options_of(context), json_out=json, rebuild=rebuild, verify=verify)


@access.command("credentials")
def access_credentials(context: typer.Context, json: JsonOut = False) -> None:
    """List access keys with their age, last use and state."""
    run("credentials:report", options_of(context), json_out=json)


@access.command("break-glass")
def access_break_glass(
    context: typer.Context,
    reason: Reason,
    minutes: Annotated[int, typer.Option(help="How long, up to access.glass_max_minutes.", min=1, max=100_000)] = 30,
    json: JsonOut = False,
) -> None:
    """Begin an emergency access in --account, with --purpose ETREAT; it is told aloud and reviewed by another."""
    run("emergency:begin", options_of(context), json_out=json, reason=reason, minutes=minutes)


@access.command("end")
def access_end(context: typer.Context, glass: str, json: JsonOut = False) -> None:
    """End one's own emergency access before its time, with --purpose ETREAT."""
    run("emergency:end", options_of(context), json_out=json, glass=glass)


review = group(access, "review", "Emergency accesses, which another principal reviews.", _PANEL)


@review.command("list")
def review_list(
    context: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Only those that are not reviewed.")] = False,
    json: JsonOut = False,
) -> None:
    """List emergency accesses; the overdue ones are findings."""
    run("emergency:reviews", options_of(context), json_out=json, only_open=open_)


@review.command("show")
def review_show(context: typer.Context, glass: str, json: JsonOut = False) -> None:
    """Show one with its reason and the acts under it."""
    run("emergency:review", options_of(context), json_out=json, glass=glass)


@review.command("close")
def review_close(
    context: typer.Context,
    glass: str,
    verdict: Annotated[str, typer.Option(help="justified or unjustified.")],
    json: JsonOut = False,
) -> None:
    """Close a review; an access that still runs ends."""
    run("emergency:close", options_of(context), json_out=json, glass=glass, verdict=verdict)


grant = group(access, "grant", "Rights for a time, asked for by one and approved by another.", _PANEL)


@grant.command("add")
def grant_add(
    context: typer.Context,
    to: Annotated[str, typer.Option(help="The principal that gets it.")],
    action: Annotated[str, typer.Option(help="An action, or a group of actions.")],
    reason: Reason,
    days: Annotated[int, typer.Option(help="How long after its approval.", min=1, max=36_500)] = 30,
    json: JsonOut = False,
) -> None:
    """Ask for a right in --account for --purpose; it is nothing until another principal approves it."""
    run("rights:ask", options_of(context), json_out=json, to=to, action=action, reason=reason, days=days)


@grant.command("approve")
def grant_approve(context: typer.Context, grant: str, json: JsonOut = False) -> None:
    """Approve a grant, in its --account, as another than who asked for it or who gets it."""
    run("rights:approve", options_of(context), json_out=json, grant=grant)


@grant.command("revoke")
def grant_revoke(context: typer.Context, grant: str, json: JsonOut = False) -> None:
    """End a grant, in its --account; it counts at once, in every process."""
    run("rights:revoke", options_of(context), json_out=json, grant=grant)


@grant.command("list")
def grant_list(context: typer.Context, json: JsonOut = False) -> None:
    """List grants."""
    run("rights:grants", options_of(context), json_out=json)


@grant.command("show")
def grant_show(context: typer.Context, grant: str, json: JsonOut = False) -> None:
    """Show a grant with its reason, in its --account, to whoever may approve it."""
    run("rights:grant", options_of(context), json_out=json, grant=grant)
