"""The record: versioned resources of an account, behind one class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.query import Query
from carelake.store.feed import Change, Feed, page_ref
from carelake.store.keep import Kept, Writer
from carelake.store.lineage import Family
from carelake.store.read import Readings
from carelake.store.search import Searches, SearchResult
from carelake.store.symbols import Symbols
from carelake.store.write import parsed, tombstone
from carelake.vault.workspace import Vault

__all__ = ["Resources"]


class Resources:
    """Reads and writes resources. Reading takes part in an open transaction of this thread, so it sees its writes."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        symbols = self._symbols = Symbols()
        self._writer = Writer(vault, symbols)
        self._readings = Readings(vault, symbols)
        self._searches = Searches(vault, symbols)
        self._feed = Feed(vault, symbols)

    # -- write ----------------------------------------------------------------------------------------------------

    def keep(
        self, permit: Permit, tx: Connection, landing: str, page: Sequence[Parsed], *, again: bool = False
    ) -> Kept:
        """Keep a page of parsed resources in the caller's transaction; see `keep.Writer.keep`.

        Args:
            landing: the ref of the landing they came from, "" for none.
        """
        kept = self._writer.keep(permit, tx, landing, page, again=again)
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
        record = parsed(resource)
        self.keep(permit, tx, "", [record])
        stored = self._readings.read(permit, tx, record.type, record.id)
        return stored, self._readings.ref(permit, tx, record.type, record.id)

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
        """One page of matches; ``page`` is `SearchResult.next` of the page before."""
        with self._vault.database.reading(permit) as tx:
            return self._searches.search(permit, tx, query, page)

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

    def resolver(self, permit: Permit) -> Family:
        """For `audit.nouns.Nouns`: resource versions as nouns, and which of them came from a landing."""
        return Family(permit, self._symbols)

    def lineage(self, permit: Permit, ref: str) -> Noun | None:
        """The noun of a resource's ref, with the byte range in its landing; None where there is none."""
        with self._vault.database.reading(permit) as tx:
            return next(iter(self.resolver(permit).find(tx, [ref])), None)
