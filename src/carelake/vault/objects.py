"""Encrypted, versioned objects in zones (decisions D5, 0017, 0018).

A blob's name on disk or in a bucket is random; what it is called, and in which zone and account, stands only in the
encrypted table ``object_version``. Bytes are made durable first and then entered in the table, so an object is there
whole or not at all; what a crash leaves behind has no row and is swept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, update

from carelake.core.clock import Clock, iso
from carelake.core.errors import Corrupt
from carelake.core.ids import Ids
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.attested.releases import Releases
from carelake.vault.catalogue import ANY, Catalogue, Condition
from carelake.vault.database import Database
from carelake.vault.depot import Depot
from carelake.vault.disk import private_folder
from carelake.vault.drivers.choice import blobs_for
from carelake.vault.keeping import Keeping
from carelake.vault.keyring import Keyring
from carelake.vault.lifecycle import Lifecycle
from carelake.vault.multipart import Uploads
from carelake.vault.places import LOCKED, UNVERSIONED
from carelake.vault.presence import Presence
from carelake.vault.reading import Reader, open_version, readall
from carelake.vault.report import Report
from carelake.vault.restoring import restore
from carelake.vault.retention import locked
from carelake.vault.space import sweep
from carelake.vault.tables import object_version
from carelake.vault.verification import Fault, look, verify
from carelake.vault.versions import ObjectVersion, check_name, check_tags, sealed_tags
from carelake.vault.vouched import vouch_all, voucher
from carelake.vault.writing import ObjectWriter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Fault", "ObjectVersion", "ObjectWriter", "Objects"]

_READ_AHEAD = 128 * 1024


class Objects:
    """The objects of one open workspace.

    Attributes:
        uploads: large objects in parts, resumable.
        keeping: retention, legal hold, purge.
        lifecycle: what happens with age.
        report: usage and inventory.
        releases: of their data keys, to sandboxes that prove what they are.
    """

    def __init__(
        self, folder: Path, *, settings: Settings, keyring: Keyring, database: Database, clock: Clock, ids: Ids
    ) -> None:
        private_folder(folder)
        self._depot = Depot(
            workspace=settings.workspace,
            settings=settings,
            keyring=keyring,
            database=database,
            clock=clock,
            ids=ids,
            blobs=blobs_for(folder, settings),
            presence=Presence(folder),
        )
        self._catalogue = Catalogue(self._depot)
        self.uploads = Uploads(self._depot, self._catalogue)
        self.keeping = Keeping(self._depot, self._catalogue)
        self.lifecycle = Lifecycle(self._depot, self._catalogue, self.uploads)
        self.report = Report(self._depot)
        self.releases = Releases(self._depot, self._catalogue)

    # -- write ----------------------------------------------------------------------------------------------------

    def put(
        self,
        permit: Permit,
        zone: str,
        name: str,
        data: ReadableBuffer,
        *,
        tags: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> ObjectVersion:
        """Write an object whole.

        In the lake an overwrite replaces; elsewhere it makes a new version; in a locked zone it is refused. Inside a
        write transaction of this thread the object appears when that one commits.

        Args:
            if_none_match: write only where there is no such object (RFC 9110 ``If-None-Match: *``).
            if_match: write only where this is its current version (``If-Match``).

        Raises:
            Conflict: ``vault.precondition``.
            Refused: the permit has no grant ``ZONE:write``; ``vault.locked``; in the lake ``vault.held``,
                ``vault.retained``.
            Invalid: ``vault.name``, ``vault.tags``, ``vault.zone``.
        """
        writer = self.create(permit, zone, name, tags=tags, if_none_match=if_none_match, if_match=if_match)
        try:
            writer.write(data)
            return writer.commit()
        finally:
            writer.discard()

    @contextmanager
    def writer(
        self, permit: Permit, zone: str, name: str, *, tags: Mapping[str, str] | None = None
    ) -> Iterator[ObjectWriter]:
        """A binary stream to a new object, which is there after a clean exit, and never otherwise."""
        writer = self.create(permit, zone, name, tags=tags)
        writer.commit_on_close = False
        try:
            yield writer
            writer.commit()
        finally:
            writer.discard()

    def create(
        self,
        permit: Permit,
        zone: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> ObjectWriter:
        """As `writer`, for callers that cannot use ``with``: ``close`` commits, `ObjectWriter.discard` does not."""
        self._depot.writer(permit, zone)
        check_name(name)
        check_tags(tags)
        condition = Condition(if_none_match, if_match)
        self._catalogue.check(permit.account, zone, name, condition)
        return ObjectWriter(self._depot, self._catalogue, permit, zone, name, dict(tags or {}), condition)

    def remove(
        self, permit: Permit, zone: str, name: str, *, version: str | None = None, if_match: str | None = None
    ) -> ObjectVersion | None:
        """Delete an object as S3 does: it is marked as deleted, and `restore` brings it back.

        In the lake, which has no versions, its bytes go. With ``version`` that one version goes with its bytes; of a
        delete marker, the marker.

        Returns the delete marker, if one was made.

        Raises:
            NotFound, Gone: there is none.
            Refused: ``vault.locked``; ``vault.held``, ``vault.retained`` where bytes would go.
        """
        self._depot.writer(permit, zone)
        check_name(name)
        if zone in LOCKED:
            raise locked(zone)
        if version is not None:
            self._catalogue.delete_version(permit, permit.account, zone, name, version)
            return None
        if zone in UNVERSIONED:
            self._catalogue.delete(permit, permit.account, zone, name, forget=True)
            return None
        depot = self._depot
        now = iso(depot.clock.now())
        marker = ObjectVersion(name, zone, permit.account, depot.ids.new(), 0, "", now, {}, marker=True)
        self._catalogue.mark(permit, marker, Condition(match=if_match) if if_match else ANY)
        return marker

    def delete(self, permit: Permit, zone: str, name: str) -> None:
        """Remove an object with all its versions; their bytes go once the deletion is committed.

        Raises:
            Refused: ``vault.locked``, ``vault.held``, ``vault.retained``, or the permit has no grant ``ZONE:write``.
            NotFound: there is none, or it was deleted before.
        """
        self._depot.writer(permit, zone)
        if zone in LOCKED:
            raise locked(zone)
        self._catalogue.delete(permit, permit.account, zone, name, forget=False)

    def restore(self, permit: Permit, zone: str, name: str, version: str | None = None) -> ObjectVersion:
        """Make an old version the current one again, as a new version; no bytes are copied.

        Args:
            version: the one to restore; None for the one that a delete marker hides.

        Raises:
            Conflict: ``vault.not_deleted``: nothing is hidden, so a version must be named.
            NotFound, Gone: there is none. Refused: ``vault.locked``.
        """
        self._depot.writer(permit, zone)
        return restore(self._depot, self._catalogue, permit, zone, name, version)

    def tag(
        self,
        permit: Permit,
        zone: str,
        name: str,
        tags: Mapping[str, str],
        *,
        remove: tuple[str, ...] = (),
        version: str | None = None,
    ) -> ObjectVersion:
        """Set some tags of a version and remove others.

        Raises:
            Invalid: ``vault.tags``. NotFound, Gone. Refused: ``vault.locked``.
        """
        self._depot.writer(permit, zone)
        if zone in LOCKED:
            raise locked(zone)
        with self._depot.database.writing(permit, join=True) as connection:
            row = self._catalogue.exact(connection, permit.account, zone, name, version)
            old = self._catalogue.told(row)
            kept = {name: text for name, text in old.tags.items() if name not in remove}
            new = replace(old, tags=kept | dict(tags))
            text = sealed_tags(self._depot, permit.account, zone, new.version, new.tags)
            mac = voucher(self._depot, {**row._mapping, "tags": text})
            change = update(object_version).where(object_version.c.seq == row.seq)
            connection.execute(change.values(tags=text, voucher=mac))
        return new

    # -- read -----------------------------------------------------------------------------------------------------

    def stat(self, permit: Permit, zone: str, name: str, version: str | None = None) -> ObjectVersion:
        """What is known of an object without its bytes; `NotFound` or `Gone` where there is none."""
        self._depot.reader(permit, zone)
        return self._catalogue.find(permit.account, zone, name, version).told

    def open(self, permit: Permit, zone: str, name: str, version: str | None = None) -> io.BufferedReader:
        """A seekable binary file; only the chunks that are read are decrypted.

        Raises:
            Refused: the permit has no grant ``ZONE:read``.
            NotFound: ``vault.object``; Gone: ``vault.deleted``.
            Corrupt: ``vault.altered`` or ``vault.missing``, here or at a read.
        """
        return io.BufferedReader(self._reader(permit, zone, name, version), _READ_AHEAD)

    def get(self, permit: Permit, zone: str, name: str, version: str | None = None) -> bytes:
        """An object's bytes, whole. See `open`."""
        with self._reader(permit, zone, name, version) as reader:
            return readall(reader)

    def versions(self, permit: Permit, zone: str, name: str) -> list[ObjectVersion]:
        """Every version of an object, and its delete markers, newest first; `NotFound` where there never was one."""
        self._depot.reader(permit, zone)
        return self._catalogue.versions(permit.account, zone, name)

    def list(self, permit: Permit, zone: str, prefix: str = "") -> list[ObjectVersion]:
        """The current version of each object whose name starts so, by name."""
        self._depot.reader(permit, zone)
        return self._catalogue.list(permit.account, zone, prefix)

    def any(self, permit: Permit, zone: str, prefix: str) -> bool:
        """Is there an object whose name starts so?"""
        self._depot.reader(permit, zone)
        return self._catalogue.any(permit.account, zone, prefix)

    def check(self, permit: Permit, zone: str, name: str, version: str | None = None) -> Fault | None:
        """Read a version whole and compare it with the digest it was entered with; what is wrong, or None."""
        self._depot.reader(permit, zone)
        return look(self._depot, self._catalogue.find(permit.account, zone, name, version).row)

    def verify(self, permit: Permit) -> Iterator[Fault]:
        """Read and authenticate every object of every account and zone; see `verification.verify`."""
        return verify(permit, self._depot)

    def _reader(self, permit: Permit, zone: str, name: str, version: str | None) -> Reader:
        self._depot.reader(permit, zone)
        found = self._catalogue.find(permit.account, zone, name, version)
        while True:
            try:
                return open_version(self._depot, found.row, found.sealed)
            except Corrupt as error:
                # It may have been replaced or moved, by rights, after its row was read: then there is a newer row.
                again = self._catalogue.find(permit.account, zone, name, version)
                if error.code != "vault.missing" or _same(again.row, found.row):
                    raise
                found = again

    # -- housekeeping ---------------------------------------------------------------------------------------------

    def vouch_all(self, connection: Connection) -> None:
        """For an upgrade; see `vouched.vouch_all`."""
        vouch_all(self._depot, connection)

    def sweep(self) -> int:
        """At open: remove what was given up and set aside what a killed process left; the number of blobs."""
        return sweep(self._depot)

    def close(self) -> None:
        """Say that this process has left nothing half-done."""
        self._depot.presence.leave(clean=self._depot.unsure == 0)


def _same(one: object, other: object) -> bool:
    names = ("version", "object", "storage", "form")
    return all(getattr(one, name) == getattr(other, name) for name in names)
