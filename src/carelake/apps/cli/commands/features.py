"""Commands of feature groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Learn: lake, features, models"

commands = shelf()
features = group(commands, "features", "Feature groups: define, ingest, compute, read, document.", _PANEL)

_GROUP = Annotated[str, typer.Argument(metavar="GROUP", help="Name or ARN of a feature group.")]
_EVENT = Annotated[str, typer.Option("--event-time", help="When it happened, as 2026-01-02T03:04:05Z.")]
_STORE = Annotated[list[str] | None, typer.Option("--store", help="OnlineStore or OfflineStore; default both.")]


@features.command("list")
def features_list(context: typer.Context, json: JsonOut = False) -> None:
    """List the feature groups of the account."""
    run("features:list_groups", options_of(context), json_out=json)


@features.command("show")
def features_show(context: typer.Context, name: _GROUP, json: JsonOut = False) -> None:
    """Show a feature group: its features, stores, gates, and how far it is computed."""
    run("features:show_group", options_of(context), json_out=json, name=name)


@features.command("create")
def features_create(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A declaration (TOML), a request (JSON), or a shipped one.")
    ],
    json: JsonOut = False,
) -> None:
    """Create a feature group from a declaration, or from SageMaker's CreateFeatureGroup request."""
    run("features:create_group", options_of(context), json_out=json, source=source)


@features.command("drop")
def features_drop(context: typer.Context, name: _GROUP, json: JsonOut = False) -> None:
    """Delete a feature group and its online store; what is in the offline store stays."""
    run("features:drop_group", options_of(context), json_out=json, name=name)


@features.command("ingest")
def features_ingest(
    context: typer.Context,
    name: _GROUP,
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or NDJSON with columns called as the features.")],
    known: Annotated[
        str | None, typer.Option("--known", help="Column of when each row became known; for histories.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Write the rows of a file; one that was broken off goes on where it stood."""
    run("features:ingest_file", options_of(context), json_out=json, name=name, file=file, known=known)


@features.command("put")
def features_put(
    context: typer.Context,
    name: _GROUP,
    values: Annotated[list[str], typer.Argument(metavar="FEATURE=VALUE...", help="The whole record.")],
    store: _STORE = None,
    ttl: Annotated[str | None, typer.Option(help="Time to live, as 30Days.")] = None,
    json: JsonOut = False,
) -> None:
    """Put one record, all of it; an earlier event time than the stored one's goes to the offline store alone."""
    run("features:put_record", options_of(context), json_out=json, name=name, values=values, store=store, ttl=ttl)


@features.command("get")
def features_get(
    context: typer.Context,
    name: _GROUP,
    record: Annotated[str, typer.Argument(help="The record identifier.")],
    feature: Annotated[list[str] | None, typer.Option("--feature", help="Only these features.")] = None,
    json: JsonOut = False,
) -> None:
    """Show the latest record of an identifier, from the online store."""
    run("features:get_record", options_of(context), json_out=json, name=name, record=record, feature=feature)


@features.command("records")
def features_records(
    context: typer.Context,
    name: _GROUP,
    deleted: Annotated[bool, typer.Option("--deleted", help="With those that were deleted softly.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many.")] = 100,
    json: JsonOut = False,
) -> None:
    """List the record identifiers of the online store."""
    run("features:list_records", options_of(context), json_out=json, name=name, deleted=deleted, most=most)


@features.command("refused")
def features_refused(context: typer.Context, name: _GROUP, json: JsonOut = False) -> None:
    """Tell what broke the group's gates: gates, counts and first lines, no values."""
    run("features:refused", options_of(context), json_out=json, name=name)


@features.command("delete")
def features_delete(
    context: typer.Context,
    name: _GROUP,
    record: Annotated[str, typer.Argument(help="The record identifier.")],
    event_time: _EVENT,
    hard: Annotated[bool, typer.Option("--hard", help="Remove it from the online store altogether.")] = False,
    store: _STORE = None,
    json: JsonOut = False,
) -> None:
    """Delete one record; the offline store gets a marker."""
    run(
        "features:delete_record",
        options_of(context),
        json_out=json,
        name=name,
        record=record,
        event_time=event_time,
        hard=hard,
        store=store,
    )


@features.command("compute")
def features_compute(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="One group; default all declared.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as the lake does, until ended.")] = False,
    json: JsonOut = False,
) -> None:
    """Compute declared features of the patients whom changes of the record, or the time, have touched."""
    run("features:compute", options_of(context), json_out=json, name=name, follow=follow)


@features.command("flush")
def features_flush(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="One group; default all.")] = None,
    json: JsonOut = False,
) -> None:
    """Move what was written one by one into the offline store's files."""
    run("features:flush", options_of(context), json_out=json, name=name)


@features.command("offline")
def features_offline(
    context: typer.Context,
    name: _GROUP,
    out: Annotated[Path, typer.Option(help="Parquet file to write, or -; it holds patients' data in the clear.")],
    as_of: Annotated[str | None, typer.Option("--as-of", help="Only what was written by then.")] = None,
    json: JsonOut = False,
) -> None:
    """Write every row of the offline store as a Parquet file, which is an export."""
    run("features:write_offline", options_of(context), json_out=json, name=name, out=out, as_of=as_of)


@features.command("docs")
def features_docs(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="One group; default all.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, Markdown or JSON; default stdout.")] = None,
    json: JsonOut = False,
) -> None:
    """Document features: what each is, its unit, its sources, its gates."""
    run("features:docs", options_of(context), json_out=json, name=name, out=out)
