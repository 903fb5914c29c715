"""Tables and progress for people."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["console", "plain", "progress", "show"]

_COMMAND = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _Console(Console):
    """One that leaves it to `session.run` what a reader that went away means."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled; rich's own would end the command with 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console; plain where the output is no terminal."""
    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False, soft_wrap=True)


def show(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(plain(_text(row.get(column)))) for column in columns))
    _Console(file=sys.stdout, highlight=False).print(table)


def plain(text: str) -> str:
    """With escapes for what a terminal would obey instead of showing it, and for what is no Unicode."""
    return _COMMAND.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on stderr: a spinner, a bar where the total is known, counts and time."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=False) as bars:
        yield bars
