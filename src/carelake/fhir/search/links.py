"""Converters of tokens and references: codes, identifiers, contacts, links. A part of `converters`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.core.records import IndexValues
from carelake.fhir.definitions import is_resource
from carelake.fhir.references import target
from carelake.fhir.search.values import MAX_STRING, normalise

__all__ = ["REFERENCES", "TOKENS", "Visit", "code", "told_type"]

Visit = Callable[[Any, IndexValues], None]
"""Takes a value and adds its rows."""

_MAX_KEPT = 1 << 13
"""Rows that a source remembers of the values it has seen: codes and targets come again and again."""
_MAX_TEXT = 500


class _Kept(dict[Any, Any]):
    """Rows by value; emptied when full, so that memory is bounded."""

    def keep(self, key: Any, rows: Any) -> Any:
        if len(self) >= _MAX_KEPT:
            self.clear()
        if len(str(key)) <= _MAX_TEXT:  # longer ones are rare or hostile
            self[key] = rows
        return rows


def _texts(*values: Any) -> None:
    """Stop at what is no text; a resource that was checked has none."""
    for value in values:
        if value.__class__ is not str:
            raise TypeError("not a text")


def _coding(name: str) -> Visit:
    kept = _Kept()
    known = kept.get

    def visit(value: Any, rows: IndexValues) -> None:
        key = (value.get("system"), value.get("code"), value.get("display"))
        token, shown, text = known(key) or kept.keep(key, _shown(name, *key))
        rows.tokens.append(token)
        if shown is not None:
            rows.displays.append(shown)
        elif text is not None:
            rows.strings.append(text)

    return visit


def _shown(name: str, system: str | None, told: str | None, display: str | None) -> tuple[Any, Any, Any]:
    """Rows of a Coding: its token, the text of its code, or the text of no code."""
    _texts(*(text for text in (system, told, display) if text is not None))
    system = system or ""
    if display is None:
        return (name, system, told or ""), None, None
    display = display[:MAX_STRING]
    folded = normalise(display)
    if told is None:
        return (name, system, ""), None, (f"{name}:text", folded, display)
    return (name, system, told), (name, system, told, folded), None


def _concept(name: str) -> Visit:
    kept, texts = _Kept(), _Kept()
    known = kept.get

    def visit(value: Any, rows: IndexValues) -> None:
        codings, text = value.get("coding"), value.get("text")
        own = text
        if codings is None:
            rows.tokens.append((name, "", ""))
        else:
            for entry in codings:
                display = entry.get("display")
                key = (entry.get("system"), entry.get("code"), display)
                token, shown, unshown = known(key) or kept.keep(key, _shown(name, *key))
                rows.tokens.append(token)
                if shown is not None:
                    rows.displays.append(shown)
                    if display == text:
                        own = None
                elif unshown is not None:
                    rows.strings.append(unshown)
        if own is not None:
            displays = tuple([entry.get("display") for entry in codings or ()])
            found = texts.get((own, displays))
            rows.strings += texts.keep((own, displays), _own_text(name, own, displays)) if found is None else found

    return visit


def _own_text(name: str, text: str, displays: tuple[str | None, ...]) -> list[tuple[str, str, str]]:
    """The row of a concept's text, unless one of its codings says the same."""
    text = text[:MAX_STRING]
    folded = normalise(text)
    same = any(display is not None and normalise(display[:MAX_STRING]) == folded for display in displays)
    return [] if same else [(f"{name}:text", folded, text)]


def _identifier(name: str) -> Visit:
    typed, text_name = f"{name}:of-type", f"{name}:text"

    def visit(value: Any, rows: IndexValues) -> None:
        text = value.get("value", "")
        system = value.get("system", "")
        _texts(system, text)
        rows.tokens.append((name, system, text))
        kind = value.get("type")
        if kind is None:
            return
        for coding in kind.get("coding", ()):
            told, system = coding.get("code"), coding.get("system", "")
            if told is not None and text:
                _texts(system)
                rows.tokens.append((typed, system, f"{told}|{text}"))
        for shown in (kind.get("text"), *(coding.get("display") for coding in kind.get("coding", ()))):
            if shown is not None:
                shown = shown[:MAX_STRING]
                rows.strings.append((text_name, normalise(shown), shown))

    return visit


def _contact(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        system, text = value.get("system", ""), value.get("value", "")
        _texts(system, text)
        rows.tokens.append((name, system, text))

    return visit


def _boolean(name: str) -> Visit:
    def visit(value: Any, rows: IndexValues) -> None:
        rows.tokens.append((name, "", "true" if value else "false"))

    return visit


def code(name: str, system: str = "") -> Visit:
    """A plain code, whose system is the one of its value set, or ""."""

    def visit(value: Any, rows: IndexValues) -> None:
        if value.__class__ is not str:
            raise TypeError("not a text")
        rows.tokens.append((name, system, value))

    return visit


def _canonical(name: str) -> Visit:
    """A canonical or uri under a parameter of type reference: its url, without type and id."""

    def visit(value: Any, rows: IndexValues) -> None:
        rows.references.append((name, "", "", value))
        if "|" in value:
            rows.references.append((name, "", "", value.partition("|")[0]))

    return visit


def _reference(name: str) -> Visit:
    identifying, kept = _contact(f"{name}:identifier"), _Kept()
    known = kept.get

    def visit(value: Any, rows: IndexValues) -> None:
        text = value.get("reference")
        if "type" in value:
            rows.references.append(_pointed(name, text, value["type"]))
        else:
            rows.references.append(known(text) or kept.keep(text, _pointed(name, text)))
        if "identifier" in value:
            identifying(value["identifier"], rows)

    return visit


def _pointed(name: str, text: str | None, told: str = "") -> tuple[str, str, str, str]:
    found = None if text is None else target(text)
    if found is None:
        return name, told if text is None and is_resource(told) else "", "", ""
    kind, key, url = found
    return name, kind or told_type(url, told), key, url


def _resource(name: str) -> Visit:
    """A resource itself, of a bundle's entry: as the target that a reference to it would have."""

    def visit(value: Any, rows: IndexValues) -> None:
        rows.references.append((name, value.get("resourceType", ""), value.get("id", ""), ""))

    return visit


def told_type(url: str, told: str = "") -> str:
    """``Patient`` of ``https://other.example/fhir/Patient/1``: nothing is resolved, the url's form must do.

    Args:
        told: what the reference itself says, which counts more.
    """
    if ":" not in url:
        return ""  # it could be taken for the id of a resource here
    if not told and not url.startswith("urn:"):
        parts = url.partition("/_history/")[0].rsplit("/", 2)
        told = parts[1] if len(parts) == 3 else ""
    return told if is_resource(told) else ""


TOKENS: dict[str, Callable[[str], Visit]] = {
    "Coding": _coding,
    "CodeableConcept": _concept,
    "Identifier": _identifier,
    "ContactPoint": _contact,
    "boolean": _boolean,
}
REFERENCES: dict[str, Callable[[str], Visit]] = {
    "Reference": _reference,
    "canonical": _canonical,
    "uri": _canonical,
    "Resource": _resource,
}
