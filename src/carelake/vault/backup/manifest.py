"""Points in time: a small signed envelope that anyone may read, and a sealed body that lists all pieces.

The envelope says only what is needed to begin: format, workspace, when, which piece is the key ring. Its signature
(ECDSA P-256 by the trail's key) covers the body by its name, and the body names every piece by its hash.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Corrupt, Invalid, NotFound, Unsupported
from carelake.core.shapes import decodable
from carelake.vault.backup.pieces import full_backup_disk
from carelake.vault.disk import private_folder, write_atomic
from carelake.vault.keyring import Keyring

__all__ = [
    "Body",
    "Entry",
    "Envelope",
    "Stored",
    "choose",
    "claim",
    "names",
    "new_point",
    "points",
    "publish_point",
    "verified",
]

FORMAT = 1
_MARK = "carelake-backup.json"
_ID = re.compile(r"[0-9]{17}[0-9a-f]{8}")
_TIME_DIGITS = 17
_MAX_BYTES = 1 << 20


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of the workspace as it lay: its pieces in order, each name as 32 bytes.

    Attributes:
        path: below the workspace's folder; of an object `Blob.path`, which is opaque.
        storage: an object's storage class; "" for other files.
    """

    path: str
    size: int
    mode: int
    storage: str
    pieces: bytes

    def names(self) -> list[str]:
        """The pieces' names."""
        return [self.pieces[at : at + 32].hex() for at in range(0, len(self.pieces), 32)]


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A long list of `Entry`, sealed in groups."""

    groups: list[str]
    count: int
    size: int


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a point holds; sealed.

    Attributes:
        database: the files of the database as they lay (SQLite), or tables as sealed rows (PostgreSQL).
        files: small files: key ring and, sealed again since they lay in the clear, settings and policies.
        trail: the last sealed segment and act in this point: ``number``, ``digest``, ``last``, ``acts``, ``at``.
        tables: rows and digest of each table; no digest where the tables were too long to be read each time.
        forgotten: what was forgotten for ever by then (decision D4).
        missing: objects whose bytes were missing already when the point was made; opaque.
    """

    label: str
    dialect: str
    database: Stored
    objects: Stored
    files: list[Entry]
    trail: dict[str, Any]
    tables: dict[str, tuple[int, str]]
    forgotten: bytes | None = None
    missing: list[str] = []


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told in the clear.

    Attributes:
        point: its id: the digits of its time (UTC, to the millisecond), then 8 random hex digits.
        at: FHIR instant.
        keyring, body: names of pieces.
        key: the version of the database's key that the lists' key is derived from.
        previous: the point before it, "" for the first.
    """

    kind: str
    format: int
    workspace: str
    point: str
    at: str
    keyring: str
    key: int
    body: str
    previous: str
    signature: str = ""

    def signed(self) -> bytes:
        """The bytes that the signature is over."""
        bare = msgspec.to_builtins(msgspec.structs.replace(self, signature=""))
        return b"carelake-backup-point-1\n" + canonical.dump(bare)


def claim(out: Path, workspace: str) -> None:
    """Make ``out`` the backup of this workspace, or see that it is.

    Raises:
        Conflict: ``vault.backup_other``, when it belongs to another workspace; ``vault.backup_not_empty``.
    """
    mark = out / _MARK
    if mark.exists():
        if _marked(mark) != workspace:
            raise Conflict("vault.backup_other", "This folder holds backups of another workspace; name another one.")
        return
    if out.exists() and not (out.is_dir() and all(_ours(path) for path in out.iterdir())):
        raise Conflict("vault.backup_not_empty", "The folder is neither empty nor a backup; name another one.")
    with full_backup_disk():
        for folder in (out, out / "points", out / "pieces"):
            private_folder(folder)
        write_atomic(mark, canonical.dump({"kind": "carelake-backup", "format": FORMAT, "workspace": workspace}))


def _ours(path: Path) -> bool:
    """Is it what a first backup that was killed left?"""
    return path.suffix == ".tmp" or (path.name in ("points", "pieces") and path.is_dir() and not any(path.iterdir()))


def _owner(out: Path) -> str:
    if not (out / _MARK).exists():
        raise NotFound("vault.no_backup", "This folder holds no backup; name one that `carelake backup` wrote.")
    return _marked(out / _MARK)


def _marked(mark: Path) -> str:
    try:
        said = canonical.load(mark.read_bytes()[:_MAX_BYTES])
        if said["format"] != FORMAT:
            raise Unsupported("vault.format", f"The backup has format {said['format']}; this version reads {FORMAT}.")
        return str(said["workspace"])
    except (Invalid, KeyError, TypeError) as error:
        if isinstance(error, Unsupported):
            raise
        raise Corrupt("vault.backup_mark", f"{_MARK} of the backup is damaged; use another copy of it.") from None


def new_point(now: datetime, *, after: str) -> tuple[str, str]:
    """An id for a point, and its FHIR instant: later than ``after``, the newest one, whatever the clock says."""
    if after:
        last = datetime.strptime(after[:_TIME_DIGITS], "%Y%m%d%H%M%S%f").replace(tzinfo=UTC)
        now = max(now, last + timedelta(milliseconds=1))
    return "".join(filter(str.isdigit, iso(now))) + secrets.token_hex(4), iso(now)


def publish_point(out: Path, envelope: Envelope) -> None:
    """Write the envelope under its name: from now on the point is there."""
    with full_backup_disk():
        private_folder(out / "points")
        path = out / "points" / f"{envelope.point}.json"
        write_atomic(path, canonical.dump(msgspec.to_builtins(envelope)), new=True)


def points(out: Path) -> list[Envelope]:
    """All points, oldest first; signatures are not looked at yet.

    Raises:
        NotFound: ``vault.no_backup``; Corrupt: ``vault.backup_point``, naming a point that cannot be read.
    """
    if not (out / _MARK).exists():
        raise NotFound(
            "vault.no_backup", "This folder holds no backup; name the folder that `carelake backup` wrote."
        )
    workspace = _marked(out / _MARK)
    found = [_read(path, workspace) for path in sorted((out / "points").glob("*.json"))]
    return sorted(found, key=lambda envelope: envelope.point)


def _read(path: Path, workspace: str) -> Envelope:
    try:
        with path.open("rb") as file:
            envelope = msgspec.json.decode(file.read(_MAX_BYTES), type=decodable(Envelope))
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        raise _bad_point(path.stem, "cannot be read: it was cut or altered") from None
    if envelope.format != FORMAT:
        raise Unsupported("vault.format", f"The point has format {envelope.format}; this version reads {FORMAT}.")
    if envelope.point != path.stem or not _ID.fullmatch(envelope.point) or envelope.workspace != workspace:
        raise _bad_point(path.stem, "has another name, or is of another workspace, than it says")
    return envelope


def names(out: Path) -> list[str]:
    """Ids of all points, oldest first, without reading them."""
    return sorted(path.stem for path in (out / "points").glob("*.json"))


def choose(out: Path, point: str | None = None, at: str | None = None) -> Envelope:
    """The newest point, the one of that id (or its beginning), or the newest one not after a time.

    A damaged envelope of another point stands in nobody's way.

    Raises:
        NotFound: ``vault.no_backup``, ``vault.no_such_point``.
        Invalid: ``vault.backup_time``.
    """
    if not (out / _MARK).exists():
        raise NotFound(
            "vault.no_backup", "This folder holds no backup; name the folder that `carelake backup` wrote."
        )
    workspace = _marked(out / _MARK)
    found = names(out)
    if point is not None:
        found = [name for name in found if name.startswith(point)]
        if len(found) > 1:
            raise NotFound("vault.no_such_point", f"{len(found)} points begin so; give more of the id.")
    if at is not None:
        limit = _stamp(at)
        found = [name for name in found if name[:_TIME_DIGITS] <= limit]
    if not found:
        raise NotFound(
            "vault.no_such_point", "The backup has no such point; `carelake backup OUT --list` shows them."
        )
    return _read(out / "points" / f"{found[-1]}.json", workspace)


def _stamp(at: str) -> str:
    try:
        moment = instant(at)
    except ValueError:
        raise Invalid("vault.backup_time", "The time is not ISO 8601; expected as 2026-11-22T01:02:03Z.") from None
    return "".join(filter(str.isdigit, iso(moment)))


def verified(envelope: Envelope, keyring: Keyring) -> Envelope:
    """The envelope itself, if the workspace's trail key signed it; `Corrupt` ``vault.backup_point`` otherwise."""
    try:
        signature = bytes.fromhex(envelope.signature)
    except ValueError:
        signature = b""
    if not keyring.verify(envelope.signed(), signature, account="security", purpose="trail"):
        raise _bad_point(envelope.point, "has a signature that is not the workspace's")
    return envelope


def _bad_point(point: str, what: str) -> Corrupt:
    return Corrupt(
        "vault.backup_point",
        f"The point {point} {what}. Nothing was restored from it; use another copy of the backup, or another point.",
        point=point,
    )
