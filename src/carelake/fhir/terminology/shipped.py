"""Code systems, value sets and concept maps of the FHIR R4 core package, compiled by ``tools/compile_codes.py``.

Without the contents of SNOMED CT, LOINC and CPT (decision D16), without texts that others than HL7 own, and without
examples. Codes are in one file, their texts and the maps in another; each is read at first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources

import msgspec
import zstandard

from carelake.core.shapes import decodable
from carelake.fhir.terminology.lexicon import Lexicon
from carelake.fhir.terminology.maps import ConceptMap
from carelake.fhir.terminology.model import CodeSystem, ValueSet

__all__ = ["SHIPPED", "Shipped"]


class _File(msgspec.Struct, frozen=True, array_like=True):
    systems: tuple[CodeSystem, ...]
    sets: tuple[ValueSet, ...]


class _Terms(msgspec.Struct, frozen=True, array_like=True):
    lexicons: tuple[Lexicon, ...]
    maps: tuple[ConceptMap, ...]


@cache
def _load() -> tuple[dict[str, CodeSystem], dict[str, ValueSet]]:
    file = msgspec.msgpack.decode(_unpacked("r4-codes.msgpack.zst"), type=decodable(_File))
    return {one.url: one for one in file.systems}, {one.url: one for one in file.sets}


@cache
def _terms() -> tuple[dict[str, Lexicon], dict[str, ConceptMap]]:
    file = msgspec.msgpack.decode(_unpacked("r4-terms.msgpack.zst"), type=decodable(_Terms))
    return {one.url: one for one in file.lexicons}, {one.url: one for one in file.maps}


def _unpacked(name: str) -> bytes:
    return zstandard.decompress(resources.files("carelake.fhir").joinpath(name).read_bytes())


class Shipped:
    """The library of what ships."""

    def code_system(self, url: str) -> CodeSystem | None:
        """A code system of the core package."""
        return _load()[0].get(url)

    def systems(self) -> list[tuple[str, str]]:
        """Url and version of each code system."""
        return [(one.url, one.version) for one in _load()[0].values()]

    def value_set(self, url: str) -> ValueSet | None:
        """A value set of the core package."""
        return _load()[1].get(url)

    def lexicon(self, url: str) -> Lexicon | None:
        """The texts of a code system of the core package; without displays where these are another's than HL7's."""
        return _terms()[0].get(url)

    def concept_map(self, url: str) -> ConceptMap | None:
        """A concept map of the core package."""
        return _terms()[1].get(url)

    def maps(self, system: str, *, to: bool = False) -> Iterable[ConceptMap]:
        """The concept maps from a code system, or to it."""
        return (
            one
            for one in _terms()[1].values()
            if any(system == (group.target if to else group.source) for group in one.groups)
        )


SHIPPED = Shipped()
