"""Operations that read the record in ways of their own: ``$everything``, ``$lastn``, ``$match``, ``$meta``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.fhir.compartment import compartment_types
from carelake.fhir.query import Query, parse
from carelake.fhir.query.texts import is_id
from carelake.store.everything import Asked, Everything
from carelake.store.indexed import Indexed
from carelake.store.lastn import LastN
from carelake.store.match import BLOCK, Match, blocks, matches
from carelake.store.meta import labels
from carelake.store.read import Readings
from carelake.store.search import Searches, SearchResult, Shown
from carelake.store.search.building import prepare, restore
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.terms import stored_terminology
from carelake.vault.database import bounded, scope_of
from carelake.vault.workspace import Vault

__all__ = ["Operations"]

_PATIENT = Query(("Patient",))


@lru_cache(256)
def _members(kind: str, types: tuple[str, ...]) -> Query:
    """What a compartment is found by; of whom is of no matter here."""
    return parse(types, (), compartment=(kind, "x"))


class Operations:
    """Answers operations; each is bounded in time by the setting ``search.seconds``, as searches are."""

    def __init__(
        self, vault: Vault, symbols: Symbols, indexed: Indexed, readings: Readings, searches: Searches
    ) -> None:
        self._vault, self._symbols, self._indexed = vault, symbols, indexed
        self._readings, self._searches = readings, searches
        self._everything = Everything(vault, symbols, readings, searches)
        self._lastn = LastN(searches, vault.settings.search.included)

    def everything(self, permit: Permit, asked: Asked, page: str = "") -> SearchResult:
        """One page of a patient's or an encounter's record; see `everything.Everything.page`.

        Raises:
            Conflict: ``store.index_partial``.
        """
        members = compartment_types(asked.kind)
        with self._reading(permit) as tx:
            known = self._symbols.find(tx, kinds_of(permit.account), members)
            types = tuple(name for name in members if name in known and (not asked.types or name in asked.types))
            if types:
                self._indexed.require(tx, permit.account, _members(asked.kind, types))
            return self._everything.page(permit, tx, asked, page)

    def lastn(self, permit: Permit, query: Query, most: int) -> SearchResult:
        """The newest observations of each kind; see `lastn.LastN.find`."""
        with self._reading(permit) as tx:

            def stored(asked: Query) -> SearchResult:
                self._indexed.require(tx, permit.account, asked)
                return self._searches.search(permit, tx, asked)

            registry = self._indexed.require(tx, permit.account, query)
            known = stored_terminology(stored)
            return self._lastn.find(permit, tx, query, most, terminology=known, parameters_of=registry.parameters)

    def match(self, permit: Permit, patient: Mapping[str, Any], *, certain: bool = False) -> list[Match]:
        """Who may be the patient that is described, the likeliest first; see `match.matches`.

        Raises:
            Invalid: ``store.match_too_little``.
            Conflict: ``store.index_partial``.
        """
        queries = [parse("Patient", pairs) for pairs in blocks(patient)]
        with self._reading(permit) as tx:
            prepare(tx)
            seqs: dict[int, None] = {}
            for query in queries:
                self._indexed.require(tx, permit.account, query)
                seqs |= dict.fromkeys(self._searches.matching(permit, tx, query, BLOCK)[1])
            opened = self._searches.opened(permit, tx, list(seqs), _PATIENT)
            if scope_of(tx).writing:
                restore(tx)
            permit.log.count(searched=1)
            candidates = {one.id: one for one in opened.values()}
            return matches(patient, candidates, lambda key: self._patient(permit, tx, key), certain=certain)

    def labels(self, permit: Permit, types: Sequence[str]) -> dict[str, Any]:
        """All profiles, tags and security labels in use in some types: a ``Meta``; see `meta.labels`."""
        with self._reading(permit) as tx:
            return labels(permit, tx, self._symbols, types)

    @contextmanager
    def _reading(self, permit: Permit) -> Iterator[Connection]:
        with self._vault.database.reading(permit) as tx, bounded(tx, self._vault.settings.search.seconds):
            yield tx

    def _patient(self, permit: Permit, tx: Connection, key: str) -> Shown | None:
        if not is_id(key):
            return None
        try:
            return Shown("Patient", key, self._readings.read(permit, tx, "Patient", key))
        except NotFound:
            return None
