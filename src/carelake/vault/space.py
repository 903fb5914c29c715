"""Giving bytes back: what a committed transaction no longer needs, and what a killed process left behind.

Bytes are given up in two steps. The transaction that drops the last row that uses them enters them in
``object_removal``; after its commit they are removed. A process that dies in between is made up for at the next open.
Bytes that no row has ever known are not removed but set aside: after an old database was put back they may be
somebody's newer objects, and come back when a row asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from carelake.core.errors import CarelakeError
from carelake.vault.blobs import STORAGES, Blob, Found
from carelake.vault.database import scope_of
from carelake.vault.depot import Depot
from carelake.vault.tables import object_inline, object_manifest, object_part, object_removal, object_version

__all__ = [
    "ASIDE_SECONDS",
    "STRAY_SECONDS",
    "blobs_of",
    "discard",
    "give_up",
    "parts_of",
    "remove_given_up",
    "sweep",
    "tidy",
    "undo",
    "users",
]

STRAY_SECONDS = 86_400.0
"""An upload of one blob is entered long before: what is older and without a row is nobody's any more."""

ASIDE_SECONDS = 30 * 86_400.0
"""What was set aside is removed after that time."""

_IN = 500
_V, _P, _R = object_version.c, object_part.c, object_removal.c
Stored = tuple[Blob, str]


def blobs_of(connection: Connection, rows: Iterable[Row[Any]]) -> list[Stored]:
    """The blobs of versions, each with its form."""
    found: list[Stored] = []
    composed: list[str] = []
    for row in rows:
        if row.form in ("file", "inline"):
            found.append((Blob(row.account, row.zone, row.object, row.storage), row.form))
        elif row.form == "parts":
            composed.append(row.version)
    return found + parts_of(connection, composed)


def parts_of(connection: Connection, versions: Sequence[str]) -> list[Stored]:
    """The blobs of composed versions or of uploads."""
    found = []
    for some in _pages(versions):
        for row in connection.execute(select(object_part).where(_P.version.in_(some))):
            found.append((Blob(row.account, row.zone, row.object, row.storage), row.form))
    return found


def give_up(connection: Connection, depot: Depot, stored: Iterable[Stored], versions: set[str]) -> None:
    """Give up the blobs of versions that are being removed, as far as no other version uses them.

    Args:
        versions: the versions, or uploads, that are being removed.
    """
    for some in _pages(sorted(versions)):
        connection.execute(delete(object_part).where(_P.version.in_(some)))
        connection.execute(delete(object_manifest).where(object_manifest.c.version.in_(some)))
    given = {blob.object: (blob, form) for blob, form in stored}
    for name in _used(connection, sorted(given), versions):
        given.pop(name, None)  # several versions may use it
    inline = [name for name, (_, form) in given.items() if form == "inline"]
    for some in _pages(inline):
        connection.execute(delete(object_inline).where(object_inline.c.object.in_(some)))
    discard(connection, depot, [blob for blob, form in given.values() if form == "file"])


def discard(connection: Connection, depot: Depot, blobs: Sequence[Blob]) -> None:
    """Enter blobs for removal, and remove them after the commit."""
    _clear(connection, depot)
    if blobs:
        there: set[tuple[str, str]] = set()  # given up before, and not removed yet
        for some in _pages([blob.object for blob in blobs]):
            known = connection.execute(select(_R.object, _R.storage).where(_R.object.in_(some)))
            there |= {(row.object, row.storage) for row in known}
        new = [b for b in blobs if (b.object, b.storage) not in there]
        rows = [{"object": b.object, "storage": b.storage, "account": b.account, "zone": b.zone} for b in new]
        if rows:
            connection.execute(insert(object_removal), rows)
        scope_of(connection).after.append(lambda: _remove(depot, blobs))


def users(connection: Connection, objects: Sequence[str]) -> Iterator[Row[Any]]:
    """The versions that have their bytes, or some of them, in blobs of these names; restored versions share."""
    for some in _pages(objects):
        parts = select(_P.version).where(_P.object.in_(some))
        mine = _V.object.in_(some) | _V.version.in_(parts)
        yield from connection.execute(select(object_version).where(mine, ~_V.deleted))


def _used(connection: Connection, objects: Sequence[str], but: set[str]) -> Iterator[str]:
    for some in _pages(objects):
        whole = select(_V.object, _V.version).where(_V.object.in_(some), ~_V.deleted)
        for row in connection.execute(whole):
            if row.version not in but:
                yield row.object
        yield from connection.scalars(select(_P.object).where(_P.object.in_(some)).distinct())


def _remove(depot: Depot, blobs: Iterable[Blob]) -> None:
    for blob in blobs:
        # The row of the removal stays where it failed; the next open tries again.
        with suppress(CarelakeError, OSError):
            depot.blobs.remove(blob)
            depot.gone.append((blob.object, blob.storage))


def _clear(connection: Connection, depot: Depot) -> None:
    while depot.gone:
        name, storage = depot.gone.pop()
        connection.execute(delete(object_removal).where(_R.object == name, _R.storage == storage))


def remove_given_up(depot: Depot) -> int:
    """Remove what earlier processes gave up and did not come to remove; their number.

    What a version has its bytes in after all is not given up any more.
    """
    with depot.database.snapshot() as connection:
        rows = list(connection.execute(select(object_removal)))
    if rows:
        there = known(depot)
        depot.gone += [(row.object, row.storage) for row in rows if (row.object, row.storage) in there]
        given = [row for row in rows if (row.object, row.storage) not in there]
        _remove(depot, [Blob(row.account, row.zone, row.object, row.storage) for row in given])
        with depot.database.ledger() as connection:
            _clear(connection, depot)
    return len(rows)


def undo(depot: Depot, blob: Blob, version: str) -> None:
    """After a rollback: remove the bytes of a version that is not to be.

    A commit whose answer was lost may have happened. So the row is looked for; if it cannot be, the bytes stay, and
    are swept like any others that have no row.
    """
    depot.unsure += 1
    with suppress(CarelakeError, OSError):
        with depot.database.snapshot() as connection:
            there = connection.execute(select(_V.seq).where(_V.version == version)).first()
            there = there or connection.execute(select(_P.number).where(_P.object == blob.object)).first()
        if there is None:
            depot.blobs.remove(blob)
        depot.unsure -= 1


def known(depot: Depot) -> set[tuple[str, str]]:
    """(object, storage class) of every blob that should be there."""
    with depot.database.snapshot() as connection:
        whole = connection.execute(select(_V.object, _V.storage).where(~_V.deleted, _V.form == "file"))
        found = {(row.object, row.storage) for row in whole}
        found |= {(row.object, row.storage) for row in connection.execute(select(_P.object, _P.storage))}
    if depot.settings.objects.driver != "local":  # there is one copy there, whatever its class
        found |= {(name, storage) for name, _ in found for storage in STORAGES}
    return found


def sweep(depot: Depot) -> int:
    """At open: remove what was given up; and, if a killed process left its mark and no other is here, set aside
    what it left. Returns the number of blobs.

    Marks tell of this machine only: in a bucket, where others may be writing, `tidy` goes by age.
    """
    swept = remove_given_up(depot)
    presence = depot.presence
    if presence.alone() and (marks := presence.left_behind()):
        if depot.settings.objects.driver == "local":
            swept += _settle_all(depot, depot.blobs.walk(depot.clock.now()), alone=True)[0]
        for mark in marks:
            mark.unlink(missing_ok=True)
    presence.share()
    return swept


def tidy(depot: Depot, account: str, zone: str) -> tuple[int, int]:
    """As `sweep`, while others are here: of one zone, and by age. For stores that leave no marks.

    Returns the number of blobs, and of those that the place did not let go.
    """
    return _settle_all(depot, depot.blobs.walk(depot.clock.now(), f"{account}/{zone}"), alone=False)


def _settle_all(depot: Depot, walk: Iterator[Found], *, alone: bool) -> tuple[int, int]:
    swept = failed = 0
    found = list(walk)
    rows = known(depot)  # after the walk: what was written meanwhile has its row
    for each in found:
        try:
            swept += _settle(depot, each, rows, alone=alone)
        except (CarelakeError, OSError):  # one that is locked is nobody's obstacle
            failed += 1
    return swept, failed


def _settle(depot: Depot, found: Found, rows: set[tuple[str, str]], *, alone: bool) -> bool:
    mine = (found.blob.object, found.blob.storage) in rows
    old = alone or found.seconds > STRAY_SECONDS
    if found.kind == "blob" and not mine and old:
        depot.blobs.set_aside(found.blob)
    elif found.kind == "upload" and old:
        depot.blobs.abort(found.blob)
    elif found.kind == "aside" and not mine and found.seconds > ASIDE_SECONDS:
        depot.blobs.remove(found.blob)
    else:
        return False
    return True


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (names[start : start + _IN] for start in range(0, len(names), _IN))
