"""What is looked up before the statement is made, since it is small: lists, texts of codes, places, hierarchies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.query import NearValue, StringValue, TokenValue
from carelake.fhir.search import SearchParameter, Use, parameters
from carelake.fhir.terminology.expansion import MAX_CODES
from carelake.store.search.building import Build, Row, every, some
from carelake.store.search.nodes import Node

if TYPE_CHECKING:
    from carelake.store.search.compiling import Compiler

__all__ = ["Hierarchy", "bounded", "currents", "displayed", "near", "systems"]

_PLACES = 50_000
_TREE = 100_000
_EARTH = 6371.0088
_DEGREE = math.pi * _EARTH / 180


def currents(tx: Connection, kind: int, ids: Iterable[str], scope: Sequence[Node]) -> list[int]:
    """``seq`` of the current versions of some ids, that are within the scope."""
    build = Build(tx.dialect.name)
    tests = every(
        (
            f"r.kind = {build(kind)} AND {build.within('r.id', ids)} AND NOT r.deleted",
            *(node.holds(build, Row("r.seq", "r.id")) for node in scope),
        )
    )
    return [int(seq) for (seq,) in build.run(tx, f"SELECT r.seq FROM resource r WHERE {tests}")]


def displayed(tx: Connection, param: int, values: Sequence[StringValue], most: int) -> list[tuple[int, str]]:
    """Systems and codes whose texts start with one of the values.

    Raises:
        Invalid: ``store.text_too_wide``: they are more than that.
    """
    texts = [value.folded for value in values if value.folded]
    if not texts:
        return []
    build = Build(tx.dialect.name)
    tests = some([build.starts("d.value", text) for text in texts])
    where = f"d.param = {build(param)} AND {tests}"
    sql = f"SELECT DISTINCT d.system, d.code FROM display d WHERE {where} LIMIT {build(most + 1)}"
    found = [(int(system), str(code)) for system, code in build.run(tx, sql)]
    if len(found) > most:
        raise Invalid("store.text_too_wide", f"More than {most} codes have texts like that; give more of the text.")
    return found


def bounded(sets: Iterable[Iterable[tuple[str, str | None]]]) -> list[TokenValue]:
    """The codes of several sets, each once."""
    found: dict[tuple[str, str | None], None] = {}
    for each in sets:
        found.update(dict.fromkeys(each))
        if len(found) > MAX_CODES:
            raise Invalid("terminology.too_many", f"The value sets asked for have more than {MAX_CODES} codes.")
    return [TokenValue(*coded) for coded in found]


def systems(tx: Connection, table: str, column: str, range_: str, build: Build) -> list[int]:
    """The values that a column has in a range whose key is fixed before it, each found by one probe."""
    sql = (
        f"WITH RECURSIVE s(v) AS (SELECT (SELECT min(t.{column}) FROM {table} t WHERE {range_}) "
        f"UNION ALL SELECT (SELECT min(t.{column}) FROM {table} t WHERE {range_} AND t.{column} > s.v) "
        f"FROM s WHERE s.v IS NOT NULL) SELECT v FROM s WHERE v IS NOT NULL LIMIT 50"
    )
    return [int(value) for (value,) in build.run(tx, sql)]


def near(tx: Connection, params: Sequence[int], values: Sequence[NearValue]) -> set[int]:
    """``seq`` of what has a position within the distance: by a box in the index, then by the sphere.

    Raises:
        Invalid: ``store.near_too_wide``: the boxes hold more positions than can be measured.
    """
    found: set[int] = set()
    if not params:
        return found
    left = _PLACES
    for value in dict.fromkeys(values):
        build = Build(tx.dialect.name)
        reach = value.kilometres / _DEGREE + 1e-9
        low, high = build(value.latitude - reach), build(value.latitude + reach)
        tests = f"{build.numbers('p.param', params)} AND p.latitude >= {low} AND p.latitude <= {high}"
        sql = f"SELECT p.latitude, p.longitude, p.seq FROM ix_position p WHERE {tests} LIMIT {build(left + 1)}"
        rows = build.run(tx, sql)
        left -= len(rows)
        if left < 0:
            raise Invalid("store.near_too_wide", f"More than {_PLACES} places are that near; ask for less distance.")
        for latitude, longitude, seq in rows:
            if _kilometres(value.latitude, value.longitude, latitude, longitude) <= value.kilometres:
                found.add(int(seq))
    return found


def _kilometres(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Haversine: the distance over a sphere of the earth's mean radius."""
    p1, p2 = math.radians(lat1), math.radians(lat2)
    half = math.sin((p2 - p1) / 2) ** 2
    half += math.cos(p1) * math.cos(p2) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    return 2 * _EARTH * math.asin(min(1.0, math.sqrt(half)))


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Resources of a type that are parts of others of it."""

    compiler: Compiler
    kind: int
    term: int
    params: tuple[int, ...]

    @classmethod
    def of(cls, compiler: Compiler, name: str, own: SearchParameter | None) -> Hierarchy:
        """The hierarchy of a type: by the parameter asked for where it points to its own type, or by its ``partof``.

        Raises:
            Unsupported: ``search.unsupported``: the type has none.
        """
        known = parameters(name)
        parameter = own if own is not None and own.code in known else known.get("partof") or known.get("part-of")
        if parameter is None:
            raise Unsupported(
                "search.unsupported", f"Resources of type {name} form no hierarchy to go above or below."
            )
        kind = compiler.kind(name)
        fit: list[Use] = [use for use in parameter.uses if use.target in ("", name)]
        params = tuple(sorted(set(compiler.params(kind, [use.source for use in fit]).values())))
        return cls(compiler, kind, compiler.term(name), params)

    def walk(self, start: str, *, up: bool) -> list[str]:
        """The id itself and those above or below it, each step within the permit's scope.

        Raises:
            Invalid: ``store.hierarchy_too_wide``.
        """
        if not self.params:
            return [start]
        build = Build(self.compiler.tx.dialect.name)
        scope = every(node.holds(build, Row("r.seq", "r.id")) for node in self.compiler.scope(self.kind))
        link = f"{build.numbers('l.param', self.params)} AND l.type = {build(self.term)}"
        here = f"r.kind = {build(self.kind)}"
        if up:
            step = "SELECT l.target FROM tree CROSS JOIN resource r CROSS JOIN ix_reference l WHERE " + every(
                (f"{here} AND r.id = tree.id AND NOT r.deleted AND l.seq = r.seq AND {link}", scope)
            )
        else:
            step = "SELECT r.id FROM tree CROSS JOIN ix_reference l CROSS JOIN resource r WHERE " + every(
                (f"{link} AND {build.like('l.target', 'tree.id')} AND {here} AND r.seq = l.seq", scope)
            )
        collate = "" if build.sqlite else ' COLLATE "C"'  # as the columns have it that it is joined with
        first = f"SELECT CAST({build(start)} AS VARCHAR){collate} AS id"
        sql = f"WITH RECURSIVE tree(id) AS ({first} UNION {step}) SELECT id FROM tree LIMIT {build(_TREE + 1)}"
        found = [str(one) for (one,) in build.run(self.compiler.tx, sql)]
        if len(found) > _TREE:
            raise Invalid("store.hierarchy_too_wide", f"The hierarchy has more than {_TREE} members there.")
        return found
