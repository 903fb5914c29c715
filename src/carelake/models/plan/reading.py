"""A plan's YAML, read without trust: bounded, no tags, no aliases, no key twice, one document.

Every scalar is read as text, and `shape` says what it means: ``no`` is a word, 1e3 a number where one belongs.
"""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.models.plan.shape import Plan

__all__ = ["MAX_BYTES", "read"]

MAX_BYTES = 256 * 1024
_MAX_DEPTH = 12
_MAX_NODES = 5_000


def read(data: bytes) -> Plan:
    """The plan that a YAML text is.

    Raises:
        Invalid: ``models.plan``, saying where and what; the text is not in the message.
    """
    if len(data) > MAX_BYTES:
        raise _wrong(f"it is longer than {MAX_BYTES // 1024} KiB")
    try:
        text = data.decode()
        found = _value(_composed(text))
    except UnicodeDecodeError:
        raise _wrong("it is not UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}" if mark is not None else ""
        raise _wrong(f"it is not the YAML of a plan{at}: {getattr(error, 'problem', None) or 'too deep'}") from None
    try:
        return msgspec.convert(found, decodable(Plan), strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None


def _composed(text: str) -> yaml.Node:
    depth = nodes = 0
    # The events first: a bomb is seen before anything is built of it.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _wrong("it has anchors or aliases; write out what is meant")
        if getattr(event, "tag", None) is not None:
            raise _wrong("it has tags; plain text, lists and mappings are enough")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise _wrong("it is nested too deeply, or too long")
    composed = yaml.compose(text, Loader=yaml.SafeLoader)
    if composed is None:
        raise _wrong("it is empty")
    return composed


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        # An empty plain scalar is what YAML calls null; everything else is its text.
        return None if not node.value and node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(one) for one in node.value]
    out: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in out:
            raise _wrong(f"line {key.start_mark.line + 1} has a key twice, or one that is no text")
        out[key.value] = _value(value)
    return out


def _wrong(what: str) -> Invalid:
    return Invalid("models.plan", f"This is no change plan: {what}. docs/change-plan.md shows one.")
