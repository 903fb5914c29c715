"""The record: versioned resources of an account, behind one class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from typing import Any

from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.query import Query
from carelake.fhir.search import BASE, Registry
from carelake.fhir.terminology import LocalTerminology, Terminology
from carelake.fhir.terminology.expansion import MAX_CODES
from carelake.fhir.validate import Exists
from carelake.store.bodies import Shown
from carelake.store.criteria import criteria_query
from carelake.store.erase import Eraser
from carelake.store.export import Exports
from carelake.store.feed import Change, Feed, Page, page_ref
from carelake.store.history import History, PastPage, Span
from carelake.store.import_order import Order, versions_between
from carelake.store.indexed import Indexed
from carelake.store.keep import Kept, Writer
from carelake.store.lineage import Family
from carelake.store.operations import Operations
from carelake.store.read import Readings
from carelake.store.reindex import Reindexer, ReindexReport
from carelake.store.scopes import bounded as bounded_by
from carelake.store.search import Searches, SearchResult
from carelake.store.singles import Single, Singles
from carelake.store.symbols import Symbols
from carelake.store.terms import Systems, stored_terminology
from carelake.store.write import Changes, Written, parsed, stripped
from carelake.vault.database import bounded
from carelake.vault.workspace import Vault

__all__ = ["Resources"]

_CONDITION_SECONDS = 5.0
"""All other writers wait for a condition."""


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
        self.operations = Operations(vault, symbols, self._indexed, self._readings, self._searches)
        self._feed = Feed(vault, symbols)
        self._systems = Systems()
        self._changes = Changes(symbols, self._keep_own)
        self._history = History(vault, symbols, self._changes)
        self.singles = Singles(self._writer, symbols)

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
        current: bool = False,
    ) -> Kept:
        """Keep a page of parsed resources in the caller's transaction; see `keep.Writer.keep`.

        Args:
            landing: the ref of the landing they came from, "" for none.
            registry: what their index values were extracted by; others are made anew.
            current: that is known to be the account's in this transaction.
        """
        kept = self._writer.keep(permit, tx, landing, page, again=again, registry=registry, current=current)
        permit.log.count(stored=kept.stored, unchanged=kept.unchanged)
        if kept.refs:
            permit.log.wrote(kept.refs[0] if len(kept.refs) == 1 else page_ref(kept.refs))
        return kept

    def _keep_own(self, permit: Permit, tx: Connection, page: Sequence[Parsed], registry: Registry | None) -> Kept:
        return self.keep(permit, tx, "", page, registry=registry or BASE, current=registry is not None)

    def create(
        self,
        permit: Permit,
        tx: Connection,
        resource: dict[str, Any],
        *,
        exists: Exists | None = None,
        valid: bool = False,
        key: str = "",
    ) -> Written:
        """Keep a new resource under a new id, whatever id it came with; arguments and errors as of `update`.

        Args:
            key: the id, where `new_id` made it before.
        """
        made = {**resource, "id": key or self.new_id()}
        return self._put(permit, tx, made, exists, valid, fresh=True)

    def new_id(self) -> str:
        """An id that no resource has, for `create`: who writes several that name each other needs them before."""
        return self._vault.ids.new()

    def update(
        self,
        permit: Permit,
        tx: Connection,
        resource: dict[str, Any],
        *,
        expected: int | None = None,
        create: bool = True,
        exists: Exists | None = None,
        valid: bool = False,
    ) -> Written:
        """Keep a resource under its id, as a new version unless nothing changed.

        Args:
            expected: the version that must be the current one (If-Match).
            create: whether there may be none yet, or a deleted one.
            exists: what is asked of references where the setting ``validation.references`` is on; default: `exists`.
            valid: it was validated already, at the level of the setting ``validation.write``; references are looked
                for all the same.

        Raises:
            Invalid: ``store.invalid_resource``, ``store.no_id``.
            Conflict: ``store.version_conflict``.
            NotFound: ``store.no_such_resource``, with ``create=False``; under a patient's scope for every id that is
                not in sight, whether there is one or not. `Gone` ``store.deleted``.
            Refused: ``store.outside_scope``: it would not be in the record that the permit is for. Leave the
                transaction then.
        """
        return self._put(permit, tx, resource, exists, valid, expected=expected, create=create)

    def single(
        self, permit: Permit, resource: dict[str, Any], *, expect: Callable[[int], None] | None = None
    ) -> Single | None:
        """A validated resource made ready to be kept together with others by `singles`.

        Under a new id, or with ``expect`` under its own; see `Single`. None where that must be asked in the
        transaction: with ``validation.references``, and for permits that do not see all of their account.
        """
        if self._vault.settings.validation.references == "on":
            return None
        own = stripped(resource if expect is not None else {**resource, "id": self.new_id()})
        with self._vault.database.reading(permit) as tx:
            if bounded_by(permit, tx=tx):
                return None
            registry = self._indexed.registry(tx, permit.account)
        record = parsed(own, self._vault.settings.validation.write, None, registry, valid=True)
        return Single(
            permit, own, record, registry, **({"expect": expect} if expect is not None else {"fresh": True})
        )

    def _put(
        self,
        permit: Permit,
        tx: Connection,
        resource: dict[str, Any],
        exists: Exists | None,
        valid: bool,
        **how: Any,
    ) -> Written:
        asked = self._vault.settings.validation
        checked = (exists or self.exists(permit, tx)) if asked.references == "on" else None
        registry = self._indexed.current(tx, permit.account)
        known = valid and checked is None
        own = stripped(resource)
        record = parsed(own, asked.write, checked, registry, valid=known)
        return self._changes.put(permit, tx, record, registry, own, **how)

    def delete(
        self, permit: Permit, tx: Connection, kind: str, key: str, *, expected: int | None = None
    ) -> Written | None:
        """Delete a resource: a version that says so; earlier ones stay readable. None where there is none in sight.

        Raises:
            Conflict: ``store.version_conflict``.
        """
        return self._changes.delete(permit, tx, kind, key, expected=expected)

    def version(self, permit: Permit, tx: Connection, kind: str, key: str) -> int:
        """Number of the current version; 0 where there is none in sight, or it is deleted."""
        return self._changes.version(permit, tx, kind, key)

    def written(self, permit: Permit, tx: Connection, kind: str, key: str, *, shown: bool = True) -> Written:
        """The current version told as a write that changed nothing; with ``shown=False`` nothing of it is opened.

        Raises:
            NotFound: ``store.no_such_resource``; `Gone` ``store.deleted``.
        """
        made = self._readings.read(permit, tx, kind, key) if shown else None
        return self._changes.as_it_is(permit, tx, kind, key, made)

    def exists(self, permit: Permit, tx: Connection) -> Exists:
        """What validation asks of references: ``(type, id)`` to whether the caller may see such a resource."""
        return lru_cache(4096)(partial(self._readings.there, permit, tx))

    def criteria(self, permit: Permit, tx: Connection, kind: str, criteria: str) -> Query:
        """The search behind a condition; who asks must be allowed to search for all of its `Query.kinds`.

        Args:
            criteria: ``identifier=http://x|1``, also after ``?`` or ``Patient?``.

        Raises:
            Invalid: ``store.criteria``; as `carelake.fhir.query.parse`.
        """
        return criteria_query(kind, criteria, self._indexed.registry(tx, permit.account))

    def found(self, permit: Permit, tx: Connection, kind: str, criteria: str | Query, limit: int = 2) -> list[str]:
        """Ids of at most ``limit`` resources that match a condition, in the open transaction, with its writes.

        Raises:
            Invalid, Conflict: as `criteria` and `search`.
            Unavailable: ``vault.too_long``: all other writers wait meanwhile, so it is given a few seconds.
        """
        query = self.criteria(permit, tx, kind, criteria) if isinstance(criteria, str) else criteria
        known = stored_terminology(partial(self._answer, permit, tx), self._systems)
        with bounded(tx, min(_CONDITION_SECONDS, self._vault.settings.search.seconds)):
            found = self._answer(permit, tx, replace(query, count=limit, total="none"), "", known)
        return [one.id for one in found.found]

    # -- read -----------------------------------------------------------------------------------------------------

    def read(self, permit: Permit, kind: str, key: str) -> dict[str, Any]:
        """The current version of a resource; `NotFound`, or `Gone` when deleted."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.read(permit, tx, kind, key)

    def shown(self, permit: Permit, kind: str, key: str, version: str | None = None) -> Shown:
        """As `read` or `vread`, as the text that is answered: quicker, since nothing outside ``meta`` is parsed."""
        with self._vault.database.reading(permit) as tx:
            return self._readings.shown(permit, tx, kind, key, version)

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

    def terms(self, permit: Permit, tx: Connection, sees: Callable[[str], bool]) -> LocalTerminology:
        """Code systems, value sets and concept maps of the record, before those that ship, for operations on them.

        Args:
            sees: whether the caller may see resources of a type; of another there are none.
        """

        def answers(asked: Query) -> SearchResult:
            return self._answer(permit, tx, asked) if all(map(sees, asked.kinds())) else SearchResult(0)

        return stored_terminology(answers, self._systems, most_listed=MAX_CODES)

    def search(self, permit: Permit, query: Query, page: str = "") -> SearchResult:
        """One page of matches; ``page`` is `SearchResult.next` of the page before.

        Raises:
            Conflict: ``store.index_partial``: an index that it needs is not built.
            Unavailable: ``vault.too_long``: past the setting ``search.seconds``.
        """
        database, most = self._vault.database, self._vault.settings.search.seconds
        with database.reading(permit) as tx, bounded(tx, most):
            known = stored_terminology(partial(self._answer, permit, tx), self._systems)
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

    def history(
        self,
        permit: Permit,
        kind: str = "",
        key: str = "",
        *,
        span: Span = Span(),  # noqa: B008 - it is frozen
        count: int | None = None,
        page: str = "",
    ) -> PastPage:
        """One page of versions, newest first: of a resource, of a type, or of all; see `history.History.page`.

        Raises:
            Unavailable: ``vault.too_long``: past the setting ``search.seconds``.
        """
        most = self._vault.settings.search.seconds
        with self._vault.database.reading(permit) as tx, bounded(tx, most):
            return self._history.page(permit, tx, kind, key, span=span, count=count, page=page)

    def changes(self, permit: Permit, after: int, limit: int = 2000) -> list[Change]:
        """The change feed after a seq."""
        if limit < 1:
            raise Invalid("store.limit", "The feed gives at least one change at a time.")
        with self._vault.database.reading(permit) as tx:
            return self._feed.changes(permit, tx, after, limit)

    def page(self, permit: Permit, after: int, limit: int = 2000) -> Page:
        """As `changes`, by types and columns: for who follows all of it."""
        with self._vault.database.reading(permit) as tx:
            return self._feed.page(permit, tx, after, limit)

    def changes_of(self, permit: Permit, seqs: Sequence[int]) -> list[Change]:
        """Versions by their seqs, as the feed tells them."""
        with self._vault.database.reading(permit) as tx:
            return self._feed.of(permit, tx, seqs)

    @cached_property
    def eraser(self) -> Eraser:
        """Takes patients out, for good; see `erase`."""
        return Eraser(self._vault, self._symbols, self._indexed, self._writer)

    def last_seq(self, permit: Permit) -> int:
        """The newest seq of the account's change feed, 0 for none."""
        with self._vault.database.reading(permit) as tx:
            return self._feed.last(permit, tx)

    def lag(self, permit: Permit, account: str, after: int) -> tuple[int, int | None]:
        """Of an account's feed: its newest seq, and when the oldest beyond ``after`` was written (microseconds)."""
        with self._vault.database.reading(permit) as tx:
            return self._feed.lag(tx, account, after)

    @cached_property
    def exports(self) -> Exports:
        """What bulk exports read."""
        return Exports(self._vault, self._symbols, self._indexed, self._searches)

    @cached_property
    def order(self) -> Order:
        """What incremental imports may store."""
        return Order(self._vault, self._symbols)

    def versions_between(self, permit: Permit, tx: Connection, first: int, last: int) -> dict[tuple[int, int], int]:
        """Line and offset of what was stored from one landing in a run of seqs, to the version's number."""
        return versions_between(tx, first, last)

    def terminology(self, permit: Permit, tx: Connection) -> Terminology:
        """Value sets and code systems of the record, and what ships with carelake, for searches in a transaction."""
        return stored_terminology(partial(self._answer, permit, tx), self._systems)

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
