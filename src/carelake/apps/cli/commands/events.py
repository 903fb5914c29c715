"""Commands of events: who follows them, where they stand, and what they could not take."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Operate: events"

Name = Annotated[str, typer.Argument(help="Name of the consumer.")]
Sequences = Annotated[list[int] | None, typer.Argument(help="Sequences of the events; all when left out.")]

commands = shelf()
events = group(commands, "events", "Who follows what happens, and where they stand.", _PANEL)


@events.command("list")
def events_list(context: typer.Context, json: JsonOut = False) -> None:
    """List consumers: offset, lag, the oldest that waits, dead letters, streams that are held up."""
    run("events:consumers", options_of(context), json_out=json)


@events.command("add")
def add(
    context: typer.Context,
    name: Name,
    types: Annotated[list[str] | None, typer.Option("--type", help="Type or its first words, e.g. model.")] = None,
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="Only about such nouns, e.g. landing.")] = None,
    accounts: Annotated[
        list[str] | None, typer.Option("--from-account", help="Of these accounts; for account security alone.")
    ] = None,
    start: Annotated[str, typer.Option("--start", help="now, beginning, a sequence, or an instant.")] = "now",
    url: Annotated[str | None, typer.Option(help="Webhook: https address; its host must be in events.hosts.")] = None,
    bus: Annotated[str | None, typer.Option(help="EventBridge: name or ARN of an event bus.")] = None,
    region: Annotated[str | None, typer.Option(help="EventBridge: region of the bus.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="EventBridge: another endpoint than AWS's own.")] = None,
    json: JsonOut = False,
) -> None:
    """Add a consumer: a webhook, an event bus, or one that reads with `events read`; a secret is shown once."""
    run(
        "events:add",
        options_of(context),
        json_out=json,
        name=name,
        types=types or [],
        kinds=kinds or [],
        accounts=accounts or [],
        start=start,
        url=url,
        bus=bus,
        region=region,
        endpoint=endpoint,
    )


@events.command("remove")
def remove(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Remove a consumer with its place and its dead letters."""
    run("events:remove", options_of(context), json_out=json, name=name)


@events.command("pause")
def pause(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Deliver nothing to a consumer until it is resumed."""
    run("events:set_state", options_of(context), json_out=json, name=name, state="paused")


@events.command("resume")
def resume(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Deliver to a paused consumer again."""
    run("events:set_state", options_of(context), json_out=json, name=name, state="active")


@events.command("rotate")
def rotate(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Make a new signing secret, shown once; the one before it signs beside it for a day."""
    run("events:rotate", options_of(context), json_out=json, name=name)


@events.command("deliver")
def deliver(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One consumer only.")] = None,
    json: JsonOut = False,
) -> None:
    """Deliver what is due now to webhooks and event buses; `serve` does so as it runs."""
    run("events:deliver", options_of(context), json_out=json, name=name)


@events.command("read")
def read(
    context: typer.Context,
    name: Name,
    limit: Annotated[int, typer.Option(help="At most so many events.", min=1, max=1_000_000)] = 1000,
    json: JsonOut = False,
) -> None:
    """Write the next events of a consumer as CloudEvents, one per line, and move its place past them."""
    run("events:read", options_of(context), json_out=json, name=name, limit=limit)


@events.command("replay")
def replay(
    context: typer.Context,
    name: Name,
    start: Annotated[str, typer.Option("--from", help="beginning, a sequence, or an instant.")],
    json: JsonOut = False,
) -> None:
    """Move a consumer back, so that it gets events again from there."""
    run("events:replay", options_of(context), json_out=json, name=name, start=start)


@events.command("trim")
def trim(
    context: typer.Context,
    days: Annotated[int | None, typer.Option(help="Older than this; default: events.keep_days.", min=0)] = None,
    json: JsonOut = False,
) -> None:
    """Delete old events of the account, as far as everyone who follows them has them."""
    run("events:trim", options_of(context), json_out=json, days=days)


dead = group(events, "dead", "Events that a consumer could not take.", _PANEL)


@dead.command("list")
def dead_list(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """List a consumer's dead letters with their reasons."""
    run("events:dead_list", options_of(context), json_out=json, name=name)


@dead.command("retry")
def dead_retry(context: typer.Context, name: Name, sequences: Sequences = None, json: JsonOut = False) -> None:
    """Deliver dead letters once more; they come late, after what followed them."""
    run("events:dead_retry", options_of(context), json_out=json, name=name, sequences=sequences or [])


@dead.command("drop")
def dead_drop(context: typer.Context, name: Name, sequences: Sequences = None, json: JsonOut = False) -> None:
    """Give dead letters up for good."""
    run("events:dead_drop", options_of(context), json_out=json, name=name, sequences=sequences or [])
