"""The actions that the gate knows, read from ``actions.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources

import msgspec

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable

__all__ = ["Action", "action", "actions", "groups", "resolved"]


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One action: what it means, which policy groups it is in, and what the vault opens for it.

    Attributes:
        scopes: predicates of a permit (decision D10) that the doors of the action have beside those that all have.
        always: predicates that every permit for it carries, whatever policy names.
        instead: the action that a door does in the place of this one for who may do that and not this.
        zones: for an action on a zone, which ones; it is then one action per zone, ``NAME@ZONE``, with ``{zone}`` in
            its grants filled in, and identified where the zone is.
    """

    title: str
    groups: tuple[str, ...]
    identified: bool
    grants: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    instead: str = ""
    zones: tuple[str, ...] = ()


_IDENTIFIED_ZONES = frozenset({"landing", "clinical", "lake", "features"})
_ZONE = "zone/"


@cache
def actions() -> dict[str, Action]:
    """All actions by name."""
    text = resources.files(__package__).joinpath("actions.toml").read_text(encoding="utf-8")
    declared = msgspec.convert(tomllib.loads(text), decodable(dict[str, Action]))
    return {name: one for key, action in declared.items() for name, one in _by_zone(key, action)}


def _by_zone(name: str, action: Action) -> Iterator[tuple[str, Action]]:
    if not action.zones:
        yield name, action
    for zone in action.zones:
        grants = tuple(grant.replace("{zone}", zone) for grant in action.grants)
        identified = action.identified and zone in _IDENTIFIED_ZONES
        yield f"{name}@{zone}", msgspec.structs.replace(action, grants=grants, identified=identified, zones=())


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


@cache
def groups(name: str) -> tuple[str, ...]:
    """The Cedar groups that an action is in: those of its declaration, and ``Identified`` where PHI is in reach."""
    known = actions()[name]
    return (*known.groups, *(("Identified",) if known.identified else ()))


def resolved(name: str, target: str) -> str:
    """The action that a door means: ``object:read`` on ``zone/landing`` is ``object:read@landing``."""
    if name in actions() or not target.startswith(_ZONE):
        return name
    zoned = f"{name}@{target.removeprefix(_ZONE)}"
    return zoned if zoned in actions() else name
