"""The nouns that acts made, kept with what they were made from, and walked in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from carelake.audit.tables import noun, noun_from
from carelake.core import canonical
from carelake.core.clock import Clock, iso
from carelake.core.errors import NotFound
from carelake.core.nouns import Noun

__all__ = ["Nouns", "Resolver"]

Resolver = Callable[[Connection, str], Noun | None]
"""Finds a noun that its own room keeps, for example a resource version."""


class Nouns:
    """The table of nouns. Writing the same noun twice is once: a ref names its content."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def write(self, tx: Connection, thing: Noun) -> None:
        """Keep a noun; a noun that is there already stays as it is."""
        if tx.execute(select(noun.c.ref).where(noun.c.ref == thing.ref)).first():
            return
        number = tx.exec_driver_sql("SELECT coalesce(max(number), 0) + 1 FROM noun").scalar_one()
        tx.execute(
            insert(noun).values(
                ref=thing.ref,
                kind=thing.kind,
                account=thing.account,
                state=thing.state,
                act=thing.made_by,
                at=iso(self._clock.now()),
                number=number,
                body=canonical.dump(dict(thing.body)),
            )
        )
        rows = [{"ref": thing.ref, "position": i, "source": s} for i, s in enumerate(dict.fromkeys(thing.made_from))]
        if rows:
            tx.execute(insert(noun_from), rows)

    def get(self, tx: Connection, ref: str, *, account: str | None = None) -> Noun:
        """The noun of that ref.

        Args:
            account: only one of this account; another's is not there for the caller.

        Raises:
            NotFound: ``audit.no_such_noun``.
        """
        row = tx.execute(select(noun).where(noun.c.ref == ref)).mappings().first()
        if row is None or account not in (None, row["account"]):
            raise NotFound("audit.no_such_noun", "No noun has this ref; `carelake nouns` lists them.", ref=ref)
        return self._read(tx, row)

    def find(self, tx: Connection, kind: str, account: str, **body_equal: Any) -> list[Noun]:
        """Nouns of a kind in an account whose body has these values, newest first."""
        query = select(noun).where(noun.c.kind == kind, noun.c.account == account).order_by(noun.c.number.desc())
        found = [self._read(tx, row) for row in tx.execute(query).mappings()]
        return [n for n in found if all(n.body.get(k) == v for k, v in body_equal.items())]

    def since(self, tx: Connection, kind: str, account: str, ref: str = "") -> list[str]:
        """Refs of a kind in an account that were written after the noun ``ref``, or ever; oldest first."""
        after = tx.execute(select(noun.c.number).where(noun.c.ref == ref)).scalar() or 0
        query = select(noun.c.ref).where(noun.c.kind == kind, noun.c.account == account, noun.c.number > after)
        return list(tx.execute(query.order_by(noun.c.number)).scalars())

    def set_state(self, tx: Connection, ref: str, state: str) -> None:
        """Change a noun's state word; its content stays."""
        self.get(tx, ref)
        tx.execute(update(noun).where(noun.c.ref == ref).values(state=state))

    def counts(self, tx: Connection, account: str) -> dict[str, int]:
        """How many nouns of each kind an account has."""
        sql = "SELECT kind, count(*) FROM noun WHERE account = ? GROUP BY kind ORDER BY kind"
        return {row[0]: row[1] for row in tx.exec_driver_sql(sql, (account,))}

    def lineage(
        self, tx: Connection, ref: str, resolvers: Mapping[str, Resolver], *, account: str, limit: int = 100_000
    ) -> list[Noun]:
        """Every noun of an account that ``ref`` was made from, the nearest first, ``ref`` itself at the head."""
        found: dict[str, Noun] = {}
        frontier = [ref]
        while frontier and len(found) < limit:
            coming: list[str] = []
            for name in frontier:
                if name not in found:
                    found[name] = self._resolve(tx, name, resolvers, account)
                    coming += found[name].made_from
            frontier = coming
        return list(found.values())

    def descendants(self, tx: Connection, ref: str, *, account: str, limit: int = 100_000) -> list[Noun]:
        """Every noun of an account that was made from ``ref``, the nearest first."""
        found: dict[str, Noun] = {}
        frontier = [ref]
        while frontier and len(found) < limit:
            made = noun_from.join(noun, noun.c.ref == noun_from.c.ref)
            query = select(noun_from.c.ref).select_from(made).where(noun_from.c.source.in_(frontier[:500]))
            coming = [r for (r,) in tx.execute(query.where(noun.c.account == account).distinct()) if r not in found]
            found.update({r: self.get(tx, r) for r in coming})
            frontier = frontier[500:] + coming
        return list(found.values())

    def _resolve(self, tx: Connection, ref: str, resolvers: Mapping[str, Resolver], account: str) -> Noun:
        resolver = resolvers.get(ref.partition(":")[0])
        resolved = resolver(tx, ref) if resolver else None
        return resolved if resolved is not None else self.get(tx, ref, account=account)

    @staticmethod
    def _read(tx: Connection, row: Mapping[Any, Any]) -> Noun:
        query = select(noun_from.c.source).where(noun_from.c.ref == row["ref"]).order_by(noun_from.c.position)
        sources = tuple(s for (s,) in tx.execute(query))
        body = canonical.load(row["body"])
        return Noun(row["ref"], row["account"], row["state"], row["act"], sources, body)
