"""Search: one or two statements for a page, planned by bounded counts (https://hl7.org/fhir/R4/search.html).

The permit's account and scope are part of every statement, for each resource on the way: nothing is filtered
afterwards. Order without ``_sort`` is ours: by ``seq``, or as an index has the rows of a condition; it is the same on
all pages of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cmp_to_key

from sqlalchemy import Connection

from carelake.core.permit import Permit
from carelake.fhir.query import Query
from carelake.fhir.search import SearchParameter, parameters
from carelake.fhir.terminology import SHIPPED, LocalTerminology, Terminology
from carelake.store.keep import ref_of
from carelake.store.rows import COLUMNS, Version, of_a_page, open_rows
from carelake.store.search.answers import SearchResult, Shown, shown
from carelake.store.search.building import Build, prepare, restore
from carelake.store.search.compiling import Compiler
from carelake.store.search.costs import Counts, Known
from carelake.store.search.includes import Includes
from carelake.store.search.order import Last
from carelake.store.search.pages import Place, Tokens
from carelake.store.search.plan import Hit, Plan
from carelake.store.symbols import Symbols
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["COUNT", "MAX_COUNT", "Searches"]

COUNT = 50
MAX_COUNT = 1000
_CHUNK = 500
_COLUMNS = ", ".join(f"v.{column.name}" for column in COLUMNS)
ESTIMATED = 10_000
"""Totals that are only to be estimated are counted up to here."""


class Searches:
    """Answers queries."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols
        self._known = Known()
        self._included = vault.settings.search.included

    def search(
        self,
        permit: Permit,
        tx: Connection,
        query: Query,
        page: str = "",
        *,
        terminology: Terminology | None = None,
        parameters_of: Callable[[str], Mapping[str, SearchParameter]] = parameters,
        visible: Callable[[str], bool] = lambda kind: True,
    ) -> SearchResult:
        """One page of matches.

        The total is told where it was asked for with ``_total=accurate`` (or ``_summary=count``), with
        ``_total=estimate`` as far as `ESTIMATED`, and where the first page holds everything.

        Args:
            page: ``next`` of the page before, of the same query.
            terminology: what ``:in``, ``:above`` and so on ask; what ships with carelake by default.
            parameters_of: search parameters of a type, for wildcards of includes.
            visible: which types a wildcard of includes may bring.

        Raises:
            Invalid: ``store.page``, the token is none of ours; ``store.text_too_wide``, ``store.near_too_wide``,
                ``store.hierarchy_too_wide``, ``terminology.*``.
            Unsupported: ``terminology.*``: a value set or code system is not known.
            Refused: ``store.unknown_scope``.
        """
        prepare(tx)
        found = self._page(permit, tx, query, page, terminology, parameters_of, visible)
        if scope_of(tx).writing:
            restore(tx)
        return found

    def _page(
        self,
        permit: Permit,
        tx: Connection,
        query: Query,
        page: str,
        terminology: Terminology | None,
        parameters_of: Callable[[str], Mapping[str, SearchParameter]],
        visible: Callable[[str], bool],
    ) -> SearchResult:
        compiler = Compiler(permit, tx, self._symbols, terminology or LocalTerminology(SHIPPED))
        compiler.prime(query.kinds())
        costs = Counts(tx, self._known)
        plans = [Plan(compiler, costs, compiler.query(part), part.sort) for part in query.each()]
        permit.log.count(searched=1)
        if query.count_only:
            return SearchResult(sum(plan.count() for plan in plans))
        size = min(query.count or COUNT, MAX_COUNT)
        place = Tokens(permit, self._vault.keyring, query).read(page) if page else None
        hits = _sorted(plans, place, size + 1) if query.each()[0].sort else _in_turn(plans, place, size + 1)
        more, hits = len(hits) > size, hits[:size]
        following = ""
        if more and hits:
            following = Tokens(permit, self._vault.keyring, query).make(_ended(hits[-1], place, len(hits)))
        seqs = [hit.seq for hit in hits]
        joined = Includes(compiler, parameters_of, visible, self._included)
        along = joined.find(query, seqs)
        opened = self.opened(permit, tx, [*seqs, *along], query)
        total = _total(query, plans, place, None if more else len(hits))
        found = tuple(opened[seq] for seq in seqs if seq in opened)
        return SearchResult(total, found, tuple(opened[s] for s in along if s in opened), following, joined.cut)

    def matching(
        self, permit: Permit, tx: Connection, query: Query, limit: int, terminology: Terminology | None = None
    ) -> tuple[Compiler, list[int]]:
        """``seq`` of all matches of a search of one type, up to a limit, and what it was compiled with.

        For what is computed of a whole answer; nothing is opened. The caller calls `building.prepare` before.
        """
        compiler = Compiler(permit, tx, self._symbols, terminology or LocalTerminology(SHIPPED))
        compiler.prime(query.kinds())
        plan = Plan(compiler, Counts(tx, self._known), compiler.query(query), ())
        return compiler, [hit.seq for hit in plan.by_seq(0, limit)]

    def opened(self, permit: Permit, tx: Connection, seqs: Sequence[int], query: Query) -> dict[int, Shown]:
        """Versions by seq, shown as a query asks; what was erased is not among them."""
        opened = of_a_page(self._opening(permit, tx, seqs))
        there = [one for one in opened if not one.erased and not one.deleted]
        permit.log.read(*(ref_of(one.seq, one.digest) for one in there))
        return dict(zip((one.seq for one in there), shown(there, query), strict=True))

    def _opening(self, permit: Permit, tx: Connection, seqs: Sequence[int]) -> Iterator[Version]:
        for start in range(0, len(seqs), _CHUNK):
            build = Build(tx.dialect.name)
            listed = build.within("v.seq", seqs[start : start + _CHUNK])
            rows = build.run(tx, f"SELECT {_COLUMNS} FROM resource_version v WHERE {listed}")
            yield from open_rows(permit, tx, self._vault, self._symbols, rows)


def _in_turn(plans: Sequence[Plan], place: Place | None, limit: int) -> list[Hit]:
    """Matches by type, and within one in the order that is quickest."""
    found: list[Hit] = []
    start = place.part if place is not None else 0
    for part in range(start, len(plans)):
        here = place if part == start else None
        found += [hit._replace(part=part) for hit in plans[part].page(here, limit - len(found))]
        if len(found) >= limit:
            break
    return found


def _sorted(plans: Sequence[Plan], place: Place | None, limit: int) -> list[Hit]:
    """Matches in the order of their keys; those of several types are merged."""
    last: Last | None = (place.keys, place.seq) if place is not None else None
    found = [hit._replace(part=part) for part, plan in enumerate(plans) for hit in plan.by_keys(last, limit)]
    if len(plans) > 1:
        down = [sort.descending for sort in plans[0].sorts]

        def compared(one: Hit, other: Hit) -> int:
            return _compared(one, other, down)

        found.sort(key=cmp_to_key(compared))
    return found[:limit]


def _compared(one: Hit, other: Hit, down: Sequence[bool]) -> int:
    for ours, theirs, descending in zip(one.keys, other.keys, down, strict=True):
        if ours == theirs:
            continue
        if ours is None or theirs is None:
            return 1 if ours is None else -1
        return 1 if (ours > theirs) != descending else -1
    return (one.seq > other.seq) - (one.seq < other.seq)


def _ended(hit: Hit, place: Place | None, found: int) -> Place:
    return Place(hit.part, hit.keys, hit.seq, found + (place.seen if place is not None else 0), hit.led)


def _total(query: Query, plans: Sequence[Plan], place: Place | None, rest: int | None) -> int | None:
    """Args: rest: number of matches on this page where none come after it."""
    if query.total == "none":
        return None
    if rest is not None and place is None:
        return rest
    if query.total == "accurate":
        return sum(plan.count() for plan in plans)
    if query.total == "estimate":
        return sum(plan.count(ESTIMATED) for plan in plans)
    return None
