"""Authenticate every object of a workspace: what is missing, altered, cut, swapped or of another length."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, select

from carelake.core.clock import Clock
from carelake.core.errors import Corrupt
from carelake.core.permit import Permit, check
from carelake.vault.chunks import ChunkReader, Place
from carelake.vault.database import Database
from carelake.vault.keyring import Keyring
from carelake.vault.tables import object_version

__all__ = ["Fault", "verify"]

_PAGE = 1000
_READ = 4 << 20
_T = object_version.c


@dataclass(frozen=True, slots=True)
class Fault:
    """One object that is not what was written.

    Attributes:
        name: as the writer called it. In ``landing`` this can be a patient's name: show it, never log it.
        object: the opaque path below the vault's folder, safe to log.
        reason: a sentence without content.
    """

    kind: Literal["missing", "altered"]
    name: str
    reason: str
    account: str
    zone: str
    version: str
    object: str


def verify(
    permit: Permit, database: Database, keyring: Keyring, clock: Clock, folder: Path, workspace: str
) -> Iterator[Fault]:
    """Read every object of every account and zone, and yield a `Fault` for each that fails.

    The one place where a permit opens objects of an account that is not its own; it yields no bytes.

    Raises:
        Refused: the permit has no grant ``vault:verify``. At the call, not at the first step.
    """
    check(permit, "vault:verify", now=clock.now())
    return _walk(permit, database, keyring, folder, workspace)


def _walk(permit: Permit, database: Database, keyring: Keyring, folder: Path, workspace: str) -> Iterator[Fault]:
    seen = 0
    buffer = memoryview(bytearray(_READ))
    page = _page(database, 0)
    while page:
        for row in page:
            seen = row.seq
            keyring.use(permit, "vault:verify", f"{row.account}/{row.zone}")
            place = Place(workspace, row.account, row.zone, row.object, row.version)
            fault = _look(folder, place, row, keyring, buffer)
            if fault is not None and _still_there(database, row.seq):
                yield fault
        page = _page(database, seen)


def _page(database: Database, after: int) -> list[Row[Any]]:
    query = select(object_version).where(_T.seq > after, ~_T.deleted).order_by(_T.seq).limit(_PAGE)
    with database.snapshot() as connection:
        return list(connection.execute(query))


def _still_there(database: Database, seq: int) -> bool:
    # It may have been deleted, by rights, while we were on our way to it.
    with database.snapshot() as connection:
        return connection.execute(select(_T.seq).where(_T.seq == seq, ~_T.deleted)).first() is not None


def _look(folder: Path, place: Place, row: Row[Any], keyring: Keyring, buffer: memoryview) -> Fault | None:
    opaque = f"{place.account}/{place.zone}/{place.object[:2]}/{place.object}"

    def fault(kind: Literal["missing", "altered"], reason: str) -> Fault:
        return Fault(kind, row.name, reason, row.account, row.zone, row.version, opaque)

    try:
        handle = os.open(folder / opaque, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return fault("missing", "The file is missing or cannot be opened.")
    try:
        with ChunkReader(handle, place, lambda number: keyring.inner(f"{row.account}/{row.zone}", number)) as reader:
            if reader.size != row.size:
                return fault("altered", "The file has another length than was entered for it.")
            digest = hashlib.sha256()
            while got := reader.readinto(buffer):
                digest.update(buffer[:got])
    except (Corrupt, OSError) as error:
        return fault("altered", str(error))
    if digest.hexdigest() != row.sha256:
        return fault("altered", "The content has another digest than was entered for it.")
    return None
