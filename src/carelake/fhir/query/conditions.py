"""Reading of one parameter: its modifier, chains and ``_has`` of any depth, and its values.

https://hl7.org/fhir/R4/search.html#modifiers, https://hl7.org/fhir/R4/search.html#chaining
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Protocol

from carelake.core.errors import Invalid
from carelake.fhir.definitions import is_resource, search_definitions
from carelake.fhir.query.errors import bad_value, shown, too_many, unknown_modifier, unknown_parameter, unsupported
from carelake.fhir.query.model import COLUMN_TYPES, Condition, Has, Query, is_followed, pointed_types
from carelake.fhir.query.texts import (
    read_composite,
    read_concept,
    read_near,
    read_of_type,
    read_reference,
    read_sounds,
    read_value,
    read_words,
    split,
)
from carelake.fhir.query.values import ReferenceValue, Value
from carelake.fhir.search.parameters import SearchParameter

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Conditions", "Parameters"]

MAX_VALUES = 1000
MAX_TOTAL = 20_000
"""Values of all parameters together; a chain's count for each type that it may point to."""
MAX_DEPTH = 12
"""Links of a chain, ``_has`` among them."""
_FEW_TYPES = 10
"""Of an id without a type: types whose addresses are looked for too."""
MAX_BRANCHES = 600
"""Searches of one type that the chains of one search may come to."""

MODIFIERS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"missing", "exact", "contains"}),
    "token": frozenset({"missing", "text", "not", "above", "below", "in", "not-in", "of-type"}),
    "reference": frozenset({"missing", "identifier", "above", "below"}),
    "uri": frozenset({"missing", "above", "below"}),
    "date": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "quantity": frozenset({"missing"}),
    "phonetic": frozenset({"missing"}),
    "composite": frozenset({"missing"}),
    "special": frozenset({"missing"}),
    "id": frozenset({"missing", "not"}),
}
"""What the standard lets each type have; a reference also takes a resource type."""
_SIDES = {
    "text": ("text", "its elements are codes without a text"),
    "of-type": ("of_type", "its elements are no identifiers"),
    "identifier": ("identifier", "its elements are canonicals, which have no identifier"),
}
"""Modifiers whose values have sources of their own, the property of `Source`, and why it may be missing."""
_KNOWN = frozenset().union(*MODIFIERS.values(), {"type", "iterate"})
_COLUMNS = frozenset({"_id", "_lastUpdated", "_list"})
_WORDS = frozenset({"_text", "_content"})
_NOT_OFFERED = {
    "_contained": "contained resources are searched as parts of their own resource only",
    "_containedType": "contained resources are searched as parts of their own resource only",
    "_filter": "write it with parameters, chains and _has",
    "_query": "no named queries are defined",
    "_score": "matches have no score",
}


class Parameters(Protocol):
    """Where search parameters come from; `carelake.fhir.search.registry.Registry` is one."""

    def parameters(self, resource_type: str) -> Mapping[str, SearchParameter]:
        """Those of a type by code."""

    def unsupported(self, resource_type: str) -> Mapping[str, str]:
        """Codes that the standard has and we have not, with the reason."""


class Conditions:
    """Reads conditions for one search, within its bounds.

    Args:
        base: this server's own address; what is below it is read as a relative reference.
    """

    def __init__(self, registry: Parameters, base: str = "") -> None:
        self._registry = registry
        self._base = base
        self._branches = 0
        self._total = 0

    def read(self, resource_type: str, name: str, value: str, depth: int = 0) -> Condition:
        """The condition that a name and a value put on resources of a type.

        Raises:
            Invalid: ``search.unknown_parameter``, ``search.unknown_modifier``, ``search.bad_value``,
                ``search.too_many``.
            Unsupported: ``search.unsupported``.
        """
        if depth > MAX_DEPTH:
            raise too_many(f"A search may follow at most {MAX_DEPTH} references in a row.")
        if name.startswith("_has:"):
            return self._has(resource_type, name, value, depth)
        stem, dot, inner = name.partition(".")
        code, colon, modifier = stem.partition(":")
        parameter = self.parameter(resource_type, code)
        if colon and not modifier:
            raise unknown_modifier(code, "is followed by a colon and no modifier.")
        if dot:
            return self._chain(parameter, code, modifier, inner, value, depth)
        _check_modifier(parameter, code, modifier)
        if modifier == "missing":
            if value not in ("true", "false"):
                raise bad_value(name, "true or false")
            return Condition(parameter, "missing", missing=value == "true")
        return self._values(parameter, code, modifier, value)

    def parameter(self, resource_type: str, code: str) -> SearchParameter | str:
        """A parameter of a type, or the name of a column.

        Raises:
            Invalid: ``search.unknown_parameter``.
            Unsupported: ``search.unsupported``.
        """
        found = self._registry.parameters(resource_type).get(code)
        if found is not None:
            return found
        if code in _COLUMNS:
            return code
        reason = self._registry.unsupported(resource_type).get(code) or _NOT_OFFERED.get(code)
        if reason:
            raise unsupported(code, f"of {resource_type} is not offered: {reason}.")
        raise unknown_parameter(
            code, f"is none of {resource_type} in FHIR R4; its parameters are in the CapabilityStatement."
        )

    def named(self, resource_type: str, code: str, within: str) -> SearchParameter | str:
        """As `parameter`, of a code that is in the value of another one: it is shown if it can be no data.

        Args:
            within: the parameter whose value it is in.
        """
        if code not in self._registry.parameters(resource_type) and code not in _standard_codes():
            raise unknown_parameter(within, f"names what is no search parameter of {resource_type}.")
        return self.parameter(resource_type, code)

    def reference(self, resource_type: str, code: str, within: str = "") -> SearchParameter:
        """A parameter of a type that is a reference; `within` as of `named`."""
        parameter = self.named(resource_type, code, within) if within else self.parameter(resource_type, code)
        if isinstance(parameter, str) or parameter.type != "reference":
            raise unknown_parameter(code, f"of {resource_type} is no reference, so there is nothing to follow.")
        return parameter

    def references(self, resource_type: str) -> list[SearchParameter]:
        """Every parameter of a type that is followed, sorted by code."""
        offered = self._registry.parameters(resource_type)
        return [offered[code] for code in sorted(offered) if is_followed(offered[code])]

    def _values(self, parameter: SearchParameter | str, code: str, modifier: str, value: str) -> Condition:
        texts = split(value, ",")
        if len(texts) > MAX_VALUES:
            raise too_many(f"{shown(code)} has more than {MAX_VALUES} values.")
        try:
            values = [one for text in texts for one in self._value(parameter, code, modifier, text)]
        except ValueError as error:
            raise bad_value(f"{code}:{modifier}" if modifier else code, str(error)) from None
        if len(values) > MAX_VALUES and code in _WORDS:
            raise too_many(f"{shown(code)} has more than {MAX_VALUES} values.")
        self._total += len(values)
        if self._total > MAX_TOTAL:
            raise too_many(
                f"The search has more than {MAX_TOTAL} values, counted for each type that it or its chains are of."
            )
        return Condition(parameter, "" if is_resource(modifier) else modifier, tuple(values))

    def _value(self, parameter: SearchParameter | str, code: str, modifier: str, text: str) -> Sequence[Value]:
        kind = _kind(parameter, code)
        match kind:
            case "token":
                own = f"{self._base}/" if self._base and modifier in ("in", "not-in") else ""
                return (_token(modifier, text.removeprefix(own)),)  # an address of this server, or a name
            case "reference" if modifier == "identifier":
                return (read_value("token", text),)
            case "reference" if not isinstance(parameter, str):
                return self._reference(parameter, modifier, text)
            case "composite" if not isinstance(parameter, str):
                return (read_composite([component.type for component in parameter.components], text),)
            case "special":
                return (read_near(text),)
            case "words":
                return read_words(text)
            case "phonetic":
                return (read_sounds(text),)
        return (read_value(kind, text),)

    def _reference(self, parameter: SearchParameter, modifier: str, text: str) -> Sequence[Value]:
        found = read_reference(text, modifier if is_resource(modifier) else _sole(parameter), self._base)
        if found.type and any("canonical" in use.source.kinds for use in parameter.uses):
            return (found, ReferenceValue("", "", f"{found.type}/{found.id}"))  # a canonical may be written so too
        if self._base and found.id and modifier not in ("above", "below"):
            return (found, *self._absolute(parameter, found))
        return (found,)

    def _absolute(self, parameter: SearchParameter, found: ReferenceValue) -> Iterator[ReferenceValue]:
        """The same as resources may write it that were given with this server's own addresses."""
        types = (found.type,) if found.type else pointed_types(parameter)
        if len(types) <= _FEW_TYPES:
            yield from (ReferenceValue("", "", f"{self._base}/{name}/{found.id}") for name in types)

    def _chain(
        self, parameter: SearchParameter | str, code: str, modifier: str, inner: str, value: str, depth: int
    ) -> Condition:
        if isinstance(parameter, str) or parameter.type != "reference":
            raise unknown_parameter(code, "is no reference, so nothing can be chained to it.")
        if modifier and not is_resource(modifier):
            raise unknown_modifier(code, "is chained, so the only modifier it takes is a resource type.")
        _check_modifier(parameter, code, modifier)
        types = (modifier,) if modifier else pointed_types(parameter)
        if len(types) == 1:
            return Condition(parameter, "chain", chain=(self._branch(types[0], inner, value, depth),))
        return Condition(parameter, "chain", chain=self._alternatives(types, code, inner, value, depth))

    def _branch(self, resource_type: str, inner: str, value: str, depth: int) -> Query:
        self._branches += 1
        if self._branches > MAX_BRANCHES:
            raise too_many(
                "The chains of the search may point to too many types; say which, as in subject:Patient.name=."
            )
        return Query((resource_type,), (self.read(resource_type, inner, value, depth + 1),))

    def _alternatives(
        self, types: tuple[str, ...], code: str, inner: str, value: str, depth: int
    ) -> tuple[Query, ...]:
        """A search for each type that has the parameter; of the others none can match."""
        found: list[Query] = []
        refused: Invalid | None = None
        for name in types:
            try:
                found.append(self._branch(name, inner, value, depth))
            except Invalid as error:
                if error.code == "search.too_many":
                    raise
                if refused is None or refused.code == "search.unknown_parameter":
                    refused = error
        if found:
            return tuple(found)
        if refused is None or refused.code != "search.unknown_parameter":
            raise refused or unknown_parameter(code, "points to nothing that can be searched.")
        raise unknown_parameter(inner, f"is none of the types that {code} can point to.") from None

    def _has(self, resource_type: str, name: str, value: str, depth: int) -> Condition:
        parts = name.split(":", 3)
        if len(parts) < 4 or not parts[3]:
            raise unknown_parameter("_has", "is written _has:Type:reference:parameter, as in _has:Group:member:_id.")
        _, source, code, inner = parts
        if not is_resource(source):
            raise unknown_parameter("_has", "is followed by a name that is no resource type of FHIR R4.")
        parameter = self.reference(source, code)
        if resource_type not in pointed_types(parameter):
            raise unknown_parameter(code, f"of {source} cannot point to a {resource_type}, as _has asks.")
        return Condition("_has", has=Has(source, parameter, self._branch(source, inner, value, depth)))


@cache
def _standard_codes() -> frozenset[str]:
    return frozenset(one.code for one in search_definitions()) | _COLUMNS | frozenset(_NOT_OFFERED)


def _has_side(parameter: SearchParameter, modifier: str) -> bool:
    """Whether the modifier's values are indexed for the parameter."""
    name = _SIDES[modifier][0] if modifier in _SIDES else ""
    return not name or any(getattr(use.source, name) is not None for use in parameter.uses)


def _sole(parameter: SearchParameter) -> str:
    pointed = pointed_types(parameter)
    return pointed[0] if len(pointed) == 1 else ""


def _kind(parameter: SearchParameter | str, code: str) -> str:
    if code in _WORDS:
        return "words"
    if isinstance(parameter, str):
        return COLUMN_TYPES[parameter]
    kind = parameter.type
    return "phonetic" if kind == "string" and parameter.phonetic else kind


def _token(modifier: str, text: str) -> Value:
    if not text:
        raise ValueError("a value that is not empty")
    match modifier:
        case "of-type":
            return read_of_type(text)
        case "text":
            return read_value("string", text)
        case "in" | "not-in":
            return read_value("uri", text)
        case "above" | "below":
            return read_concept(text)
    return read_value("token", text)


def _check_modifier(parameter: SearchParameter | str, code: str, modifier: str) -> None:
    if not modifier:
        return
    kind = _kind(parameter, code)
    if modifier in MODIFIERS.get(kind, ()):
        if not isinstance(parameter, str) and not _has_side(parameter, modifier):
            raise unsupported(code, f"is not offered with :{modifier}: {_SIDES[modifier][1]}.")
        return
    if kind == "reference" and is_resource(modifier) and not isinstance(parameter, str):
        if modifier not in pointed_types(parameter):
            raise unknown_modifier(code, f"cannot point to a {modifier}.")
        return
    if modifier in _KNOWN:
        raise unknown_modifier(code, f"is of type {kind}, which does not go with :{modifier} in FHIR R4.")
    if is_resource(modifier):
        raise unknown_modifier(code, "is no reference, so it takes no resource type.")
    raise unknown_modifier(code, "has a modifier that FHIR R4 does not know.")
