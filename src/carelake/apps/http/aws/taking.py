"""What is sent, read by the shape that the model has for it: types, members, lengths, ranges, patterns, words.

A message names members and what is expected of them, never a value. What is checked here is what botocore's own
validator checks, and the constraints that it leaves to the service.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import regex  # type: ignore[import-untyped]

from carelake.apps.http.aws.models import shape_of
from carelake.core.errors import Invalid

__all__ = ["Reader", "reader_of", "wrong"]

Reader = Callable[[Any, str], Any]
"""Reads a value that stands at some place; raises ``http.aws_input``."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOME = 8
_SECONDS = 0.05
"""How long a pattern may look at a value."""


def wrong(at: str, expected: str) -> Invalid:
    """A member is not as the model has it."""
    return Invalid("http.aws_input", f"{at or 'The request'}: expected {expected}.")


@cache
def reader_of(service: str, name: str) -> Reader:
    """What reads values of a shape."""
    shape = shape_of(service, name)
    return _READERS[shape.type_name](service, shape)


def _structure(service: str, shape: Any) -> Reader:
    members = {name: member.name for name, member in shape.members.items()}
    required, union = tuple(shape.required_members), bool(shape.is_tagged_union)

    def read(value: Any, at: str) -> Any:
        if not isinstance(value, Mapping):
            raise wrong(at, "an object")
        inside, found = f"{at}." if at else "", {}
        for name, said in value.items():
            if name not in members:
                raise Invalid("http.aws_input", f"{at or 'The request'} has a member that {shape.name} has not.")
            if said is not None:
                found[name] = reader_of(service, members[name])(said, inside + name)
        for name in required:
            if name not in found:
                raise wrong(inside + name, "a value; it is required")
        if union and len(found) != 1:
            raise wrong(at, "exactly one member")
        return found

    return read


def _list(service: str, shape: Any) -> Reader:
    fits, each = _sized(shape, "members"), shape.member.name

    def read(value: Any, at: str) -> Any:
        if not isinstance(value, list):
            raise wrong(at, "a list")
        fits(len(value), at)
        one = reader_of(service, each)
        return [one(said, f"{at}[{place}]") for place, said in enumerate(value)]

    return read


def _map(service: str, shape: Any) -> Reader:
    fits, key, each = _sized(shape, "entries"), shape.key.name, shape.value.name

    def read(value: Any, at: str) -> Any:
        if not isinstance(value, Mapping):
            raise wrong(at, "an object")
        fits(len(value), at)
        named, one = reader_of(service, key), reader_of(service, each)
        return {named(name, f"a key of {at}"): one(said, f"a value of {at}") for name, said in value.items()}

    return read


def _string(_service: str, shape: Any) -> Reader:
    fits, words = _sized(shape, "characters"), tuple(shape.enum or ())
    pattern = _pattern(shape.metadata.get("pattern", ""))

    def read(value: Any, at: str) -> Any:
        if not isinstance(value, str) or "\0" in value:  # which PostgreSQL keeps in no text
            raise wrong(at, "a text without a NUL" if isinstance(value, str) else "a text")
        if words and value not in words:
            raise wrong(at, f"one of {', '.join(words[:_SOME])}{' and others' if len(words) > _SOME else ''}")
        fits(len(value), at)
        if pattern is not None and not _matches(pattern, value):
            raise wrong(at, f"a text of the form {shape.metadata['pattern']}")
        return value

    return read


def _blob(_service: str, shape: Any) -> Reader:
    fits = _sized(shape, "bytes")

    def read(value: Any, at: str) -> Any:
        try:
            found = value if isinstance(value, bytes) else base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise wrong(at, "Base64") from None
        fits(len(found), at)
        return found

    return read


def _whole(_service: str, shape: Any) -> Reader:
    fits, bits = _sized(shape, ""), 31 if shape.type_name == "integer" else 63

    def read(value: Any, at: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not -(1 << bits) <= value < 1 << bits:
            raise wrong(at, f"a whole number of {bits + 1} bits")
        fits(value, at)
        return value

    return read


def _number(_service: str, shape: Any) -> Reader:
    fits = _sized(shape, "")

    def read(value: Any, at: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(at, "a number")
        fits(value, at)
        return value

    return read


def _boolean(_service: str, _shape: Any) -> Reader:
    def read(value: Any, at: str) -> Any:
        if not isinstance(value, bool):
            raise wrong(at, "true or false")
        return value

    return read


def _timestamp(_service: str, _shape: Any) -> Reader:
    def read(value: Any, at: str) -> Any:
        try:
            if isinstance(value, str):
                found = datetime.fromisoformat(value)
                return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return _EPOCH + timedelta(seconds=value)
        except (ValueError, OverflowError):
            pass
        raise wrong(at, "seconds since 1970, or an instant of ISO 8601")

    return read


_READERS: Mapping[str, Callable[[str, Any], Reader]] = {
    "blob": _blob,
    "boolean": _boolean,
    "double": _number,
    "float": _number,
    "integer": _whole,
    "list": _list,
    "long": _whole,
    "map": _map,
    "string": _string,
    "structure": _structure,
    "timestamp": _timestamp,
}


def _sized(shape: Any, what: str) -> Callable[[float, str], None]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    bounds = " and ".join(
        f"{word} {bound}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
    )

    def fits(size: float, at: str) -> None:
        if (low is not None and size < low) or (high is not None and size > high):
            raise wrong(at, f"{bounds} {what}".rstrip())

    return fits


def _pattern(text: str) -> Any:
    """A pattern of the model; None where there is none, or it says no more than ``.*``.

    The models' patterns are Java's: ``\\z`` is ``\\Z`` here, and surrogates stand for what is beyond the basic plane.
    """
    if not text or text == ".*":
        return None
    text = text.replace(r"\z", r"\Z").replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    return regex.compile(text)


def _matches(pattern: Any, value: str) -> bool:
    try:
        return pattern.fullmatch(value, timeout=_SECONDS) is not None
    except TimeoutError:
        return False
