"""The nouns that acts made, kept with what they were made from, and walked in both directions.

A walk goes level by level, the nearest first, in steps of the database: a step follows many nouns for several levels
in one recursive query, so a walk costs what its answer costs, whether that is broad or deep, and not what the table
holds. A walk stays in its account. Some nouns are kept by another room (resource versions, by the store): a `Kin`
finds them, says what they were made from, and under which refs what came from a noun is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Integer, Select, func, literal, or_, select, update

from carelake.audit.counters import take
from carelake.audit.tables import noun, noun_from
from carelake.core import canonical
from carelake.core.clock import Clock, iso
from carelake.core.errors import NotFound
from carelake.core.nouns import Noun
from carelake.vault.database import bulk, rows_of

__all__ = ["LIMIT", "Kin", "Nouns"]

LIMIT = 100_000
"""Nouns of one answer where nothing else is said."""

_CHUNK = 500
_LEVELS = 50
"""Levels of one query, for as long as the walk is narrow; a wide one goes level by level."""

_COLUMNS = ("ref", "kind", "account", "state", "act", "body", "at", "number")
_INSERT = f"INSERT INTO noun ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"

_NARROW = 20
_STEP_ROWS = 20_000


class Kin(Protocol):
    """The nouns of one kind that another room keeps, in the account and scope of a permit."""

    def find(self, tx: Connection, refs: Sequence[str]) -> list[Noun]:
        """Those of these refs that there are."""
        ...

    def made_from(self, tx: Connection, ref: str) -> list[tuple[str, str]]:
        """Ranges of refs, first and last, that hold all nouns of this kind that were made from ``ref``."""
        ...


class Nouns:
    """The table of nouns. Writing the same noun twice is once: a ref names its content."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def write(self, tx: Connection, thing: Noun) -> None:
        """Keep a noun; a noun that is there already stays as it is."""
        self.write_all(tx, [thing])

    def write_all(self, tx: Connection, things: Sequence[Noun]) -> None:
        """Keep many nouns, in this order."""
        wanted = {thing.ref: thing for thing in reversed(things)}
        if len(wanted) == 1:  # past the work for a list: every prediction is one
            there = {ref for (ref,) in rows_of(tx, "SELECT ref FROM noun WHERE ref = ?", *wanted)}
        else:
            there = {
                ref for page in _pages(list(wanted)) for ref in _scalars(tx, select(noun.c.ref), noun.c.ref, page)
            }
        new = [wanted[ref] for ref in reversed(wanted) if ref not in there]
        if not new:
            return
        now = iso(self._clock.now())
        first, _ = take(tx, "noun", len(new), now)
        rows = [{**_row(one), "at": now, "number": number} for number, one in enumerate(new, first)]
        bulk(tx, _INSERT, [tuple(row[name] for name in _COLUMNS) for row in rows])
        sources = [(one.ref, at, source) for one in new for at, source in enumerate(dict.fromkeys(one.made_from))]
        bulk(tx, "INSERT INTO noun_from (ref, position, source) VALUES (?, ?, ?)", sources)

    def get(self, tx: Connection, ref: str, *, account: str | None = None) -> Noun:
        """The noun of that ref.

        Args:
            account: only one of this account; another's is not there for the caller.

        Raises:
            NotFound: ``audit.no_such_noun``.
        """
        found = self._load(tx, [ref], account)
        if not found:
            raise _no_such(ref)
        return found[0]

    def find(self, tx: Connection, kind: str, account: str, **body_equal: Any) -> list[Noun]:
        """Nouns of a kind in an account whose body has these values, newest first."""
        query = (
            select(noun.c.ref).where(noun.c.kind == kind, noun.c.account == account).order_by(noun.c.number.desc())
        )
        refs = list(tx.execute(query).scalars())
        found = (one for page in _pages(refs) for one in self._load(tx, page, account))
        return [one for one in found if all(one.body.get(k) == v for k, v in body_equal.items())]

    def since(self, tx: Connection, kind: str, account: str, ref: str = "") -> list[str]:
        """Refs of a kind in an account that were written after the noun ``ref``, or ever; oldest first."""
        after = tx.execute(select(noun.c.number).where(noun.c.ref == ref)).scalar() or 0
        query = select(noun.c.ref).where(noun.c.kind == kind, noun.c.account == account, noun.c.number > after)
        return list(tx.execute(query.order_by(noun.c.number)).scalars())

    def of_act(self, tx: Connection, act: str, *, limit: int = LIMIT) -> list[str]:
        """Refs of the nouns that an act made, oldest first."""
        query = select(noun.c.ref).where(noun.c.act == act).order_by(noun.c.number).limit(limit)
        return list(tx.execute(query).scalars())

    def set_state(self, tx: Connection, ref: str, state: str) -> None:
        """Change a noun's state word; its content stays."""
        self.get(tx, ref)
        tx.execute(update(noun).where(noun.c.ref == ref).values(state=state))

    def counts(self, tx: Connection, account: str) -> dict[str, int]:
        """How many nouns of each kind an account has."""
        query = select(noun.c.kind, func.count()).where(noun.c.account == account).group_by(noun.c.kind)
        return {row[0]: row[1] for row in tx.execute(query.order_by(noun.c.kind))}

    def lineage(
        self,
        tx: Connection,
        ref: str,
        kin: Mapping[str, Kin] | None = None,
        *,
        account: str,
        limit: int = LIMIT,
        depth: int | None = None,
    ) -> list[Noun]:
        """Every noun of an account that ``ref`` was made from, the nearest first, ``ref`` itself at the head.

        Args:
            kin: by kind, the nouns that other rooms keep.
            depth: follow so many arrows at most.

        Raises:
            NotFound: ``audit.no_such_noun``, of ``ref`` and of whatever is named on the way and not there.
        """
        found: dict[str, Noun] = {}
        for wanted in self._upwards(tx, ref, found, account, depth):
            for one in self._resolve(tx, wanted, kin or {}, account):
                if len(found) < limit:
                    found[one.ref] = one
            if len(found) >= limit:
                break
            if missing := next((name for name in wanted if name not in found), None):
                raise _no_such(missing)
        return _nearest_first(found, ref)

    def descendants(
        self,
        tx: Connection,
        ref: str,
        *,
        account: str,
        kin: Mapping[str, Kin] | None = None,
        limit: int = LIMIT,
        depth: int | None = None,
    ) -> list[Noun]:
        """Every noun of an account that was made from ``ref``, the nearest first; those of `Kin` are passed through.

        Args:
            depth: follow so many arrows at most; the arrow from a landing to a version of a resource is one too.
        """
        seen: dict[str, None] = {}
        frontier, gone = [ref], 0
        while frontier and len(seen) < limit and (depth is None or gone < depth):
            # Only what came in from outside has descendants in other rooms, and it is made from nothing here.
            landed = [name for name in frontier if kin and name.startswith("landing:")]
            alone = landed or len(frontier) > _NARROW
            levels = 1 if alone else min(_LEVELS, _LEVELS if depth is None else depth - gone)
            coming = self._downwards(tx, frontier, levels, account, limit + len(seen))
            coming += [(one, 1) for name in landed for one in self._through(tx, name, kin or {}, account)]
            new = {one: level for one, level in coming if one not in seen and one != ref}
            seen.update(dict.fromkeys(new))
            # What lies nearer than the last level has been followed already.
            frontier = [one for one, level in new.items() if level == levels]
            gone += levels
        refs = list(seen)[:limit]
        return [one for page in _pages(refs) for one in self._load(tx, page, account)]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _upwards(
        self, tx: Connection, ref: str, found: Mapping[str, Noun], account: str, depth: int | None
    ) -> Iterator[list[str]]:
        """Refs, the nearest first; ``found`` grows between two of them."""
        frontier, gone = [ref], 0
        while frontier and (depth is None or gone <= depth):
            yield frontier
            coming = (source for name in frontier if name in found for source in found[name].made_from)
            frontier = [one for one in dict.fromkeys(coming) if one not in found]
            gone += 1
            if len(frontier) <= _NARROW and (depth is None or gone < depth):
                levels = _LEVELS if depth is None else min(_LEVELS, depth - gone)
                ahead = self._walk(tx, frontier, levels, account)
                if len(ahead) > len(frontier):
                    yield [one for one in ahead if one not in found]
                    frontier = [s for n in ahead if n in found for s in found[n].made_from if s not in found]
                    frontier = list(dict.fromkeys(frontier))
                    gone += levels + 1

    @staticmethod
    def _walk(tx: Connection, frontier: Sequence[str], levels: int, account: str) -> list[str]:
        """Refs from these upwards, as far as this table knows them, the nearest first."""
        start = select(noun.c.ref, literal(0, Integer).label("level")).where(noun.c.ref.in_(frontier))
        walk = start.where(noun.c.account == account).cte("walk", recursive=True)
        above = (
            select(noun_from.c.source, walk.c.level + 1)
            .join(walk, noun_from.c.ref == walk.c.ref)
            .join(noun, noun.c.ref == noun_from.c.source)
            .where(noun.c.account == account, walk.c.level < levels)
        )
        walk = walk.union(above)
        query = select(walk.c.ref, func.min(walk.c.level).label("level")).group_by(walk.c.ref)
        return list(tx.execute(query.order_by("level").limit(_STEP_ROWS)).scalars())

    @staticmethod
    def _downwards(
        tx: Connection, frontier: Sequence[str], levels: int, account: str, limit: int
    ) -> list[tuple[str, int]]:
        """Refs that were made from these, in so many levels, and at which level; the nearest first."""
        made = noun_from.join(noun, noun.c.ref == noun_from.c.ref)
        found: list[tuple[str, int]] = []
        for page in _pages(frontier):
            of_page = noun_from.c.source.in_(page)
            if levels == 1:
                query: Select[Any] = select(noun_from.c.ref, literal(1, Integer)).select_from(made)
                query = query.where(of_page, noun.c.account == account).distinct()
            else:
                start = select(noun_from.c.ref, literal(1, Integer).label("level")).select_from(made)
                walk = start.where(of_page, noun.c.account == account).cte("walk", recursive=True)
                below = (
                    select(noun_from.c.ref, walk.c.level + 1)
                    .select_from(made)
                    .join(walk, noun_from.c.source == walk.c.ref)
                    .where(noun.c.account == account, walk.c.level < levels)
                )
                walk = walk.union(below)
                grouped = select(walk.c.ref, func.min(walk.c.level).label("level")).group_by(walk.c.ref)
                query = grouped.order_by("level")
            found += [(name, level) for name, level in tx.execute(query.limit(limit))]
            if len(found) >= limit:
                break
        return found

    @staticmethod
    def _through(tx: Connection, ref: str, kin: Mapping[str, Kin], account: str) -> Iterator[str]:
        """Refs that were made from what other rooms made from ``ref``."""
        made = noun_from.join(noun, noun.c.ref == noun_from.c.ref)
        for family in kin.values():
            for page in _pages(family.made_from(tx, ref), 100):
                ranges = or_(*(noun_from.c.source.between(first, last) for first, last in page))
                query = select(noun_from.c.ref).select_from(made).where(ranges, noun.c.account == account)
                yield from tx.execute(query.distinct().limit(LIMIT)).scalars()

    def _resolve(self, tx: Connection, refs: Sequence[str], kin: Mapping[str, Kin], account: str) -> Iterator[Noun]:
        """The nouns of these refs that there are, in this order."""
        by_kind: dict[str, list[str]] = {}
        for name in refs:
            by_kind.setdefault(name.partition(":")[0], []).append(name)
        found = {
            one.ref: one
            for kind, names in by_kind.items()
            for page in _pages(names)
            for one in (kin[kind].find(tx, page) if kind in kin else self._load(tx, page, account))
        }
        return (found[name] for name in refs if name in found)

    @staticmethod
    def _load(tx: Connection, refs: Sequence[str], account: str | None) -> list[Noun]:
        """Nouns by ref, in this order; at most a page."""
        rows = {row["ref"]: row for row in tx.execute(select(noun).where(noun.c.ref.in_(refs))).mappings()}
        query = select(noun_from.c.ref, noun_from.c.source).where(noun_from.c.ref.in_(list(rows)))
        sources: dict[str, list[str]] = {}
        for name, source in tx.execute(query.order_by(noun_from.c.ref, noun_from.c.position)):
            sources.setdefault(name, []).append(source)
        wanted = (rows[name] for name in refs if name in rows)
        return [_read(row, sources.get(row["ref"], ())) for row in wanted if account in (None, row["account"])]


def _nearest_first(found: Mapping[str, Noun], ref: str) -> list[Noun]:
    """What was found, by its distance from ``ref``."""
    ordered: dict[str, None] = {}
    frontier = [ref]
    while frontier:
        ordered.update(dict.fromkeys(frontier))
        coming = (source for name in frontier for source in found[name].made_from)
        frontier = [one for one in dict.fromkeys(coming) if one in found and one not in ordered]
    return [found[name] for name in ordered]


def _row(one: Noun) -> dict[str, Any]:
    told = {"ref": one.ref, "kind": one.kind, "account": one.account, "state": one.state, "act": one.made_by}
    return {**told, "body": canonical.dump(dict(one.body))}


def _read(row: Mapping[Any, Any], sources: Iterable[str]) -> Noun:
    return Noun(row["ref"], row["account"], row["state"], row["act"], tuple(sources), canonical.load(row["body"]))


def _pages(refs: Sequence[Any], size: int = _CHUNK) -> Iterator[Sequence[Any]]:
    return (refs[at : at + size] for at in range(0, len(refs), size))


def _scalars(tx: Connection, query: Select[Any], column: Any, page: Sequence[str]) -> Iterable[str]:
    return tx.execute(query.where(column.in_(page))).scalars()


def _no_such(ref: str) -> NotFound:
    return NotFound("audit.no_such_noun", "No noun has this ref; `carelake nouns` lists them.", ref=ref)
