"""Taking rows out of the lake: data files without them, then no snapshot and no file that still has them.

A table is changed in one commit: rows of erased patients and resources are left out (copy on write: files that have
none of them stay), rows of versions that were rewritten are put in anew, by the same numbers. Then every older
snapshot is expired, and what the table does not use any more is removed: also files that a killed writer left.

The commit is what makes the removal safe. A sync that was at work has read the metadata before it, so its own commit
fails (``lake.concurrent``), and what it wrote is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.expressions import In
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy import update

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.errors import Conflict, NotFound
from carelake.core.nouns import Noun, ref
from carelake.core.permit import Permit
from carelake.fhir.gone import Gone
from carelake.lake import rows
from carelake.lake.engines.engine import connect
from carelake.lake.following.feeding import changes_table
from carelake.lake.following.sync import SEQ, moved, position, seq_of, told_all
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.files import Files, name_of
from carelake.lake.iceberg.rewriting import rewrite
from carelake.lake.iceberg.zone import zone
from carelake.lake.materialisation.materialising import empty, fill
from carelake.lake.schema import of_arrow
from carelake.lake.tables import lake_table
from carelake.lake.upkeep.maintain import nobodys
from carelake.lake.views.saved import ERASING, KEPT, Saved, all_of, drop
from carelake.store.feed import Change
from carelake.vault.workspace import Vault

__all__ = ["Leaving", "erase", "held", "residue"]

_SOME = 10_000
_MARK = "carelake.erased"
_TEXTS = re.compile(r"(?<=')[A-Za-z0-9.-]{1,64}(?=')|(?<=Patient/)[A-Za-z0-9.-]{1,64}")
"""Ids inside of an expression: a text, or the end of a reference."""


class Feed(Protocol):
    """Versions as the feed tells them, by their numbers."""

    def changes_of(self, permit: Permit, seqs: Sequence[int]) -> Sequence[Change]:
        """Those that there are, in order."""
        ...


@dataclass(slots=True)
class Leaving:
    """What is to leave the lake.

    Attributes:
        patients: ids. seqs: versions by type. rewritten: versions by type whose rows are made anew.
    """

    patients: set[str]
    seqs: dict[str, set[int]] = field(default_factory=dict)
    rewritten: dict[str, set[int]] = field(default_factory=dict)


def held(permit: Permit, vault: Vault) -> int:
    """How many files of the lake are under a legal hold."""
    return sum(one.held for one in zone(vault).list(permit))


def erase(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    feed: Feed,
    leaving: Leaving,
    *,
    mark: str,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Take it out of every table of the account; a new snapshot names what is left.

    Args:
        mark: of the erasure: what is named by its content is named otherwise after it.

    Raises:
        Conflict: ``lake.concurrent``: a sync came in between; erase again.
    """
    catalog = VaultCatalog(vault, permit)
    told = {"lake_tables": 0, "lake_rows": 0, "lake_rewritten": 0, "lake_files_removed": 0}
    names = [name for _, name in catalog.list_tables()]
    for one in all_of(permit, vault):
        if _says(one.view, leaving.patients):
            drop(permit, vault, one.key)
    views = [one for one in all_of(permit, vault, KEPT, ERASING) if _concerns(permit, catalog, one, leaving)]
    try:
        empty(permit, vault, catalog, views)
        for number, name in enumerate(names, 1):
            with suppress(NoSuchTableError):  # a view's, dropped meanwhile
                _table(permit, vault, catalog, feed, name, leaving, told, mark)
            progress(number, len(names))
    except CommitFailedException:
        raise _concurrent() from None
    told["lake_files_removed"] += _clear(permit, vault, catalog)
    for last in (False, False, True):
        try:
            _note(permit, vault, nouns, catalog, mark)
            break
        except CommitFailedException:  # a sync moved the position on; what it says is read again
            if last:
                raise _concurrent() from None
    fill(permit, vault, nouns, views)
    for view in views:
        with suppress(NoSuchTableError):
            table = catalog.load_table((permit.account, view.table))
            told["lake_files_removed"] += _sweep(permit, vault, catalog, table, mark)
    return told


def _concerns(permit: Permit, catalog: VaultCatalog, view: Saved, leaving: Leaving) -> bool:
    """Whether a materialised view rests on anything that leaves or is made anew: then all of it is made anew."""
    if view.state == ERASING:  # an erasure was broken off
        return True
    kind = view.definition.resource
    for name in (kind, view.table):
        with suppress(NoSuchTableError):
            table = catalog.load_table((permit.account, name))
            if table.current_snapshot() is not None and (
                _theirs(table, leaving, kind) or _matching(table, "seq", sorted(leaving.rewritten.get(kind, ())))
            ):
                return True
    return False


def _says(told: Any, patients: Set[str]) -> bool:
    """Whether a definition names one of the patients: such a view is dropped, as it was about nobody else."""
    if isinstance(told, Mapping):
        return any(_says(inner, patients) for inner in told.values())
    if isinstance(told, Sequence) and not isinstance(told, str):
        return any(_says(inner, patients) for inner in told)
    return isinstance(told, str) and not patients.isdisjoint({told, *_TEXTS.findall(told)})


def _clear(permit: Permit, vault: Vault, catalog: VaultCatalog) -> int:
    """Remove what dropped views left; how many files."""
    gone = nobodys(permit, vault, catalog)
    with vault.database.transaction(permit):
        for one in gone:
            with suppress(NotFound):
                zone(vault).remove(permit, one.name)
    return len(gone)


def _concurrent() -> Conflict:
    return Conflict("lake.concurrent", "Another process synced the lake meanwhile; erase again to go on from there.")


def _table(
    permit: Permit,
    vault: Vault,
    catalog: VaultCatalog,
    feed: Feed,
    name: str,
    leaving: Leaving,
    told: dict[str, int],
    mark: str,
) -> None:
    table = catalog.load_table((permit.account, name))
    if table.current_snapshot() is None:  # of a sync that was killed: nothing but files that nobody uses
        told["lake_files_removed"] += _sweep(permit, vault, catalog, table, mark)
        return
    again = sorted(leaving.rewritten.get(name, ()))
    out = _theirs(table, leaving, name)
    anew = _matching(table, "seq", again)
    if out or anew:
        told["lake_tables"] += 1
        told["lake_rows"] += len(out)
        told["lake_rewritten"] += len(anew)
        _change(permit, vault, table, feed, out, anew)
        table = catalog.load_table((permit.account, name))
    told["lake_files_removed"] += _sweep(permit, vault, catalog, table, mark)


def _theirs(table: Table, leaving: Leaving, name: str) -> set[int]:
    """Numbers of the rows that are to leave; two questions, since each of them leaves other files out."""
    of_patients = _matching(table, "patient", sorted(leaving.patients))
    return of_patients | _matching(table, "seq", sorted(leaving.seqs.get(name, ())))


def _matching(table: Table, column: str, values: Sequence[Any]) -> set[int]:
    """Numbers of the rows that have one of the values."""
    return set(table.scan(In(column, values), ("seq",)).to_arrow().column("seq").to_pylist()) if values else set()


def _change(permit: Permit, vault: Vault, table: Table, feed: Feed, out: set[int], again: set[int]) -> None:
    made = _rows(permit, vault, table, feed.changes_of(permit, sorted(again))) if again else None
    rewrite(permit, vault, table, out | again, made, {SEQ: str(seq_of(table))})


def _rows(permit: Permit, vault: Vault, table: Table, changes: Sequence[Change]) -> pa.Table:
    name = str(table.name()[-1])
    batch = changes_table(changes)
    record = of_arrow(name, schema_to_pyarrow(table.schema(), include_field_ids=False))
    with connect(vault.settings.lake) as connection:
        return rows.rows(connection, record, batch)


def _sweep(permit: Permit, vault: Vault, catalog: VaultCatalog, table: Table, mark: str) -> int:
    """Expire older snapshots, then remove what is not used; `mark` is a commit after which nobody else can use it."""
    snapshot = table.current_snapshot()
    old = [one.snapshot_id for one in table.snapshots() if snapshot and one.snapshot_id != snapshot.snapshot_id]
    there = {one.name for one in zone(vault).list(permit, _prefix(str(table.name()[-1])))}
    if not old and there == _used(table):
        return 0
    with table.transaction() as change:
        change.set_properties({_MARK: mark})
        if old:
            ExpireSnapshots(change).by_ids(old).commit()
    unused = sorted(there - _used(catalog.load_table(table.name())))
    with vault.database.transaction(permit) as tx:
        where = (lake_table.c.account == permit.account, lake_table.c.name == table.name()[-1])
        tx.execute(update(lake_table).where(*where).values(previous=None))
        for one in unused:
            with suppress(NotFound):  # what is old goes by itself at some commits
                zone(vault).remove(permit, one)
        permit.log.count(lake_files_removed=len(unused))
    return len(unused)


def _prefix(name: str) -> str:
    return f"iceberg/{name}/"


def _used(table: Table) -> set[str]:
    """Names of the files that a table is made of now."""
    files = {str(table.metadata_location)}
    for snapshot in table.snapshots():
        files.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            files.add(manifest.manifest_path)
            files.update(one.data_file.file_path for one in manifest.fetch_manifest_entry(table.io))
    return {name_of(path) for path in files}


def _note(permit: Permit, vault: Vault, nouns: Nouns, catalog: VaultCatalog, mark: str) -> None:
    """The snapshot of what is left, at the same position of the feed; CommitFailedException where that moved."""
    seq, before = position(permit, vault)
    if not before:
        return
    parts = told_all(catalog)
    content: Mapping[str, Any] = {
        "workspace": vault.settings.workspace,
        "account": permit.account,
        "seq": seq,
        "tables": {name: told["rows"] for name, told in parts["tables"].items()},
        "erasure": mark,
    }
    name = ref("snapshot", canonical.dump(content))
    if name == before:
        return
    made = Noun(name, permit.account, "committed", permit.act, (before,), {"seq": seq, **parts})
    with vault.database.transaction(permit) as tx:
        nouns.write(tx, made)
        moved(tx, permit.account, seq, name, since=seq, of=before)
        permit.log.wrote(name)


def residue(
    permit: Permit,
    vault: Vault,
    leaving: Leaving,
    gone: Gone,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> int:
    """Rows that still are theirs, columns that name them, and files that no table uses; one file at a time."""
    catalog = VaultCatalog(vault, permit)
    wanted = pa.array(sorted(gone.resources), pa.string())
    names = catalog.list_tables()
    count = len(nobodys(permit, vault, catalog))
    count += sum(_says(one.view, leaving.patients) for one in all_of(permit, vault))
    for number, (_, name) in enumerate(names, 1):
        table = catalog.load_table((permit.account, name))
        count += len({one.name for one in zone(vault).list(permit, _prefix(name))} - _used(table))
        if table.current_snapshot() is not None:
            count += len(_theirs(table, leaving, name))
            files = Files(vault, permit, table.metadata)
            for task in table.scan().plan_files():
                for batch in files.read(task.file).to_batches(_SOME):
                    count += sum(_named(text, wanted, gone) for column in batch.columns for text in _leaves(column))
        progress(number, len(names))
    return count


def _named(array: pa.Array, names: pa.Array, gone: Gone) -> bool:
    if pc.any(pc.is_in(array, names)).as_py():
        return True
    text = _joined(array)
    return bool(gone.may_be_in([text])) and gone.told_in(text)


def _joined(array: pa.Array) -> bytes:
    """All texts, a line each: what ends in one does not run into the next."""
    kept = array.drop_null().cast(pa.large_string())
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(kept)], pa.int64()), kept)
    return bytes(pc.binary_join(whole, pa.scalar("\n", pa.large_string()))[0].as_buffer())


def _leaves(array: pa.Array) -> Iterable[pa.Array]:
    """All texts of a column, nested ones too."""
    if pa.types.is_struct(array.type) or pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        inner = array.flatten()
        for part in inner if isinstance(inner, list) else [inner]:
            yield from _leaves(part)
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield array.cast(pa.string())
