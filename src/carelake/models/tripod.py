"""The TRIPOD+AI checklist of a version: each item with what the evidence says, and what a person must still say.

Nothing is answered by invention: an item whose evidence is not there is open. https://www.tripod-statement.org/
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec

from carelake.core.shapes import decodable

__all__ = ["Item", "checklist", "items"]

_LONGEST = 400


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"where": "from"}):
    """One item of ``tripod.toml``; its legend says what each means."""

    item: str
    section: str
    asks: str
    where: tuple[str, ...] = ()
    answer: str = ""
    kinds: tuple[str, ...] = ()
    human: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: tuple[Item, ...]


@cache
def items() -> tuple[Item, ...]:
    """The items, in order."""
    text = resources.files(__package__).joinpath("tripod.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), decodable(_File)).items


def checklist(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every item with its state: ``answered``, ``in part`` (a person adds something) or ``open``.

    Args:
        told: ``card``, ``metrics``, ``manifest``, ``model``, ``training_set``, ``release``, as JSON.
    """
    return [_answered(one, told) for one in items()]


def _answered(one: Item, told: Mapping[str, Any]) -> dict[str, Any]:
    found = {path: text for path in one.where if (text := _text(_at(told, path.split(".")))) is not None}
    holds = not one.kinds or _at(told, ["model", "kind"]) in one.kinds
    said = [one.answer] if one.answer and holds else []
    said += [f"{path}: {text}" for path, text in found.items()]
    # Paths are alternatives or parts: any of them answers, and each that is there is told.
    state: Literal["answered", "in part", "open"] = "open"
    if said:
        state = "in part" if one.human else "answered"
    human = one.human or ("" if said else "The evidence for this is not there; fill it in.")
    return {
        "item": one.item,
        "section": one.section,
        "asks": one.asks,
        "state": state,
        "answer": said,
        "where": list(found),
        "to_fill_in": human,
    }


def _at(value: Any, path: list[str]) -> Any:
    if not path:
        return value
    head, *rest = path
    if head == "*":
        every = [_at(one, rest) for one in value] if isinstance(value, list | tuple) else []
        kept = [one for one in every if one is not None]
        return kept or None
    return _at(value.get(head), rest) if isinstance(value, Mapping) else None


def _text(value: Any) -> str | None:
    if value is None or value in ("", [], {}):
        return None
    text = ", ".join(dict.fromkeys(_parts(value)))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inside in value.items():
            if isinstance(inside, Mapping | list | tuple):
                yield f"{name} ({', '.join(_parts(inside))})"
            else:
                yield f"{name} {inside}"
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _parts(inside)
    else:
        yield str(value)
