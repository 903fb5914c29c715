"""Links between resources (https://hl7.org/fhir/R4/references.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from carelake.fhir.definitions import element, is_primitive, is_resource, types

__all__ = ["Target", "outgoing", "rewrite", "target"]

Target = tuple[str, str, str]
"""(type, id, url): type and id of a relative reference, or the url of an absolute one."""

_MAX_CACHED = 200  # longer texts are hostile or rare, and the cache's memory is to be bounded
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?").fullmatch
_VERSIONED = re.compile(r"(https?://.+/[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64})/_history/[A-Za-z0-9\-.]{1,64}").fullmatch
_URN = re.compile(r"urn:(?:uuid|oid|UUID|OID):[0-9A-Za-z.\-]+")
_URI_TYPES = frozenset({"uri", "url", "canonical", "oid", "uuid"})


def target(text: str) -> Target | None:
    """What a reference's text points to; None for a contained resource (``#x``). A version in it is left out."""
    return _target(text) if len(text) <= _MAX_CACHED else _target.__wrapped__(text)


@lru_cache(maxsize=1 << 14)
def _target(text: str) -> Target | None:
    found = _RELATIVE(text)
    if found is not None and is_resource(found[1]):
        return found[1], found[2], ""
    if text.startswith("#"):
        return None
    versioned = _VERSIONED(text)
    return "", "", versioned[1] if versioned is not None else text


@cache
def _uri_keys() -> frozenset[str]:
    """JSON names whose text is a uri wherever it occurs, and ``reference``; ``value`` of an identifier is none."""
    uri: set[str] = set()
    other: set[str] = {"fullUrl"}  # the name of an entry itself
    for name in types():
        for item in element(name).values():
            for key, kind in item.keys.items():
                if is_primitive(kind):
                    (uri if kind in _URI_TYPES else other).add(key)
    # In one place of TestScript a url is a string.
    return frozenset((uri - other) | {"reference", "url"})


def rewrite(resource: Any, mapping: Mapping[str, str]) -> None:
    """Replace references in place, everywhere, contained resources, urls and links in narratives included.

    An address that is no ``urn:`` is replaced in ``reference`` alone: elsewhere it may be the name of a definition.

    Args:
        resource: parsed JSON.
        mapping: text of a reference, for example ``urn:uuid:...``, to what replaces it, ``Patient/1``.
    """
    keys = _uri_keys()
    todo: list[Any] = [resource] if isinstance(resource, (dict, list)) else []
    while todo:
        node = todo.pop()
        if node.__class__ is list:
            todo += [entry for entry in node if entry.__class__ is dict or entry.__class__ is list]
            continue
        for key, value in node.items():
            kind = value.__class__
            if kind is str:
                if key in keys:
                    if value in mapping and (key == "reference" or _is_urn(value)):
                        node[key] = mapping[value]
                elif key == "div" and "urn:" in value:
                    node[key] = _URN.sub(lambda found: mapping.get(found[0], found[0]), value)
            elif kind is dict:
                todo.append(value)
            elif kind is list:
                todo.append(value)
                if key in keys:
                    value[:] = [
                        mapping.get(entry, entry) if entry.__class__ is str and _is_urn(entry) else entry
                        for entry in value
                    ]


def _is_urn(text: str) -> bool:
    return text[:4].lower() == "urn:"


def outgoing(resource: Any) -> list[str]:
    """Texts of all references in a resource, each once, in order of a walk; ``#x`` of contained ones included."""
    found: dict[str, None] = {}
    todo = [resource]
    while todo:
        node = todo.pop()
        if node.__class__ is list:
            todo += reversed(node)
        elif node.__class__ is dict:
            reference = node.get("reference")
            if reference.__class__ is str:
                found[reference] = None
            todo += reversed([value for key, value in node.items() if key != "reference" or value is not reference])
    return list(found)
