"""One commit of a table: files that come and files that go, of whatever partition spec.

pyiceberg's own producers write all that is new by the newest spec, and in threads of their own; here each file keeps
its spec, and all is done in the caller's thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _SnapshotProducer

__all__ = ["FileChange", "change"]

_MANIFESTS = 20
"""So many manifests of one spec are written together."""


class FileChange(_SnapshotProducer["FileChange"]):  # type: ignore[misc]
    """Files added and taken out in one snapshot."""

    def _validate_concurrency(self) -> None:
        """The catalog's swap fails when there was another commit; nothing is tried again."""

    def _manifests(self) -> list[ManifestFile]:
        kept = self._existing_manifests()
        gone = [(_bare(one.data_file), ManifestEntryStatus.DELETED, one) for one in self._deleted_entries()]
        added = [(file, ManifestEntryStatus.ADDED, None) for file in self._added_data_files]
        return [*self._written(added), *self._written(gone), *self._merged(kept)]

    def _existing_manifests(self) -> list[ManifestFile]:
        """The manifests that there are, without what goes."""
        self._gone: list[ManifestEntry] = []
        if self._parent_snapshot_id is None:
            return []
        parent = self._transaction.table_metadata.snapshot_by_id(self._parent_snapshot_id)
        assert parent is not None
        found = []
        for manifest in parent.manifests(io=self._io):
            if not (manifest.has_added_files() or manifest.has_existing_files()):
                continue
            if not self._deleted_data_files:
                found.append(manifest)
                continue
            entries = manifest.fetch_manifest_entry(io=self._io, discard_deleted=True)
            gone = [one for one in entries if one.data_file in self._deleted_data_files]
            self._gone += gone
            if not gone:
                found.append(manifest)
            else:
                stays = [one for one in entries if one.data_file not in self._deleted_data_files]
                found += self._written([(one.data_file, ManifestEntryStatus.EXISTING, one) for one in stays])
        if len(self._gone) != len(self._deleted_data_files):
            raise ValueError("a file that goes is not in the snapshot")
        return found

    def _merged(self, manifests: Iterable[ManifestFile]) -> list[ManifestFile]:
        """Many small manifests of one spec as one."""
        by_spec: dict[int, list[ManifestFile]] = defaultdict(list)
        for one in manifests:
            by_spec[one.partition_spec_id].append(one)
        made: list[ManifestFile] = []
        for group in by_spec.values():
            if len(group) < _MANIFESTS:
                made += group
                continue
            entries = (one for m in group for one in m.fetch_manifest_entry(io=self._io, discard_deleted=True))
            made += self._written([(one.data_file, ManifestEntryStatus.EXISTING, one) for one in entries])
        return made

    def _written(
        self, entries: Iterable[tuple[DataFile, ManifestEntryStatus, ManifestEntry | None]]
    ) -> list[ManifestFile]:
        """A manifest for each spec."""
        by_spec: dict[int, list[ManifestEntry]] = defaultdict(list)
        for file, status, was in entries:
            entry = ManifestEntry.from_args(
                status=status,
                snapshot_id=was.snapshot_id
                if was is not None and status == ManifestEntryStatus.EXISTING
                else self._snapshot_id,
                sequence_number=was.sequence_number if was is not None else None,
                file_sequence_number=was.file_sequence_number if was is not None else None,
                data_file=file,
            )
            by_spec[file.spec_id].append(entry)
        made = []
        for spec_id, group in by_spec.items():
            with self.new_manifest_writer(self.spec(spec_id)) as writer:
                for entry in group:
                    (writer.add if entry.status == ManifestEntryStatus.ADDED else writer.add_entry)(entry)
            made.append(writer.to_manifest_file())
        return made

    def _deleted_entries(self) -> list[ManifestEntry]:
        """What goes, as `_existing_manifests` met it."""
        return self._gone


def _bare(file: DataFile) -> DataFile:
    """A file that went, without its bounds: they name patients, and perhaps it went because of one."""
    bare: DataFile = DataFile.from_args(
        content=file.content,
        file_path=file.file_path,
        file_format=file.file_format,
        partition=file.partition,
        record_count=file.record_count,
        file_size_in_bytes=file.file_size_in_bytes,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        split_offsets=None,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
    )
    bare.spec_id = file.spec_id
    return bare


def change(
    transaction: Transaction,
    added: Collection[DataFile],
    gone: Collection[DataFile] = (),
    *,
    properties: Mapping[str, str],
) -> None:
    """Add one snapshot to a transaction, which the caller commits.

    Args:
        properties: of the snapshot.
    """
    operation = Operation.OVERWRITE if gone else Operation.APPEND
    made = FileChange(
        operation, transaction=transaction, io=transaction._table.io, snapshot_properties=dict(properties)
    )
    for file in added:
        made.append_data_file(file)
    for file in gone:
        made.delete_data_file(file)
    made.commit()
