"""From a query to its tree of conditions: names become symbols, and the permit's scope joins each type on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from sqlalchemy import Connection

from carelake.core.permit import Permit
from carelake.fhir.query import (
    CompositeValue,
    Condition,
    DateValue,
    NearValue,
    NumberValue,
    Query,
    ReferenceValue,
    StringValue,
    TokenValue,
    UriValue,
    WordsValue,
)
from carelake.fhir.search import SearchParameter, Source, Use, parameters
from carelake.fhir.search.sources import SPANS
from carelake.fhir.terminology import Terminology
from carelake.store.consents import shown_to
from carelake.store.search import lookups, ranges
from carelake.store.search.canonicals import ByUrl, HasByUrl
from carelake.store.search.columns import Ids, Seqs, Updated
from carelake.store.search.links import Chain, Has, Listed
from carelake.store.search.nodes import All, Arm, Every, Node, Not, Nothing, any_of, rows_of
from carelake.store.search.parts import Parts
from carelake.store.search.scoping import scope_nodes
from carelake.store.search.units import Units
from carelake.store.search.windows import of_class, windows
from carelake.store.sights import sight_of
from carelake.store.symbols import TERM, Symbols, kinds_of, params_of

__all__ = ["Compiler"]

_URLS = frozenset({"canonical", "uri"})
_MANY = 40
"""More alternatives than this are looked up as one list."""
_TEXTS = 5000
"""Codes whose texts a search with ``:text`` may find."""


class Compiler:
    """Compiles for one permit in one transaction.

    Args:
        terminology: what ``:in``, ``:above`` and so on ask.
    """

    def __init__(self, permit: Permit, tx: Connection, symbols: Symbols, terminology: Terminology) -> None:
        self.permit, self.tx, self.symbols = permit, tx, symbols
        self._terminology = terminology
        self.shown = shown_to(permit, tx, symbols)
        self._bounded = self.shown is not None or sight_of(permit).bounded
        self._scopes: dict[int, tuple[Node, ...]] = {}
        self._units = Units(tx, symbols)
        self._kinds: dict[str, int] = {}
        self._terms: dict[str, int] = {}
        self.dialect = tx.dialect.name

    # -- names ----------------------------------------------------------------------------------------------------

    def prime(self, names: Iterable[str]) -> None:
        """Look types up together."""
        listed = list(names)
        found = self.symbols.find(self.tx, kinds_of(self.permit.account), listed)
        self._kinds.update({name: found.get(name, -1) for name in listed})

    def kind(self, name: str) -> int:
        """Symbol of a type in the permit's account; -1 where there is none of it."""
        if name not in self._kinds:
            self.prime((name,))
        return self._kinds[name]

    def term(self, text: str) -> int:
        """Symbol of a code system, or of a type that references point to; -1 for none."""
        found = self._terms.get(text)
        if found is None:
            found = self._terms[text] = self.symbols.key(self.tx, TERM, text)
        return found

    def params(self, kind: int, sources: Iterable[Source]) -> dict[str, int]:
        """Symbols of sources by name, of those that have rows."""
        return self.symbols.find(self.tx, params_of(kind), [source.name for source in sources])

    def scope(self, kind: int) -> tuple[Node, ...]:
        """What the permit's scope asks of resources of a type."""
        if not self._bounded:
            return ()
        found = self._scopes.get(kind)
        if found is None:
            found = self._scopes[kind] = scope_nodes(self, kind)
        return found

    # -- conditions -----------------------------------------------------------------------------------------------

    def query(self, query: Query) -> All:
        """The tree of a search of one type."""
        kind = self.kind(query.type)
        # All of it is read, also where nothing can match: an error must not depend on what is there.
        parts = self.conditions(query, kind)
        if kind < 0:
            return All(Every(kind), (Nothing(),))
        return All(Every(kind), (*self.scope(kind), *parts))

    def conditions(self, query: Query, kind: int) -> list[Node]:
        """The nodes of a search's own conditions, without the scope."""
        dates, others = windows(query)
        parts = [self._dates(kind, uses, values) for uses, values in dates]
        return parts + [self.condition(query.type, kind, one) for one in others]

    def condition(self, name: str, kind: int, one: Condition) -> Node:
        """The node of a condition on resources of a type."""
        if one.any:
            return any_of(self.condition(name, kind, each) for each in one.any)
        if one.has is not None:
            return self._has(name, kind, one)
        if isinstance(one.param, str):
            return self._column(name, kind, one, one.param)
        if one.modifier == "missing":
            present = self._present(kind, one.param)
            return Not(present) if one.missing else present
        if one.chain:
            return any_of(self._chain(kind, one.param, each) for each in one.chain)
        found = self._valued(name, kind, one, one.param)
        return Not(found) if one.modifier in ("not", "not-in") else found

    def _column(self, name: str, kind: int, one: Condition, column: str) -> Node:
        ids = tuple(dict.fromkeys(value.code or "" for value in one.values if isinstance(value, TokenValue)))
        if one.modifier == "missing":  # no resource is without an id and a time
            return Nothing() if one.missing else All(Every(kind), ())
        if column == "_lastUpdated":
            return Updated(kind, tuple(value for value in one.values if isinstance(value, DateValue)))
        if column == "_list":
            lists = self.kind("List")
            found = lookups.currents(self.tx, lists, ids, self.scope(lists))
            items = self._params_to(lists, parameters("List")["item"].uses, name)
            return Listed(kind, self.term(name), items, tuple(found)) if found and items else Nothing()
        return Not(Ids(kind, ids)) if one.modifier == "not" else Ids(kind, ids)

    def urls(self, name: str) -> tuple[int, ...]:
        """Symbols of the sources of a type's ``url``, by which canonicals name its resources."""
        parameter = parameters(name).get("url")
        uses = parameter.uses if parameter is not None else ()
        return tuple(sorted(set(self.params(self.kind(name), [use.source for use in uses]).values())))

    def _chain(self, kind: int, parameter: SearchParameter, inner: Query) -> Node:
        params, pointed = self._params_to(kind, parameter.uses, inner.type), self.query(inner)
        found: list[Node] = [Chain(kind, params, self.term(inner.type), pointed)] if params else []
        canonical, urls = self._canonical(kind, parameter.uses), self.urls(inner.type)
        if canonical and urls:
            found.append(ByUrl(canonical, urls, pointed))
        return any_of(found)

    def _has(self, name: str, kind: int, one: Condition) -> Node:
        has = one.has
        assert has is not None
        params, pointing = self._params_to(self.kind(has.type), has.reference.uses, name), self.query(has.query)
        found: list[Node] = [Has(kind, self.term(name), params, pointing)] if params else []
        canonical, urls = self._canonical(self.kind(has.type), has.reference.uses), self.urls(name)
        if canonical and urls:
            found.append(HasByUrl(urls, canonical, pointing))
        return any_of(found)

    def _canonical(self, kind: int, uses: Sequence[Use]) -> tuple[int, ...]:
        """Symbols of those sources that are canonicals: they name a resource by its url."""
        fit = [use.source for use in uses if not use.target and not _URLS.isdisjoint(use.source.kinds)]
        return tuple(sorted(set(self.params(kind, fit).values())))

    def _params_to(self, kind: int, uses: Sequence[Use], target: str) -> tuple[int, ...]:
        fit = [use.source for use in uses if use.target in ("", target)]
        return tuple(sorted(set(self.params(kind, fit).values())))

    def _present(self, kind: int, parameter: SearchParameter) -> Node:
        """The parameter has a value of any kind."""
        if not parameter.components:
            return self._filled(kind, parameter.uses)
        roots = [self._filled(kind, uses) for uses in parameter.root]
        parts = [self._filled(kind, [Use(source)]) for source in parameter.parts]
        return any_of(All(Every(kind), tuple(each)) for each in (roots, parts) if each)

    def _filled(self, kind: int, uses: Sequence[Use]) -> Node:
        arms = []
        for use in uses:
            table = ranges.TABLES[use.source.type]
            for param in self.params(kind, (use.source, *use.source.spans)).values():
                if use.target:
                    arms.append(ranges.pointing(param, self.term(use.target)))
                else:
                    arms.append(ranges.everything(table, param))
        return rows_of(arms)

    def _valued(self, name: str, kind: int, one: Condition, parameter: SearchParameter) -> Node:
        match parameter.type:
            case "token":
                return self._token(kind, one, parameter)
            case "reference" if one.modifier == "identifier":
                return self._tokens(kind, _sides(parameter, "identifier"), of_class(one.values, TokenValue))
            case "reference":
                return self._reference(name, kind, one, parameter)
            case "composite":
                return any_of(
                    self._composite(kind, parameter, value) for value in of_class(one.values, CompositeValue)
                )
            case "special":
                return self._special(kind, one, parameter)
            case "string" if parameter.phonetic:
                return self._special(kind, one, parameter)
        return self._simple(kind, parameter.uses, one.values, one.modifier)

    def _simple(self, kind: int, uses: Sequence[Use], values: Sequence[Any], modifier: str = "") -> Node:
        """Alternatives of one simple value each, in any of some sources."""
        tokens = of_class(values, TokenValue)
        if tokens:
            return self._tokens(kind, [use.source for use in uses], tokens)
        dates = of_class(values, DateValue)
        if dates:
            return rows_of([arm for date in dates for arm in self._moments(kind, uses, [date])])
        params = self.params(kind, [use.source for use in uses])
        arms: list[Arm] = []
        for use in uses:
            param = params.get(use.source.name)
            if param is None:
                continue
            if modifier == "contains":
                arms += ranges.containing(param, of_class(values, StringValue))
                continue
            for value in values:
                arms += self._arms(param, use, value, modifier)
        return rows_of(arms)

    def _arms(self, param: int, use: Use, value: Any, modifier: str) -> list[Arm]:
        match value:
            case StringValue():
                arm = ranges.string(param, value, modifier)
                return [arm] if arm is not None else []
            case NumberValue():
                return self._units.arms("ix_quantity", param, value, self.term)
            case ReferenceValue():
                return self._targets(param, use, value)
            case UriValue():
                return ranges.uris(param, value.value, modifier)
        raise TypeError(f"no clause for {type(value).__name__}")

    def _dates(self, kind: int, uses: Sequence[Use], values: Sequence[DateValue]) -> Node:
        """Rows that meet all of the values."""
        return rows_of(self._moments(kind, uses, values))

    def _moments(self, kind: int, uses: Sequence[Use], values: Sequence[DateValue]) -> list[Arm]:
        """The ranges of rows that meet all of the values, whatever their length."""
        arms = []
        for use in uses:
            params = self.params(kind, (use.source, *use.source.spans))
            for longest, suffix in SPANS:
                param = params.get(use.source.name + suffix)
                if param is not None:
                    arms.append(ranges.date(param, values, longest))
        return arms

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _token(self, kind: int, one: Condition, parameter: SearchParameter) -> Node:
        sources = [use.source for use in parameter.uses]
        match one.modifier:
            case "text":
                return self._texts(kind, parameter, of_class(one.values, StringValue))
            case "of-type":
                return self._tokens(kind, _sides(parameter, "of_type"), of_class(one.values, TokenValue))
            case "in" | "not-in":
                urls = dict.fromkeys(value.value for value in of_class(one.values, UriValue))
                return self._coded(kind, sources, lookups.bounded(self._terminology.expand(url) for url in urls))
            case "above" | "below":
                walk = self._terminology.above if one.modifier == "above" else self._terminology.below
                asked = dict.fromkeys(of_class(one.values, TokenValue))
                found = (walk(value.system or "", value.code or "") for value in asked)
                return self._coded(kind, sources, lookups.bounded(found))
        return self._tokens(kind, sources, of_class(one.values, TokenValue))

    def _coded(self, kind: int, sources: Sequence[Source], values: Sequence[TokenValue]) -> Node:
        """Codes of systems; elements that are codes alone may not tell their system."""
        plain = [source for source in sources if source.kinds == ("code",)]
        bare = [TokenValue("", value.code) for value in values if value.code is not None]
        found = self._tokens(kind, sources, values)
        return any_of([found, self._tokens(kind, plain, bare)]) if plain else found

    def _tokens(self, kind: int, sources: Sequence[Source], values: Sequence[TokenValue]) -> Node:
        params = self.params(kind, sources)
        systems = {value.system: self.term(value.system) for value in set(values) if value.system is not None}
        known = [value for value in dict.fromkeys(values) if value.system is None or systems[value.system] >= 0]
        arms: list[Arm] = []
        for param in params.values():
            if len(known) <= _MANY:
                arms += [ranges.token(param, value, _system(systems, value)) for value in known]
            else:
                arms += _listed(param, known, systems)
        return rows_of(arms)

    def _texts(self, kind: int, parameter: SearchParameter, values: Sequence[StringValue]) -> Node:
        """Texts start with the value: those of concepts, and those of codes, which are looked up first."""
        texts = self._simple(kind, [Use(source) for source in _sides(parameter, "text")], values)
        arms: list[Arm] = []
        for param in self.params(kind, [use.source for use in parameter.uses]).values():
            found = lookups.displayed(self.tx, param, values, _TEXTS)
            by_system: dict[int, list[str]] = {}
            for system, code in found:
                by_system.setdefault(system, []).append(code)
            arms += [ranges.codes(param, system, codes) for system, codes in sorted(by_system.items())]
        return any_of([texts, rows_of(arms)])

    # -- references -----------------------------------------------------------------------------------------------

    def _reference(self, name: str, kind: int, one: Condition, parameter: SearchParameter) -> Node:
        if one.modifier not in ("above", "below"):
            return self._simple(kind, parameter.uses, one.values)
        params = self.params(kind, [use.source for use in parameter.uses])
        arms: list[Arm] = []
        for value in of_class(one.values, ReferenceValue):
            if value.url:
                arms += [a for p in params.values() for a in ranges.canonicals(p, value.url, one.modifier)]
                continue
            target = value.type or name
            tree = lookups.Hierarchy.of(self, target, parameter if target == name else None)
            ids = tree.walk(value.id, up=one.modifier == "above")
            arms += [ranges.targets(param, ids, self.term(target)) for param in params.values()]
        return rows_of(arms)

    def _targets(self, param: int, use: Use, value: ReferenceValue) -> list[Arm]:
        told = value.type or use.target
        if value.type and use.target and value.type != use.target:
            return []
        symbol = self.term(told) if told else None
        return [] if symbol is not None and symbol < 0 else [ranges.reference(param, value, symbol)]

    # -- composites and the rest ----------------------------------------------------------------------------------

    def _composite(self, kind: int, parameter: SearchParameter, value: CompositeValue) -> Node:
        found: list[Node] = []
        if parameter.root:
            each = zip(parameter.root, value.parts, strict=True)
            found.append(All(Every(kind), tuple(self._simple(kind, uses, [part]) for uses, part in each)))
        if parameter.parts:
            params = self.params(kind, parameter.parts)
            choices = [
                self._part(params.get(source.name), part)
                for source, part in zip(parameter.parts, value.parts, strict=True)
            ]
            found += [Parts(tuple(chosen)) for chosen in product(*choices)]
        return any_of(found)

    def _part(self, param: int | None, value: Any) -> list[Arm]:
        """Ranges of a component's rows."""
        if param is None:
            return []
        match value:
            case TokenValue():
                system = None if value.system is None else self.term(value.system)
                return [ranges.part_token(param, value, system)]
            case ReferenceValue():
                return [ranges.part_reference(param, value, self.term(value.type) if value.type else None)]
            case StringValue():
                return [ranges.part_string(param, value)] if value.folded else []
            case NumberValue():
                return self._units.arms("ix_part", param, value, self.term)
            case DateValue():
                return [ranges.part_date(param, value)]
        return [ranges.part_text(param, value.value)]

    def _special(self, kind: int, one: Condition, parameter: SearchParameter) -> Node:
        params = list(self.params(kind, [use.source for use in parameter.uses]).values())
        near = of_class(one.values, NearValue)
        if near:
            return Seqs(tuple(sorted(lookups.near(self.tx, params, near))))
        found = [
            All(Every(kind), tuple(rows_of([ranges.word(param, word) for param in params]) for word in value.words))
            for value in of_class(one.values, WordsValue)
        ]
        return any_of(found) if params else Nothing()


def _sides(parameter: SearchParameter, side: str) -> list[Source]:
    return [source for source in (getattr(use.source, side) for use in parameter.uses) if source is not None]


def _system(systems: dict[str, int], value: TokenValue) -> int | None:
    return None if value.system is None else systems[value.system]


def _listed(param: int, values: Sequence[TokenValue], systems: dict[str, int]) -> list[Arm]:
    """Lists of codes by system, None for any; whole systems stand alone."""
    by_system: dict[int | None, list[str]] = {}
    arms: list[Arm] = []
    for value in values:
        if value.code is None:
            arms.append(ranges.token(param, value, _system(systems, value)))
        else:
            by_system.setdefault(_system(systems, value), []).append(value.code)
    return arms + [ranges.codes(param, system, codes) for system, codes in by_system.items()]
