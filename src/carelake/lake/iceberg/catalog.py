"""An Iceberg catalog over the workspace: pointers in its database, files as encrypted objects (decision D11).

pyiceberg's own SQL catalog runs transactions that neither ask for a permit nor leave an act; this one is the few
methods that tables need, over `Database.transaction`. The namespace is the permit's account. A commit is a
compare-and-swap of the pointer, so of two writers one fails and nothing is ever half there. Commits of several tables
can be swapped together, in one transaction (`VaultCatalog.together`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import pyarrow as pa
import sqlalchemy
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from sqlalchemy import Connection, delete, insert, select, update

from carelake.core.errors import Unsupported
from carelake.core.permit import Permit
from carelake.lake.iceberg.layout import laid
from carelake.lake.iceberg.steps import LakeTable
from carelake.lake.iceberg.zone import Zone, zone
from carelake.lake.tables import lake_table
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["VIEW_TABLE", "VaultCatalog"]

VIEW_TABLE = "view."
"""The name of a materialised view's table begins so; those of resource types are the others."""


class _Swap(NamedTuple):
    """A pointer that is to move, if it still is where it was."""

    name: str
    before: str
    after: str


class VaultCatalog(MetastoreCatalog):  # type: ignore[misc]
    """The tables of the permit's account.

    Args:
        epoch: of erasures, as it was when the rows were read that are to be committed: after one they are not, since
            they may be whose who was erased.
    """

    pointers: sqlalchemy.Table = lake_table

    def __init__(self, vault: Vault, permit: Permit, *, epoch: int | None = None) -> None:
        super().__init__("carelake")
        self._t = self.pointers.c
        self._epoch = epoch
        self._vault = vault
        self._permit = permit
        self._zone = self.place(vault)
        self._io = self._zone.file_io(permit)
        self._waiting: list[_Swap] | None = None
        self._read: dict[str, tuple[str, TableMetadata | None]] = {}

    @staticmethod
    def place(vault: Vault) -> Zone:
        """Where its files lie."""
        return zone(vault)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commits inside the block wait for `swap`; each table at most once."""
        self._waiting = []
        try:
            yield
        finally:
            self._waiting = None

    def swap(self, tx: Connection) -> None:
        """Do the commits that wait, all in the caller's transaction; CommitFailedException when one cannot be."""
        for one in self._waiting or ():
            self._swap(tx, one)
        self._waiting = []

    def forget(self, tx: Connection, name: str) -> None:
        """The table is none any more, with the caller's transaction; its files go with the next upkeep."""
        tx.execute(delete(self.pointers).where(self._row_of(name)))

    # -- what tables need -----------------------------------------------------------------------------------------

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
        *,
        buckets: int = 0,
    ) -> Table:
        """Make an empty table; CommitFailedException when another writer was first.

        Args:
            buckets: of patients, by which it is laid out from the start (`layout`).
        """
        name = self.table_name_from(identifier)
        place = self._zone.address(self._permit, f"iceberg/{name}")
        metadata = new_table_metadata(
            location=place,
            schema=self._convert_schema_if_needed(schema),
            partition_spec=partition_spec,
            sort_order=sort_order,
            properties=properties,
        )
        if buckets:
            metadata = laid(metadata, buckets)
        at = load_location_provider(place, properties).new_table_metadata_file_location()
        self._write_metadata(metadata, self._io, at)
        with self._vault.database.transaction(self._permit) as tx:
            if tx.execute(self._row(name)).first():
                raise CommitFailedException("The table was made by another writer meanwhile.")
            tx.execute(insert(self.pointers).values(account=self._permit.account, name=name, location=at))
        return LakeTable((self._permit.account, name), metadata, at, self._io, self)

    def load_table(self, identifier: str | Identifier) -> Table:
        """The table as its current metadata says; NoSuchTableError where there is none."""
        name = self.table_name_from(identifier)
        location = self._location(name)
        while True:
            if location is None:
                raise NoSuchTableError(f"There is no lake table {name}.")
            known = self._read.get(name, ("", None))
            try:
                metadata = known[1] if known[0] == location else None
                metadata = metadata or FromInputFile.table_metadata(self._io.new_input(location))
            except FileNotFoundError:
                # Old metadata goes some commits later: then there is newer one.
                newer = self._location(name)
                if newer == location:
                    raise
                location = newer
                continue
            self._read[name] = (location, metadata)
            return LakeTable((self._permit.account, name), metadata, location, self._io, self)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Write the updated metadata and swap the pointer to it, if it still is what was read."""
        name = str(table.name()[-1])
        if self._location(name) != table.metadata_location:
            raise CommitFailedException("The table was changed by another writer meanwhile.")
        staged = self._update_and_stage_table(table, table.name(), requirements, updates)
        if staged.metadata == table.metadata:
            return CommitTableResponse(metadata=table.metadata, metadata_location=table.metadata_location)
        self._write_metadata(staged.metadata, self._io, staged.metadata_location)
        self._read[name] = (staged.metadata_location, staged.metadata)
        wanted = _Swap(name, str(table.metadata_location), staged.metadata_location)
        if self._waiting is not None:
            self._waiting.append(wanted)
        else:
            with self._vault.database.transaction(self._permit) as tx:
                self._swap(tx, wanted)
        return CommitTableResponse(metadata=staged.metadata, metadata_location=staged.metadata_location)

    def _swap(self, tx: Connection, wanted: _Swap) -> None:
        swap = (
            update(self.pointers)
            .where(self._row_of(wanted.name))
            .where(self._t.location == wanted.before)
            .values(location=wanted.after, previous=wanted.before)
        )
        if self._epoch is not None and scope_of(tx).epoch != self._epoch:
            raise CommitFailedException("Somebody was erased since the rows were read.")
        if tx.execute(swap).rowcount != 1:
            raise CommitFailedException("The table was changed by another writer meanwhile.")

    def list_tables(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """The account's tables, by name."""
        query = select(self._t.name).where(self._t.account == self._permit.account).order_by(self._t.name)
        with self._vault.database.reading(self._permit) as connection:
            return [(self._permit.account, name) for (name,) in connection.execute(query)]

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """Nothing: a namespace is an account."""
        return {}

    def list_namespaces(self, namespace: str | Identifier = ()) -> list[Identifier]:
        """The permit's account."""
        return [(self._permit.account,)]

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return self._io

    def _location(self, name: str) -> str | None:
        with self._vault.database.reading(self._permit) as connection:
            found: str | None = connection.execute(self._row(name)).scalar()
        return found

    def _row(self, name: str) -> Any:
        return select(self._t.location).where(self._row_of(name))

    def _row_of(self, name: str) -> Any:
        return (self._t.account == self._permit.account) & (self._t.name == name)

    # -- what is not offered --------------------------------------------------------------------------------------

    def _no(self, *_: Any, **__: Any) -> NoReturn:
        raise Unsupported(
            "lake.catalog", "The lake's catalog offers tables only, made and dropped by the lake itself."
        )

    register_table = drop_table = purge_table = rename_table = _no
    create_namespace = drop_namespace = update_namespace_properties = _no
    create_view = load_view = list_views = view_exists = register_view = drop_view = _no
