"""Commands of objects as they lie in their zones. A path is ZONE/NAME, for example ``landing/2026/a.bin``."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Hold: objects in zones"

commands = shelf()

objects = group(commands, "object", "Objects in zones: versions, retention, lifecycle, large uploads.", _PANEL)

PathIn = Annotated[str, typer.Argument(metavar="ZONE/NAME", help="The object.")]
Zone = Annotated[str, typer.Argument(metavar="ZONE", help="A zone, for example landing.")]
Version = Annotated[str | None, typer.Option("--version", help="One version; default the current one.")]


@objects.command("put")
def put(
    context: typer.Context,
    path: PathIn,
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file, or - for standard input.")],
    tag: Annotated[list[str] | None, typer.Option("--tag", help="KEY=VALUE; may be repeated.")] = None,
    if_none_match: Annotated[bool, typer.Option("--if-none-match", help="Only if there is no such object.")] = False,
    if_match: Annotated[str | None, typer.Option(help="Only if this is its current version.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with a broken-off upload of a large file.")
    ] = True,
    json: JsonOut = False,
) -> None:
    """Put a file; a large one goes up in parts, and a broken-off upload goes on where it was.

    FILE ZONE/NAME, the order of cp, is understood too.
    """
    run(
        "objects:put",
        options_of(context),
        json_out=json,
        path=path,
        source=source,
        tags=tag or [],
        if_none_match=if_none_match,
        if_match=if_match,
        resume=resume,
    )


@objects.command("get")
def get(
    context: typer.Context,
    path: PathIn,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new file; - or nothing for standard output.")] = "-",
    version: Version = None,
    span: Annotated[
        str | None, typer.Option("--range", help="FIRST-LAST, both counted from 0; FIRST-; or -LENGTH of the end.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    json: JsonOut = False,
) -> None:
    """Get an object's bytes, or a range of them. OUT is in the clear: it is yours to look after."""
    run(
        "objects:get", options_of(context), json_out=json, path=path, out=out, version=version, span=span, force=force
    )


@objects.command("ls")
def ls(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="ZONE[/PREFIX]", help="A zone, or what names start with.")],
    json: JsonOut = False,
) -> None:
    """List current objects."""
    run("objects:ls", options_of(context), json_out=json, path=path)


@objects.command("versions")
def versions(context: typer.Context, path: PathIn, json: JsonOut = False) -> None:
    """List an object's versions and delete markers, newest first."""
    run("objects:versions", options_of(context), json_out=json, path=path)


@objects.command("verify")
def verify(context: typer.Context, path: PathIn, version: Version = None, json: JsonOut = False) -> None:
    """Read a version whole and compare it with its digest; exit code 6 when it is not what was written."""
    run("objects:verify", options_of(context), json_out=json, path=path, version=version)


@objects.command("restore")
def restore(
    context: typer.Context,
    path: PathIn,
    version: Annotated[str | None, typer.Option("--version", help="Default: what a delete marker hides.")] = None,
    json: JsonOut = False,
) -> None:
    """Make an old version the current one again."""
    run("objects:restore", options_of(context), json_out=json, path=path, version=version)


@objects.command("rm")
def rm(
    context: typer.Context,
    path: PathIn,
    version: Annotated[str | None, typer.Option("--version", help="Remove this one version with its bytes.")] = None,
    json: JsonOut = False,
) -> None:
    """Delete an object: it is marked as deleted, and `restore` brings it back. (In the lake its bytes go.)"""
    run("objects:rm", options_of(context), json_out=json, path=path, version=version)


@objects.command("tag")
def tag(
    context: typer.Context,
    path: PathIn,
    pairs: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Tags to set.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="A tag to remove; may be repeated.")] = None,
    version: Version = None,
    json: JsonOut = False,
) -> None:
    """Show, set and remove an object's tags."""
    run(
        "objects:tag",
        options_of(context),
        json_out=json,
        path=path,
        pairs=pairs or [],
        remove=remove or [],
        version=version,
    )


@objects.command("hold")
def hold(
    context: typer.Context,
    path: PathIn,
    state: Annotated[str, typer.Argument(metavar="on|off")],
    version: Version = None,
    json: JsonOut = False,
) -> None:
    """Put a version under legal hold, or lift it."""
    run("objects:hold", options_of(context), json_out=json, path=path, state=state, version=version)


@objects.command("retain")
def retain(
    context: typer.Context,
    path: PathIn,
    until: Annotated[str | None, typer.Option(help="Date or instant, for example 2032-11-22.")] = None,
    days: Annotated[int | None, typer.Option(help="Or days from now.", min=1)] = None,
    mode: Annotated[str, typer.Option(help="governance, or compliance, which nobody shortens.")] = "governance",
    lift: Annotated[bool, typer.Option("--lift", help="Lift a retention under governance.")] = False,
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", help="For compliance, which cannot be undone: must be said.")] = False,
    json: JsonOut = False,
) -> None:
    """Keep a version from being removed until a date."""
    run(
        "objects:retain",
        options_of(context),
        json_out=json,
        path=path,
        until=until,
        days=days,
        mode=mode,
        lift=lift,
        version=version,
        yes=yes,
    )


@objects.command("purge")
def purge(
    context: typer.Context,
    path: PathIn,
    yes: Annotated[bool, typer.Option("--yes", help="It cannot be undone: this must be said.")] = False,
    json: JsonOut = False,
) -> None:
    """Remove an object for good: all versions, their bytes and its name."""
    run("objects:purge", options_of(context), json_out=json, path=path, yes=yes)


@objects.command("usage")
def usage(context: typer.Context, json: JsonOut = False) -> None:
    """Counts and bytes by zone and storage class; no names."""
    run("object_reports:usage", options_of(context), json_out=json)


@objects.command("inventory")
def inventory(
    context: typer.Context,
    zone: Zone,
    into: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write it as NDJSON to this object of the zone instead.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """List every version of a zone with size, digest, class, retention and hold. Names can be patients' names."""
    run("object_reports:inventory", options_of(context), json_out=json, zone=zone, into=into)


@objects.command("lifecycle")
def lifecycle(
    context: typer.Context,
    zones: Annotated[list[str] | None, typer.Argument(metavar="ZONE", help="Default: every zone.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    json: JsonOut = False,
) -> None:
    """Apply the rules of the settings: abort old uploads, expire, move to colder storage."""
    run("object_reports:lifecycle", options_of(context), json_out=json, zones=zones or [], dry_run=dry_run)


@objects.command("uploads")
def uploads(
    context: typer.Context,
    zone: Zone,
    abort: Annotated[str | None, typer.Option(metavar="ID", help="Give this upload up.")] = None,
    json: JsonOut = False,
) -> None:
    """List uploads that were begun and not completed."""
    run("object_reports:uploads", options_of(context), json_out=json, zone=zone, abort=abort)
