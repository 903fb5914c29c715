"""Lineage: both ways, deep and broad, within an account, and as far as was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.audit.nouns import Nouns
from carelake.core.errors import NotFound
from carelake.core.nouns import Noun


def ref(number: int, kind: str = "snapshot") -> str:
    return f"{kind}:{number:064x}"


@contextmanager
def written(ward: Any, *arrows: tuple[int, tuple[int, ...]], account: str = "production") -> Iterator[Any]:
    nouns = Nouns(ward.vault.clock)
    with ward.vault.database.ledger() as tx:
        things = [Noun(ref(n), account, "made", "a", tuple(map(ref, sources))) for n, sources in arrows]
        nouns.write_all(tx, things)
        yield nouns, tx


def test_a_chain_of_thousands(ward: Any) -> None:
    count = 3000
    with written(ward, *((n, (n - 1,) if n else ()) for n in range(count))) as (nouns, tx):
        back = nouns.lineage(tx, ref(count - 1), account="production")
        assert [one.ref for one in back] == [ref(n) for n in reversed(range(count))]
        forth = nouns.descendants(tx, ref(0), account="production")
        assert [one.ref for one in forth] == [ref(n) for n in range(1, count)]
        assert [one.ref for one in nouns.descendants(tx, ref(0), account="production", depth=2)] == [ref(1), ref(2)]
        assert [one.ref for one in nouns.lineage(tx, ref(9), account="production", depth=1)] == [ref(9), ref(8)]
        assert len(nouns.lineage(tx, ref(2999), account="production", limit=120)) == 120
        assert len(nouns.descendants(tx, ref(0), account="production", limit=120)) == 120


def test_a_broad_fan(ward: Any) -> None:
    with written(ward, (0, ()), *((n, (0,)) for n in range(1, 1500))) as (nouns, tx):
        assert len(nouns.descendants(tx, ref(0), account="production")) == 1499
        assert [one.ref for one in nouns.lineage(tx, ref(7), account="production")] == [ref(7), ref(0)]


def test_it_stays_in_the_account(ward: Any) -> None:
    with written(ward, (0, ()), (1, (0,))), pytest.raises(NotFound):
        raise NotFound("x", "x")
    with written(ward, (2, (1,)), (3, (2,)), account="research") as (nouns, tx):
        assert nouns.descendants(tx, ref(0), account="production") == [nouns.get(tx, ref(1))]
        assert [one.ref for one in nouns.descendants(tx, ref(1), account="research")] == [ref(2), ref(3)]
        with pytest.raises(NotFound):
            nouns.lineage(tx, ref(3), account="research")


_graphs = 0
GRAPHS = st.lists(st.sets(st.integers(0, 30), max_size=4), min_size=1, max_size=30)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(GRAPHS, st.integers(1, 6))
def test_any_graph_is_walked_as_a_plain_search_walks_it(ward: Any, graph: list[set[int]], depth: int) -> None:
    """A noun is made from earlier ones only; the nearest come first, each once."""
    arrows = {n: tuple(sorted(s for s in sources if s < n)) for n, sources in enumerate(graph)}
    global _graphs
    _graphs += 1
    base = _graphs * 100
    moved = [(base + n, tuple(base + s for s in sources)) for n, sources in arrows.items()]
    with written(ward, *moved) as (nouns, tx):
        for start in (0, len(graph) - 1):
            up = levels(start, lambda n: arrows[n], depth)
            down = levels(start, lambda n: [m for m, sources in arrows.items() if n in sources], depth)
            for limit in (None, depth):
                told = nouns.lineage(tx, ref(base + start), account="production", depth=limit)
                same_order(told, base, up, limit)
                told = nouns.descendants(tx, ref(base + start), account="production", depth=limit)
                same_order([nouns.get(tx, ref(base + start)), *told], base, down, limit)


def levels(start: int, step: Any, depth: int) -> dict[int, int]:
    found, frontier, level = {start: 0}, [start], 0
    while frontier:
        level += 1
        frontier = [m for n in frontier for m in step(n) if found.setdefault(m, level) == level]
        frontier = list(dict.fromkeys(frontier))
    return found


def same_order(told: list[Noun], base: int, wanted: dict[int, int], limit: int | None) -> None:
    numbers = [int(one.ref.partition(":")[2], 16) - base for one in told]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) == {n for n, level in wanted.items() if limit is None or level <= limit}
    reached = [wanted[n] for n in numbers]
    assert reached == sorted(reached), "a farther one came before a nearer one"
