"""Building the index rows of resources that were kept before a source was known, while others read and write.

First the account's own SearchParameter resources are registered: from then on every writer indexes by them. What is
left are older versions, up to the last seq of that moment: they are walked in pages, each one transaction with its
place in ``index_state``, so that a kill costs one page. A version that is replaced meanwhile loses its rows by its
``seq``, built or not; the new one gets them from its writer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, exists, false, func, select

from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound
from carelake.core.permit import Permit
from carelake.fhir.search import Registry, SearchDefinition, SearchParameter, extract
from carelake.fhir.search.custom import definition
from carelake.store.indexed import BUILDING, READY, Indexed, State, with_sides
from carelake.store.indexing import Displays, IndexRows
from carelake.store.rows import Version, read_versions
from carelake.store.symbols import Symbols, kinds_of, params_of
from carelake.store.tables import BY_SEQ, resource
from carelake.vault.workspace import Vault

__all__ = ["Difference", "ReindexReport", "Reindexer"]

_PAGE = 1000
_Row = resource.c

_NEXT = (
    select(_Row.seq)
    .where(_Row.kind == bindparam("k"), _Row.deleted == false())
    .where(_Row.seq > bindparam("after"), _Row.seq <= bindparam("to"))
    .order_by(_Row.seq)
    .limit(_PAGE)
)
_COUNT = (
    select(func.count())
    .select_from(resource)
    .where(_Row.kind == bindparam("k"), _Row.deleted == false())
    .where(_Row.seq > bindparam("after"), _Row.seq <= bindparam("to"))
)
_LAST = select(func.max(_Row.seq)).where(_Row.kind == bindparam("k"))
_TAKE_OUT = [
    delete(table).where(
        table.c.seq.in_(bindparam("seqs", expanding=True)), table.c.param.in_(bindparam("params", expanding=True))
    )
    for table in BY_SEQ
]
_ROWS = [
    select(*table.c).where(
        table.c.seq.in_(bindparam("seqs", expanding=True)), table.c.param.in_(bindparam("params", expanding=True))
    )
    for table in BY_SEQ
]
_ORPHANS = [
    select(table.c.param, func.count())
    .where(table.c.param.in_(bindparam("params", expanding=True)))
    .where(~exists().where(_Row.kind == bindparam("k"), _Row.seq == table.c.seq, _Row.deleted == false()))
    .group_by(table.c.param)
    for table in BY_SEQ
]
_CHUNK = 500

Progress = Callable[[int, int], None]


class Difference(msgspec.Struct):
    """Rows of a source that are not there and should be, or the other way round."""

    type: str
    source: str
    missing: int = 0
    extra: int = 0


class ReindexReport(msgspec.Struct):
    """What a reindex did or saw.

    Attributes:
        registered: urls of the account's own definitions that are in force.
        refused: urls of those that are not, with the reason.
        sources: how many sources were built.
        resources: how many versions were walked.
        differences: what `verify` found.
    """

    registered: list[str] = []
    refused: dict[str, str] = {}
    sources: int = 0
    resources: int = 0
    differences: list[Difference] = []


class Reindexer:
    """Registers definitions, and builds and verifies what they need."""

    def __init__(self, vault: Vault, symbols: Symbols, indexed: Indexed) -> None:
        self._vault, self._symbols, self._indexed = vault, symbols, indexed
        self._displays = Displays()

    def reindex(
        self, permit: Permit, parameter: str = "", progress: Progress = lambda done, of: None
    ) -> ReindexReport:
        """Build what is not built, or one parameter anew.

        Args:
            parameter: ``Type.code`` or ``code``; "" for everything that is not built.
            progress: called after each page with the number of versions walked, and of those to walk.

        Raises:
            NotFound: ``store.no_such_parameter``.
        """
        report = ReindexReport()
        with self._vault.database.transaction(permit) as tx:
            report.registered, report.refused = self._register(permit, tx)
            wanted = self._wanted(permit, tx, parameter)
            for kind, (_, names) in wanted.items():
                self._mark(permit, tx, kind, names, anew=bool(parameter))
        with self._vault.database.reading(permit) as tx:
            jobs = self._jobs(permit, tx, wanted)
            total = sum(tx.execute(_COUNT, {"k": k, "after": a, "to": t}).scalar_one() for _, k, a, t, _ in jobs)
        for resource_type, kind, _, goal, names in jobs:
            for walked in self._build(permit, resource_type, kind, goal, names):
                report.resources += walked
                progress(report.resources, total)
            report.sources += len(names)
        permit.log.count(reindexed=report.resources)
        return report

    def verify(
        self, permit: Permit, parameter: str = "", progress: Progress = lambda done, of: None
    ) -> ReindexReport:
        """Extract every current version again and compare: of what is built, each row must be there, and no other."""
        report = ReindexReport()
        found: dict[tuple[str, str], Difference] = {}
        with self._vault.database.reading(permit) as tx:
            registry = self._indexed.registry(tx, permit.account)
            report.registered = [one.url for one in registry.custom]
            wanted = self._ready(permit, tx, self._wanted(permit, tx, parameter))
            total = sum(tx.execute(_COUNT, {"k": k, "after": 0, "to": _TOP}).scalar_one() for k in wanted)
        for kind, (resource_type, names) in wanted.items():
            report.sources += len(names)
            pages = chain(self._compare(permit, kind, resource_type, names), self._orphans(permit, kind, names))
            for walked, counted in pages:
                for (source, missing), count in counted.items():
                    one = found.setdefault((resource_type, source), Difference(resource_type, source))
                    if missing:
                        one.missing += count
                    else:
                        one.extra += count
                report.resources += walked
                progress(report.resources, total)
        report.differences = [found[key] for key in sorted(found)]
        return report

    # -- definitions ----------------------------------------------------------------------------------------------

    def _register(self, permit: Permit, tx: Connection) -> tuple[list[str], dict[str, str]]:
        """The account's active SearchParameter resources become what writers index by."""
        given = [one for one in self._parameters(permit, tx) if one.get("status") == "active"]
        taken: dict[str, SearchDefinition] = {}
        refused: dict[str, str] = {}
        # Twice, so that a composite finds the components that come after it.
        for _ in range(2):
            for one in given:
                url = str(one.get("url", ""))
                try:
                    taken[url] = definition(one, tuple(taken.values()))
                    refused.pop(url, None)
                except Invalid as error:
                    refused[url] = error.message
        self._indexed.register(tx, permit.account, taken.values())
        registry = self._indexed.registry(tx, permit.account)
        for resource_type in self._types(permit, tx).values():
            refused |= {url: why for url, why in registry.shadowed(resource_type).items() if url in taken}
        return sorted(taken.keys() - refused.keys()), dict(sorted(refused.items()))

    def _parameters(self, permit: Permit, tx: Connection) -> Iterator[dict[str, Any]]:
        kind = self._symbols.key(tx, kinds_of(permit.account), "SearchParameter")
        after = 0
        while seqs := list(tx.execute(_NEXT, {"k": kind, "after": after, "to": _TOP}).scalars()):
            for one in read_versions(permit, tx, self._vault, self._symbols, seqs):
                if one.text:
                    yield canonical.load(one.text)
            after = seqs[-1]

    def _types(self, permit: Permit, tx: Connection) -> dict[int, str]:
        found = self._symbols.everything(tx, kinds_of(permit.account))
        return {key: found_type for found_type, key in sorted(found.items())}

    def _wanted(self, permit: Permit, tx: Connection, parameter: str) -> dict[int, tuple[str, list[str]]]:
        """By the symbol of its type: the type, and the names of the sources that are asked for."""
        registry = self._indexed.registry(tx, permit.account)
        told, _, code = parameter.rpartition(".")
        types = self._types(permit, tx)
        wanted = {}
        for kind, resource_type in types.items():
            if not parameter:
                wanted[kind] = (resource_type, sorted(registry.sources(resource_type)))
            elif told in ("", resource_type) and (found := registry.parameters(resource_type).get(code)):
                wanted[kind] = (resource_type, sorted(_names(found)))
        if parameter and not wanted:
            raise NotFound(
                "store.no_such_parameter",
                "No type that the record holds has this search parameter, or it is not registered: expected CODE or "
                "TYPE.CODE of the standard's or of an active SearchParameter resource.",
            )
        return wanted

    # -- building -------------------------------------------------------------------------------------------------

    def _mark(self, permit: Permit, tx: Connection, kind: int, names: list[str], *, anew: bool) -> None:
        """Note that these sources are being built; with ``anew`` also those that were built."""
        params = self._symbols.make(tx, params_of(kind), names)
        states = self._indexed.states(tx, permit.account, kind)
        goal = tx.execute(_LAST, {"k": kind}).scalar() or 0
        missing = [
            param for param in params.values() if param not in states or (anew and states[param].state == READY)
        ]
        if missing:
            self._indexed.put(tx, permit.account, kind, dict.fromkeys(missing, State(BUILDING, 0, goal)))
        if not anew:
            gone = states.keys() - params.values()
            if gone:
                self._indexed.drop(tx, permit.account, kind, gone)

    def _jobs(
        self, permit: Permit, tx: Connection, wanted: Mapping[int, tuple[str, list[str]]]
    ) -> list[tuple[str, int, int, int, list[str]]]:
        """Type, its symbol, from and to which seq, and the sources: those that are equally far go together."""
        jobs = []
        for kind, (resource_type, names) in wanted.items():
            params = self._symbols.find(tx, params_of(kind), names)
            states = self._indexed.states(tx, permit.account, kind)
            groups: dict[tuple[int, int], list[str]] = {}
            for name in names:
                state = states[params[name]]
                if state.state == BUILDING:
                    groups.setdefault((state.position, state.goal), []).append(name)
            jobs += [(resource_type, kind, after, to, group) for (after, to), group in sorted(groups.items())]
        return jobs

    def _build(self, permit: Permit, resource_type: str, kind: int, goal: int, names: list[str]) -> Iterator[int]:
        done = False
        while not done:
            with self._vault.database.transaction(permit) as tx:
                walked, done = self._page(permit, tx, resource_type, kind, goal, names)
            yield walked

    def _page(
        self, permit: Permit, tx: Connection, resource_type: str, kind: int, goal: int, names: list[str]
    ) -> tuple[int, bool]:
        """One page of older versions; how many, and whether it was the last."""
        registry = self._indexed.current(tx, permit.account)
        params = self._symbols.find(tx, params_of(kind), names)
        states = self._indexed.states(tx, permit.account, kind)
        # Another reindex, or another carelake, may have been at it since the page before.
        left = {name: states[key] for name, key in params.items() if key in states}
        left = {name: state for name, state in left.items() if state.state == BUILDING and state.goal == goal}
        if not left:
            return 0, True
        after = min(state.position for state in left.values())
        seqs = list(tx.execute(_NEXT, {"k": kind, "after": after, "to": goal}).scalars())
        self._fill(permit, tx, registry, resource_type, kind, seqs, left)
        done = len(seqs) < _PAGE
        state = State(READY, goal, goal) if done else State(BUILDING, seqs[-1], goal)
        self._indexed.put(tx, permit.account, kind, {params[name]: state for name in left})
        return len(seqs), done

    def _fill(
        self,
        permit: Permit,
        tx: Connection,
        registry: Registry,
        resource_type: str,
        kind: int,
        seqs: list[int],
        names: Collection[str],
    ) -> None:
        told = self._symbols.make(tx, params_of(kind), with_sides(registry, resource_type, names))
        for start in range(0, len(seqs), _CHUNK):
            for statement in _TAKE_OUT:
                tx.execute(statement, {"seqs": seqs[start : start + _CHUNK], "params": list(told.values())})
        rows = IndexRows(self._symbols, tx, self._displays)
        for one in self._readable(permit, tx, seqs):
            rows.add(kind, one.seq, extract(canonical.load(one.text), registry, names, loose=True))
        rows.write()

    def _readable(self, permit: Permit, tx: Connection, seqs: list[int]) -> Iterator[Version]:
        for one in read_versions(permit, tx, self._vault, self._symbols, seqs):
            if one.text:
                yield one

    # -- verifying ------------------------------------------------------------------------------------------------

    def _ready(
        self, permit: Permit, tx: Connection, wanted: Mapping[int, tuple[str, list[str]]]
    ) -> dict[int, tuple[str, list[str]]]:
        found = {}
        for kind, (resource_type, names) in wanted.items():
            params = self._symbols.find(tx, params_of(kind), names)
            states = self._indexed.states(tx, permit.account, kind)
            ready = [name for name, key in params.items() if key in states and states[key].state == READY]
            found[kind] = (resource_type, ready)
        return found

    def _compare(
        self, permit: Permit, kind: int, resource_type: str, names: list[str]
    ) -> Iterator[tuple[int, Counter[tuple[str, bool]]]]:
        """For each page: how many versions, and the rows that differ, by source and whether they are missing."""
        after = 0
        while True:
            with self._vault.database.reading(permit) as tx:
                seqs = list(tx.execute(_NEXT, {"k": kind, "after": after, "to": _TOP}).scalars())
                if not seqs:
                    return
                counted = self._differences(permit, tx, kind, resource_type, seqs, names)
            after = seqs[-1]
            yield len(seqs), counted

    def _orphans(
        self, permit: Permit, kind: int, names: list[str]
    ) -> Iterator[tuple[int, Counter[tuple[str, bool]]]]:
        """Rows of versions that are not the current ones."""
        counted: Counter[tuple[str, bool]] = Counter()
        with self._vault.database.reading(permit) as tx:
            params = self._symbols.find(tx, params_of(kind), names)
            texts = {key: name for name, key in params.items()}
            for query in _ORPHANS:
                for param, count in tx.execute(query, {"k": kind, "params": list(texts)}):
                    counted[(texts[param], False)] += count
        yield 0, counted

    def _differences(
        self, permit: Permit, tx: Connection, kind: int, resource_type: str, seqs: list[int], names: list[str]
    ) -> Counter[tuple[str, bool]]:
        registry = self._indexed.registry(tx, permit.account)
        sides = with_sides(registry, resource_type, names)
        params = self._symbols.find(tx, params_of(kind), sides)
        wanted = IndexRows(self._symbols, tx, self._displays, find_only=True)
        for one in self._readable(permit, tx, seqs):
            wanted.add(kind, one.seq, extract(canonical.load(one.text), registry, names, loose=True))
        texts = {key: name for name, key in params.items()}
        named = texts | wanted.sources(kind)
        counted: Counter[tuple[str, bool]] = Counter()
        for table, query in zip(BY_SEQ, _ROWS, strict=True):
            there: set[tuple[Any, ...]] = set()
            for start in range(0, len(seqs), _CHUNK):
                asked = {"seqs": seqs[start : start + _CHUNK], "params": list(texts)}
                there.update(tuple(row) for row in tx.execute(query, asked))
            should = set(wanted.rows(table.name))
            for row in should - there:
                counted[(named[row[0]], True)] += 1
            for row in there - should:
                counted[(named[row[0]], False)] += 1
        return counted


_TOP = (1 << 62) - 1


def _names(parameter: SearchParameter) -> list[str]:
    return [source.name for source in parameter.sources]
