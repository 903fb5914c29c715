"""The patients of a snapshot in shards, so that an export holds one shard's rows at a time.

Shards follow the buckets of the lake's files, so each reads few of them; they depend on the snapshot and the settings
alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from carelake.audit.tables import noun
from carelake.core.clock import instant
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.iceberg.layout import numbers
from carelake.lake.ready.shelf import find
from carelake.lake.seeing.seen import Whose
from carelake.lake.seeing.sight import sight_of
from carelake.lake.views.over import over
from carelake.vault.workspace import Vault

__all__ = ["PATIENTS", "Numbers", "macros", "people", "shards", "taken", "views"]

PATIENTS = 4_000
"""Of one shard, at most."""

_NUMBERS = pa.schema([pa.field("kind", pa.string()), pa.field("id", pa.string()), pa.field("n", pa.int64())])


def shards(permit: Permit, vault: Vault, snapshot: Noun, most: int = PATIENTS) -> list[frozenset[str]]:
    """Ids of all patients that the permit shows, at most ``most`` in a shard."""
    found = query.current(permit, vault, snapshot, "Patient", columns=["id"])
    if found is None or not len(found):
        return []
    return _shards(vault, found.column("id"), most)


def _shards(vault: Vault, ids: pa.ChunkedArray, most: int) -> list[frozenset[str]]:
    keyed = pa.table({"bucket": numbers(ids, vault.settings.lake.buckets), "id": ids})
    ordered = keyed.sort_by([("bucket", "ascending"), ("id", "ascending")]).column("id").to_pylist()
    return [frozenset(ordered[at : at + most]) for at in range(0, len(ordered), most)]


def people(permit: Permit, vault: Vault, snapshot: Noun, kinds: Iterable[str], most: int) -> list[Whose]:
    """Everybody whom resources of these types are about, as `shards` does; [None] where they fit into one shard."""
    found = (query.current(permit, vault, snapshot, kind, columns=["patient"]) for kind in sorted(set(kinds)))
    parts = [pc.unique(one.column("patient")).drop_null().cast(pa.string()) for one in found if one is not None]
    ids = pa.chunked_array([pc.unique(pa.chunked_array(parts, pa.string()))])
    return [None] if len(ids) <= most else [*_shards(vault, ids, most)]


def views(
    permit: Permit, vault: Vault, snapshot: Noun, names: Sequence[str], patients: frozenset[str] | None = None
) -> Mapping[str, pa.Table]:
    """Rows of ready-made views by name: of these patients, or of everybody and of nobody."""
    return {name: over(permit, vault, snapshot, find(name), patient=patients) for name in names}


def taken(permit: Permit, vault: Vault, snapshot: Noun) -> datetime:
    """The moment of a snapshot: what goes on in its data goes on then."""
    with vault.database.reading(permit) as connection:
        return instant(connection.execute(select(noun.c.at).where(noun.c.ref == snapshot.ref)).scalar_one())


class Numbers:
    """A whole number for each resource: the change number of its first version.

    It is the resource's own for as long as there is one, no other resource has it, and it tells nothing about it.
    A permit for the de-identified schema does not see change numbers: there it is the resource's place among all of
    the snapshot, and another snapshot has other ones.
    """

    def __init__(self, permit: Permit, vault: Vault, snapshot: Noun) -> None:
        self._permit, self._vault, self._snapshot = permit, vault, snapshot
        self._placed: dict[str, pa.Table] = {}
        self._after = 0

    def of(self, kinds: Sequence[str], patients: frozenset[str] | None = None) -> pa.Table:
        """Columns kind, id, n of resources of these types: of these patients at least."""
        if sight_of(self._permit).deidentified:
            return pa.concat_tables([_NUMBERS.empty_table(), *(self._place(kind) for kind in kinds)])
        return pa.concat_tables([_NUMBERS.empty_table(), *(self._first(kind, patients) for kind in kinds)])

    def _first(self, kind: str, patients: frozenset[str] | None) -> pa.Table:
        found = query.versions(
            self._permit, self._vault, self._snapshot, kind, columns=["id", "seq"], patient=patients
        )
        if found is None:
            return _NUMBERS.empty_table()
        first = found.group_by("id").aggregate([("seq", "min")])
        return _numbered(kind, first.column("id"), first.column("seq_min"))

    def _place(self, kind: str) -> pa.Table:
        if kind not in self._placed:
            found = query.current(self._permit, self._vault, self._snapshot, kind, columns=["id"])
            ids = pa.chunked_array([], pa.string()) if found is None else found.sort_by("id").column("id")
            self._placed[kind] = _numbered(kind, ids, pa.array(range(self._after + 1, self._after + 1 + len(ids))))
            self._after += len(ids)
        return self._placed[kind]


def _numbered(kind: str, ids: pa.ChunkedArray, numbers: pa.Array | pa.ChunkedArray) -> pa.Table:
    return pa.table([pa.array([kind] * len(ids), pa.string()), ids.cast(pa.string()), numbers], schema=_NUMBERS)


@cache
def macros() -> str:
    """Words of SQL for what the views show (``macros.sql``)."""
    return files("carelake.lake.ready").joinpath("macros.sql").read_text("utf-8")
