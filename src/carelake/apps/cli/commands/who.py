"""Commands about principals, their groups and credentials, and accounts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from carelake.apps.cli.commands.declare import JsonOut, group, options_of, shelf
from carelake.apps.cli.session import run

__all__ = ["commands"]

_PANEL = "Who may"

commands = shelf()

Role = Annotated[str | None, typer.Option(help="Only this role of the principal's.")]

principal_group = group(commands, "principal", "People and services that may act.", _PANEL)


@principal_group.command("list")
def principal_list(context: typer.Context, json: JsonOut = False) -> None:
    """List principals with their roles and accounts."""
    run("who:principals", options_of(context), json_out=json)


@principal_group.command("show")
def principal_show(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Show a principal with its groups, grants and emergency accesses."""
    run("who:show_one", options_of(context), json_out=json, name=name)


@principal_group.command("add")
def principal_add(
    context: typer.Context,
    name: str,
    role: Annotated[list[str] | None, typer.Option(help="Role; may be given more than once.")] = None,
    in_: Annotated[list[str] | None, typer.Option("--in", help="Account it belongs to, when it is several.")] = None,
    kind: Annotated[str, typer.Option(help="person or service.")] = "person",
    group: Annotated[list[str] | None, typer.Option(help="Group to join; may be given more than once.")] = None,
    json: JsonOut = False,
) -> None:
    """Add a principal; it belongs to the account of --account, by default production."""
    run(
        "who:add",
        options_of(context),
        json_out=json,
        name=name,
        roles=role or [],
        accounts=in_ or [],
        kind=kind,
        groups=group or [],
    )


@principal_group.command("add-role")
def principal_add_role(context: typer.Context, name: str, role: str, json: JsonOut = False) -> None:
    """Give a principal a role."""
    run("who:change", options_of(context), json_out=json, name=name, change="add_role", role=role)


@principal_group.command("remove-role")
def principal_remove_role(context: typer.Context, name: str, role: str, json: JsonOut = False) -> None:
    """Take a role from a principal; it counts at once, in every process."""
    run("who:change", options_of(context), json_out=json, name=name, change="remove_role", role=role)


@principal_group.command("disable")
def principal_disable(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Refuse a principal everything from now on."""
    run("who:change", options_of(context), json_out=json, name=name, change="disable")


@principal_group.command("enable")
def principal_enable(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Let a disabled principal act again."""
    run("who:change", options_of(context), json_out=json, name=name, change="enable")


@principal_group.command("groups")
def principal_groups(context: typer.Context, json: JsonOut = False) -> None:
    """List groups with their roles and members."""
    run("who:groups", options_of(context), json_out=json)


@principal_group.command("group")
def principal_group_add(
    context: typer.Context,
    name: str,
    role: Annotated[list[str] | None, typer.Option(help="Role that members hold; may be repeated.")] = None,
    json: JsonOut = False,
) -> None:
    """Make a group, or change the roles of one."""
    run("who:group", options_of(context), json_out=json, name=name, roles=role or [])


@principal_group.command("join")
def principal_join(context: typer.Context, name: str, group: str, json: JsonOut = False) -> None:
    """Make a principal a member of a group."""
    run("who:member", options_of(context), json_out=json, name=name, group=group, joins=True)


@principal_group.command("leave")
def principal_leave(context: typer.Context, name: str, group: str, json: JsonOut = False) -> None:
    """End a principal's membership of a group."""
    run("who:member", options_of(context), json_out=json, name=name, group=group, joins=False)


@principal_group.command("link")
def principal_link(
    context: typer.Context,
    name: str,
    issuer: str,
    subject: str,
    remove: Annotated[bool, typer.Option("--remove", help="End the link instead.")] = False,
    json: JsonOut = False,
) -> None:
    """Say that SUBJECT of the identity provider ISSUER is this principal."""
    options = options_of(context)
    run("credentials:link", options, json_out=json, name=name, issuer=issuer, subject=subject, remove=remove)


@principal_group.command("links")
def principal_links(context: typer.Context, json: JsonOut = False) -> None:
    """List links to identity providers."""
    run("credentials:links", options_of(context), json_out=json)


key_group = group(principal_group, "key", "Access keys for requests signed by AWS Signature Version 4.", _PANEL)


@key_group.command("add")
def key_add(context: typer.Context, name: str, role: Role = None, json: JsonOut = False) -> None:
    """Make an access key for --purpose in --account; its secret is shown this once."""
    run("credentials:key_add", options_of(context), json_out=json, name=name, role=role or "")


@key_group.command("rotate")
def key_rotate(context: typer.Context, name: str, key: str, json: JsonOut = False) -> None:
    """Make another key like KEY, and disable KEY."""
    run("credentials:key_rotate", options_of(context), json_out=json, name=name, key=key)


@key_group.command("disable")
def key_disable(context: typer.Context, key: str, json: JsonOut = False) -> None:
    """End an access key."""
    run("credentials:key_disable", options_of(context), json_out=json, key=key)


client_group = group(principal_group, "client", "Clients that sign for tokens (SMART Backend Services).", _PANEL)


@client_group.command("add")
def client_add(
    context: typer.Context,
    name: str,
    jwks: Annotated[str, typer.Option(help="Its JSON Web Key Set: a file, - for standard input, or an address.")],
    scope: Annotated[str, typer.Option(help="System scopes that it may ask for.")] = "system/*.rs",
    id_: Annotated[str | None, typer.Option("--id", help="Its client id; made up without.")] = None,
    json: JsonOut = False,
) -> None:
    """Register a client of the service principal NAME, for --purpose in --account."""
    run("clients:add", options_of(context), json_out=json, name=name, jwks=jwks, scope=scope, client=id_)


@client_group.command("list")
def client_list(context: typer.Context, json: JsonOut = False) -> None:
    """List clients, the oldest first."""
    run("clients:listed", options_of(context), json_out=json)


@client_group.command("disable")
def client_disable(context: typer.Context, client: str, json: JsonOut = False) -> None:
    """End a client; it gets no token from now on."""
    run("clients:disable", options_of(context), json_out=json, client=client)


token_group = typer.Typer(
    help="Issue an access token for the HTTP door: carelake token --as NAME --role ROLE --purpose TREAT.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
commands.add_typer(token_group, name="token", rich_help_panel=_PANEL)


@token_group.callback()
def token(
    context: typer.Context,
    role: Role = None,
    seconds: Annotated[int | None, typer.Option(help="How long it is valid.", min=1, max=315_360_000)] = None,
    scope: Annotated[str | None, typer.Option(help="SMART scopes that narrow it, a space between two.")] = None,
    patient: Annotated[str | None, typer.Option(help="Id of the patient that patient/ scopes are about.")] = None,
    json: JsonOut = False,
) -> None:
    """Issue an access token for the HTTP door: carelake token --as NAME --role ROLE --purpose TREAT."""
    if context.invoked_subcommand is None:
        carried: dict[str, Any] = {"role": role, "seconds": seconds, "scope": scope, "patient": patient}
        run("who:token", options_of(context), json_out=json, **carried)


@token_group.command("revoke")
def token_revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="The token's id, or - to read the token itself from standard input.")],
    json: JsonOut = False,
) -> None:
    """Make a token worthless before its time."""
    run("credentials:revoke", options_of(context), json_out=json, token=token)


account_group = group(commands, "account", "Accounts, each with its own keys, zones and rows.", _PANEL)


@account_group.command("list")
def account_list(context: typer.Context, json: JsonOut = False) -> None:
    """List accounts."""
    run("who:accounts", options_of(context), json_out=json)


@account_group.command("show")
def account_show(context: typer.Context, name: str, json: JsonOut = False) -> None:
    """Show an account: its jurisdiction, zones, and who belongs to it."""
    run("who:account", options_of(context), json_out=json, name=name)
