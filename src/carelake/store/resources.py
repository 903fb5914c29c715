"""The record: versioned resources of an account, behind one class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.query import Query
from carelake.fhir.search import BASE, Registry
from carelake.fhir.terminology import Terminology
from carelake.fhir.validate import Exists
from carelake.store.feed import Change, Feed, page_ref
from carelake.store.indexed import Indexed
from carelake.store.keep import Kept, Writer
from carelake.store.lineage import Family
from carelake.store.read import Readings
from carelake.store.reindex import Reindexer, ReindexReport
from carelake.store.search import Searches, SearchResult
from carelake.store.symbols import Symbols
from carelake.store.terms import stored_terminology
from carelake.store.write import parsed, tombstone
from carelake.vault.database import bounded
from carelake.vault.workspace import Vault

__all__ = ["Resources"]


class Resources:
    """Reads and writes resources. Reading takes part in an open transaction of this thread, so it sees its writes."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        symbols = self._symbols = Symbols()
        self._indexed = Indexed(symbols, content=vault.settings.search.content)
        self._writer = Writer(vault, symbols, self._indexed)
        self._reindexer = Reindexer(vault, symbols, self._indexed)
        self._readings = Readings(vault, symbols)
        self._searches = Searches(vault, symbols)
        self._feed = Feed(vault, symbols)

    # -- write ----------------------------------------------------------------------------------------------------

    def keep(
        self,
        permit: Permit,
        tx: Connection,
        landing: str,
        page: Sequence[Parsed],
        *,
        again: bool = False,
        registry: Registry = BASE,
    ) -> Kept:
        """Keep a page of parsed resources in the caller's transaction; see `keep.Writer.keep`.

        Args:
            landing: the ref of the landing they came from, "" for none.
            registry: what their index values were extracted by; others are made anew.
        """
        kept = self._writer.keep(permit, tx, landing, page, again=again, registry=registry)
        permit.log.count(stored=kept.stored, unchanged=kept.unchanged)
        if kept.refs:
            permit.log.wrote(kept.refs[0] if len(kept.refs) == 1 else page_ref(kept.refs))
        return kept

    def create(self, permit: Permit, tx: Connection, resource: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Keep a new resource under a new id; the stored resource and its ref."""
        made = {**resource, "id": self._vault.ids.new()}
        return self.update(permit, tx, made)

    def update(self, permit: Permit, tx: Connection, resource: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Keep a resource under its id, as a new version unless nothing changed; the stored resource and its ref.

        Raises:
            Invalid: ``store.invalid_resource``, ``store.no_id``.
        """
        asked = self._vault.settings.validation
        exists = self.exists(permit, tx) if asked.references == "on" else None
        registry = self._indexed.current(tx, permit.account)
        record = parsed(resource, asked.write, exists, registry)
        self.keep(permit, tx, "", [record], registry=registry)
        stored = self._readings.read(permit, tx, record.type, record.id)
        return stored, self._readings.ref(permit, tx, record.type, record.id)

    def exists(self, permit: Permit, tx: Connection) -> Exists:
        """What validation asks of references: ``(type, id)`` to whether the caller may see such a resource."""
        return lru_cache(4096)(partial(self._readings.there, permit, tx))

    def delete(self, permit: Permit, tx: Connection, kind: str, key: str) -> None:
        """Delete a resource: a version that says so; earlier ones stay readable. `NotFound` where there is none."""
        owner = self._readings.owner(permit, tx, kind, key)
        self.keep(permit, tx, "", [tombstone(kind, key, owner)])

    # -- read -----------------------------------------------------------------------------------------------------

    def read(self, permit: Permit, kind: str, key: str) -> dict[str, Any]:
        """The current version of a resource; `NotFound`, or `Gone` when deleted."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.read(permit, tx, kind, key)

    def vread(self, permit: Permit, kind: str, key: str, version: str) -> dict[str, Any]:
        """One version of a resource."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.vread(permit, tx, kind, key, version)

    def ref(self, permit: Permit, kind: str, key: str) -> str:
        """The ref of the current version."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.ref(permit, tx, kind, key)

    def resources_of(self, permit: Permit, patient: str) -> list[tuple[str, dict[str, Any]]]:
        """Ref and current version of all that is in one patient's compartment, by type and id; empty for none."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.resources_of(permit, tx, patient)

    def refs_of(self, permit: Permit, patients: Sequence[str], kinds: Collection[str]) -> dict[str, list[str]]:
        """Refs of the current versions of some types, by patient: what a row made from these was made from."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.refs_of(permit, tx, patients, kinds)

    def search(self, permit: Permit, query: Query, page: str = "") -> SearchResult:
        """One page of matches; ``page`` is `SearchResult.next` of the page before.

        Raises:
            Conflict: ``store.index_partial``: an index that it needs is not built.
            Unavailable: ``vault.too_long``: past the setting ``search.seconds``.
        """
        database, most = self._vault.database, self._vault.settings.search.seconds
        with database.reading(permit) as tx, bounded(tx, most):
            known = stored_terminology(lambda asked: self._answer(permit, tx, asked).matches)
            return self._answer(permit, tx, query, page, known)

    def _answer(
        self,
        permit: Permit,
        tx: Connection,
        query: Query,
        page: str = "",
        known: Terminology | None = None,
    ) -> SearchResult:
        told = self._indexed.require(tx, permit.account, query).parameters
        return self._searches.search(permit, tx, query, page, terminology=known, parameters_of=told)

    def changes(self, permit: Permit, after: int, limit: int = 2000) -> list[Change]:
        """The change feed after a seq."""
        if limit < 1:
            raise Invalid("store.limit", "The feed gives at least one change at a time.")
        with self._vault.database.reading(permit) as tx:
            return self._feed.changes(permit, tx, after, limit)

    def last_seq(self, permit: Permit) -> int:
        """The newest seq of the account's change feed, 0 for none."""
        with self._vault.database.reading(permit) as tx:
            return self._feed.last(permit, tx)

    # -- index ----------------------------------------------------------------------------------------------------

    def registry(self, permit: Permit) -> Registry:
        """The account's search parameters: the standard's, US Core's, and its own that `reindex` has registered."""
        with self._vault.database.reading(permit) as tx:
            return self._indexed.registry(tx, permit.account)

    def unbuilt(self, permit: Permit) -> frozenset[tuple[str, str]]:
        """Type and code of the account's own search parameters whose index is not built: they are refused yet."""
        with self._vault.database.reading(permit) as tx:
            return self._indexed.unbuilt(tx, permit.account)

    def reindex(
        self, permit: Permit, parameter: str = "", progress: Callable[[int, int], None] = lambda done, of: None
    ) -> ReindexReport:
        """Register the account's SearchParameter resources and build what is not built; see `reindex.Reindexer`."""
        return self._reindexer.reindex(permit, parameter, progress)

    def verify_index(
        self, permit: Permit, parameter: str = "", progress: Callable[[int, int], None] = lambda done, of: None
    ) -> ReindexReport:
        """Compare the rows that are there with those that there should be."""
        return self._reindexer.verify(permit, parameter, progress)

    def resolver(self, permit: Permit) -> Family:
        """For `audit.nouns.Nouns`: resource versions as nouns, and which of them came from a landing."""
        return Family(permit, self._symbols)

    def lineage(self, permit: Permit, ref: str) -> Noun | None:
        """The noun of a resource's ref, with the byte range in its landing; None where there is none."""
        with self._vault.database.reading(permit) as tx:
            return next(iter(self.resolver(permit).find(tx, [ref])), None)
