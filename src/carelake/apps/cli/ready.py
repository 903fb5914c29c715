"""``view list --ready`` and ``view show``: the views that come with the package."""

from __future__ import annotations

from typing import Any

from carelake.apps.cli.session import Options, answer
from carelake.apps.cli.tables import show
from carelake.lake.ready.shelf import find, names

__all__ = ["listed", "shown"]


def listed(options: Options, *, json_out: bool) -> None:
    """The views by name."""
    rows: list[dict[str, Any]] = [
        {"name": name, "resource": view["resource"], "title": view["title"]}
        for name, view in ((name, find(name)) for name in names())
    ]
    if json_out:
        answer(rows)
    else:
        show(["name", "resource", "title"], rows)


def shown(options: Options, *, json_out: bool, name: str) -> None:
    """One of them as JSON."""
    answer(find(name))
