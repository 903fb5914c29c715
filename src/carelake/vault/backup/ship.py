"""Make a point in time: ship what is new, then publish a signed envelope, last and atomically."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import sqlalchemy

from carelake.core.errors import Conflict, Corrupt, Invalid
from carelake.core.permit import Permit, check
from carelake.vault.backup.copying import Progress, Run, copied, deleted, named
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import (
    FORMAT,
    Body,
    Entry,
    Envelope,
    Stored,
    choose,
    claim,
    names,
    new_point,
    publish_point,
    verified,
)
from carelake.vault.backup.pages import cut_database
from carelake.vault.backup.pieces import Pieces, locked
from carelake.vault.backup.rows import ship_rows
from carelake.vault.backup.snapshot import Frozen, frozen
from carelake.vault.backup.tables import count_rows, digest_rows
from carelake.vault.drivers.choice import blobs_for
from carelake.vault.workspace import Vault

__all__ = ["DATABASE_KEY", "Shipped", "ship"]

_TRIES = 5
_DIGEST_ROWS = 500_000
_LABEL = 200
DATABASE_KEY = "security/database"


@dataclass(frozen=True, slots=True)
class Shipped:
    """What `ship` did.

    Attributes:
        new_pieces, new_bytes: that were not in the backup yet.
        stalled: seconds for which writers had to wait.
    """

    envelope: Envelope
    body: Body
    new_pieces: int
    new_bytes: int
    stalled: float
    seconds: float


def ship(
    permit: Permit,
    vault: Vault,
    out: Path,
    *,
    trail: Callable[[sqlalchemy.Connection], Mapping[str, Any]],
    label: str = "",
    digests: bool | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Shipped:
    """Ship what is new since the last point to ``out``, and publish a point.

    Killed at any moment it leaves the earlier points whole, and what it had shipped is not shipped again.

    Args:
        trail: reads the trail's end from the snapshot; for the manifest.
        digests: take the tables' digests; None: while they have at most 500,000 rows.

    Raises:
        Refused: the permit has no grant ``vault:backup``.
        Conflict: ``vault.backup_running``, ``vault.backup_moving``, ``vault.backup_other``,
            ``vault.backup_not_empty``.
        Invalid: ``vault.backup_inside``, ``vault.backup_label``.
        Unavailable: ``vault.backup_full``, ``vault.backup_busy``.
    """
    check(permit, "vault:backup", now=vault.clock.now())
    began = monotonic()
    _check_places((vault.root, vault.head_folder), out, label)
    claim(out, vault.settings.workspace)
    with locked(out):
        run = _start(vault, out, progress)
        run.pieces.sweep()
        _recall(run)
        # Most objects, before the snapshot: what is deleted meanwhile is not missed, and the snapshot is short.
        with vault.database.snapshot() as connection:
            first = named(connection)
        for _ in copied(run, first):
            pass
        database, objects, facts, stalled = _still(permit, run, trail, digests)
        # After the snapshot: the ring must hold every key that the snapshot's rows were sealed under.
        keyring, files = _small_files(run)
        body = Body(
            label=label,
            dialect=vault.database.dialect,
            database=database,
            objects=objects,
            files=files,
            trail=dict(facts["trail"]),
            tables=facts["tables"],
            forgotten=_forgotten(vault),
            missing=facts["missing"],
        )
        envelope = _publish(run, body, keyring)
    new, size = run.pieces.new, run.pieces.new_bytes
    permit.log.count(pieces=new, bytes=size, objects=objects.count)
    return Shipped(envelope, body, new, size, stalled, monotonic() - began)


def _check_places(places: Iterable[Path], out: Path, label: str) -> None:
    theirs = out.resolve()
    for ours in (place.resolve() for place in places):
        if theirs.is_relative_to(ours) or ours.is_relative_to(theirs):
            raise Invalid(
                "vault.backup_inside",
                "The backup must not lie in the workspace or the key folder, nor they in it; name another folder.",
            )
    if len(label) > _LABEL:
        raise Invalid("vault.backup_label", f"A label has at most {_LABEL} characters.")


def _start(vault: Vault, out: Path, progress: Progress) -> Run:
    pieces = Pieces(out)
    key = vault.keyring.inner(DATABASE_KEY)
    index = Index(pieces, key.secret, vault.settings.workspace)
    return Run(vault, out, pieces, index, blobs_for(vault.root / "vault", vault.settings), progress)


def _recall(run: Run) -> None:
    """What the newest point knows of objects. A damaged one is passed over: then everything is read again."""
    for newest in names(run.out)[-1:]:
        run.previous = newest
        with suppress(Corrupt):
            envelope = verified(choose(run.out, newest), run.vault.keyring)
            key = run.vault.keyring.inner(DATABASE_KEY, envelope.key)
            index = Index(run.pieces, key.secret, envelope.workspace)
            body: Body = index.get(envelope.body, Body)
            run.known = {entry.path: entry for entry in index.get_all(body.objects.groups, Entry)}


def _still(
    permit: Permit, run: Run, trail: Callable[[sqlalchemy.Connection], Mapping[str, Any]], digests: bool | None
) -> tuple[Stored, Stored, dict[str, Any], float]:
    """Database, objects and facts of one moment; begun again when an object of it was deleted meanwhile."""
    for _ in range(_TRIES):
        with _standstill(permit, run) as still:
            database = _database(run, still)
            found = list(copied(run, named(still.connection)))
            missing = {blob for blob, entry in found if entry is None}
            if deleted(run, missing):
                continue
            facts = {
                "trail": trail(still.connection),
                "tables": _tables(run, still.connection, digests),
                "missing": sorted(blob.path for blob in missing),
            }
        entries = [entry for _, entry in found if entry is not None]
        objects = Stored(
            run.index.put_all((entry.path, entry) for entry in entries),
            len(entries),
            sum(entry.size for entry in entries),
        )
        return database, objects, facts, still.stalled
    raise Conflict(
        "vault.backup_moving",
        f"Objects were deleted during each of {_TRIES} tries, faster than they could be copied; try again later.",
    )


@contextmanager
def _standstill(permit: Permit, run: Run) -> Iterator[Frozen]:
    path = run.vault.root / "carelake.db"
    if run.vault.database.dialect == "sqlite":
        with frozen(permit, run.vault.database, path) as still:
            yield still
    else:
        # One snapshot, for which nobody waits.
        with run.vault.database.snapshot() as connection:
            yield Frozen(path, 0, connection, 0.0)


def _database(run: Run, still: Frozen) -> Stored:
    if run.vault.database.dialect == "sqlite":
        return cut_database(run, still)
    return ship_rows(run.index, still.connection, run.progress)


def _tables(run: Run, connection: sqlalchemy.Connection, digests: bool | None) -> dict[str, tuple[int, str]]:
    counts = count_rows(connection)
    total = sum(counts.values())
    if digests is False or (digests is None and total > _DIGEST_ROWS):
        return {name: (rows, "") for name, rows in counts.items()}
    done = 0

    def step(rows: int) -> None:
        nonlocal done
        done += rows
        run.progress("tables", done, total)

    return digest_rows(connection, counts, step)


# -- the rest -----------------------------------------------------------------------------------------------------


def _small_files(run: Run) -> tuple[str, list[Entry]]:
    """The key ring as it lies, for it is wrapped; settings and policies sealed, for they lie in the clear."""
    root = run.vault.root
    ring, _ = run.pieces.put((root / "keyring.json").read_bytes())
    entries = []
    for path in (root / "carelake.toml", *sorted((root / "policies").glob("*.cedar"))):
        if path.is_file():
            data = path.read_bytes()
            sealed = bytes.fromhex(run.index.put(data))
            entries.append(Entry(str(path.relative_to(root)), len(data), path.stat().st_mode & 0o777, "", sealed))
    return ring, entries


def _forgotten(vault: Vault) -> bytes | None:
    """The list of what was destroyed and erased, as it lies beside the root key: names in it are HMACs."""
    try:
        return vault.forgotten.path.read_bytes()
    except FileNotFoundError:
        return None


def _publish(run: Run, body: Body, keyring: str) -> Envelope:
    point, now = new_point(run.vault.clock.now(), after=run.previous)
    envelope = Envelope(
        kind="carelake-backup-point",
        format=FORMAT,
        workspace=run.vault.settings.workspace,
        point=point,
        at=now,
        keyring=keyring,
        key=run.vault.keyring.inner(DATABASE_KEY).version,
        body=run.index.put(body),
        previous=run.previous,
    )
    run.pieces.settle()
    signature = run.vault.keyring.sign_trail(envelope.signed()).hex()
    envelope = msgspec.structs.replace(envelope, signature=signature)
    publish_point(run.out, envelope)
    return envelope
