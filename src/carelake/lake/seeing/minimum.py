"""The minimum columns of each purpose, as `minimum.toml` lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

import msgspec

from carelake.core.shapes import decodable
from carelake.lake.schema import Record, selected

__all__ = ["Minimum", "minimum", "needs_everything"]


class Minimum(NamedTuple):
    """What may be seen of a type.

    Attributes:
        keys: key columns beside id, version, last_updated and patient.
    """

    keys: frozenset[str]
    record: Record


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    everything: frozenset[str]
    parts: dict[str, list[str]]
    purposes: dict[str, dict[str, dict[str, list[str]]]]


@cache
def _file() -> _File:
    text = resources.files("carelake.lake.seeing").joinpath("minimum.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), decodable(_File))


def needs_everything(purpose: str) -> bool:
    """Whether a purpose has no minimum."""
    return purpose in _file().everything


@cache
def minimum(purpose: str) -> Mapping[str, Minimum]:
    """Resource type to what a purpose needs of it; nothing for a purpose without lists."""
    told = _file()
    return {
        kind: Minimum(_keys(listed.get("keys", ())), selected(kind, _paths(listed, told.parts)))
        for kind, listed in told.purposes.get(purpose, {}).items()
    }


def _keys(named: list[str] | tuple[str, ...]) -> frozenset[str]:
    return frozenset(named) | ({"code_system"} if "code" in named else frozenset())


def _paths(listed: Mapping[str, list[str]], parts: Mapping[str, list[str]]) -> Iterator[str]:
    for part, named in listed.items():
        if part == "keys":
            continue
        for path in named:
            yield from [path] if part == "plain" else [f"{path}.{inner}" for inner in parts[part]]
