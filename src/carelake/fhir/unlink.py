"""Resources without their links to what is erased.

A Reference to it is removed. In a list its entry goes; an element in a list that was about it (``Group.member``,
``List.entry``, ``AuditEvent.entity``) goes whole. Where R4 asks for the one Reference of a resource, it says that the
data are masked (https://hl7.org/fhir/R4/extension-data-absent-reason.html). A resource whose list of subjects is left
empty (``Provenance.target``) was about nobody else, and goes too. The narrative was made of what was there: it goes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from carelake.fhir.definitions import Element, element, is_primitive, is_resource
from carelake.fhir.gone import Gone

__all__ = ["without"]

_MASKED = {
    "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "masked"},
    ]
}


class _Empty(Exception):
    """Nothing is left that the resource could be about."""


_ABOUT = ("Binary", "securityContext")
"""All that says whose a content is: without it the content would stay, and nobody would find it."""


def without(resource: dict[str, Any], gone: Gone) -> dict[str, Any] | None:
    """The resource without its links to what is erased; None where it was about that alone."""
    try:
        made = _Walk(gone).resource(resource)
    except _Empty:
        return None
    masked: dict[str, Any] = _masked(made, gone)
    if masked != resource:
        masked.pop("text", None)
    return masked


class _Walk:
    def __init__(self, gone: Gone) -> None:
        self._gone = gone

    def resource(self, value: dict[str, Any]) -> dict[str, Any]:
        kind = str(value.get("resourceType", ""))
        if not is_resource(kind):
            return value
        made: dict[str, Any] = {}
        for key, inner in value.items():
            spec, name = _element(kind, key)
            if isinstance(inner, list):
                kept = self._list(inner, name)
                if inner and not kept:
                    if spec is not None and spec.min:
                        raise _Empty
                    continue
                made[key] = kept
            elif isinstance(inner, dict):
                found, _ = self._one(inner, name)
                if found is not None:
                    made[key] = found
                elif (kind, key) == _ABOUT:
                    raise _Empty
                elif spec is not None and spec.min:
                    if name != "Reference":
                        raise _Empty
                    made[key] = _MASKED
            else:
                made[key] = inner
        return made

    def _list(self, values: list[Any], name: str) -> list[Any]:
        kept = []
        for value in values:
            if not isinstance(value, dict):
                kept.append(value)
                continue
            found, lost = self._one(value, name)
            if found is not None and not lost:
                kept.append(found)
        return kept

    def _one(self, value: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, bool]:
        """An element, or None where it goes; and whether a link of its own was taken out of it."""
        if name in ("Resource", "") or "resourceType" in value:
            try:
                return self.resource(value), False
            except _Empty:
                return None, False
        if name == "Reference" and self._gone.refers(value):
            return None, False
        made: dict[str, Any] = {}
        lost = False
        for key, inner in value.items():
            spec, kind = _element(name, key)
            if isinstance(inner, list):
                kept = self._list(inner, kind)
                if inner and not kept:
                    if spec is not None and spec.min:
                        return None, True
                    continue
                made[key] = kept
            elif isinstance(inner, dict):
                found, _ = self._one(inner, kind)
                if found is None:
                    if spec is not None and spec.min:
                        return None, True
                    lost = lost or kind == "Reference"
                    continue
                made[key] = found
            else:
                made[key] = inner
        return made or None, lost


@cache
def _keys(type_name: str) -> dict[str, tuple[Element, str]]:
    return {key: (item, kind) for item in element(type_name).values() for key, kind in item.keys.items()}


def _element(type_name: str, key: str) -> tuple[Element | None, str]:
    """The element of a JSON name and its type; what hangs on a primitive is an Element."""
    if key.startswith("_"):
        return None, "Element"
    if is_primitive(type_name):
        return None, "Element"
    try:
        spec, kind = _keys(type_name)[key]
    except KeyError:
        return None, "Element"
    return spec, kind


def _masked(value: Any, gone: Gone) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, gone) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, gone) for inner in value]
    return gone.masked(value) if isinstance(value, str) else value
