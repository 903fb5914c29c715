"""Usage, which names nothing, and inventory, which names everything and is for who may read the zone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import and_, case, func, select

from carelake.core.clock import iso
from carelake.core.permit import Permit, check
from carelake.vault.depot import Depot
from carelake.vault.tables import object_part, object_upload, object_version
from carelake.vault.versions import ObjectVersion, told

__all__ = ["Report"]

_T, _P, _U = object_version.c, object_part.c, object_upload.c
_PAGE = 1000


class Report:
    """See the module."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    def usage(self, permit: Permit) -> list[dict[str, Any]]:
        """Counts and bytes of the permit's account, by zone and storage class; no names. Grant: ``rows:read``.

        Each row: zone, storage, objects (current), versions, markers, bytes (of plaintext, all versions), held,
        retained, and for the class ``hot`` uploads and upload_bytes. ``stored`` is by zone and class too: sealed
        bytes, those that two versions share once.
        """
        check(permit, "rows:read", now=self._depot.clock.now())
        with self._depot.database.snapshot() as connection:
            found = {(r.zone, r.storage): dict(r._mapping) for r in connection.execute(self._versions(permit))}
            for row in connection.execute(_shared_parts(permit)):
                _entry(found, row.zone, row.storage)["stored"] += int(row.stored)
            for row in connection.execute(_uploads(permit)):
                _entry(found, row.zone, "hot")["uploads"] = row.uploads
            for row in connection.execute(_upload_bytes(permit)):
                _entry(found, row.zone, "hot")["upload_bytes"] = int(row.bytes)
        return [_plain(found[place]) for place in sorted(found)]

    def inventory(self, permit: Permit, zone: str) -> Iterator[ObjectVersion]:
        """Every version of a zone that has bytes, and every delete marker, in the order of writing.

        Names can be patients' names. Grant: ``ZONE:read``, checked at the call.
        """
        self._depot.reader(permit, zone)
        return self._walk(permit, zone)

    def _walk(self, permit: Permit, zone: str) -> Iterator[ObjectVersion]:
        after = 0
        where = (_T.account == permit.account, _T.zone == zone, (~_T.deleted) | (_T.form == "marker"))
        while True:
            query = select(object_version).where(*where, _T.seq > after).order_by(_T.seq).limit(_PAGE)
            with self._depot.database.snapshot() as connection:
                rows = list(connection.execute(query))
            if not rows:
                return
            yield from (told(row, self._depot) for row in rows)
            after = rows[-1].seq

    def _versions(self, permit: Permit) -> Any:
        def count(*conditions: Any) -> Any:
            return func.sum(case((and_(*conditions), 1), else_=0))

        alive = ~_T.deleted
        whole = _T.form.in_(("file", "inline"))
        return (
            select(
                _T.zone,
                _T.storage,
                count(_T.current, alive).label("objects"),
                count(alive).label("versions"),
                count(_T.form == "marker").label("markers"),
                func.sum(case((alive, _T.size), else_=0)).label("bytes"),
                func.sum(case((and_(alive, whole), _T.stored_size), else_=0)).label("stored"),
                count(alive, _T.held).label("held"),
                count(alive, _T.retain_until > iso(self._depot.clock.now())).label("retained"),
            )
            .where(_T.account == permit.account, alive | (_T.form == "marker"))
            .group_by(_T.zone, _T.storage)
        )


def _shared_parts(permit: Permit) -> Any:
    whole = select(_T.object).where(_T.object == _P.object, ~_T.deleted).exists()
    distinct = (
        select(_P.zone, _P.storage, _P.object, _P.stored_size)
        .where(_P.account == permit.account, ~whole)
        .distinct()
        .subquery()
    )
    stored = func.sum(distinct.c.stored_size).label("stored")
    return select(distinct.c.zone, distinct.c.storage, stored).group_by(distinct.c.zone, distinct.c.storage)


def _uploads(permit: Permit) -> Any:
    return select(_U.zone, func.count().label("uploads")).where(_U.account == permit.account).group_by(_U.zone)


def _upload_bytes(permit: Permit) -> Any:
    begun = select(_U.upload).where(_U.account == permit.account)
    return select(_P.zone, func.sum(_P.size).label("bytes")).where(_P.version.in_(begun)).group_by(_P.zone)


_NONE = {
    "objects": 0,
    "versions": 0,
    "markers": 0,
    "bytes": 0,
    "stored": 0,
    "held": 0,
    "retained": 0,
}


def _entry(found: dict[tuple[str, str], dict[str, Any]], zone: str, storage: str) -> dict[str, Any]:
    return found.setdefault((zone, storage), {"zone": zone, "storage": storage, **_NONE})


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value if isinstance(value, str) else int(value) for name, value in entry.items()}
    return {"uploads": 0, "upload_bytes": 0, **plain}
