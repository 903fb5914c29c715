"""Materialised views are made here, and kept as fresh as the tables they are made from.

The rows of a view rest on one version of one resource each. So its table (``view.NAME``) is laid out as a resource
type's: the view's columns beside the key columns of the version that a row came from, and a row that says what was
replaced for each version that replaced another one (`deleted`, as of a deletion). What is new in the record is
appended, nothing is looked up, and `current` of the table is the view of the current resources.

`follow` runs after each sync: it takes the versions beyond the view's own position (`SEQ`, in its Iceberg snapshot)
from the tables. All views' tables, the lake's position and the snapshot that names them move in one transaction. A
snapshot tells of each table up to which change it is whole: a view's is read only where that is its type's own
(`materialised`), so whatever was killed, lost a race or failed leaves readers right, and slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy import Connection, select, update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import CarelakeError, Conflict, Refused
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.lake.current import Rows, rows_of
from carelake.lake.following.sync import SEQ, moved, position, seq_of, told_all
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files
from carelake.lake.iceberg.layout import (
    PROPERTIES,
    ROWS_OF_A_BUCKET,
    bucketed,
    bucketed_spec,
    buckets,
    lay,
    tray_spec,
)
from carelake.lake.schema import KEYS
from carelake.lake.tables import lake_view
from carelake.lake.views.build import build
from carelake.lake.views.definition import Definition
from carelake.lake.views.execute import deepening, on_duckdb
from carelake.lake.views.plan import Plan
from carelake.lake.views.saved import ERASING, KEPT, SAVED, Saved, all_of, is_whole, save
from carelake.lake.views.tables import named, of_lake, read_columns, result_schema
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["DIGEST", "empty", "fill", "follow", "materialise", "refresh", "shape"]

DIGEST = "carelake.view"
"""Property of a view's table: the digest of the view that its rows are of."""
_CHUNK_ROWS = 100_000
_FILE_ROWS = 500_000
_AGAIN = 5


def materialise(
    permit: Permit, vault: Vault, nouns: Nouns, view: Mapping[str, Any], name: str | None = None
) -> Saved:
    """Save a view, and keep its rows from now on.

    Args:
        permit: grants ``lake:read``, ``lake:write``, ``rows:read``, ``rows:write``; of a sight that is whole.

    Raises:
        Invalid: as `saved.save`, and what is wrong with the view over the data. Refused: ``lake.scope``.
        Conflict: ``lake.concurrent``.
    """
    _whole(permit)
    made = save(permit, vault, view, name, keep=True)
    try:
        refresh(permit, vault, nouns, made.name)
    except CarelakeError as error:
        if not isinstance(error, Conflict):  # what cannot be run is not kept; it stays saved
            _set(permit, vault, made.key, state=SAVED)
        raise
    return made


def refresh(permit: Permit, vault: Vault, nouns: Nouns, *names: str) -> dict[str, int]:
    """Bring views up to the tables that there are: names and rows appended; all by default.

    Raises:
        Conflict: ``lake.concurrent``. Refused: ``lake.scope``. The first error of a view that cannot be run.
    """
    _whole(permit)
    wanted = {one.lower() for one in names}
    for last in [False] * _AGAIN + [True]:
        work = _Following(permit, vault, nouns)
        try:
            work.all([one for one in all_of(permit, vault, KEPT) if not wanted or one.key in wanted])
        except CommitFailedException:
            if last:
                raise _concurrent() from None
            continue
        if work.errors:
            raise next(iter(work.errors.values()))
        return work.appended
    raise AssertionError


def follow(permit: Permit, vault: Vault, nouns: Nouns) -> str:
    """After a sync: bring all views up to it. Answers the ref of the snapshot that names them, "" for none.

    What cannot be done is left to the next one: a view that does not fit the data, a lost race, a narrowed permit.
    """
    if not is_whole(permit):
        return ""
    work = _Following(permit, vault, nouns)
    with suppress(CommitFailedException):
        return work.all(all_of(permit, vault, KEPT))
    return ""


def shape(definition: Definition) -> pa.Schema:
    """The columns of a view under the names that they have in its table: ``c0``, ``c1`` and so on."""
    return pa.schema([one.with_name(f"c{n}") for n, one in enumerate(result_schema(build(definition)))])


@dataclass
class _Following:
    """One round."""

    permit: Permit
    vault: Vault
    nouns: Nouns
    appended: dict[str, int] = field(default_factory=dict)
    errors: dict[str, CarelakeError] = field(default_factory=dict)

    def all(self, views: Sequence[Saved]) -> str:
        """Bring these up to the newest snapshot; the ref of the one that is made, "" where all was fresh."""
        if not views or not (body := self._look()):
            return ""
        for view in views:
            # What takes long is committed by itself: the lake may move on meanwhile, and the rest of it is soon done.
            if not seq_of(self._table_of(view)):
                self._fill(view, body["tables"])
                body = self._look()
        stale = [one for one in views if not self._fresh(one, body)]
        with self.catalog.together():
            made = [one for one in stale if one.key not in self.errors and self._one(one, body["tables"])]
            name = self._commit(made) if made else ""
        self._told()
        return name

    def _look(self) -> Mapping[str, Any]:
        """The newest snapshot's body, and how erasures stand before anything of it is read."""
        with self.vault.database.reading(self.permit) as tx:
            epoch = scope_of(tx).epoch
        self.catalog = VaultCatalog(self.vault, self.permit, epoch=epoch)
        self.seq, self.before = position(self.permit, self.vault)
        if not self.before:
            return {}
        with self.vault.database.reading(self.permit) as tx:
            found: Mapping[str, Any] = self.nouns.get(tx, self.before).body
        return found

    def _table_of(self, view: Saved) -> Table | None:
        """The view's table, if its rows are of the view, and not of one that had its name before."""
        with suppress(NoSuchTableError):
            table = self.catalog.load_table((self.permit.account, view.table))
            if table.properties.get(DIGEST) == view.digest:
                return table
        return None

    def _fresh(self, view: Saved, body: Mapping[str, Any]) -> bool:
        """Whether a snapshot names the view's rows, and they are whole there."""
        told, base = body.get("views", {}).get(view.key), body["tables"].get(view.definition.resource)
        if base is None:
            return True
        if told is None or told["seq"] != base["seq"] or (table := self._table_of(view)) is None:
            return False
        return bool(told["snapshot"] and table.snapshot_by_id(int(told["snapshot"])))

    def _fill(self, view: Saved, tables: Mapping[str, Any]) -> None:
        """The view's rows for the first time; no snapshot names them yet."""
        with self.catalog.together():
            if self._one(view, tables):
                with self.vault.database.transaction(self.permit) as tx:
                    self._still_kept(tx, [view])
                    self.catalog.swap(tx)

    def _still_kept(self, tx: Connection, views: Sequence[Saved]) -> None:
        """None was dropped or saved anew, and no erasure has shut one: what was read may be of who is erased."""
        query = select(lake_view.c.key).where(lake_view.c.account == self.permit.account, lake_view.c.state == KEPT)
        if not {view.key for view in views} <= set(tx.execute(query).scalars()):
            raise CommitFailedException("A view was dropped, or is being emptied.")

    def _one(self, view: Saved, tables: Mapping[str, Any]) -> bool:
        """Stage the commit of one view; whether there is one."""
        told = tables.get(view.definition.resource)
        if told is None:
            return False
        try:
            base = rows_of(self.permit, self.vault, view.definition.resource, int(told["snapshot"]))
            if "replaced_seq" not in base.schema.column_names:
                raise Conflict(
                    "lake.old_layout", "The table is of an old layout; run `carelake lake maintain` first."
                )
            count = self._append(view, base, int(told["seq"]))
            self.appended[view.name] = self.appended.get(view.name, 0) + count
        except CarelakeError as error:
            self.errors[view.key] = error
            return False
        return True

    def _append(self, view: Saved, base: Rows, last: int) -> int:
        table = self._table(view)
        after = seq_of(table)
        if after > last:  # or what lies between would be appended a second time
            raise CommitFailedException("Another one took the view further since the snapshot was looked at.")
        if after == last and table.properties.get(DIGEST) == view.digest:
            return 0
        tx = table.transaction()
        lay(tx, self.vault.settings.lake.buckets)
        files = Files(self.vault, self.permit, tx.table_metadata)
        added, count = [], 0
        for part in _gathered(_delta(view.definition, base, after, self.vault)):
            spec = bucketed_spec(tx.table_metadata)
            if len(part) < buckets(spec) * ROWS_OF_A_BUCKET:
                spec = tray_spec(tx.table_metadata)
            added += [files.put(files.encode(some, spec, at)) for at, some in bucketed(part, buckets(spec))]
            count += len(part)
        change(tx, added, properties={SEQ: str(last)})
        tx.commit_transaction()
        return count

    def _table(self, view: Saved) -> Table:
        """The view's table; where its rows are of another view, or of another shape, an empty one in its place."""
        wanted = pa.schema([*KEYS, *shape(view.definition)])
        try:
            table = self.catalog.load_table((self.permit.account, view.table))
        except NoSuchTableError:
            table = None
        if table is not None and table.properties.get(DIGEST) == view.digest:
            return table
        if table is not None:
            with self.vault.database.transaction(self.permit) as tx:
                self.catalog.forget(tx, view.table)
        properties = {**PROPERTIES, DIGEST: view.digest}
        count = self.vault.settings.lake.buckets
        return self.catalog.create_table(
            (self.permit.account, view.table), wanted, properties=properties, buckets=count
        )

    def _commit(self, made: Sequence[Saved]) -> str:
        """All of them, in one transaction with the snapshot that names them."""
        account = self.permit.account
        with self.vault.database.transaction(self.permit) as tx:
            self._still_kept(tx, made)
            self.catalog.swap(tx)
            parts = told_all(self.catalog)
            content = {
                "workspace": self.vault.settings.workspace,
                "account": account,
                "seq": self.seq,
                **{kind: {name: told["snapshot"] for name, told in some.items()} for kind, some in parts.items()},
            }
            name = ref("snapshot", canonical.dump(content))
            body = {"seq": self.seq, **parts}
            self.nouns.write(tx, Noun(name, account, "committed", self.permit.act, (self.before,), body))
            moved(tx, account, self.seq, name, since=self.seq, of=self.before)
            for one in made:
                _write(tx, self.permit, one.key, error="")
            self.permit.log.wrote(name)
            self.permit.log.count(materialised=sum(self.appended.values()))
        return name

    def _told(self) -> None:
        """Write down why views are behind, where that is news."""
        for key, error in self.errors.items():
            _set(self.permit, self.vault, key, error=error.code[:64])


# -- rows ---------------------------------------------------------------------------------------------------------


def _delta(definition: Definition, base: Rows, after: int, vault: Vault) -> Iterator[pa.Table]:
    """Rows of the view of the versions beyond ``after`` that are current, and what they replaced of those before."""
    columns = {*KEYS.names, *read_columns(build(definition))}
    for table in base.changed(after, columns):
        for start in range(0, len(table), _CHUNK_ROWS):
            chunk = table.slice(start, _CHUNK_ROWS)
            past = pc.is_in(chunk.column("seq"), base.replaced)
            live = chunk.filter(pc.invert(pc.or_(past, chunk.column("deleted"))))
            if len(live) and len(made := _run(definition, live, vault)):
                yield made
            if after and len(marks := _marks(chunk, after)):
                yield marks


def _run(definition: Definition, resources: pa.Table, vault: Vault) -> pa.Table:
    """The view's rows, each beside the keys of its resource."""

    def work(plan: Plan) -> pa.Table:
        made = on_duckdb(plan, of_lake(plan, resources), numbered=True, limits=vault.settings.lake)
        keys = resources.select(KEYS.names).take(made.column("_n"))
        at = KEYS.get_field_index("replaced_seq")
        keys = keys.set_column(at, KEYS.field(at), pa.nulls(len(keys), KEYS.field(at).type))
        shown = named(plan, made)
        return pa.table([*keys.columns, *shown.columns], [*KEYS.names, *(f"c{n}" for n in range(shown.num_columns))])

    return deepening(definition, work)


def _marks(chunk: pa.Table, after: int) -> pa.Table:
    """What tells that versions up to ``after`` were replaced."""
    marks = chunk.select(KEYS.names).filter(pc.field("replaced_seq") <= after)
    at = KEYS.get_field_index("deleted")
    return marks.set_column(at, KEYS.field(at), pa.repeat(True, len(marks)))


def _gathered(parts: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The parts, as many together as one file should have."""
    held: list[pa.Table] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count >= _FILE_ROWS:
            yield _together(held)
            held, count = [], 0
    if held:
        yield _together(held)


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


# -- erasing ------------------------------------------------------------------------------------------------------


def empty(permit: Permit, vault: Vault, catalog: VaultCatalog, views: Sequence[Saved]) -> None:
    """Take all rows out of views' tables, which are not read or filled before `fill`; for an erasure."""
    for view in views:
        _set(permit, vault, view.key, state=ERASING)
        with suppress(NoSuchTableError):
            table = catalog.load_table((permit.account, view.table))
            if table.current_snapshot() is None:
                continue
            tx = table.transaction()
            change(tx, [], [task.file for task in table.scan().plan_files()], properties={SEQ: "0"})
            tx.commit_transaction()
    permit.log.count(lake_views_emptied=len(views))


def fill(permit: Permit, vault: Vault, nouns: Nouns, views: Sequence[Saved]) -> None:
    """The opposite, from the tables as they are now."""
    for view in views:
        _set(permit, vault, view.key, state=KEPT)
    follow(permit, vault, nouns)


# -- small things -------------------------------------------------------------------------------------------------


def _whole(permit: Permit) -> None:
    if not is_whole(permit):
        raise Refused("lake.scope", "The permit sees a part of the account; what is kept is for all who may see it.")


def _set(permit: Permit, vault: Vault, key: str, **values: str) -> None:
    with vault.database.transaction(permit) as tx:
        _write(tx, permit, key, **values)


def _write(tx: Connection, permit: Permit, key: str, **values: str) -> None:
    where = (lake_view.c.account == permit.account, lake_view.c.key == key)
    tx.execute(update(lake_view).where(*where).values(**values))


def _concurrent() -> Conflict:
    return Conflict("lake.concurrent", "Another process changes the lake; refresh again to go on from there.")
