"""What is said of each code of a code system: its texts and its properties.

https://hl7.org/fhir/R4/codesystem-definitions.html#CodeSystem.concept
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from carelake.fhir.terminology.model import concepts

__all__ = ["Concept", "Designation", "Lexicon", "Property", "designations", "lexicon"]

_INACTIVE = frozenset({"inactive", "retired"})
_ABSTRACT = frozenset({"notSelectable", "abstract"})


class Designation(msgspec.Struct, frozen=True, array_like=True):
    """Another text of a code.

    Attributes:
        use: system, code and display of what it is used for, "" where not said.
    """

    value: str
    language: str = ""
    use: tuple[str, str, str] = ("", "", "")


class Property(msgspec.Struct, frozen=True, array_like=True):
    """``valueCode``, ``valueBoolean`` and others of a code, the value as JSON has it."""

    code: str
    kind: str
    value: Any


class Concept(msgspec.Struct, frozen=True, array_like=True):
    """What is said of one code."""

    display: str = ""
    definition: str = ""
    designations: tuple[Designation, ...] = ()
    properties: tuple[Property, ...] = ()

    @property
    def inactive(self) -> bool:
        """Whether it is not to be used any more (https://hl7.org/fhir/R4/codesystem.html#status)."""
        return any(
            (told.code == "inactive" and told.value is True) or (told.code == "status" and told.value in _INACTIVE)
            for told in self.properties
        )

    @property
    def abstract(self) -> bool:
        """Whether it only groups others."""
        return any(told.code in _ABSTRACT and told.value is True for told in self.properties)

    def texts(self) -> Iterable[str]:
        """Its display and designations."""
        if self.display:
            yield self.display
        yield from (one.value for one in self.designations)

    def display_in(self, language: str) -> str:
        """The display in a language (``de``, also for ``de-AT``), the usual one where there is none."""
        wanted = language.lower()
        for asked in dict.fromkeys((wanted, wanted.partition("-")[0])):
            for one in self.designations:
                if asked and one.language.lower() == asked and one.use[1] in ("", "display"):
                    return one.value
        return self.display


class Lexicon(msgspec.Struct, frozen=True, array_like=True):
    """The texts of a code system.

    Attributes:
        meaning: what its hierarchy means: ``is-a``, ``part-of``, ... or "".
        caseless: whether ``A`` is the code ``a``.
        concepts: in the order of `CodeSystem.codes`.
    """

    url: str
    version: str
    name: str
    meaning: str
    caseless: bool
    concepts: tuple[Concept, ...]


def lexicon(resource: Mapping[str, Any]) -> Lexicon:
    """The texts of a valid CodeSystem resource.

    Raises:
        Unsupported: ``terminology.too_deep``.
    """
    found: dict[str, Concept] = {}
    for code, _, told in concepts(resource):
        if code not in found:
            found[code] = _concept(told)
    return Lexicon(
        resource.get("url", ""),
        resource.get("version", ""),
        resource.get("title") or resource.get("name") or resource.get("url", ""),
        resource.get("hierarchyMeaning", ""),
        resource.get("caseSensitive") is False,
        tuple(found.values()),
    )


def designations(told: Iterable[Mapping[str, Any]]) -> tuple[Designation, ...]:
    """The designations of a concept, as a CodeSystem and a ValueSet have them."""
    return tuple(
        Designation(one["value"], one.get("language", ""), _use(one.get("use", {}))) for one in told if "value" in one
    )


def _use(coding: Mapping[str, Any]) -> tuple[str, str, str]:
    return coding.get("system", ""), coding.get("code", ""), coding.get("display", "")


def _concept(told: Mapping[str, Any]) -> Concept:
    return Concept(
        told.get("display", ""),
        told.get("definition", ""),
        designations(told.get("designation", ())),
        tuple(_properties(told.get("property", ()))),
    )


def _properties(listed: Iterable[Mapping[str, Any]]) -> Iterable[Property]:
    for one in listed:
        for key, value in one.items():
            if key.startswith("value") and "code" in one:
                yield Property(one["code"], key, value)
