"""Words of a resource for ``_text`` and ``_content``: of its narrative, and of all its texts."""

from __future__ import annotations

import html
import re
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.search.converters import Visit
from carelake.fhir.search.values import words

__all__ = ["content", "narrative", "plain"]

_TAG = re.compile(r"<[^>]*>")
_BINARY = frozenset({"data", "resourceType"})
"""Base64, and what is no text of the resource."""


def plain(div: str) -> str:
    """The text of a narrative's XHTML."""
    return html.unescape(_TAG.sub(" ", div))


def narrative(name: str) -> Visit:
    """The visit of a Narrative for ``_text``."""

    def visit(value: Any, rows: IndexValues) -> None:
        div = value.get("div")
        if div is not None:
            rows.words += [(name, word) for word in words(plain(div))]

    return visit


def content(name: str) -> Visit:
    """The visit of a resource for ``_content``."""

    def visit(value: Any, rows: IndexValues) -> None:
        found: dict[str, None] = {}
        todo: list[Any] = [value]
        while todo:
            node = todo.pop()
            if node.__class__ is list:
                todo += node
            elif node.__class__ is dict:
                todo += [plain(v) if key == "div" else v for key, v in node.items() if key not in _BINARY]
            elif node.__class__ is str:
                found.update(dict.fromkeys(words(node)))
        rows.words += [(name, word) for word in found]

    return visit
