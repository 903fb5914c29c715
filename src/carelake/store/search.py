"""Search over the index tables (https://hl7.org/fhir/R4/search.html). The permit's account and scope are part of the
SQL, of chained searches too: nothing is filtered afterwards.

Order without ``_sort`` is by ``seq``. A page ends with the ``seq`` of its last match and the next page starts
after it in the order asked for, so a match is never skipped by what others write meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, false, func, or_, select, true

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
        found = _Sql(permit, tx, self._symbols).matches(query).subquery("found")
        total = None
        if query.count_only or query.total != "none":
            total = int(tx.execute(select(func.count()).select_from(found)).scalar_one())
        permit.log.count(searched=1)
        if query.count_only:
            return SearchResult(total, [], "")
        size = min(query.count or COUNT, MAX_COUNT)
        ordered = _Order(permit, tx, self._symbols, query, found.c.seq)
        statement = ordered.apply(select(found.c.seq), page).limit(size + 1)
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
        for condition in query.conditions:
            made, holds = self._condition(kind, condition)
            (positive if holds else negative).append(made)
        base = self._base(kind) if not positive else self._first(positive)
        column = base.selected_columns[0]
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
    """The order of matches: the sort keys, those without a value last, then ``seq``."""

    def __init__(
        self, permit: Permit, tx: Connection, symbols: Symbols, query: Query, seq: ColumnElement[int]
    ) -> None:
        self._tx, self._seq = tx, seq
        kind = symbols.key(tx, kinds_of(permit.account), query.type)
        self._keys = [
            (_sort_values(sort, kind, symbols.key(tx, params_of(kind), sort.param)).subquery(f"sort{i}"), sort)
            for i, sort in enumerate(query.sort)
        ]

    def apply(self, statement: Select[Any], page: str) -> Select[Any]:
        """The statement ordered, and cut to what comes after the token."""
        order: list[ColumnElement[Any]] = []
        for values, sort in self._keys:
            statement = statement.outerjoin(values, values.c.seq == self._seq)
            order += [values.c.key.is_(None), values.c.key.desc() if sort.descending else values.c.key.asc()]
        if page:
            statement = statement.where(self._after(page))
        return statement.order_by(*order, self._seq)

    def _after(self, page: str) -> ColumnElement[bool]:
        if not (page.isascii() and page.isdigit() and len(page) < 19):
            raise Invalid("store.page", "This is not a page of a search; take the next link of the page before.")
        seq = int(page)
        tests: list[ColumnElement[bool]] = []
        same: list[ColumnElement[bool]] = []
        for values, sort in self._keys:
            last = self._tx.execute(select(values.c.key).where(values.c.seq == seq)).scalar()
            column = values.c.key
            if last is None:
                same.append(column.is_(None))
                continue
            beyond = column < last if sort.descending else column > last
            tests.append(and_(*same, or_(beyond, column.is_(None))))
            same.append(column == last)
        if self._keys and not self._is_current(seq):
            raise Conflict(
                "store.page_moved", "The last match of the page before was changed since; start the search again."
            )
        return or_(*tests, and_(*same, self._seq > seq))

    def _is_current(self, seq: int) -> bool:
        return self._tx.execute(select(resource.c.seq).where(resource.c.seq == seq).limit(1)).first() is not None


def _sort_values(sort: Sort, kind: int, param: int) -> Select[Any]:
    if sort.type == "id" or sort.param == "_id":
        return select(resource.c.seq, resource.c.id.label("key")).where(resource.c.kind == kind)
    table = table_of(sort.type)
    column = table.c[SORT_COLUMNS[sort.type]]
    best = func.max(column) if sort.descending else func.min(column)
    return select(table.c.seq, best.label("key")).where(table.c.param == param).group_by(table.c.seq)
