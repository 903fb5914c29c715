"""``$lookup`` and ``$subsumes``: what a code is, and how two of one system stand to each other.

https://hl7.org/fhir/R4/codesystem-operation-lookup.html, https://hl7.org/fhir/R4/codesystem-operation-subsumes.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from carelake.core.errors import NotFound, Unsupported
from carelake.fhir.terminology.expansion import LocalTerminology, shown
from carelake.fhir.terminology.hierarchy import Hierarchy
from carelake.fhir.terminology.lexicon import Concept, Designation, Lexicon

__all__ = ["Found", "find", "lookup", "spelled", "subsumes", "system_of"]

_NOT_IS_A = frozenset({"grouped-by", "part-of", "classified-with"})
_MOST = 1000
"""Children that are told of one code."""


class Found:
    """A code in its system."""

    def __init__(self, tree: Hierarchy, words: Lexicon, code: str) -> None:
        self.tree = tree
        self.words = words
        self.code = code

    @property
    def concept(self) -> Concept:
        """What is said of it."""
        return self.words.concepts[self.tree.places[self.code]]


def system_of(known: LocalTerminology, system: str, version: str = "") -> tuple[Hierarchy, Lexicon]:
    """A code system.

    Raises:
        NotFound: ``terminology.no_such_system``.
        Unsupported: ``terminology.unknown_code_system``: known by name, but none of its codes are here.
    """
    canonical = f"{system}|{version}" if version else system
    tree, words = known.tree(canonical), known.lexicon(canonical)
    if tree is None or words is None:
        what = "The code system in that version" if version else "The code system"
        raise NotFound(
            "terminology.no_such_system", f"{shown(what, system)} is not known here; store its CodeSystem resource."
        )
    if not tree.system.codes:
        raise Unsupported(
            "terminology.unknown_code_system", f"{shown('The code system', system)} is known here without its codes."
        )
    return tree, words


def find(known: LocalTerminology, system: str, code: str, version: str = "") -> Found:
    """A code of a system.

    Raises:
        NotFound: ``terminology.no_such_system``, ``terminology.no_such_code``.
        Unsupported: as `system_of`.
    """
    tree, words = system_of(known, system, version)
    found = spelled(tree, words, code)
    if found is None:
        raise NotFound("terminology.no_such_code", f"{shown('The code system', system)} has no such code.")
    return Found(tree, words, found)


def spelled(tree: Hierarchy, words: Lexicon, code: str) -> str | None:
    """The code as its system writes it, None where it has none such."""
    if code in tree.places:
        return code
    if words.caseless:
        return next((one for one in tree.system.codes if one.casefold() == code.casefold()), None)
    return None


def lookup(found: Found, properties: Sequence[str] = (), language: str = "") -> list[dict[str, Any]]:
    """The parameters of the answer.

    Args:
        properties: which are told beside name, version and display; all of the code's own where none is named.
    """
    words, concept = found.words, found.concept
    wanted = set(properties)
    told: list[dict[str, Any]] = [{"name": "name", "valueString": words.name}]
    told += [{"name": "version", "valueString": words.version}] if words.version else []
    told.append({"name": "display", "valueString": concept.display_in(language) or found.code})
    if not wanted or "designation" in wanted or any(one.startswith("lang.") for one in wanted):
        told += [_designation(one) for one in concept.designations if _spoken(one, wanted)]
    return told + [_property(*one) for one in _properties(found) if not wanted or one[0] in wanted]


def _spoken(one: Designation, wanted: set[str]) -> bool:
    return not wanted or "designation" in wanted or f"lang.{one.language}" in wanted


def _designation(one: Designation) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"name": "language", "valueCode": one.language}] if one.language else []
    use = {name: text for name, text in zip(("system", "code", "display"), one.use, strict=True) if text}
    parts += [{"name": "use", "valueCoding": use}] if use else []
    return {"name": "designation", "part": [*parts, {"name": "value", "valueString": one.value}]}


def _properties(found: Found) -> Iterator[tuple[str, str, Any, str]]:
    """Code, kind of value, value, and what that says to people."""
    concept, words = found.concept, found.words
    if words.url:
        yield "url", "valueUri", words.url, ""
    if concept.definition:
        yield "definition", "valueString", concept.definition, ""
    if not any(one.code == "inactive" for one in concept.properties):
        yield "inactive", "valueBoolean", concept.inactive, ""
    near = set()
    for name, up in (("parent", True), ("child", False)):
        for code in found.tree.next(found.code, up=up)[:_MOST]:
            near.add((name, code))
            yield name, "valueCode", code, words.concepts[found.tree.places[code]].display
    for one in concept.properties:
        if (one.code, one.value if isinstance(one.value, str) else "") not in near:
            yield one.code, one.kind, one.value, ""


def _property(code: str, kind: str, value: Any, said: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"name": "code", "valueCode": code}, {"name": "value", kind: value}]
    return {"name": "property", "part": parts + ([{"name": "description", "valueString": said}] if said else [])}


def subsumes(a: Found, b: Found) -> str:
    """``equivalent``, ``subsumes``, ``subsumed-by`` or ``not-subsumed``: what the first is to the second.

    Raises:
        Unsupported: ``terminology.not_is_a``: the hierarchy of the system means something else.
    """
    if a.code == b.code:
        return "equivalent"
    if a.words.meaning in _NOT_IS_A:
        raise Unsupported(
            "terminology.not_is_a", "The code system's hierarchy does not say that one code is a kind of another."
        )
    if a.code in a.tree.above(b.code):
        return "subsumes"
    return "subsumed-by" if b.code in a.tree.above(a.code) else "not-subsumed"
