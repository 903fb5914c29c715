"""What a snapshot's tables hold: resources as they are now, all their versions, and what was deleted.

A row that was replaced or deleted stays. Which ones are left out of `current` is told by the few rows that replaced
another one: files without such a row are not looked at, and a record that only grows costs nothing. Where a question
is about one patient, that list is still made from all buckets: a resource can move from one patient to another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, GreaterThan, In, IsNull, NotNull
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import PrimitiveType

from carelake.core.errors import Gone
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import run
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.files import Files
from carelake.lake.iceberg.layout import buckets, numbers
from carelake.vault.workspace import Vault

__all__ = ["ERASED", "INTERNAL", "NOBODY", "Rows", "rows_of"]

ERASED = "carelake.erased"
"""Property of a table that rows were taken out of by an erasure."""

NOBODY = ""
"""Whose resources are in no patient's compartment: no patient has an empty id."""

_MANY = 200
"""Ids of a condition, up to which Iceberg leaves files out by their bucket."""

Whose = str | Collection[str] | None

INTERNAL = frozenset({"seq", "deleted", "replaced_seq"})
"""Key columns that tell versions apart; rows of `current` are without them."""

_LATEST = """
SELECT * EXCLUDE (seq, deleted) FROM versions
WHERE NOT deleted AND seq IN (SELECT max(seq) FROM versions GROUP BY id)
"""


@dataclass(frozen=True)
class Rows:
    """The rows of one type in one Iceberg snapshot."""

    table: Table
    snapshot_id: int
    files: Files
    limits: LakeSettings

    @property
    def schema(self) -> Schema:
        """As it was then."""
        return self.files.schema

    def current(
        self,
        columns: Collection[str] | None = None,
        patient: str | Collection[str] | None = None,
        *,
        coded: Sequence[str] = (),
    ) -> pa.Table:
        """The resources that are there, one row each.

        Args:
            columns: top-level columns (`schema.table_schema`), all by default.
            patient: only those in this patient's compartment, or in those of these patients.
            coded: columns of text that are given as dictionaries.
        """
        wanted = [name for name in self._names(columns) if name not in INTERNAL]
        if "replaced_seq" not in self._names(None):
            return self._latest(wanted, patient)
        only = _of(patient)
        files = list(self._planned(only, patient))
        self.replaced  # noqa: B018 - made once, before threads ask for it
        with ThreadPoolExecutor(self.limits.threads) as pool:
            parts = list(pool.map(lambda file: self._current(file, wanted, only, coded), files))
        return _together(parts, wanted, self.files)

    def versions(
        self, columns: Collection[str] | None = None, patient: str | Collection[str] | None = None
    ) -> pa.Table:
        """All versions, deletions too, with the columns that tell them apart."""
        wanted = self._names(columns)
        only = _of(patient)
        return _together([self.files.read(f, wanted, only) for f in self._planned(only, patient)], wanted, self.files)

    def deleted(self, after: int = 0) -> pa.Table:
        """Deletions with a seq beyond ``after``: seq, id, version, last_updated, patient."""
        wanted = ["id", "version", "last_updated", "patient", "seq"]
        only = EqualTo("deleted", True)
        found = _together([self.files.read(f, wanted, only) for f in self._planned(only)], wanted, self.files)
        return found.filter(pc.field("seq") > after).sort_by("seq")

    def changed(self, after: int, columns: Collection[str]) -> Iterator[pa.Table]:
        """Versions with a seq beyond ``after``, all of them with 0, as they lie in the files: one table for each."""
        only = GreaterThan("seq", after) if after else AlwaysTrue()
        for file in self._planned(only):
            yield self.files.read(file, self._names(columns), only)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _names(self, columns: Collection[str] | None) -> list[str]:
        return [field.name for field in self.schema.fields if columns is None or field.name in columns]

    def _planned(self, only: Any, patient: Whose = None) -> Iterator[DataFile]:
        """The files that may hold such rows; of many patients, those of their buckets and the tray."""
        many = not isinstance(only, BooleanExpression)
        known: dict[int, set[int]] = {}
        for task in self.table.scan(AlwaysTrue() if many else only, snapshot_id=self.snapshot_id).plan_files():
            count = buckets(self.table.specs()[task.file.spec_id]) if many else 0
            if count and patient is not None:
                if count not in known:
                    known[count] = set(numbers(pa.chunked_array([sorted(patient)]), count).to_pylist())
                if task.file.partition[0] not in known[count]:
                    continue
            yield task.file

    @cached_property
    def replaced(self) -> pa.Array:
        """The seqs of all rows that another row replaced, in order."""
        parts = [self.files.read(f, ["replaced_seq"]) for f in self._planned(NotNull("replaced_seq"))]
        column = _together(parts, ["replaced_seq"], self.files).column("replaced_seq").drop_null()
        found = column.combine_chunks().sort()
        return found if isinstance(found, pa.Array) else found.chunk(0)

    def _current(self, file: DataFile, wanted: list[str], only: Any, coded: Sequence[str]) -> pa.Table:
        gone = self._replaced_in(file)
        deletions = self._bounds(file, "deleted")[1] is not False
        helping = ["seq"] * bool(len(gone)) + ["deleted"] * deletions
        read = self.files.read(file, [*wanted, *helping], only, coded=coded)
        if helping:
            mask = pc.is_in(read.column("seq"), gone) if len(gone) else None
            if deletions:
                dead = read.column("deleted")
                mask = dead if mask is None else pc.or_(mask, dead)
            read = read.filter(pc.invert(mask))
        return read.select(wanted)

    def _replaced_in(self, file: DataFile) -> pa.Array:
        """Of what was replaced, what can be in a file by its bounds."""
        low, high = self._bounds(file, "seq")
        found = self.replaced
        if low is None or not len(found):
            return found
        return found.filter(pc.and_(pc.greater_equal(found, low), pc.less_equal(found, high)))

    def _bounds(self, file: DataFile, name: str) -> tuple[object, object]:
        field = self.schema.find_field(name)
        kind = field.field_type
        assert isinstance(kind, PrimitiveType)
        low, high = (found.get(field.field_id) for found in (file.lower_bounds, file.upper_bounds))
        return (None, None) if low is None or high is None else (from_bytes(kind, low), from_bytes(kind, high))

    def _latest(self, wanted: list[str], patient: str | Collection[str] | None) -> pa.Table:
        """As `current`, of a table from before rows told what they replaced."""
        versions = self.versions({*wanted, "id", "seq", "deleted", "patient"})
        found = run(_LATEST, {"versions": versions}, limits=self.limits)
        if patient is None:
            return found.select(wanted)
        if patient == NOBODY:
            return found.filter(pc.field("patient").is_null()).select(wanted)
        theirs = pa.array([patient] if isinstance(patient, str) else list(patient), pa.string())
        return found.filter(pc.field("patient").isin(theirs)).select(wanted)


def rows_of(permit: Permit, vault: Vault, resource_type: str, snapshot_id: int) -> Rows:
    """The rows of a type as of an Iceberg snapshot.

    Raises:
        Gone: ``lake.erased``, ``lake.expired``.
    """
    table = VaultCatalog(vault, permit).load_table((permit.account, resource_type))
    found = table.snapshot_by_id(snapshot_id)
    if found is None:
        if ERASED in table.properties:
            raise Gone(
                "lake.erased",
                "Somebody who was in that snapshot was erased by law since, so it cannot be given again; "
                "read the newest one.",
            )
        raise Gone("lake.expired", "That snapshot was expired by age; read the newest one, or tag what is to stay.")
    schemas = {one.schema_id: one for one in table.metadata.schemas}
    schema = schemas.get(found.schema_id, table.schema())
    return Rows(table, snapshot_id, Files(vault, permit, table.metadata, schema), vault.settings.lake)


def _of(patient: Whose) -> Any:
    """A condition on rows. Iceberg takes a second for many ids and leaves no file out by them: Arrow's, then."""
    if patient is None:
        return AlwaysTrue()
    if patient == NOBODY:
        return IsNull("patient")
    if not isinstance(patient, str) and len(patient) > _MANY:
        return pc.field("patient").isin(pa.array(sorted(patient), pa.string()))
    return EqualTo("patient", patient) if isinstance(patient, str) else In("patient", set(patient))


def _together(parts: Sequence[pa.Table], wanted: Sequence[str], files: Files) -> pa.Table:
    if not parts:
        return pa.schema([field for field in files.arrow if field.name in wanted]).empty_table()
    return pa.concat_tables(parts, promote_options="default").select(list(wanted))
