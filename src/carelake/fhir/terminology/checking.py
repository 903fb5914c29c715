"""``$validate-code``: whether a code is in a value set, or in a code system.

https://hl7.org/fhir/R4/valueset-operation-validate-code.html,
https://hl7.org/fhir/R4/codesystem-operation-validate-code.html

Of a value set only what a code needs is looked at, so that the one part that cannot be worked out here does not hide
the answer of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.fhir.terminology.expansion import MAX_NESTED, LocalTerminology
from carelake.fhir.terminology.hierarchy import Hierarchy
from carelake.fhir.terminology.lexicon import Concept, Lexicon
from carelake.fhir.terminology.looking import spelled, system_of
from carelake.fhir.terminology.model import Part, ValueSet

__all__ = ["Coded", "Verdict", "best", "coded", "in_system", "in_value_set", "systems_of"]

_MOST = 5000
"""Value sets that are looked into for one code."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A code as it is said: ``system`` "" where it is not."""

    code: str
    system: str = ""
    version: str = ""
    display: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it is valid, why not (or what is to be known), and the display that it should have."""

    result: bool
    message: str = ""
    display: str = ""


def in_system(known: LocalTerminology, said: Coded, *, abstract: bool = False, language: str = "") -> Verdict:
    """Whether a code is in its system.

    Raises:
        NotFound, Unsupported: as `looking.system_of`.
    """
    tree, words = system_of(known, said.system)
    if said.version and said.version != words.version:
        try:
            tree, words = system_of(known, said.system, said.version)
        except NotFound:
            return Verdict(False, "The code system is not known here in the version that is named.")
    code = spelled(tree, words, said.code)
    if code is None:
        return Verdict(False, _no_such(tree))
    return _said_right(words.concepts[tree.places[code]], said, code, abstract, language)


def _no_such(tree: Hierarchy) -> str:
    if tree.system.complete:
        return "The code system has no such code."
    return "The code is not among those of the code system that are here, which are not all."


def _said_right(concept: Concept, said: Coded, code: str, abstract: bool, language: str, named: str = "") -> Verdict:
    display = (concept.display_in(language) if language else named or concept.display) or named
    if concept.abstract and not abstract:
        return Verdict(False, "The code is abstract: it groups others, and is not to be used itself.", display)
    texts = {_plain(text) for text in (named, *concept.texts()) if text}
    if said.display and texts and _plain(said.display) not in texts:
        return Verdict(False, "The display is not one of the code's.", display)
    hint = "The code is inactive." if concept.inactive else ""
    if said.display and not texts:
        hint = "The display was not checked: the texts of the code are not here."
    return Verdict(True, hint, display)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def systems_of(known: LocalTerminology, told: ValueSet, code: str) -> list[str]:
    """The systems out of which a code without one is in a value set: for data elements that have codes only.

    Raises:
        CarelakeError: as `LocalTerminology.members`.
    """
    return sorted({system for system, one in known.members(told) if one == code})


def in_value_set(
    known: LocalTerminology, told: ValueSet, said: Coded, *, abstract: bool = False, language: str = ""
) -> Verdict:
    """Whether a code is in a value set, with a system that is known."""
    held = _Asking(known, said.system, said.code).holds(told, ())
    if held is None:
        return Verdict(False, "Whether the code is in the value set cannot be told: it rests on what is not here.")
    if not held:
        return Verdict(False, "The code is not in the value set.")
    named = _named(told, said)
    tree, words = known.tree(said.system), known.lexicon(said.system)
    concept = _concept(tree, words, said.code)
    if concept is None:
        return _said_right(Concept(), said, said.code, abstract, "", named)
    if said.version and words is not None and words.version and said.version != words.version:
        return Verdict(False, "The code system is not known here in the version that is named.", concept.display)
    if told.inactive is False and concept.inactive:
        return Verdict(False, "The code is inactive, and the value set has active ones only.", concept.display)
    return _said_right(concept, said, said.code, abstract, language, named)


def _named(told: ValueSet, said: Coded) -> str:
    for part in told.include:
        if part.system == said.system and part.displays and part.codes and said.code in part.codes:
            return part.displays[part.codes.index(said.code)]
    return ""


def _concept(tree: Hierarchy | None, words: Lexicon | None, code: str) -> Concept | None:
    if tree is None or words is None or code not in tree.places:
        return None
    return words.concepts[tree.places[code]]


class _Asking:
    """Whether one code is in value sets: yes, no, or None where it cannot be told."""

    def __init__(self, known: LocalTerminology, system: str, code: str) -> None:
        self._known = known
        self._system = system
        self._code = code
        self._told: dict[str, bool | None] = {}

    def holds(self, told: ValueSet, within: tuple[str, ...]) -> bool | None:
        taken = _any(self._part(part, within) for part in told.include)
        if taken is False:
            return False
        left = _any(self._part(part, within) for part in told.exclude)
        if left is True:
            return False
        return None if taken is None or left is None else True

    def _part(self, part: Part, within: tuple[str, ...]) -> bool | None:
        if part.system and part.system != self._system:
            return False
        own = self._of_system(part) if part.system else True
        if own is False or not (part.system or part.value_sets):
            return False
        return _all([own, *(self._named(url, within) for url in part.value_sets)])

    def _named(self, url: str, within: tuple[str, ...]) -> bool | None:
        if url in within or len(within) >= MAX_NESTED or len(self._told) >= _MOST:
            raise Unsupported("terminology.too_deep", "A value set is made of itself, or of too many one in another.")
        if url not in self._told:
            try:
                told = self._known.value_set(url)
            except Unsupported:
                self._told[url] = None
            else:
                self._told[url] = self.holds(told, (*within, url))
        return self._told[url]

    def _of_system(self, part: Part) -> bool | None:
        if part.withheld:
            return None
        if part.codes is not None:
            return self._code in part.codes
        tree = self._known.tree(f"{part.system}|{part.version}" if part.version else part.system)
        if tree is None or not tree.system.codes:
            return None
        if not part.filters:
            return True if self._code in tree.places else False if tree.system.complete else None
        try:
            return self._code in self._known.chosen(part)
        except Invalid as error:
            if error.code == "terminology.too_many":
                raise
            return None


def _any(found: Iterable[bool | None]) -> bool | None:
    unknown = False
    for one in found:
        if one:
            return True
        unknown = unknown or one is None
    return None if unknown else False


def _all(found: Sequence[bool | None]) -> bool | None:
    if any(one is False for one in found):
        return False
    return None if any(one is None for one in found) else True


def best(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a CodeableConcept: that of its first coding that is valid, else what is wrong with each."""
    for one in verdicts:
        if one.result:
            return one
    if not verdicts:
        return Verdict(False, "The concept has no coding with a code.")
    return replace(verdicts[0], message=" ".join(dict.fromkeys(one.message for one in verdicts)))


def coded(coding: Mapping[str, Any]) -> Coded:
    """A Coding."""
    return Coded(
        coding.get("code", ""), coding.get("system", ""), coding.get("version", ""), coding.get("display", "")
    )
