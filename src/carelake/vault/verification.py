"""Authenticate every object of a workspace: what is missing, altered, cut, swapped or of another length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, select

from carelake.core.errors import CarelakeError, Corrupt, Gone, Refused
from carelake.core.permit import Permit, check
from carelake.vault.chunks import ChunkReader, Place
from carelake.vault.depot import Depot
from carelake.vault.parts import composite, read_manifest
from carelake.vault.reading import Reader, open_piece, open_version
from carelake.vault.tables import object_version
from carelake.vault.vouched import check_voucher

__all__ = ["Fault", "look", "verify"]

_PAGE = 1000
_READ = 4 << 20
_T = object_version.c


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that is not what was written.

    Attributes:
        kind: ``unread`` where its key is disabled, so that nothing could be looked at.
        name: as the writer called it. In ``landing`` this can be a patient's name: show it, never log it.
        object: the opaque path below the vault's folder, safe to log.
        reason: a sentence without content.
    """

    kind: Literal["missing", "altered", "unread"]
    name: str
    reason: str
    account: str
    zone: str
    version: str
    object: str


def verify(permit: Permit, depot: Depot) -> Iterator[Fault]:
    """Read every object of every account and zone, and yield a `Fault` for each that fails.

    The one place where a permit opens objects of an account that is not its own; it yields no bytes.

    Raises:
        Refused: the permit has no grant ``vault:verify``. At the call, not at the first step.
    """
    check(permit, "vault:verify", now=depot.clock.now())
    return _walk(permit, depot)


def _walk(permit: Permit, depot: Depot) -> Iterator[Fault]:
    buffer = memoryview(bytearray(_READ))
    page = _page(depot, 0)
    while page:
        seen = 0
        for row in page:
            seen = row.seq
            with suppress(Gone, Refused):  # a key that was destroyed or is disabled: `look` tells
                depot.keyring.use(permit, "vault:verify", f"{row.account}/{row.zone}")
            fault = look(depot, row, buffer)
            if fault is not None and _still_so(depot, row):
                yield fault
        page = _page(depot, seen)


def _page(depot: Depot, after: int) -> list[Row[Any]]:
    query = select(object_version).where(_T.seq > after, ~_T.deleted).order_by(_T.seq).limit(_PAGE)
    with depot.database.snapshot() as connection:
        return list(connection.execute(query))


def _still_so(depot: Depot, row: Row[Any]) -> bool:
    # It may have been deleted or moved, by rights, while we were on our way to it.
    with depot.database.snapshot() as connection:
        now = connection.execute(select(object_version).where(_T.seq == row.seq, ~_T.deleted)).first()
    if now is None:
        return False
    return now.storage == row.storage or look(depot, now) is not None


def look(depot: Depot, row: Row[Any], buffer: memoryview | None = None) -> Fault | None:
    """Read one version whole; what is wrong with it, or None.

    Args:
        row: of ``object_version``.
        buffer: room to read into.
    """

    def fault(kind: Literal["missing", "altered", "unread"], reason: str) -> Fault:
        opaque = f"{row.account}/{row.zone}/{row.object[:2]}/{row.object}"
        return Fault(kind, row.name, reason, row.account, row.zone, row.version, opaque)

    try:
        check_voucher(depot, row)
        digest = _digest(depot, row, memoryview(bytearray(_READ)) if buffer is None else buffer)
    except Gone as error:
        # Destroyed by rights, and the trail tells of it: nobody can say more about these bytes.
        return None if error.code == "vault.key_destroyed" else fault("altered", error.message)
    except Refused as error:
        return fault("unread", error.message)
    except Corrupt as error:
        return fault("missing" if error.code == "vault.missing" else "altered", error.message)
    except (CarelakeError, OSError) as error:
        return fault("altered", str(error))
    if digest != row.sha256:
        return fault("altered", "The content has another digest than was entered for it.")
    return None


def _digest(depot: Depot, row: Row[Any], buffer: memoryview) -> str:
    with open_version(depot, row) as reader:
        if not row.parts:
            return _read(reader, buffer)
    place = Place(depot.workspace, row.account, row.zone, row.object, row.version)
    pieces = read_manifest(depot, place)
    found = []
    for index in range(len(pieces)):
        with open_piece(depot, place, pieces, index) as part:
            found.append(_read(part, buffer))
    return composite(found)


def _read(reader: Reader | ChunkReader, buffer: memoryview) -> str:
    digest = hashlib.sha256()
    while got := reader.readinto(buffer):
        digest.update(buffer[:got])
    return digest.hexdigest()
