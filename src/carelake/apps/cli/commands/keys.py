"""Commands of the keys, and of the files of settings that somebody has to accept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Keys"

commands = shelf()
key = group(commands, "key", "Keys: list, rotate, hold back, destroy, recover.", _PANEL)
root = group(key, "root", "The root key, which wraps all others.", _PANEL)
kit = group(key, "kit", "The recovery kit: the root key in shares.", _PANEL)
settings = group(commands, "settings", "carelake.toml and policies: what was accepted, what has changed.", _PANEL)

Name = Annotated[str, typer.Argument(metavar="KEY", help="For example production/clinical, or with /v2.")]


@key.command("list")
def key_list(
    context: typer.Context,
    stale: Annotated[bool, typer.Option("--stale", help="Only unused or over-age ones.")] = False,
    json: JsonOut = False,
) -> None:
    """List keys: versions, states, ages, use, policies, pending destructions. Never key material."""
    run("keys:listing_of", options_of(context), json_out=json, stale_only=stale)


@key.command("rotate")
def key_rotate(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="KEY", help="For example production/clinical.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Of an account: its keys too; without KEY: everything.")
    ] = False,
    due: Annotated[bool, typer.Option("--due", help="What is older than [keys] of the settings allows.")] = False,
    json: JsonOut = False,
) -> None:
    """Give a key a new version. No data is rewritten; old versions stay, to read."""
    run("keys:rotate", options_of(context), json_out=json, name=name, all_=all_, due=due)


@key.command("disable")
def key_disable(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Let nobody use a key, or one version of it, until it is enabled."""
    run("keys:disable", options_of(context), json_out=json, name=name)


@key.command("enable")
def key_enable(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Let a disabled key be used again."""
    run("keys:enable", options_of(context), json_out=json, name=name)


@key.command("destroy")
def key_destroy(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="KEY", help="For example production/lake/v1.")] = None,
    days: Annotated[int | None, typer.Option(help="Waiting period, 7 to 30; default by the settings.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be unreadable; do nothing.")] = False,
    due: Annotated[bool, typer.Option("--due", help="Destroy what is confirmed and due.")] = False,
    json: JsonOut = False,
) -> None:
    """Ask for a key's destruction. Another principal confirms it; then the waiting period runs."""
    run("keys:destroy", options_of(context), json_out=json, name=name, days=days, dry_run=dry_run, due=due)


@key.command("confirm")
def key_confirm(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Confirm a destruction that another principal asked for; from now on nobody uses the key."""
    run("keys:confirm", options_of(context), json_out=json, name=name)


@key.command("cancel")
def key_cancel(context: typer.Context, name: Name, json: JsonOut = False) -> None:
    """Call a destruction off."""
    run("keys:cancel", options_of(context), json_out=json, name=name)


@key.command("policy")
def key_policy(
    context: typer.Context,
    name: Name,
    allow_action: Annotated[list[str] | None, typer.Option(help="Only this action; repeatable.")] = None,
    allow_purpose: Annotated[list[str] | None, typer.Option(help="Only this purpose; repeatable.")] = None,
    allow_principal: Annotated[list[str] | None, typer.Option(help="Only this principal; repeatable.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Bound nothing any more.")] = False,
    json: JsonOut = False,
) -> None:
    """Show or set what may use a key, beyond what permits say; what is set replaces what was."""
    run(
        "keys:policy",
        options_of(context),
        json_out=json,
        name=name,
        actions=allow_action or [],
        purposes=allow_purpose or [],
        principals=allow_principal or [],
        clear=clear,
    )


@key.command("rewrap")
def key_rewrap(context: typer.Context, json: JsonOut = False) -> None:
    """Wrap the account's patient keys by the newest wrapping key."""
    run("keys:rewrap", options_of(context), json_out=json)


@root.command("move")
def root_move(
    context: typer.Context,
    to: Annotated[str, typer.Option(help="file, passphrase (CARELAKE_NEW_PASSPHRASE), keyring or kms.")],
    kms_key: Annotated[str | None, typer.Option(help="For kms: id, ARN or alias of the KMS key.")] = None,
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Remove all earlier root keys from their place.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """Make a new root key at another provider. Copies made before open with the old one."""
    run("recovery:move", options_of(context), json_out=json, to=to, kms_key=kms_key, forget_old=forget_old)


@root.command("rotate")
def root_rotate(
    context: typer.Context,
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Remove all earlier root keys from their place.")
    ] = False,
    json: JsonOut = False,
) -> None:
    """Make a new root key at the same provider. Copies made before open with the old one."""
    run("recovery:move", options_of(context), json_out=json, to=None, kms_key=None, forget_old=forget_old)


@kit.command("make")
def kit_make(
    context: typer.Context,
    shares: Annotated[int, typer.Option(help="How many shares, 2 to 16.")] = 5,
    threshold: Annotated[int, typer.Option(help="How many of them make the root key again.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder for one file a share; default: on standard output.")
    ] = None,
    json: JsonOut = False,
) -> None:
    """Split the root key into shares of words (SLIP-39), shown once. Give them to different people."""
    run("recovery:make_kit", options_of(context), json_out=json, shares=shares, threshold=threshold, out=out)


@kit.command("restore")
def kit_restore(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(metavar="SHARE...", help="Files of shares.")] = None,
    json: JsonOut = False,
) -> None:
    """Make the root key file again out of enough shares; without files the shares are read from standard input."""
    run("recovery:restore_kit", options_of(context), json_out=json, opens=False, files=files or [])


@settings.command("show")
def settings_show(context: typer.Context, json: JsonOut = False) -> None:
    """Show which files of settings and policies differ from what was accepted."""
    run("keys:changed", options_of(context), json_out=json)


@settings.command("accept")
def settings_accept(context: typer.Context, json: JsonOut = False) -> None:
    """Accept carelake.toml and policies as they are now."""
    run("keys:accept", options_of(context), json_out=json)
