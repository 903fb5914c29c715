"""Iceberg tables of the offline stores: one of each group, in the vault's zone ``features``.

The columns of a table are those that SageMaker's offline store has (each feature, ``write_time``,
``api_invocation_time``, ``is_deleted``) beside three that its files are laid out by: ``seq`` (the row's number in the
group), ``patient`` (whose it is) and ``time`` (the event time as a timestamp). A feature that is called as one of
these is stored as ``NAME_feature``.
"""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from carelake.core.errors import Conflict, NotFound
from carelake.core.permit import Permit
from carelake.features.groups.definition import Feature, Group
from carelake.features.groups.tables import feature_table
from carelake.lake.drivers.sealed import SealedZone
from carelake.lake.following.told import SEQ
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files, name_of
from carelake.lake.iceberg.layout import (
    PROPERTIES,
    ROWS_OF_A_BUCKET,
    bucketed,
    bucketed_spec,
    buckets,
    lay,
    tray_spec,
)
from carelake.vault.workspace import Vault

__all__ = [
    "KEYS",
    "FeatureCatalog",
    "FeatureZone",
    "Staged",
    "arrow_type",
    "column_of",
    "concurrent",
    "schema_of",
    "stage",
]

_US = pa.timestamp("us", "UTC")
KEYS = pa.schema(
    [
        pa.field("seq", pa.int64()),
        pa.field("patient", pa.string()),
        pa.field("time", _US),
        pa.field("write_time", _US),
        pa.field("api_invocation_time", _US),
        pa.field("is_deleted", pa.bool_()),
    ]
)
"""Columns that every offline store has before its features."""

_LATER = "_feature"
_TYPES = {"Integral": pa.int64(), "Fractional": pa.float64(), "String": pa.string()}
# Old metadata goes by our own hand: elsewhere than in the lake a removal leaves a version.
_PROPERTIES = {**PROPERTIES, "write.metadata.delete-after-commit.enabled": "false"}


class FeatureZone(SealedZone):
    """The zone ``features``, in which a removed file goes with its bytes as in the lake."""

    name = "features"

    def remove(self, permit: Permit, name: str) -> None:
        """See `lake.iceberg.zone.Zone`."""
        self._vault.objects.delete(permit, self.name, name)


class FeatureCatalog(VaultCatalog):
    """The offline stores of the permit's account, each under its group's id."""

    pointers = feature_table

    @staticmethod
    def place(vault: Vault) -> FeatureZone:
        """See `VaultCatalog`."""
        return FeatureZone(vault)

    def find(self, group_id: str) -> Table | None:
        """The table of a group, None before anything was written to it."""
        with suppress(NoSuchTableError):
            return self.load_table((self._permit.account, group_id))
        return None


def concurrent() -> Conflict:
    """Of a commit that another writer or an erasure was faster than."""
    return Conflict(
        "features.concurrent",
        "Another process wrote this offline store or erased somebody meanwhile; nothing is lost, do it again.",
    )


def arrow_type(feature: Feature) -> pa.DataType:
    """The type of a feature's column."""
    kind = _TYPES[feature.kind]
    return pa.list_(pa.field("element", kind)) if feature.collection else kind


def column_of(name: str) -> str:
    """The column of a feature."""
    plain = name
    while plain.endswith(_LATER):
        plain = plain.removesuffix(_LATER)
    return name + _LATER if plain in KEYS.names else name


def schema_of(group: Group) -> pa.Schema:
    """The columns of a group's table, as its definition is now."""
    return pa.schema([*KEYS, *(pa.field(column_of(one.name), arrow_type(one)) for one in group.features)])


class Staged:
    """Files of a commit that waits for its transaction; `take_back` removes them where it is refused."""

    def __init__(self, vault: Vault, permit: Permit, catalog: FeatureCatalog) -> None:
        self._zone = catalog.place(vault)
        self._permit = permit
        self.files: list[DataFile] = []

    def take_back(self) -> None:
        """Remove them: rows of somebody who was erased meanwhile may be in them."""
        for one in self.files:
            with suppress(NotFound):
                self._zone.remove(self._permit, name_of(one.file_path))


def stage(permit: Permit, vault: Vault, catalog: FeatureCatalog, group: Group, rows: pa.Table) -> Staged:
    """Write rows as files and stage the commit that adds them; inside of ``catalog.together()``.

    Args:
        rows: with the columns of `schema_of`, in the order of their ``seq``.

    Raises:
        CommitFailedException: another writer was first.
    """
    count = vault.settings.lake.buckets
    staged = Staged(vault, permit, catalog)
    try:
        table = catalog.find(group.id) or catalog.create_table(
            (permit.account, group.id), schema_of(group), properties=_PROPERTIES, buckets=count
        )
        tx = table.transaction()
        lay(tx, count)
        if set(rows.column_names) - set(tx.table_metadata.schema().column_names):
            with tx.update_schema() as evolve:
                evolve.union_by_name(schema_of(group))
        files = Files(vault, permit, tx.table_metadata, place=catalog.place(vault))
        spec = bucketed_spec(tx.table_metadata)
        if len(rows) < buckets(spec) * ROWS_OF_A_BUCKET:
            spec = tray_spec(tx.table_metadata)
        for bucket, part in bucketed(rows, buckets(spec)):
            staged.files.append(files.put(files.encode(part, spec, bucket)))
        change(tx, staged.files, properties={SEQ: str(rows.column("seq")[-1].as_py())})
        tx.commit_transaction()
    except CommitFailedException:
        staged.take_back()
        raise
    return staged
