"""Help that groups commands by the journey of the data, in plain text: the rich form costs 0.2 s a call."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["JourneyGroup"]


class JourneyGroup(TyperGroup):
    """A group whose help lists commands under the panel that each was declared with."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per panel, commands in the order in which they were declared."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            panel = getattr(command, "rich_help_panel", None)
            title = panel if isinstance(panel, str) else "Commands"
            panels.setdefault(title, []).append((name, command.get_short_help_str(200)))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)
