"""Which points to keep, and the removal of pieces that no point needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carelake.core.clock import Clock
from carelake.core.errors import Invalid
from carelake.core.permit import Permit, check
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import Body, Entry, Envelope, points, verified
from carelake.vault.backup.pieces import Pieces, locked
from carelake.vault.backup.ship import DATABASE_KEY
from carelake.vault.disk import sync_folder
from carelake.vault.keyring import Keyring

__all__ = ["Pruned", "needed", "prune"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed, and how many points are left."""

    points: int
    pieces: int
    size: int
    left: int


def prune(permit: Permit, keyring: Keyring, clock: Clock, out: Path, *, keep: int | None = None) -> Pruned:
    """Remove all but the newest ``keep`` points, then every piece that none of the others needs.

    A point that cannot be read stops it before anything is removed: what that one needs is not known. Killed
    half-way it leaves pieces that the next one removes.

    Raises:
        Refused: the permit has no grant ``vault:backup``.
        Invalid: ``vault.backup_keep``; Conflict: ``vault.backup_running``.
        Corrupt: ``vault.backup_point``, ``vault.backup_piece``, ``vault.backup_list``.
    """
    check(permit, "vault:backup", now=clock.now())
    if keep is not None and keep < 1:
        raise Invalid("vault.backup_keep", "At least the newest point is kept; give 1 or more.")
    points(out)  # is it one at all?
    with locked(out):
        all_points = points(out)
        old = all_points[:-keep] if keep is not None else []
        pieces = Pieces(out)
        wanted = {name for envelope in all_points[len(old) :] for name in needed(envelope, pieces, keyring)}
        for envelope in old:
            (out / "points" / f"{envelope.point}.json").unlink(missing_ok=True)
        sync_folder(out / "points")
        gone, size = 0, 0
        for path in pieces.all():
            if path.name not in wanted:
                size += path.stat().st_size
                path.unlink()
                gone += 1
    permit.log.count(points=len(old), removed=gone, bytes=size)
    return Pruned(len(old), gone, size, len(all_points) - len(old))


def needed(envelope: Envelope, pieces: Pieces, keyring: Keyring) -> Iterator[str]:
    """Names of all pieces of a point."""
    verified(envelope, keyring)
    index = Index(pieces, keyring.inner(DATABASE_KEY, envelope.key).secret, envelope.workspace)
    body = index.get(envelope.body, Body)
    yield from (envelope.keyring, envelope.body, *body.database.groups, *body.objects.groups)
    lists = [body.objects.groups, *([body.database.groups] if body.dialect == "sqlite" else [])]
    for groups in lists:
        for entry in index.get_all(groups, Entry):
            yield from entry.names()
    for entry in body.files:
        yield from entry.names()
