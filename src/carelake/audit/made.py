"""The nouns against the acts: each noun was written by the act that it names, and a model is as its last act left it.

An act names what it wrote, or counts and digests it when that is much; then its nouns are counted. Nouns and acts are
read in step, in the order of the acts' ids, so what is held is one act's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, select

from carelake.audit.tables import act, noun
from carelake.core import canonical
from carelake.core.errors import CarelakeError

__all__ = ["strays"]

_ROWS = 5_000
_DECIDING = ("model:train", "model:approve", "model:release", "model:manage")
_APPROVING = ("model:approve", "model:release")


def strays(connection: Connection) -> Iterator[tuple[str, str]]:
    """Nouns that no act accounts for: each with what is wrong, in words."""
    written = select(noun.c.act, noun.c.ref).order_by(noun.c.act, noun.c.ref)
    telling = select(act.c.correlation, act.c.facts).where(
        act.c.correlation.in_(select(noun.c.act)), act.c.facts.contains('"wrote')
    )
    nouns = connection.execute(written, execution_options={"yield_per": _ROWS})
    acts = _Acts(connection.execute(telling.order_by(act.c.correlation), execution_options={"yield_per": _ROWS}))
    for name, rows in groupby(nouns, key=lambda row: str(row[0])):
        named, digested = acts.of(name)
        unnamed = [ref for _, ref in rows if ref not in named]
        if len(unnamed) > digested:
            yield from ((ref, "no act tells that it wrote it") for ref in unnamed)
    yield from _models(connection)


class _Acts:
    """What acts wrote, in the order of their ids."""

    def __init__(self, rows: Any) -> None:
        self._acts = groupby(rows, key=lambda row: str(row[0]))
        self._next = next(self._acts, None)

    def of(self, name: str) -> tuple[set[str], int]:
        """The refs that the act names, and how many more it counts."""
        while self._next is not None and self._next[0] < name:
            self._next = next(self._acts, None)
        named: set[str] = set()
        digested = 0
        if self._next is not None and self._next[0] == name:
            for _, facts in self._next[1]:
                said = _said(facts)
                named.update(said.get("wrote", ()))
                digested += said.get("wrote_count", 0)
        return named, digested


def _models(connection: Connection) -> Iterator[tuple[str, str]]:
    """Models whose state is not what the last act on them said; acts of earlier versions say none."""
    models = connection.execute(select(noun.c.ref, noun.c.state).where(noun.c.kind == "model"))
    kept: dict[str, str] = {row.ref: row.state for row in models}
    if not kept:
        return
    last: dict[str, tuple[str, str]] = {}
    query = select(act.c.action, act.c.facts).where(act.c.action.in_(_DECIDING), act.c.facts.contains('"wrote'))
    for action, facts in connection.execute(query.order_by(act.c.seq), execution_options={"yield_per": _ROWS}):
        said = _said(facts)
        changed = said.get("changed", {})
        told = changed.get("state", "")
        if not told and "change" in changed:
            continue  # it described a version, and decided nothing
        for ref in said.get("wrote", ()):
            if ref in kept:
                last[ref] = (action, told)
    for ref, state in kept.items():
        action, told = last.get(ref, ("", ""))
        if (told and told != state) or (state == "Approved" and action not in _APPROVING):
            yield ref, "its state is not what the last act on it made it"


def _said(facts: str) -> dict[str, Any]:
    try:
        said = canonical.load(facts)
    except CarelakeError:
        return {}  # which is told of the act
    return said if isinstance(said, dict) else {}
