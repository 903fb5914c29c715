"""Tables whose transactions work out what they come to once for each step, not each time they are asked.

pyiceberg copies all of a table's metadata whenever a transaction is asked for it, over twenty times for a flush:
with hundreds of snapshots that took longer than all else. Metadata is never changed in place, so once is enough.
"""

from __future__ import annotations

from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableUpdate, update_table_metadata

__all__ = ["LakeTable"]


class _Steps(Transaction):  # type: ignore[misc]
    _told: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        base, updates = self._table.metadata, self._updates
        if not updates:
            return base
        if self._told is None or self._told[0] is not base or self._told[1] is not updates:
            self._told = (base, updates, update_table_metadata(base, updates))
        return self._told[2]


class LakeTable(Table):  # type: ignore[misc]
    """A table of the lake."""

    def transaction(self) -> Transaction:
        """Changes that are staged and then committed together."""
        return _Steps(self)
