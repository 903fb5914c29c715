"""How a search of one type is carried out: what leads, whether rows stream in order, and when to gather instead.

With T resources of the type and m that a leading condition finds, a page of n takes m reads when its rows are
gathered and sorted, and about n * T / m when the order is walked and each row is tested. The two meet at the root of
n * T: up to there rows are counted and gathered, beyond it they are walked. A walk that was unlucky, since the
matches lie at the far end, stops after a budget; then the rows are gathered after all.

Where no order was asked for, a page may also come in the order of one condition's index: see `Plan.page`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from carelake.fhir.query import Sort
from carelake.store.search import lookups, ranges
from carelake.store.search.building import Build, Row, every
from carelake.store.search.columns import Window
from carelake.store.search.compiling import Compiler
from carelake.store.search.costs import FEW, Counts
from carelake.store.search.nodes import All, AnyOf, Arm, Node, Not, Rows, Stream, union
from carelake.store.search.order import COLUMNS, Key, Last, ended, gathered, walked
from carelake.store.search.pages import Place
from carelake.store.search.parts import Parts

__all__ = ["Hit", "Plan"]

_LEAST_ROOM = 1000
_LUCK = 8
"""A walk that has read so many times what it was thought to is given up."""
_SURE = 4
"""So many times what is expected is walked first, and counted to be sure."""
_TRIED, _TRIES = 1000, 2
"""Rows of a condition that are read at the least, and conditions, before a page in such an order is given up."""
_COMPONENTS = 8
_ARMS = 12
_GAPS = 20
"""Systems of a code that are read side by side; a code of more is gathered."""


class Hit(NamedTuple):
    """A match: its seq and the values of the sort keys, None for a key that it has none of.

    Attributes:
        part: number of the type, of a search of several.
        led: see `Plan.page`; the one key is that of the condition then.
    """

    seq: int
    keys: tuple[tuple[Any, ...] | None, ...] = ()
    part: int = 0
    led: int = -1


class Plan:
    """The search of one type within one transaction."""

    def __init__(self, compiler: Compiler, costs: Counts, tree: All, sorts: Sequence[Sort]) -> None:
        self._compiler, self._costs, self._tree = compiler, costs, tree
        self._tx = compiler.tx
        self.sorts = sorts
        self._walked = False

    # -- pages ----------------------------------------------------------------------------------------------------

    def page(self, place: Place | None, limit: int) -> list[Hit]:
        """Matches after a place in an order of ours: by seq, or as an index has the rows of one condition.

        A condition with many rows that are not in the order of ``seq`` (numbers above a bound, texts with a
        beginning) fills a page at once in its own order, while by ``seq`` all of its rows are read, or those of the
        type. The first page chooses, others go on as it did: ``led`` is the place of the condition in the tree, and
        which of a composite's components leads.
        """
        if place is not None and place.led >= 0:
            return self._led(place.led, (place.keys, place.seq), limit, None)
        if place is None and (leads := self._leads(limit)):
            found = self._head(limit)
            for led in leads:
                if len(found) == limit:
                    return found
                found = self._led(led, None, limit, max(_TRIED, _LUCK * limit))
            if len(found) == limit:
                return found
        return self.by_seq(place.seq if place is not None else 0, limit)

    def by_seq(self, after: int, limit: int) -> list[Hit]:
        """Matches after a seq, in its order."""
        if self._tree.kind < 0 or limit < 1:
            return []
        found = self._read(self._streams(after, limit), after, limit)
        if len(found) < limit and self._walked:
            self._walked = False
            found = self._read(self._tree.streams(self._costs), after, limit)
        return found

    def _read(self, streams: Sequence[Stream], after: int, limit: int) -> list[Hit]:
        build = Build(self._compiler.dialect, self._costs)

        def tail(row: Row) -> str:
            return f"{row.seq} > {build(after)}" if after else ""

        selects = [stream.select(build, tail) for stream in streams]
        rows = build.run(self._tx, _in_order(build, streams, selects, limit))
        return [Hit(int(seq)) for (seq,) in rows]

    def by_keys(self, last: Last | None, limit: int) -> list[Hit]:
        """Matches after those keys, in their order."""
        if self._tree.kind < 0 or limit < 1:
            return []
        keys = [self._key(sort) for sort in self.sorts]
        if last is not None and len(last[0]) != len(keys):
            last = ((None,) * len(keys), last[1])
        return self._ordered(keys, last, limit)

    def count(self, most: int | None = None) -> int:
        """The number of matches, or of as many as ``most``."""
        if self._tree.kind < 0:
            return 0
        self._weigh(self._tree, _LEAST_ROOM * 10)
        streams = self._tree.streams(self._costs)
        build = Build(self._compiler.dialect, self._costs)
        found = union(build, (stream.select(build, _nothing) for stream in streams))
        if len(streams) > 1 or not streams[0].single:
            found = f"SELECT DISTINCT u.seq FROM ({found}) u"
        limit = f" LIMIT {build(most)}" if most is not None else ""
        return int(build.run(self._tx, f"SELECT count(*) FROM ({found}{limit}) c")[0][0])

    def _led(self, led: int, last: Last | None, limit: int, budget: int | None) -> list[Hit]:
        number, component = divmod(led, _COMPONENTS)
        arms = _arms(self._tree.parts[number], component) if number < len(self._tree.parts) else []
        if not arms or limit < 1:
            return []
        return [hit._replace(led=led) for hit in self._walk([Key.of(arms)], last, limit, budget)]

    def _head(self, limit: int) -> list[Hit]:
        """Matches among the first rows of the rarest condition that is in the order of seq, if there is one."""
        tree = self._tree
        parts = [part for part in self._able(tree) if isinstance(part, Rows) and len(part.ranges) == 1]
        parts = [part for part in parts if part.ranges[0].ordered]
        if not parts:
            return []
        part = min(parts, key=lambda one: one.reads(self._costs))
        others, most = [one for one in tree.parts if one is not part], max(_TRIED, _LUCK * limit)
        build = Build(self._compiler.dialect, self._costs)

        def tests(row: Row) -> str:
            return every(one.holds(build, row) for one in others)

        text = f"{part.ranges[0].head(build, tests, most)} ORDER BY 1 LIMIT {build(limit)}"
        return [Hit(int(seq)) for (seq,) in build.run(self._tx, text)]

    def _leads(self, limit: int) -> list[int]:
        """Conditions in whose order a page may be read sooner than by seq, the rarest first."""
        tree, least = self._tree, _LUCK * limit
        able = self._able(tree) if tree.kind >= 0 and limit > 0 else []
        # What is rare is gathered sooner.
        if not able or self._weigh(tree, FEW) < FEW:
            return []
        if self._weigh(tree, max(least, self._room(limit))) < least:
            return []
        found = []
        for number, part in enumerate(tree.parts):
            for component in range(_COMPONENTS):
                arms = _arms(part, component)
                if arms:
                    found.append((sum(map(self._costs.rows, arms)), -component, number * _COMPONENTS + component))
        return [led for _, _, led in sorted(found)[:_TRIES]]

    # -- choosing -------------------------------------------------------------------------------------------------

    def _weigh(self, node: Node, room: int) -> float:
        """Count what leads, first a little, then up to the room; what it reads at the least."""
        arms = list(node.arms())
        self._costs.ensure(arms, FEW)
        reads = node.reads(self._costs)
        if reads >= FEW and room > FEW:
            self._costs.ensure(arms, room)
            reads = node.reads(self._costs)
        return reads

    def _room(self, limit: int) -> int:
        return max(_LEAST_ROOM, _root(limit * self._costs.size(self._tree.kind)))

    def _able(self, tree: All) -> list[Node]:
        return [part for part in tree.parts if not isinstance(part, Not) and part.streams(self._costs)]

    def _streams(self, after: int, limit: int) -> tuple[Stream, ...]:
        """What a page by seq is read from."""
        tree = self._tree
        able = self._able(tree)
        if not able:
            return tree.led_by(tree.base, self._costs)
        if len(able) == 1 and _ordered(able[0].streams(self._costs)):
            return tree.led_by(able[0], self._costs)
        if self._weigh(tree, FEW) >= FEW:
            tree = self._settled(tree)
            able = self._able(tree)
            room = self._room(limit)
            if self._weigh(tree, room) >= room:
                walkable = [part for part in able if _ordered(part.streams(self._costs))]
                if walkable:
                    return tree.led_by(min(walkable, key=lambda part: part.reads(self._costs)), self._costs)
                budget = self._budget(room)
                self._walked = budget is not None
                base = tree.base if budget is None else Window(tree.kind, after, budget)
                return All(tree.base, (base, *tree.parts)).led_by(base, self._costs)
        return tree.streams(self._costs)

    def _settled(self, tree: All) -> All:
        """Codes without a system as codes of each system there is: those are in the order of ``seq``."""
        return All(tree.base, tuple(self._settle(part) for part in tree.parts))

    def _settle(self, node: Node) -> Node:
        if isinstance(node, AnyOf):
            return AnyOf(tuple(self._settle(part) for part in node.parts))
        if isinstance(node, Rows) and any(arm.gap for arm in node.ranges):
            return Rows(tuple(one for arm in node.ranges for one in self._filled(arm)))
        return node

    def _filled(self, arm: Arm) -> Iterable[Arm]:
        if not arm.gap or self._costs.rows(arm) < FEW:
            return (arm,)
        build = Build(self._compiler.dialect, self._costs)
        found = lookups.systems(self._tx, arm.table, arm.gap, arm.range(build, "t"), build)
        if len(found) > _GAPS:
            return (arm,)
        filled = [arm.at(value) for value in found]
        self._costs.share(arm, filled)
        return filled

    # -- order ----------------------------------------------------------------------------------------------------

    def _key(self, sort: Sort) -> Key:
        """Where a key's values are."""
        kind = self._tree.kind
        if isinstance(sort.param, str):
            column = "id" if sort.param == "_id" else "updated"
            return Key("resource", (kind,), (column,), sort.descending)
        uses = sort.param.uses
        sources = [source for use in uses for source in (use.source, *use.source.spans)]
        params = tuple(sorted(set(self._compiler.params(kind, sources).values())))
        # One that no resource of the type has stays a key: after a match of another type it decides what is left.
        params = params or (-1,)
        table = ranges.TABLES[uses[0].source.type]
        targets = {use.target for use in uses}
        target = self._compiler.term(targets.pop()) if len(targets) == 1 and "" not in targets else 0
        return Key(table, params, COLUMNS[table], sort.descending, target)

    def _ordered(self, keys: Sequence[Key], last: Last | None, limit: int) -> list[Hit]:
        tree, first = self._tree, keys[0]
        # A match that is gathered has its keys looked up: that is dearer than a test on the way.
        room = self._room(limit) // 2
        reads = self._weigh(tree, _SURE * room)
        if reads < room:
            return self._gather(tree, keys, last, limit)
        found: list[Hit] = []
        rest = last
        if last is None or last[0][0] is not None:
            walked = self._within_budgets(keys, last, limit, reads, room)
            if walked is None:
                return self._gather(tree, keys, last, limit)
            found, rest = walked, None
        if len(found) < limit and not first.always:
            found += self._without(keys, rest, limit - len(found))
        return found

    def _within_budgets(
        self, keys: Sequence[Key], last: Last | None, limit: int, reads: float, room: int
    ) -> list[Hit] | None:
        """A page by a walk of as many rows as it should take, then of what it may take; None when neither is enough.

        With several keys a page must not end among equals of the first one, so that all of the walk is read.
        """
        most = self._budget(room)
        likely = round(_SURE * limit * self._costs.size(self._tree.kind) / max(1.0, reads))
        for budget in [likely, most] if most is not None and likely < most else [most]:
            found = self._walk(keys, last, limit, budget)
            if budget is None:
                return found
            if len(found) == limit and not self._torn(keys, last, found[-1], budget):
                return found
        return None

    def _without(self, keys: Sequence[Key], last: Last | None, limit: int) -> list[Hit]:
        """Matches without a value of the first key."""
        first, *others = keys
        tree = All(self._tree.base, (*self._tree.parts, Not(_having(first))))
        plan = Plan(self._compiler, self._costs, tree, ())
        told = None if last is None else (last[0][1:], last[1])
        hits = plan._ordered(others, told, limit) if others else plan.by_seq(told[1] if told else 0, limit)
        return [Hit(hit.seq, (None, *hit.keys)) for hit in hits]

    def _torn(self, keys: Sequence[Key], last: Last | None, hit: Hit, budget: int) -> bool:
        """Whether a walk ended among equals of the first key, so that the others may not have come in order."""
        if len(keys) == 1:
            return False
        build = Build(self._compiler.dialect, self._costs)
        rows = build.run(self._tx, ended(build, keys[0], last, budget))
        return bool(rows) and tuple(rows[0]) == hit.keys[0]

    def _budget(self, room: int) -> int | None:
        """Rows that a walk may read before it is given up; None where nothing else would be better."""
        budget = _LUCK * room
        return budget if self._able(self._tree) and budget < 2 * self._costs.size(self._tree.kind) else None

    def _gather(self, tree: All, keys: Sequence[Key], last: Last | None, limit: int) -> list[Hit]:
        build = Build(self._compiler.dialect, self._costs)
        sql = gathered(build, tree.streams(self._costs), keys, last, limit)
        widths = [len(key.values(build, "x")) for key in keys]
        return [_hit(row, widths) for row in build.run(self._tx, sql)]

    def _walk(self, keys: Sequence[Key], last: Last | None, limit: int, budget: int | None) -> list[Hit]:
        build = Build(self._compiler.dialect, self._costs)
        parts = self._tree.parts

        def tests(row: Row) -> str:
            return every(part.holds(build, row) for part in parts)

        sql = walked(build, tests, keys, last, limit, budget)
        widths = [len(key.values(build, "x")) for key in keys]
        return [_hit(row, widths) for row in build.run(self._tx, sql)]


def _arms(node: Node, component: int) -> list[Arm]:
    """The ranges of one index, which all that meet the node are in; [] where that is not so."""
    match node:
        case Rows():
            found = list(node.ranges) if component == 0 else []
        case Parts():
            found = list(node.ranges[component : component + 1])
        case AnyOf():
            each = [_arms(part, component) for part in node.parts]
            found = list(dict.fromkeys(arm for arms in each for arm in arms)) if all(each) else []
        case _:
            found = []
    good = len(found) <= _ARMS and len({arm.table for arm in found}) == 1 and found[0].table in COLUMNS
    # One that is in the order of seq has no other order to read it in.
    return found if good and not any(arm.ordered for arm in found) else []


def _having(key: Key) -> Rows:
    """The versions with a value of a key."""
    found = []
    for param in key.params:
        found.append(ranges.pointing(param, key.target) if key.target else ranges.everything(key.table, param))
    return Rows(tuple(found))


def _in_order(build: Build, streams: Sequence[Stream], selects: Sequence[str], limit: int) -> str:
    """The first rows by seq, each once."""
    most = build(limit)
    if len(selects) == 1 and streams[0].single:
        return f"{selects[0]} ORDER BY 1 LIMIT {most}"
    if build.sqlite and _ordered(streams) and len(selects) < 100:
        # Merged as they stream; PostgreSQL does that with UNION ALL alone.
        return f"{' UNION '.join(selects)} ORDER BY 1 LIMIT {most}"
    return f"SELECT DISTINCT u.seq FROM ({union(build, selects)}) u ORDER BY 1 LIMIT {most}"


def _ordered(streams: Sequence[Stream]) -> bool:
    return bool(streams) and all(stream.ordered for stream in streams)


def _hit(row: Sequence[Any], widths: Sequence[int]) -> Hit:
    keys: list[tuple[Any, ...] | None] = []
    place = 1
    for width in widths:
        values = tuple(row[place : place + width])
        keys.append(None if values[0] is None else values)
        place += width
    return Hit(int(row[0]), tuple(keys))


def _nothing(row: Row) -> str:
    return ""


def _root(number: int) -> int:
    return round(math.sqrt(number))
