"""Reading views: what is kept of them where that is right for who reads and for the snapshot, else computed.

A materialisation is read when it is whole at the snapshot that is read, and the permit sees all of the account, or
one patient. For every other sight, which may have filters and masks, the view is computed over what is in sight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import NoSuchTableError

from carelake.core.errors import Gone
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.current import Rows, rows_of
from carelake.lake.materialisation.materialising import DIGEST, shape
from carelake.lake.seeing.seen import within
from carelake.lake.seeing.sight import Sight, sight_of
from carelake.lake.views.over import over
from carelake.lake.views.saved import KEPT, Saved, all_of, digest_of
from carelake.vault.workspace import Vault

__all__ = ["Found", "freshness", "of_saved", "of_view", "schema"]

_WRITTEN = "last_updated"


class Found(NamedTuple):
    """The rows of a view.

    Attributes:
        kept: the name of the materialisation that they were read from, "" where they were computed.
    """

    rows: pa.Table
    kept: str = ""


def of_view(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    view: Mapping[str, Any],
    *,
    patient: str | Collection[str] | None = None,
    since: datetime | None = None,
    most: int | None = None,
    engine: str | None = None,
) -> Found:
    """The rows of a view as of a snapshot, from what is kept of it or of one that is the same; as `over.over`."""
    digest = digest_of(view)
    for one in all_of(permit, vault, KEPT):
        if one.digest == digest:
            return of_saved(permit, vault, snapshot, one, patient=patient, since=since, most=most, engine=engine)
    return Found(over(permit, vault, snapshot, view, patient=patient, since=since, most=most, engine=engine))


def of_saved(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    view: Saved,
    *,
    columns: Collection[str] | None = None,
    patient: str | Collection[str] | None = None,
    since: datetime | None = None,
    most: int | None = None,
    engine: str | None = None,
) -> Found:
    """The rows of a saved view as of a snapshot; as `of_view`.

    Args:
        columns: of the view; all by default.
    """
    names = [one for one in schema(view).names if columns is None or one in columns]
    kept = _kept(permit, vault, snapshot, view)
    if kept is not None:
        found = _read(kept, view, names, within(sight_of(permit), patient), since)
        return Found(found if most is None else found.slice(0, most), view.name)
    live = over(permit, vault, snapshot, view.view, patient=patient, since=since, most=most, engine=engine)
    return Found(live.select(names))


def schema(view: Saved) -> pa.Schema:
    """The view's columns and their types."""
    stored = shape(view.definition)
    return pa.schema([one.with_name(name.name) for one, name in zip(stored, view.definition.columns, strict=True)])


def freshness(snapshot: Noun | None, view: Saved) -> tuple[bool, int]:
    """Whether what is kept of a view is whole at a snapshot, and how many rows its table has."""
    told = {} if snapshot is None else snapshot.body.get("views", {}).get(view.key, {})
    return snapshot is not None and _is_fresh(snapshot, view), int(told.get("rows", 0))


def _kept(permit: Permit, vault: Vault, snapshot: Noun, view: Saved) -> Rows | None:
    """The rows that are kept, where they may be read, and are those of the view at that snapshot."""
    if view.state != KEPT or not _may_read(permit) or not _is_fresh(snapshot, view):
        return None
    told = snapshot.body["views"][view.key]
    try:
        found = rows_of(permit, vault, view.table, int(told["snapshot"]))
    except (NoSuchTableError, Gone):
        return None
    return found if found.table.properties.get(DIGEST) == view.digest else None


def _is_fresh(snapshot: Noun, view: Saved) -> bool:
    told = snapshot.body.get("views", {}).get(view.key)
    base = snapshot.body["tables"].get(view.definition.resource)
    return bool(told and told["snapshot"] and base and told["seq"] == base["seq"])


def _may_read(permit: Permit) -> bool:
    """All of the account, or one patient's compartment and nothing else; deny by default."""
    sight = sight_of(permit)
    return sight == Sight(patient=sight.patient)


def _read(
    kept: Rows, view: Saved, names: Collection[str], patient: str | Collection[str] | None, since: datetime | None
) -> pa.Table:
    stored = {column.name: f"c{n}" for n, column in enumerate(view.definition.columns)}
    wanted = [*(stored[name] for name in names), *([_WRITTEN] if since is not None else [])]
    found = kept.current(wanted or ["id"], patient)
    if since is not None:
        found = found.filter(pc.field(_WRITTEN) > since)
    return found.select([stored[name] for name in names]).rename_columns(list(names))
