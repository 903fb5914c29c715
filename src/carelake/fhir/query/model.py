"""A search as frozen data; the store makes SQL of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote

from carelake.fhir.definitions import resource_types
from carelake.fhir.query.values import Value
from carelake.fhir.search.parameters import SearchParameter

__all__ = ["COLUMN_TYPES", "Condition", "Has", "Include", "Query", "Sort", "is_followed", "pointed_types"]

COLUMN_TYPES = {"_id": "id", "_lastUpdated": "date", "_list": "list", "_has": "has", "": "any"}
"""What has no index rows of its own, and the type that it is read as; "" is a choice of conditions."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One parameter of a search; its values are alternatives.

    Attributes:
        param: a search parameter; or ``_id``, ``_lastUpdated``, ``_list``, ``_has``, or "" (see `any`).
        modifier: "", ``exact``, ``contains``, ``text``, ``not``, ``in``, ``not-in``, ``above``, ``below``,
            ``of-type``, ``identifier``, ``missing`` (see `missing`) or ``chain`` (see `chain`).
            The type in ``subject:Patient=1`` is in the values.
        values: alternatives, each of the class that `carelake.fhir.query.values` tells for type and modifier.
        missing: with the modifier ``missing``: whether to find what has no value, or what has one.
        chain: searches of the types that may be pointed to; the resource pointed to satisfies one of them.
        has: the resource is pointed to by one that satisfies a search; `param` is ``_has``.
        any: one of these must hold (membership in a compartment); `param` is "".
    """

    param: SearchParameter | str
    modifier: str = ""
    values: tuple[Value, ...] = ()
    missing: bool = False
    chain: tuple[Query, ...] = ()
    has: Has | None = None
    any: tuple[Condition, ...] = ()

    @property
    def code(self) -> str:
        """The parameter's code, or the column's name."""
        return self.param if isinstance(self.param, str) else self.param.code

    @property
    def type(self) -> str:
        """The parameter's search type, or the column's (`COLUMN_TYPES`)."""
        return COLUMN_TYPES[self.param] if isinstance(self.param, str) else self.param.type

    def looks_up(self) -> tuple[str, ...]:
        """Types of the resources that say what it means: lists, value sets, code systems."""
        if self.code == "_list":
            return ("List",)
        if self.modifier in ("in", "not-in"):
            return ("CodeSystem", "ValueSet")
        return ("CodeSystem",) if self.type == "token" and self.modifier in ("above", "below") else ()


@dataclass(frozen=True, slots=True)
class Has:
    """There is a resource of `type` that points here by `reference` and satisfies `query`."""

    type: str
    reference: SearchParameter
    query: Query


@dataclass(frozen=True, slots=True)
class Sort:
    """One key of the order: a search parameter, ``_id`` or ``_lastUpdated``."""

    param: SearchParameter | str
    descending: bool = False

    @property
    def code(self) -> str:
        """The parameter's code, or the column's name."""
        return self.param if isinstance(self.param, str) else self.param.code

    @property
    def type(self) -> str:
        """The parameter's search type, or the column's."""
        return COLUMN_TYPES[self.param] if isinstance(self.param, str) else self.param.type


@dataclass(frozen=True, slots=True)
class Include:
    """What comes along (https://hl7.org/fhir/R4/search.html#include).

    Attributes:
        source: the type that holds the reference; "" for every type (``_include=*``).
        parameter: the reference; None for every one of `source`.
        target: only what is of this type; "" for any.
        iterate: follow it from included resources too, and not from matches only.
    """

    source: str
    parameter: SearchParameter | None
    target: str = ""
    iterate: bool = False
    wild: tuple[SearchParameter, ...] = field(default=(), compare=False, repr=False)
    """The references of `source` that ``*`` stands for."""

    def kinds(self) -> frozenset[str]:
        """The types that it can touch; all of them for ``_include=*``."""
        if not self.source:
            return resource_types()
        if self.target:
            return frozenset({self.source, self.target})
        followed = self.wild if self.parameter is None else (self.parameter,)
        return frozenset({self.source}).union(*map(pointed_types, followed))


def is_followed(parameter: SearchParameter) -> bool:
    """Whether chains and includes go along a parameter: a reference.

    A canonical is one too: it names a resource by its url, and is followed to what has it, of whatever version.
    """
    return parameter.type == "reference"


def pointed_types(parameter: SearchParameter) -> tuple[str, ...]:
    """Types that a reference can point to, sorted."""
    return _pointed(tuple([use.target for use in parameter.uses]), parameter.targets)


@lru_cache(4096)
def _pointed(used: tuple[str, ...], targets: tuple[str, ...]) -> tuple[str, ...]:
    named = set(used if used and "" not in used else targets)
    return tuple(sorted(named if named and "Resource" not in named else resource_types()))


@dataclass(frozen=True, slots=True)
class Query:
    """A search: all conditions must hold.

    A search of several types has its conditions and sort keys in `parts`, one for each type (a parameter's sources
    differ by type), and none of its own; `each` gives the searches of one type in both cases.

    Attributes:
        types: resource types, in the order asked for; never empty.
        count: page size asked for, or None.
        total: ``none``, ``estimate``, ``accurate`` or "" where nothing was asked.
        summary: ``true``, ``text``, ``data``, ``count`` or "" (``_summary=false`` too).
        elements: names of top-level elements wanted, empty for all.
        ignored: names of what lenient reading left out, in order.
        compartment: type and id that the search is within, or None; `conditions` hold it already.
        pairs: names and values as they were given, without what was ignored.
    """

    types: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    sort: tuple[Sort, ...] = ()
    count: int | None = None
    total: str = ""
    summary: str = ""
    elements: tuple[str, ...] = ()
    includes: tuple[Include, ...] = ()
    revincludes: tuple[Include, ...] = ()
    ignored: tuple[str, ...] = field(default=(), compare=False)
    parts: tuple[Query, ...] = ()
    compartment: tuple[str, str] | None = field(default=None, compare=False)
    pairs: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    level: str = field(default="", compare=False)

    @property
    def type(self) -> str:
        """The type of a search of one type; "" for one of several."""
        return self.types[0] if len(self.types) == 1 else ""

    @property
    def count_only(self) -> bool:
        """Only the number of matches is wanted (``_summary=count`` or ``_count=0``)."""
        return self.summary == "count"

    def each(self) -> tuple[Query, ...]:
        """The searches of one type each that it is the union of."""
        return self.parts or (self,)

    def kinds(self) -> set[str]:
        """Every resource type whose content decides on the answer or can be in it; all types for ``_include=*``."""
        found = set(self.types)
        for query in self._within():
            found.update(query.types)
            for condition in query.conditions:
                found.update(condition.looks_up())
        for include in self.includes:
            found.update(include.kinds())
        for include in self.revincludes:  # what is pointed to is there already
            found.update((include.source,) if include.source else resource_types())
        return found

    def _within(self) -> Iterator[Query]:
        todo: list[Query] = [self]
        while todo:
            query = todo.pop()
            yield query
            todo += query.parts
            conditions = list(query.conditions)
            while conditions:
                condition = conditions.pop()
                todo += condition.chain
                conditions += condition.any
                if condition.has is not None:
                    todo.append(condition.has.query)

    def text(self) -> str:
        """The search as a text that `parse_text` reads as the same one, ``Patient?name=ada``."""
        pairs = "&".join(f"{quote(name, safe=_PLAIN)}={quote(value, safe=_PLAIN)}" for name, value in self.pairs)
        return (
            f"{self.level or self.type}?{pairs}"
            if pairs or not (self.level or self.type)
            else self.level or self.type
        )


_PLAIN = "/:,|$*!'()@.;-_~"
