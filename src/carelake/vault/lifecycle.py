"""What happens to objects with age, by the rules of their zone in the settings (docs/objects.md).

In this order: uploads that were begun and left are aborted; current versions expire (a delete marker, as in S3; in
the lake their bytes go); old versions expire with their bytes and rows, and markers with nothing behind them too;
what is left moves to a colder storage class. What is held, retained or locked is never touched, and is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from carelake.core.clock import iso
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.settings import LifecycleRules
from carelake.vault.blobs import STORAGES, Blob
from carelake.vault.catalogue import Catalogue, Condition
from carelake.vault.depot import Depot
from carelake.vault.multipart import Uploads
from carelake.vault.places import LOCKED, UNVERSIONED, zone_of
from carelake.vault.retention import is_free, protect, strongest
from carelake.vault.space import blobs_of, discard, give_up, tidy, users
from carelake.vault.tables import object_part, object_removal, object_upload, object_version
from carelake.vault.versions import ObjectVersion

__all__ = ["Lifecycle", "Passed"]

_T, _P, _U, _R = object_version.c, object_part.c, object_upload.c, object_removal.c
_PAGE = 500


@dataclass(slots=True)
class Passed:
    """What one run did, or would do; numbers of versions.

    Attributes:
        kept: due, but held, retained or locked, or sharing bytes with one that is.
        swept: blobs without a row that were set aside or removed.
        failed: versions that could not be moved, and blobs without a row that could not be swept; tried again at the
            next run.
    """

    aborted: int = 0
    expired: int = 0
    expired_old: int = 0
    cooled: int = 0
    archived: int = 0
    kept: int = 0
    swept: int = 0
    failed: int = 0


class Lifecycle:
    """See the module. Grant: ``ZONE:keep``."""

    def __init__(self, depot: Depot, catalogue: Catalogue, uploads: Uploads) -> None:
        self._depot = depot
        self._catalogue = catalogue
        self._uploads = uploads

    def run(self, permit: Permit, zone: str, *, dry_run: bool = False) -> Passed:
        """Apply the zone's rules to the objects of the permit's account; with ``dry_run`` only count.

        Each step is a transaction of its own, so a run that is broken off is simply run again.

        Raises:
            Invalid: ``vault.zone``: a rule is for a zone that is not one.
        """
        self._depot.keeper(permit, zone)
        for named in self._depot.settings.lifecycle:
            zone_of(named)
        rules = self._depot.settings.lifecycle.get(zone, LifecycleRules())
        done = Passed()
        steps = (self._abort, self._expire, self._expire_old, self._cool)
        for step in steps:
            step(permit, zone, rules, done, dry_run)
        if not dry_run:
            done.swept, failed = tidy(self._depot, permit.account, zone)
            done.failed += failed
        permit.log.count(**{name: number for name, number in asdict(done).items() if number})
        return done

    def _before(self, days: int) -> str:
        return iso(self._depot.clock.now() - timedelta(days=days))

    def _pages(self, permit: Permit, zone: str, *conditions: Any) -> Iterator[Sequence[Row[Any]]]:
        """Rows of the zone by their number, a page at a time, each read when the one before is done with."""
        after = 0
        where = (_T.account == permit.account, _T.zone == zone, *conditions)
        while True:
            query = select(object_version).where(*where, _T.seq > after).order_by(_T.seq).limit(_PAGE)
            with self._depot.database.snapshot() as connection:
                rows = list(connection.execute(query))
            if not rows:
                return
            after = rows[-1].seq
            yield rows

    def _due(self, rows: Iterable[Row[Any]], done: Passed) -> list[Row[Any]]:
        rows = list(rows)
        due = [row for row in rows if is_free(row, self._depot.clock)]
        done.kept += len(rows) - len(due)
        return due

    def _again(self, connection: Connection, rows: Iterable[Row[Any]]) -> list[Row[Any]]:
        """The rows as they are now, inside the transaction, where they still are what they were and may go."""
        wanted = {row.seq: row for row in rows}
        query = select(object_version).where(_T.seq.in_(list(wanted)))
        now = connection.execute(query).all()
        same = [
            row for row in now if (row.current, row.deleted) == (wanted[row.seq].current, wanted[row.seq].deleted)
        ]
        return [row for row in same if is_free(row, self._depot.clock)]

    # -- the steps ------------------------------------------------------------------------------------------------

    def _abort(self, permit: Permit, zone: str, rules: LifecycleRules, done: Passed, dry_run: bool) -> None:
        if not rules.abort_upload_days:
            return
        old = _U.created < self._before(rules.abort_upload_days)
        query = select(_U.upload).where(_U.account == permit.account, _U.zone == zone, old)
        with self._depot.database.snapshot() as connection:
            uploads = list(connection.scalars(query))
        for upload in uploads:
            if not dry_run:
                with self._depot.database.writing(permit, join=True) as connection:
                    self._uploads.drop(connection, upload)
            done.aborted += 1

    def _expire(self, permit: Permit, zone: str, rules: LifecycleRules, done: Passed, dry_run: bool) -> None:
        if not rules.expire_days or zone in LOCKED:
            return
        before = self._before(rules.expire_days)
        for rows in self._pages(permit, zone, _T.current, ~_T.deleted, _T.created < before):
            for row in self._due(rows, done):
                if not dry_run:
                    self._expire_one(permit, row)
                done.expired += 1

    def _expire_one(self, permit: Permit, row: Row[Any]) -> None:
        depot = self._depot
        with depot.database.writing(permit, join=True) as connection:
            if not self._again(connection, [row]):
                return
            if row.zone in UNVERSIONED:
                self._catalogue.delete(permit, row.account, row.zone, row.name, forget=True)
                return
            now = iso(depot.clock.now())
            marker = ObjectVersion(row.name, row.zone, row.account, depot.ids.new(), 0, "", now, {}, marker=True)
            self._catalogue.mark(permit, marker, Condition(match=row.version))

    def _expire_old(self, permit: Permit, zone: str, rules: LifecycleRules, done: Passed, dry_run: bool) -> None:
        if not rules.expire_old_days or zone in LOCKED:
            return
        before = self._before(rules.expire_old_days)
        for rows in self._pages(permit, zone, ~_T.current, self._succeeded_before(before)):
            due = self._due(rows, done)
            done.expired_old += sum(not row.deleted for row in due)
            if not dry_run:
                self._forget(permit, due)
        for rows in self._pages(permit, zone, _T.current, _T.form == "marker", _T.created < before, ~_behind()):
            if not dry_run:
                self._forget(permit, rows)

    def _succeeded_before(self, before: str) -> Any:
        """As S3 counts: by when the next version, or the marker, came."""
        later = object_version.alias("later")
        same = (later.c.account == _T.account, later.c.zone == _T.zone, later.c.name == _T.name)
        return select(later.c.seq).where(*same, later.c.seq > _T.seq, later.c.created < before).exists()

    def _forget(self, permit: Permit, rows: Sequence[Row[Any]]) -> None:
        """Remove versions with their rows, and with the last row of an object its name."""
        with self._depot.database.writing(permit, join=True) as connection:
            again = self._again(connection, rows)
            if again:
                give_up(connection, self._depot, blobs_of(connection, again), {row.version for row in again})
                connection.execute(delete(object_version).where(_T.seq.in_([row.seq for row in again])))

    def _cool(self, permit: Permit, zone: str, rules: LifecycleRules, done: Passed, dry_run: bool) -> None:
        if zone in LOCKED:
            return
        ways = (("archive", rules.archive_days), ("cool", rules.cool_days))
        for storage, days in ways:
            if not days:
                continue
            warmer = _T.storage.in_(STORAGES[: STORAGES.index(storage)])
            forms = _T.form.in_(("file", "parts"))
            gone = 0
            for rows in self._pages(permit, zone, ~_T.deleted, forms, warmer, _T.created < self._before(days)):
                for row in self._due(rows, done):
                    if self._bound(row):
                        done.kept += 1
                        continue
                    try:
                        gone += dry_run or self._move(permit, row, storage)
                    except (CarelakeError, OSError):  # the others can move all the same
                        done.failed += 1
            if storage == "archive":
                done.archived += gone
            else:
                done.cooled += gone

    def _bound(self, row: Row[Any]) -> bool:
        """Does a version that is kept share bytes with this one?"""
        with self._depot.database.snapshot() as connection:
            names = [blob.object for blob, _ in blobs_of(connection, [row])]
            return not all(is_free(user, self._depot.clock) for user in users(connection, names))

    def _move(self, permit: Permit, row: Row[Any], storage: str) -> bool:
        """Copy first, then enter, then remove the copy that was left: there is a whole copy at each moment."""
        depot = self._depot
        with depot.database.snapshot() as connection:
            blobs = [blob for blob, form in blobs_of(connection, [row]) if form == "file" and blob.storage != storage]
            names = [blob.object for blob in blobs]
            sharing = list(users(connection, names))
            if not row.current and any(user.version != row.version for user in sharing):
                return False  # it moves with the newer version that has the same bytes
        guard = strongest(sharing, depot.clock)
        depot.presence.mark()
        depot.unsure += 1
        left = [depot.blobs.move(blob, storage, guard) for blob in blobs]
        with depot.database.writing(permit, join=True) as connection:
            named = _named(connection, names)
            free = all(is_free(user, depot.clock) for user in users(connection, names))
            if not free or named != {(blob.object, blob.storage) for blob in blobs}:
                alive = {name for name, _ in named}
                protect(connection, depot, [blob for blob in blobs if blob.object in alive])
                copies = [_at(blob, storage) for blob, old in zip(blobs, left, strict=True) if old is not None]
                discard(connection, depot, [copy for copy in copies if copy.object not in alive])
                # The copy of one that lives stays, since another run may be about to enter it; a sweep finds it.
                depot.unsure -= not any(
                    copy.object in alive and (copy.object, storage) not in named for copy in copies
                )
                return False
            whole = update(object_version).where((_T.seq == row.seq) | _T.object.in_(names))
            connection.execute(whole.values(storage=storage))
            connection.execute(update(object_part).where(_P.object.in_(names)).values(storage=storage))
            connection.execute(delete(object_removal).where(_R.object.in_(names), _R.storage == storage))
            discard(connection, depot, [old for old in left if old is not None])
        depot.unsure -= 1
        return True


def _at(blob: Blob, storage: str) -> Blob:
    return Blob(blob.account, blob.zone, blob.object, storage)


def _behind() -> Any:
    """Is there another row of the object?"""
    other = object_version.alias("other")
    same = (other.c.account == _T.account, other.c.zone == _T.zone, other.c.name == _T.name)
    return select(other.c.seq).where(*same, other.c.seq != _T.seq).exists()


def _named(connection: Connection, names: Sequence[str]) -> set[tuple[str, str]]:
    """(object, storage class) of these blobs, as rows have them now."""
    whole = select(_T.object, _T.storage).where(_T.object.in_(names), ~_T.deleted)
    parts = select(_P.object, _P.storage).where(_P.object.in_(names))
    return {(row.object, row.storage) for row in connection.execute(whole.union(parts))}
