"""What a search is refused with: names of parameters and modifiers, never a value."""

from __future__ import annotations

import re

from carelake.core.errors import Invalid, Unsupported

__all__ = ["bad_value", "is_showable", "shown", "too_many", "unknown_modifier", "unknown_parameter", "unsupported"]

_SHOWABLE = re.compile(r"[A-Za-z0-9_.:\-*]{1,128}").fullmatch


def is_showable(name: str) -> bool:
    """Whether it looks like the name of a parameter."""
    return _SHOWABLE(name) is not None


def shown(name: str) -> str:
    """How a message speaks of a parameter; a name of other signs may be a value that went astray."""
    return f"The search parameter {name}" if is_showable(name) else "A search parameter"


def bad_value(name: str, expected: str) -> Invalid:
    """The value is none of its type."""
    return Invalid("search.bad_value", f"{shown(name)} has a value that is not valid here; expected: {expected}.")


def unknown_modifier(name: str, said: str) -> Invalid:
    """A modifier that FHIR has not, or not there."""
    return Invalid("search.unknown_modifier", f"{shown(name)} {said}")


def unknown_parameter(name: str, said: str) -> Invalid:
    """A parameter that the type has not."""
    return Invalid("search.unknown_parameter", f"{shown(name)} {said}")


def unsupported(name: str, said: str) -> Unsupported:
    """In the standard, but not offered."""
    return Unsupported("search.unsupported", f"{shown(name)} {said}")


def too_many(said: str) -> Invalid:
    """Past one of the bounds."""
    return Invalid("search.too_many", said)
