"""Commands that bring a workspace into safety, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Keep: backup and restore"

commands = shelf()

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the backup; made by the first one.")]
In = Annotated[Path, typer.Argument(metavar="IN", help="Folder that `carelake backup` wrote.")]
Point = Annotated[str | None, typer.Option(help="Id of a point, or its beginning; default the newest.")]
At = Annotated[str | None, typer.Option(help="The newest point not after this time, ISO 8601.")]
KeyDir = Annotated[
    Path | None, typer.Option("--key-dir", help="Folder of the root key. [env: CARELAKE_KEY_DIR]", show_default=False)
]


@commands.command(rich_help_panel=_PANEL)
def backup(
    context: typer.Context,
    out: Out,
    label: Annotated[str, typer.Option(help="Words to know the point by; sealed.")] = "",
    keep: Annotated[
        int | None, typer.Option(help="Afterwards remove all but the newest N points.", min=1, max=1_000_000)
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Make no point; only remove what no point needs, and older than --keep.")
    ] = False,
    digest: Annotated[
        bool | None,
        typer.Option("--digest/--no-digest", help="Digests of all tables; default while they are not long."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Make no point; list those that there are.")] = False,
    json: JsonOut = False,
) -> None:
    """Ship what is new to OUT, as sealed as it lies, and make a point in time of it. The root key is not in it."""
    run(
        "backup:backup",
        options_of(context),
        json_out=json,
        out=out,
        label=label,
        keep=keep,
        prune=prune,
        digest=digest,
        listing=list_,
    )


@commands.command(rich_help_panel=_PANEL)
def restore(
    context: typer.Context,
    source: In,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A new or empty folder; not needed for --drill.")
    ] = None,
    point: Point = None,
    at: At = None,
    key_dir: KeyDir = None,
    drill: Annotated[bool, typer.Option("--drill", help="Restore into a temporary folder, compare, remove.")] = False,
    json: JsonOut = False,
) -> None:
    """Put a workspace back from IN into DIR: every piece compared, erasures replayed, the trail verified."""
    run(
        "restore:restore",
        options_of(context),
        json_out=json,
        opens=False,
        source=source,
        folder=folder,
        point=point,
        at=at,
        key_dir=key_dir,
        drill=drill,
    )


@commands.command(rich_help_panel=_PANEL)
def drill(
    context: typer.Context,
    source: In,
    point: Point = None,
    at: At = None,
    key_dir: KeyDir = None,
    json: JsonOut = False,
) -> None:
    """Prove that IN can be restored; with -w the result goes on that workspace's trail."""
    run(
        "restore:drill",
        options_of(context),
        json_out=json,
        opens=False,
        source=source,
        point=point,
        at=at,
        key_dir=key_dir,
    )
