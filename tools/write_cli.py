"""Writes docs/cli.md: every command with its arguments and options, from the declarations.

python tools/write_cli.py            write it
python tools/write_cli.py --check    exit with 1 when it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer

from carelake.apps.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"

HEAD = """# Commands

<!-- Written by tools/write_cli.py from the declarations; `make docs` writes it again. -->

`--json` prints one JSON value on stdout; progress goes to stderr. Global options may stand before or after the
command. Exit codes are in [errors](errors.md).
"""


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*path, name))
    else:
        yield " ".join(path), command


def _parameters(command: Any) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        argument = parameter.param_type_name == "argument"
        name = (parameter.metavar or parameter.name.upper()) if argument else ", ".join(parameter.opts)
        text = " ".join((getattr(parameter, "help", "") or "").split())
        yield name, text


def _table(command: Any) -> list[str]:
    rows = [f"| `{name}` | {text.replace('|', chr(92) + '|')} |" for name, text in _parameters(command)]
    return ["", "| | |", "|---|---|", *rows] if rows else []


@cache
def _tree() -> Any:
    """All commands. It takes a tenth of a second to make, and more to make once for each of them."""
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Each command by its words, for example ``quarantine list``."""
    return dict(_commands(_tree(), ()))


def render() -> str:
    """The page."""
    lines = [HEAD, "## Global options", *_table(_tree())]
    panel = None
    for words, command in commands().items():
        shown = getattr(command, "rich_help_panel", None) or _panel_of(words)
        if shown != panel:
            panel = shown
            lines += ["", f"## {panel}"]
        text = " ".join((command.help or "").split())
        lines += ["", f"### carelake {words}", "", text, *_table(command)]
    return "\n".join(lines) + "\n"


def _panel_of(words: str) -> str:
    group = _tree().commands[words.split()[0]]
    return str(getattr(group, "rich_help_panel", None) or "Others")


def main() -> int:
    """Write the page, or check it."""
    page = render()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        if not same:
            sys.stderr.write("docs/cli.md is out of date: run `make docs`\n")
        return 0 if same else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
