"""Code systems and value sets out of resources, wherever those are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from carelake.fhir.terminology.lexicon import Lexicon, lexicon
from carelake.fhir.terminology.maps import ConceptMap, concept_map
from carelake.fhir.terminology.model import CodeSystem, ValueSet, code_system, value_set

__all__ = ["Find", "FindMaps", "ResourceLibrary"]

Find = Callable[[str, str], Mapping[str, Any] | None]
"""The resource of a type (``CodeSystem``, ``ValueSet``, ``ConceptMap``) with a canonical, ``url`` or ``url|version``;
the newest where there are several."""

FindMaps = Callable[[str, bool], Iterable[Mapping[str, Any]]]
"""The ConceptMap resources from a code system, or to it."""


class ResourceLibrary:
    """A library over what ``find`` finds; each is read once."""

    def __init__(
        self,
        find: Find,
        maps: FindMaps = lambda system, to: (),
        read: Callable[[str], tuple[CodeSystem, Lexicon] | None] | None = None,
    ) -> None:
        """Make the library.

        Args:
            read: gives a code system of a canonical taken apart already; in place of ``find``.
        """
        self._find = find
        self._taken = read or self._found
        self._maps = maps
        self._systems: dict[str, CodeSystem | None] = {}
        self._lexicons: dict[str, Lexicon | None] = {}
        self._sets: dict[str, ValueSet | None] = {}

    def code_system(self, url: str) -> CodeSystem | None:
        """The code system of a url."""
        self._read(url)
        return self._systems[url]

    def lexicon(self, url: str) -> Lexicon | None:
        """The texts of a code system."""
        self._read(url)
        return self._lexicons[url]

    def _read(self, url: str) -> None:
        if url not in self._systems:
            self._systems[url], self._lexicons[url] = self._taken(url) or (None, None)

    def _found(self, url: str) -> tuple[CodeSystem, Lexicon] | None:
        found = self._find("CodeSystem", url)
        return None if found is None else (code_system(found), lexicon(found))

    def value_set(self, url: str) -> ValueSet | None:
        """The value set of a url."""
        if url not in self._sets:
            found = self._find("ValueSet", url)
            self._sets[url] = None if found is None else value_set(found)
        return self._sets[url]

    def concept_map(self, url: str) -> ConceptMap | None:
        """The concept map of a url."""
        found = self._find("ConceptMap", url)
        return None if found is None else concept_map(found)

    def maps(self, system: str, *, to: bool = False) -> Iterable[ConceptMap]:
        """The concept maps from a code system, or to it."""
        return map(concept_map, self._maps(system, to))
