"""What comes along with matches: ``_include`` and ``_revinclude`` (https://hl7.org/fhir/R4/search.html#include)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carelake.fhir.definitions import resource_types
from carelake.fhir.query import Include, Query
from carelake.fhir.search import SearchParameter, Use
from carelake.store.search.building import Build, Row, every
from carelake.store.search.compiling import Compiler

__all__ = ["Includes"]

_CHUNK = 500
_URLS = frozenset({"canonical", "uri"})

_Found = dict[int, tuple[str, str]]
"""``seq`` of versions, with type and id."""


@dataclass(frozen=True, slots=True)
class _Link:
    """One reference of one type.

    Attributes:
        source: the type that holds it.
        target: the only type that counts, "" for any.
        types: what a canonical may name.
    """

    source: str
    params: tuple[int, ...]
    target: str
    types: tuple[str, ...] = ()


class Includes:
    """Finds what comes along, each once, within the scope and up to a limit.

    Args:
        parameters: search parameters of a type, by code.
        visible: whether resources of a type may be shown at all.
    """

    def __init__(
        self,
        compiler: Compiler,
        parameters: Callable[[str], Mapping[str, SearchParameter]],
        visible: Callable[[str], bool],
        limit: int,
    ) -> None:
        self._compiler = compiler
        self._parameters = parameters
        self._visible = visible
        self._limit = limit
        self._most = limit + 1
        self.cut = False
        """Whether something was left out because of the limit."""

    def find(self, query: Query, matches: Sequence[int]) -> list[int]:
        """``seq`` of what comes along with these matches, in the order it was found."""
        if not matches or not (query.includes or query.revincludes):
            return []
        known = self._named(matches)
        # Whatever is there already may come first, once more.
        self._most = self._limit + len(known) + 1
        found: _Found = {}
        fresh = known
        first = True
        while fresh and not self.cut:
            more: _Found = {}
            for include, back in self._asked(query, first=first):
                for seq, named in (self._back if back else self._forth)(include, fresh):
                    if seq not in known and seq not in found and seq not in more:
                        if len(found) + len(more) >= self._limit:
                            self.cut = True
                            break
                        more[seq] = named
            found |= more
            fresh, first = more, False
        return list(found)

    @staticmethod
    def _asked(query: Query, *, first: bool) -> Iterator[tuple[Include, bool]]:
        for include in dict.fromkeys(query.includes):
            if first or include.iterate:
                yield include, False
        for include in dict.fromkeys(query.revincludes):
            if first or include.iterate:
                yield include, True

    def _named(self, seqs: Sequence[int]) -> _Found:
        found: _Found = {}
        for start in range(0, len(seqs), _CHUNK):
            build = Build(self._compiler.dialect)
            within = build.within("v.seq", seqs[start : start + _CHUNK])
            rows = build.run(self._compiler.tx, f"SELECT v.seq, v.kind, v.id FROM resource_version v WHERE {within}")
            kinds = self._compiler.symbols.texts(self._compiler.tx, {kind for _, kind, _ in rows})
            found.update({int(seq): (kinds[kind], str(key)) for seq, kind, key in rows})
        return found

    # -- what matches point to ------------------------------------------------------------------------------------

    def _forth(self, include: Include, of: _Found) -> Iterator[tuple[int, tuple[str, str]]]:
        sources = sorted({kind for kind, _ in of.values()})
        links = [link for name in sources if include.source in ("", name) for link in self._links(name, include)]
        wanted: dict[str, dict[str, None]] = {}
        for link in links:
            seqs = [seq for seq, (kind, _) in of.items() if kind == link.source]
            for kind, key in self._pointed(link, seqs):
                wanted.setdefault(kind, {})[key] = None
        for kind, ids in wanted.items():
            if self._visible(kind):
                yield from ((seq, (kind, key)) for seq, key in self._current(kind, list(ids)))
        for link in links:
            for kind in link.types:
                if self._visible(kind):
                    yield from self._joined(
                        link.params, kind, [seq for seq, one in of.items() if one[0] == link.source]
                    )

    def _joined(
        self, params: tuple[int, ...], kind: str, seqs: Sequence[int], *, back: str = ""
    ) -> Iterator[tuple[int, tuple[str, str]]]:
        """What canonicals of some versions name, of a type; with ``back``, what of that type names `kind`."""
        scope = self._compiler.scope(self._compiler.kind(back or kind))
        urls = self._compiler.urls(kind)
        for start in range(0, len(seqs) if urls else 0, _CHUNK):
            build = Build(self._compiler.dialect)
            here, there = ("u", "l") if back else ("l", "u")
            tests = every(
                (
                    build.within(f"{here}.seq", seqs[start : start + _CHUNK]),
                    f"{build.numbers('l.param', params)} AND {build.numbers('u.param', urls)}",
                    build.equal("u.value", "l.target") if here == "l" else build.equal("l.target", "u.value"),
                    *(node.holds(build, Row(f"{there}.seq")) for node in scope),
                )
            )
            tables = "ix_uri u CROSS JOIN ix_reference l" if back else "ix_reference l CROSS JOIN ix_uri u"
            sql = f"SELECT DISTINCT {there}.seq FROM {tables} WHERE {tests} ORDER BY 1 LIMIT {build(self._most)}"
            found = [int(seq) for (seq,) in build.run(self._compiler.tx, sql)]
            yield from self._named(found).items()

    def _pointed(self, link: _Link, seqs: Sequence[int]) -> Iterator[tuple[str, str]]:
        tx = self._compiler.tx
        for start in range(0, len(seqs), _CHUNK):
            build = Build(self._compiler.dialect)
            tests = every(
                (
                    build.within("l.seq", seqs[start : start + _CHUNK]),
                    build.numbers("l.param", link.params),
                    f"l.type = {build(self._compiler.term(link.target))}" if link.target else "",
                )
            )
            rows = build.run(tx, f"SELECT l.seq, l.type, l.target FROM ix_reference l WHERE {tests} ORDER BY l.seq")
            kinds = self._compiler.symbols.texts(tx, {kind for _, kind, _ in rows})
            yield from ((kinds[kind], str(key)) for _, kind, key in rows if kind)

    def _current(self, kind: str, ids: Sequence[str]) -> Iterator[tuple[int, str]]:
        symbol = self._compiler.kind(kind)
        for start in range(0, len(ids), _CHUNK):
            build = Build(self._compiler.dialect)
            tests = every(
                (
                    f"r.kind = {build(symbol)} AND NOT r.deleted",
                    build.within("r.id", ids[start : start + _CHUNK]),
                    *(node.holds(build, Row("r.seq", "r.id")) for node in self._compiler.scope(symbol)),
                )
            )
            rows = build.run(self._compiler.tx, f"SELECT r.seq, r.id FROM resource r WHERE {tests} ORDER BY r.seq")
            yield from ((int(seq), str(key)) for seq, key in rows)

    # -- what points to matches -----------------------------------------------------------------------------------

    def _back(self, include: Include, of: _Found) -> Iterator[tuple[int, tuple[str, str]]]:
        sources = (
            [include.source] if include.source else [one for one in sorted(resource_types()) if self._visible(one)]
        )
        by_kind: dict[str, list[str]] = {}
        for kind, key in of.values():
            by_kind.setdefault(kind, []).append(key)
        for source in sources:
            if self._compiler.kind(source) < 0:
                continue
            for target, ids in by_kind.items():
                if include.target in ("", target):
                    yield from self._pointing(include, source, target, ids)
                    seqs = [seq for seq, (kind, _) in of.items() if kind == target]
                    for link in self._links(source, include, target):
                        if target in link.types:
                            yield from self._joined(link.params, target, seqs, back=source)

    def _pointing(
        self, include: Include, source: str, target: str, ids: Sequence[str]
    ) -> Iterator[tuple[int, tuple[str, str]]]:
        kind = self._compiler.kind(source)
        params = tuple(sorted({p for link in self._links(source, include, target) for p in link.params}))
        for start in range(0, len(ids) if params else 0, _CHUNK):
            build = Build(self._compiler.dialect)
            tests = every(
                (
                    build.numbers("l.param", params),
                    build.among("l.target", ids[start : start + _CHUNK]),
                    f"l.type = {build(self._compiler.term(target))}",
                    *(node.holds(build, Row("l.seq")) for node in self._compiler.scope(kind)),
                )
            )
            sql = f"SELECT DISTINCT l.seq FROM ix_reference l WHERE {tests} ORDER BY l.seq LIMIT "
            seqs = [int(seq) for (seq,) in build.run(self._compiler.tx, sql + build(self._most))]
            yield from self._named(seqs).items()

    def _links(self, source: str, include: Include, target: str = "") -> Iterator[_Link]:
        """The references that an include follows from a type; of a target, those that may point to it."""
        if include.parameter is not None:
            followed = [include.parameter] if include.source == source else []
        else:
            followed = [one for one in self._parameters(source).values() if one.type == "reference"]
        kind = self._compiler.kind(source)
        known = self._compiler.params(kind, [use.source for one in followed for use in one.uses])
        for one in followed:
            for use in one.uses:
                param = known.get(use.source.name)
                told = include.target or use.target
                if param is None or (use.target and include.target and use.target != include.target):
                    continue
                if target and told and told != target:
                    continue
                yield _Link(source, (param,), told, self._named_by_url(one, use, include.target))

    @staticmethod
    def _named_by_url(parameter: SearchParameter, use: Use, target: str) -> tuple[str, ...]:
        """Types whose resources a canonical may name."""
        if use.target or _URLS.isdisjoint(use.source.kinds):
            return ()
        return tuple(name for name in parameter.targets if target in ("", name))
