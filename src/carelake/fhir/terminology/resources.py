"""Code systems and value sets out of resources, wherever those are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from carelake.fhir.terminology.model import CodeSystem, ValueSet, code_system, value_set

__all__ = ["ResourceLibrary"]

Find = Callable[[str, str], Mapping[str, Any] | None]
"""The resource of a type (``CodeSystem``, ``ValueSet``) with a url, the newest where there are several."""


class ResourceLibrary:
    """A library over what ``find`` finds; each is read once."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._systems: dict[str, CodeSystem | None] = {}
        self._sets: dict[str, ValueSet | None] = {}

    def code_system(self, url: str) -> CodeSystem | None:
        """The code system of a url."""
        if url not in self._systems:
            found = self._find("CodeSystem", url)
            self._systems[url] = None if found is None else code_system(found)
        return self._systems[url]

    def value_set(self, url: str) -> ValueSet | None:
        """The value set of a url."""
        if url not in self._sets:
            found = self._find("ValueSet", url)
            self._sets[url] = None if found is None else value_set(found)
        return self._sets[url]
