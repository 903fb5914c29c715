"""Put a point back: every piece compared with its name, every list with its seal, the point with its signature.

The folder becomes a workspace only at the end, when its settings get their name; until then a marker tells that a
restore of which point is under way, and the same command goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from carelake.core import canonical
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid
from carelake.core.settings import Settings
from carelake.core.shapes import decodable
from carelake.vault.backup.copying import OBJECT_PIECE_BYTES
from carelake.vault.backup.index import Index
from carelake.vault.backup.manifest import Body, Entry, Envelope, choose, names, verified
from carelake.vault.backup.pages import PIECE_BYTES
from carelake.vault.backup.pieces import Pieces, full_backup_disk
from carelake.vault.backup.rows import load_rows, make_ready, ready
from carelake.vault.backup.ship import DATABASE_KEY
from carelake.vault.backup.snapshot import fold
from carelake.vault.blobs import Blob, Blobs
from carelake.vault.chunks import HEADER_BYTES
from carelake.vault.disk import private_folder, sync_folder, write_atomic
from carelake.vault.drivers.choice import blobs_for
from carelake.vault.forgotten import replay
from carelake.vault.keyring import Keyring
from carelake.vault.sql.postgres import without_password
from carelake.vault.sql.sqlcipher import Sqlcipher
from carelake.vault.workspace import Vault

__all__ = ["MARKER", "Restoration", "begin"]

MARKER = ".restoring"
_CONFIG = "carelake.toml"
_KEYRING = "keyring.json"
_AHEAD = 64
_COPY_DIGITS = 16
_DATABASE_FILES = ("carelake.db", "carelake.db-wal", "carelake.db-shm")

Progress = Callable[[str, int, int], None]
OpenRing = Callable[[Path, str, str], Keyring]
"""Opens the key ring at a path, for a workspace and a copy of it, with the root key from wherever it is."""


class _Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    restore: str
    point: str

    @property
    def copy(self) -> str:
        return self.restore[:_COPY_DIGITS]


@dataclass
class Restoration:
    """A restore under way.

    Attributes:
        restore: its id; stays the same when it is begun again after a crash.
        copy: the id of the copy that is made, the same each time; original: of the one that was backed up, or "".
        folder: what becomes the workspace.
    """

    restore: str
    copy: str
    original: str
    source: Path
    folder: Path
    envelope: Envelope
    body: Body
    keyring: Keyring
    index: Index
    pieces: Pieces
    progress: Progress
    _blobs: Blobs = field(init=False, repr=False)

    def settings_text(self) -> bytes:
        """The settings as they were, but for the name of the copy."""
        for entry in self.body.files:
            if entry.path == _CONFIG:
                return _with_copy(self.index.get(entry.names()[0], bytes), self.copy)
        raise Corrupt("vault.backup_list", "The point holds no settings; use another point.")

    def assemble(self, settings: Settings) -> None:
        """Write everything but the settings. What is there already and right is left."""
        private_folder(self.folder / "vault")
        self._blobs = blobs_for(self.folder / "vault", settings)
        for left in self.folder.glob(".*.tmp"):
            left.unlink()
        with full_backup_disk():
            for entry in self.body.files:
                if entry.path != _CONFIG:
                    path = self._below(entry.path)
                    private_folder(path.parent)
                    write_atomic(path, self.index.get(entry.names()[0], bytes))
                    path.chmod(entry.mode)
            if self.body.dialect == "sqlite":
                self._database()
            elif not settings.database.url:
                self._remove_database()
                Sqlcipher.make(self.folder / _DATABASE_FILES[0])
            self._objects()
            sync_folder(self.folder)

    def replay(self, vault: Vault) -> int:
        """Forget again what was forgotten after this point (decision D4); answers how many erasures that were.

        What the newest readable point of the backup knows of joins the copy's list first, as that of the original did
        when the key ring was opened. From then on ring and rows are the copy's, and its list is its own.
        """
        vault.keyring.take_over(self._newest_list() or b"")
        vault.keyring.become(self.copy)
        vault.database.become(vault.settings.copy_name)
        if self.body.dialect != "sqlite":
            ready(vault.database, self._mark)
        return replay(vault)

    def _newest_list(self) -> bytes | None:
        for name in reversed(names(self.source)):
            try:
                envelope = verified(choose(self.source, name), self.keyring)
                body: Body = self.index.get(envelope.body, Body)
            except Corrupt:
                continue  # a damaged point is nobody's obstacle; this one was proved to be whole
            return body.forgotten
        return self.body.forgotten

    def finish(self, settings: Settings) -> None:
        """Name it a workspace."""
        text = self.settings_text()
        with full_backup_disk():
            write_atomic(self.folder / _CONFIG, _with_url(text, settings.database.url))
            (self.folder / MARKER).unlink(missing_ok=True)
            sync_folder(self.folder)

    def _below(self, path: str) -> Path:
        # The lists are sealed and signed; still, no path leads out of the folder.
        parts = Path(path).parts
        if not parts or Path(path).is_absolute() or ".." in parts:
            raise Corrupt("vault.backup_list", "A list of the backup names a path outside of the workspace.")
        return self.folder / path

    def fill(self, vault: Vault) -> None:
        """Make the database whole: fold its WAL in, or put rows into the one of the settings if there was no file.

        Raises:
            Conflict: ``vault.exists``: it holds a workspace already; only an empty one is filled, or one that this
                restore filled before it was killed.
        """
        if self.body.dialect == "sqlite":
            fold(vault.database)
            return
        make_ready(vault.database, vault.settings.copy_name, self._mark)
        load_rows(vault.database, self.index, self.body.database.groups, self.progress, self.body.database.size)

    @property
    def _mark(self) -> str:
        return f"restoring_{self.copy}"

    def _remove_database(self) -> None:
        for name in _DATABASE_FILES:
            (self.folder / name).unlink(missing_ok=True)

    def _database(self) -> None:
        self._remove_database()
        total, done = self.body.database.size, 0
        for name in _DATABASE_FILES[:2]:
            parts = [e for e in self.index.get_all(self.body.database.groups, Entry) if e.path == name]
            if not parts:
                continue
            with _NewFile(self.folder / name) as handle:
                for part in parts:
                    for data in _data(self.pieces, part, PIECE_BYTES):
                        _write(handle, data)
                        done += len(data)
                        self.progress("database", done, total)

    def _objects(self) -> None:
        self._sweep()
        done, batch = 0, list[Entry]()
        with ThreadPoolExecutor(4) as pool:

            def work() -> None:
                nonlocal done
                done += sum(1 for _ in pool.map(self._object, batch))
                self.progress("objects", done, self.body.objects.count)
                batch.clear()

            for entry in self.index.get_all(self.body.objects.groups, Entry):
                batch.append(entry)
                if len(batch) == _AHEAD:
                    work()
            work()

    def _object(self, entry: Entry) -> None:
        self._below(entry.path)
        account, zone, _, name = entry.path.split("/")
        blob = Blob(account, zone, name, entry.storage)
        if self._right(blob, entry):
            return
        sink = self._blobs.create(blob)
        try:
            data = _data(self.pieces, entry, OBJECT_PIECE_BYTES)
            first = next(data, b"")
            sink.append(memoryview(first)[HEADER_BYTES:])
            for more in data:
                sink.append(memoryview(more))
            sink.finish(first[:HEADER_BYTES])
        finally:
            sink.discard()

    def _right(self, blob: Blob, entry: Entry) -> bool:
        """Is it there already, byte for byte?"""
        try:
            source = self._blobs.open(blob)
        except CarelakeError:
            return False
        try:
            buffer, at = memoryview(bytearray(OBJECT_PIECE_BYTES)), 0
            for name in entry.names():
                got = source.read_at(at, buffer)
                at += got
                if hashlib.sha256(buffer[:got]).hexdigest() != name:
                    break
            else:
                if at == entry.size == source.size:
                    return True
        finally:
            source.close()
        self._blobs.remove(blob)
        return False

    def _sweep(self) -> None:
        """Remove what an earlier, killed run of this restore left that is not of the point."""
        kept = {entry.path for entry in self.index.get_all(self.body.objects.groups, Entry)}
        for path in (self.folder / "vault").rglob("*"):
            if path.is_file() and str(path.relative_to(self.folder / "vault")) not in kept:
                path.unlink()


def _with_copy(text: bytes, copy: str) -> bytes:
    """The settings with the id of the copy; everything else of them stays as it is.

    Raises:
        Invalid: ``vault.copy_line``, they are written in a way that we cannot put it into.
    """
    told = text.decode()
    start = found.start() if (found := re.search(r"^[ \t]*\[", told, re.M)) else len(told)
    top = "\n".join(line for line in told[:start].splitlines() if not re.match(r"\s*copy\s*=", line))
    rest = f"\n{told[start:]}" if told[start:] else ""
    made = f'{top.rstrip()}\ncopy = "{copy}"\n{rest}'
    try:
        if tomllib.loads(made) == {**tomllib.loads(told), "copy": copy}:
            return made.encode()
    except tomllib.TOMLDecodeError:
        pass
    raise Invalid("vault.copy_line", f"{_CONFIG} of the point has no place for the line `copy = ...`; use another.")


def _with_url(text: bytes, url: str) -> bytes:
    """The settings, with the address of the database that rows were put into, if that is another one."""
    told = tomllib.loads(text.decode()).get("database", {}).get("url", "")
    if not told or not url or url == told:
        return text
    quoted = {form: msgspec.json.encode(form) for form in (told, without_password(url))}
    return text.replace(quoted[told], quoted[without_password(url)])


def begin(
    source: Path,
    folder: Path,
    *,
    open_ring: OpenRing,
    point: str | None = None,
    at: str | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Restoration:
    """Choose a point, prove that it is the workspace's, and make the folder ready; nothing is restored yet.

    Raises:
        NotFound: ``vault.no_backup``, ``vault.no_such_point``.
        Conflict: ``vault.restore_not_empty``, ``vault.restore_other``, ``vault.restore_ended``.
        Unavailable: ``vault.root_key_missing``.
        Corrupt: ``vault.wrong_key``, ``vault.backup_point``, ``vault.backup_piece``, ``vault.backup_list``.
    """
    envelope = choose(source, point, at)
    pieces = Pieces(source)
    ring = pieces.get(envelope.keyring)
    marker = _claim(source, folder, envelope.point)
    write_atomic(folder / _KEYRING, ring)
    keyring = open_ring(folder / _KEYRING, envelope.workspace, marker.copy)
    verified(envelope, keyring)
    index = Index(pieces, keyring.inner(DATABASE_KEY, envelope.key).secret, envelope.workspace)
    body = index.get(envelope.body, Body)
    return Restoration(
        marker.restore, marker.copy, keyring.copy, source, folder, envelope, body, keyring, index, pieces, progress
    )


def _claim(source: Path, folder: Path, point: str) -> _Marker:
    ours, theirs = folder.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise Invalid("vault.backup_inside", "The backup and the workspace must not lie in one another.")
    path = folder / MARKER
    if folder.exists() and (not folder.is_dir() or any(not _unfinished(path) for path in folder.iterdir())):
        return _resumed(path, point)
    private_folder(folder)
    folder.chmod(0o700)
    marker = _Marker(secrets.token_hex(16), point)
    write_atomic(path, canonical.dump(msgspec.to_builtins(marker)))
    return marker


def _unfinished(path: Path) -> bool:
    """Is it what a run that was killed left of writing the marker itself?"""
    return path.name.startswith(f".{MARKER}.") and path.suffix == ".tmp"


def _resumed(path: Path, point: str) -> _Marker:
    try:
        marker = msgspec.json.decode(path.read_bytes(), type=decodable(_Marker))
    except (FileNotFoundError, NotADirectoryError):
        raise Conflict(
            "vault.restore_not_empty", "The folder is not empty; a workspace is restored into a new or empty one."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt("vault.restore_marker", f"{MARKER} in the folder is damaged; remove the folder.") from None
    if (path.parent / _CONFIG).exists():
        path.unlink()
        raise Conflict("vault.restore_ended", "The restore into this folder had come to its end; open the workspace.")
    if marker.point != point:
        raise Conflict(
            "vault.restore_other",
            f"A restore of the point {marker.point} was begun in this folder; go on with that one, or remove it.",
            point=marker.point,
        )
    return marker


def _data(pieces: Pieces, entry: Entry, most: int) -> Iterator[bytes]:
    size = 0
    for name in entry.names():
        data = pieces.get(name)
        if len(data) > most:
            raise Corrupt("vault.backup_list", "A piece of the backup is longer than any that carelake writes.")
        size += len(data)
        yield data
    if size != entry.size:
        raise Corrupt("vault.backup_list", "The pieces of a file do not give its length; use another point.")


class _NewFile:
    """A new file of mode 0600, synced when it is left without an error."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return self._handle

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._handle)
        finally:
            os.close(self._handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
