"""The actions that the gate knows, read from ``actions.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

from carelake.core.errors import Invalid

__all__ = ["Action", "action", "actions"]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action: what it means, which policy groups it is in, and what the vault opens for it."""

    title: str
    groups: tuple[str, ...]
    identified: bool
    grants: tuple[str, ...]


@cache
def actions() -> dict[str, Action]:
    """All actions by name."""
    text = resources.files(__package__).joinpath("actions.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Action])


def action(name: str) -> Action:
    """One action.

    Raises:
        Invalid: ``access.unknown_action``.
    """
    try:
        return actions()[name]
    except KeyError:
        known = ", ".join(actions())
        raise Invalid("access.unknown_action", f"There is no such action; known are {known}.") from None
