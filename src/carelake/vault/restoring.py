"""Restore: an old version becomes the current one again, without its bytes being copied.

The new version names the old one's blobs in a sealed list of its own; they stay as long as one of the two does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select

from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.vault.catalogue import Catalogue, Draft
from carelake.vault.chunks import Place, stored_size
from carelake.vault.depot import Depot
from carelake.vault.parts import Piece, read_manifest, seal_manifest
from carelake.vault.places import LOCKED
from carelake.vault.retention import locked
from carelake.vault.tables import object_part
from carelake.vault.versions import ObjectVersion

__all__ = ["restore"]

_P = object_part.c


def restore(
    depot: Depot, catalogue: Catalogue, permit: Permit, zone: str, name: str, version: str | None
) -> ObjectVersion:
    """See `objects.Objects.restore`; whoever calls has checked the permit."""
    if zone in LOCKED:
        raise locked(zone)
    with depot.database.writing(permit, join=True) as connection:
        if version is None:
            row = catalogue.hidden(connection, permit.account, zone, name)
        else:
            row = catalogue.exact(connection, permit.account, zone, name, version)
        old = catalogue.told(row)
        if row.current:
            return old
        now, number = iso(depot.clock.now()), depot.ids.new()
        new = replace(old, version=number, created=now, current=True, retain_mode="", retain_until="", held=False)
        catalogue.enter(permit, _draft(connection, depot, row, new))
    return new


def _draft(connection: Connection, depot: Depot, row: Row[Any], new: ObjectVersion) -> Draft:
    old = Place(depot.workspace, row.account, row.zone, row.object, row.version)
    if row.form == "parts":
        pieces = read_manifest(depot, old)
        query = select(object_part).where(_P.version == row.version).order_by(_P.number)
        rows = [dict(part._mapping) | {"version": new.version} for part in connection.execute(query)]
    else:
        pieces = [Piece(row.object, row.version, row.size, row.sha256)]
        rows = [_part(row, new)]
    # A list needs no blob of its own; the version's id is as good an unused name as any.
    place = Place(depot.workspace, new.account, new.zone, new.version, new.version)
    manifest = seal_manifest(depot, place, pieces)
    return Draft(new, new.version, "parts", row.stored_size, manifest=manifest, parts=tuple(rows))


def _part(row: Row[Any], new: ObjectVersion) -> dict[str, Any]:
    return {
        "version": new.version,
        "number": 1,
        "account": row.account,
        "zone": row.zone,
        "object": row.object,
        "bound": row.version,
        "size": row.size,
        "stored_size": stored_size(row.size),
        "sha256": row.sha256,
        "form": row.form,
        "storage": row.storage,
    }
