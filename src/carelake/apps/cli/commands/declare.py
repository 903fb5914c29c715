"""What every declaration needs: the shared options, and a way to make a group."""

from __future__ import annotations

from typing import Annotated

import typer

from carelake.apps.cli.session import Options

__all__ = ["JsonOut", "group", "options_of", "shelf"]

JsonOut = Annotated[bool, typer.Option("--json", help="One JSON value on stdout; progress stays on stderr.")]


def shelf() -> typer.Typer:
    """A module's commands, which `main` puts beside those of the others."""
    return typer.Typer(add_completion=False, rich_markup_mode=None)


def group(above: typer.Typer, name: str, words: str, panel: str) -> typer.Typer:
    """A group of commands, for example ``model``."""
    made = typer.Typer(help=words, no_args_is_help=True, rich_markup_mode=None)
    above.add_typer(made, name=name, rich_help_panel=panel)
    return made


def options_of(context: typer.Context) -> Options:
    """The global options."""
    return context.ensure_object(Options)
