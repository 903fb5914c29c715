"""A declaration as the TOML that `declaration.load` reads: what is as it would be anyway is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["as_toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_toml(
    group: Mapping[str, Any], codes: Mapping[str, Sequence[str]], features: Sequence[Mapping[str, Any]]
) -> str:
    """The text.

    Args:
        group: what it says of itself: texts.
        codes: code groups.
        features: what each says: texts, numbers, lists of texts, and ``where``, lists of texts by column.
    """
    tables = [_lines(group)]
    if codes:
        tables.append(["[codes]", *_lines(codes)])
    tables += [["[[feature]]", *_lines(one)] for one in features]
    return "\n\n".join("\n".join(one) for one in tables) + "\n"


def _lines(said: Mapping[str, Any]) -> list[str]:
    return list(_pairs(said))


def _pairs(said: Mapping[str, Any]) -> Iterator[str]:
    for name, value in said.items():
        yield f"{_key(name)} = {_value(value)}"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_pairs(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):  # of the forms of TOML, as Python's
        return float.__repr__(value)
    # A text in JSON is one in TOML, but for the last of the control characters.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
