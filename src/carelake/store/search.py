"""Search over the index tables (https://hl7.org/fhir/R4/search.html). The permit's account and scope are part of the
SQL, of chained searches too: nothing is filtered afterwards.

Order without ``_sort`` is by ``seq``. A page ends with the ``seq`` of its last match and the next page starts
after it in the order asked for, so a match is never skipped by what others write meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Subquery,
    and_,
    false,
    func,
    null,
    or_,
    select,
    true,
    union_all,
)

from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.fhir.query import Condition, Query, Sort
from carelake.store import bodies
from carelake.store.clauses import SORT_COLUMNS, matching, table_of
from carelake.store.keep import ref_of
from carelake.store.rows import read_versions
from carelake.store.scopes import scoped
from carelake.store.symbols import TERM, Symbols, kinds_of, params_of
from carelake.store.tables import ix_reference, resource
from carelake.vault.workspace import Vault

__all__ = ["COUNT", "MAX_COUNT", "SearchResult", "Searches"]

COUNT = 50
MAX_COUNT = 1000


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page of a search.

    Attributes:
        total: number of all matches; None where ``_total=none`` was asked.
        next: token of the page after this one, "" on the last.
    """

    total: int | None
    resources: list[dict[str, Any]]
    next: str


class Searches:
    """Answers queries."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols

    def search(self, permit: Permit, tx: Connection, query: Query, page: str = "") -> SearchResult:
        """One page of matches.

        Args:
            page: ``next`` of the page before, of the same query.

        Raises:
            Invalid: ``store.page``, the token is none of ours.
            Conflict: ``store.page_moved``, the match that the page before ended with was changed since.
            Refused: ``store.unknown_scope``.
        """
        found = _Sql(permit, tx, self._symbols).matches(query).cte("found")
        total = None
        if query.count_only or query.total != "none":
            total = int(tx.execute(select(func.count()).select_from(found)).scalar_one())
        permit.log.count(searched=1)
        if query.count_only:
            return SearchResult(total, [], "")
        size = min(query.count or COUNT, MAX_COUNT)
        statement = _Order(permit, tx, self._symbols, query).apply(found, page).limit(size + 1)
        seqs = list(tx.execute(statement).scalars())
        more, seqs = len(seqs) > size, seqs[:size]
        resources = self._open(permit, tx, seqs, query.elements)
        return SearchResult(total, resources, str(seqs[-1]) if more else "")

    def _open(self, permit: Permit, tx: Connection, seqs: list[int], elements: Sequence[str]) -> list[dict[str, Any]]:
        resources = []
        for one in read_versions(permit, tx, self._vault, self._symbols, seqs):
            if not one.erased:
                permit.log.read(ref_of(one.seq, one.digest))
                resources.append(_cut(bodies.with_meta(one.text, one.version, one.updated), elements))
        return resources


def _cut(resource: dict[str, Any], elements: Sequence[str]) -> dict[str, Any]:
    """Only the elements asked for, marked as a part (https://hl7.org/fhir/R4/search.html#elements)."""
    if not elements:
        return resource
    wanted = {"resourceType", "id", "meta", *elements, *(f"_{name}" for name in elements)}
    cut = {name: value for name, value in resource.items() if name in wanted}
    system = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
    cut["meta"] = {**cut["meta"], "tag": [*cut["meta"].get("tag", []), {"system": system, "code": "SUBSETTED"}]}
    return cut


class _Sql:
    """A query's conditions as one select of ``seq``."""

    def __init__(self, permit: Permit, tx: Connection, symbols: Symbols) -> None:
        self._permit, self._tx, self._symbols = permit, tx, symbols

    def matches(self, query: Query) -> Select[Any]:
        kind = self._symbols.key(self._tx, kinds_of(self._permit.account), query.type)
        positive: list[Select[Any]] = []
        negative: list[Select[Any]] = []
        for condition in sorted(query.conditions, key=_selectivity):
            made, holds = self._condition(kind, condition)
            (positive if holds else negative).append(made)
        base = self._base(kind) if not positive else self._first(positive)
        # The sum hides the column from SQLite's planner, which without statistics would look up every pair of a
        # driving row and a listed one; so it walks the first condition and looks into the lists of the others.
        column = base.selected_columns[0] + 0
        tests: list[ColumnElement[bool]] = [column.in_(one) for one in positive[1:]]
        tests += [column.not_in(one) for one in negative]
        return base.where(and_(true(), *tests), scoped(self._permit, self._tx, self._symbols, column))

    @staticmethod
    def _base(kind: int) -> Select[Any]:
        return select(resource.c.seq).where(resource.c.kind == kind, resource.c.deleted == false())

    @staticmethod
    def _first(positive: list[Select[Any]]) -> Select[Any]:
        return select(positive[0].distinct().subquery("first").c.seq)

    def _condition(self, kind: int, condition: Condition) -> tuple[Select[Any], bool]:
        """A select, and whether matches are in it (True) or not in it (False)."""
        if condition.type == "id":
            ids = [value.code for value in condition.values if hasattr(value, "code")]
            return self._base(kind).where(resource.c.id.in_(ids)), True
        param = self._symbols.key(self._tx, params_of(kind), condition.param)
        if condition.modifier == "missing":
            table = table_of(condition.type)
            return select(table.c.seq).where(table.c.param == param), not condition.missing
        if condition.chain is not None:
            return self._chained(param, condition.chain), True
        return matching(condition, param, self._term), condition.modifier != "not"

    def _chained(self, param: int, chain: Query) -> Select[Any]:
        inner = self.matches(chain).subquery()
        ids = select(resource.c.id).where(
            resource.c.kind == self._symbols.key(self._tx, kinds_of(self._permit.account), chain.type),
            resource.c.seq.in_(select(inner.c.seq)),
        )
        row = ix_reference.c
        return select(row.seq).where(row.param == param, row.type == self._term(chain.type), row.target.in_(ids))

    def _term(self, text: str) -> int:
        return self._symbols.key(self._tx, TERM, text)


class _Order:
    """The order of matches: the sort keys, those without a value last, then ``seq``.

    Keys and matches are stacked and grouped by ``seq``: one pass over each key's rows, where a join would look
    through all of them for every match.
    """

    def __init__(self, permit: Permit, tx: Connection, symbols: Symbols, query: Query) -> None:
        self._tx = tx
        self._kind = symbols.key(tx, kinds_of(permit.account), query.type)
        self._sorts = query.sort
        self._values = [
            _sort_values(sort, self._kind, symbols.key(tx, params_of(self._kind), sort.param)) for sort in query.sort
        ]

    def apply(self, found: CTE, page: str) -> Select[Any]:
        """Matches in order, cut to what comes after the token."""
        if not self._sorts:
            statement = select(found.c.seq).order_by(found.c.seq)
            return statement.where(found.c.seq > _number(page)) if page else statement
        stacked = self._stacked(select(found.c.seq)).subquery("stacked")
        keys = self._keys(stacked)
        order: list[ColumnElement[Any]] = []
        for key, sort in zip(keys, self._sorts, strict=True):
            order += [key.is_(None), key.desc() if sort.descending else key.asc()]
        statement = select(stacked.c.seq).group_by(stacked.c.seq).order_by(*order, stacked.c.seq)
        return statement.having(self._after(keys, stacked.c.seq, _number(page))) if page else statement

    def _stacked(self, matches: Select[Any]) -> CompoundSelect[Any]:
        """Rows of ``seq`` and one column for each key: the matches with none, then each key's values."""
        parts = [matches.add_columns(*(self._column(i, None) for i in range(len(self._sorts))))]
        for i, (number, value, test) in enumerate(self._values):
            columns = [self._column(j, value if i == j else None) for j in range(len(self._sorts))]
            parts.append(select(number.label("seq"), *columns).where(test, number.in_(matches)))
        return union_all(*parts)

    def _column(self, number: int, value: ColumnElement[Any] | None) -> ColumnElement[Any]:
        shown = null().cast(self._values[number][1].type) if value is None else value
        return shown.label(f"k{number}")

    def _keys(self, stacked: Subquery) -> list[ColumnElement[Any]]:
        """A resource with several values counts by the one that comes first."""
        best = (func.max if sort.descending else func.min for sort in self._sorts)
        return [take(stacked.c[f"k{i}"]) for i, take in enumerate(best)]

    def _after(self, keys: list[ColumnElement[Any]], seq: ColumnElement[int], page: int) -> ColumnElement[bool]:
        tests: list[ColumnElement[bool]] = []
        same: list[ColumnElement[bool]] = []
        for key, sort, last in zip(keys, self._sorts, self._last(page), strict=True):
            if last is None:
                same.append(key.is_(None))
                continue
            beyond = key < last if sort.descending else key > last
            tests.append(and_(*same, or_(beyond, key.is_(None))))
            same.append(key == last)
        return or_(*tests, and_(*same, seq > page))

    def _last(self, page: int) -> Sequence[Any]:
        """The sort keys of the match that the page before ended with."""
        current = select(resource.c.seq).where(resource.c.kind == self._kind, resource.c.seq == page)
        stacked = self._stacked(current).subquery("stacked")
        row = self._tx.execute(select(*self._keys(stacked)).group_by(stacked.c.seq)).first()
        if row is None:
            raise Conflict(
                "store.page_moved", "The last match of the page before was changed since; start the search again."
            )
        return tuple(row)


def _number(page: str) -> int:
    if not (page.isascii() and page.isdigit() and len(page) < 19):
        raise Invalid("store.page", "This is not a page of a search; take the next link of the page before.")
    return int(page)


def _sort_values(
    sort: Sort, kind: int, param: int
) -> tuple[ColumnElement[int], ColumnElement[Any], ColumnElement[bool]]:
    """Where a key's values are: the column of ``seq``, the column of the value, and the test for its rows."""
    if sort.param == "_id":
        return resource.c.seq, resource.c.id, resource.c.kind == kind
    table = table_of(sort.type)
    return table.c.seq, table.c[SORT_COLUMNS[sort.type]], table.c.param == param


def _selectivity(condition: Condition) -> int:
    """The condition that drives a search is the one that is likely to hold for the fewest."""
    if condition.modifier in ("missing", "not"):
        return 9
    order = ("id", "reference", "uri", "token", "string", "quantity", "number", "date")
    return order.index(condition.type) if condition.chain is None else 4
