"""What must not come back: destroyed keys and erased patients, in a list beside the root key.

A copy of the workspace that is put back knows nothing of what was destroyed after it was made; this list does, and
opening the copy applies what is missing. The list is only ever appended to:

    KEY_DIR/<workspace id>[.<copy>].forgotten     one JSON line per entry; each one's MAC covers the line before it
        {"n":1,"kind":"ring","id":"...","at":"...","ring":{"generation":2,"holds":{},"policies":{}},"mac":"..."}
        {"n":2,"kind":"key","id":"production/lake/v1#<id>","at":"...","mac":"..."}
        {"n":3,"kind":"patient","id":"...","account":"production","name":"<HMAC>","at":"...","mac":"..."}

``ring`` lines tell the newest generation of the key ring, with what was disabled then, so that an older
``keyring.json`` does not enable it again. The MAC key and the patients' HMACs come from ``security/reference``, which
never changes. Cutting lines off the end cannot be seen in the list alone: the workspace has what is missing, and
appends it again when it is opened.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec
from sqlalchemy import delete, insert, select, update

from carelake.core.errors import Corrupt, Unsupported
from carelake.core.shapes import decodable
from carelake.vault.database import metadata
from carelake.vault.disk import full_disk, private_folder, sync_folder
from carelake.vault.locking import locked
from carelake.vault.ring import Hold, KeyPolicy
from carelake.vault.roots import outside_name
from carelake.vault.tables import forgotten_due, forgotten_patient, patient_key
from carelake.vault.wrapping import bind

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from carelake.vault.workspace import Vault

__all__ = ["Forgotten", "Line", "RingNote", "due", "erase_listed", "forgotten_name", "raise_epoch", "replay"]

_GENESIS = "0" * 64
_MAX_BYTES = 256 << 20
_KEPT_FREE = 1 << 20
"""Room for what others note between a look at the size and the commit that goes by it."""
_LINE_BYTES = 512
"""More than any line of a patient takes."""


class RingNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key ring as it was: how new, and what in it was not to be used."""

    generation: int
    holds: dict[str, Hold] = {}
    policies: dict[str, KeyPolicy] = {}


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry."""

    n: int
    kind: Literal["ring", "key", "patient"]
    id: str
    at: str
    account: str = ""
    name: str = ""
    ring: RingNote | None = None
    mac: str = ""


def forgotten_name(secret: bytes, account: str, patient: str) -> str:
    """How an erased patient is called in the list: an HMAC under the secret of ``security/reference``."""
    key = hmac.digest(secret, b"carelake-forgotten-name-1", hashlib.sha256)
    return hmac.digest(key, bind(account, patient), hashlib.sha256).hex()


@dataclass(slots=True)
class _End:
    """The list as it was last read or written, so that an append does not read all of it; ``stamp`` tells another."""

    stamp: tuple[int, ...] = ()
    last: Line | None = None
    whole: int = 0
    known: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Forgotten:
    """The list of one copy of a workspace. ``secret`` is that of ``security/reference``, the same in all copies.

    Attributes:
        most_bytes: it is read and written up to this size.
    """

    key_dir: Path
    workspace: str
    secret: bytes
    copy: str = ""
    most_bytes: int = _MAX_BYTES
    _end: _End = field(default_factory=_End, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Forgotten({outside_name(self.workspace, self.copy)})"

    @property
    def path(self) -> Path:
        """The file; there is none before the first entry. A backup takes it along."""
        return self.key_dir / f"{outside_name(self.workspace, self.copy)}.forgotten"

    def read(self) -> bytes:
        """The file as it lies, empty when there is none.

        Raises:
            Unsupported: ``vault.forgotten_size``.
        """
        try:
            with self.path.open("rb") as file:
                return self._all_of(file)
        except FileNotFoundError:
            return b""

    def lines(self) -> list[Line]:
        """Every entry, oldest first.

        Raises:
            Corrupt: ``vault.forgotten``: altered, or another workspace's.
        """
        return _parse(self.read(), self._mac_key())[0]

    def note_ring(self, at: str, name: str, ring: RingNote, destroyed: Iterable[str]) -> None:
        """The key ring was changed; ``name`` tells this state of it from any other."""
        gone = [Line(0, "key", label, at) for label in destroyed]
        self._append([*gone, Line(0, "ring", name, at, ring=ring)])

    def note_key(self, mark: str, at: str) -> None:
        """A version of a key was destroyed; as `ring.Entry.mark` names it."""
        self._append([Line(0, "key", mark, at)])

    def note_patient(self, entry: str, account: str, name: str, at: str) -> None:
        """A patient was erased; ``name`` as by `forgotten_name`, ``entry`` the id of this erasure."""
        self._append([Line(0, "patient", entry, at, account=account, name=name)])

    def check_room(self, patients: int) -> None:
        """Let pass an erasure that the list has room for; asked before it commits, since it is noted after that.

        Args:
            patients: how many lines will come of the transaction.

        Raises:
            Unsupported: ``vault.forgotten_full``.
        """
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size + patients * _LINE_BYTES > self.most_bytes - _KEPT_FREE:
            raise Unsupported(
                "vault.forgotten_full",
                "Nothing was erased: the list beside the root key, of what must not come back with a backup, is as "
                f"long as it may be ({self.most_bytes >> 20} MiB). A later carelake may keep a longer one.",
            )

    def merge(self, other: bytes) -> int:
        """Append what another copy of the list has and this one lacks, for example a backup's; answers how many."""
        return self._append(_parse(other, self._mac_key())[0])

    def _append(self, new: Iterable[Line]) -> int:
        private_folder(self.key_dir)
        with locked(self.key_dir):
            end = self._find_end()
            last, out = end.last, bytearray()
            added: set[tuple[str, str]] = set()
            for line in new:
                if (told := (line.kind, line.id)) in end.known or told in added:
                    continue
                bare = msgspec.structs.replace(line, n=(last.n if last else 0) + 1, mac="")
                last = msgspec.structs.replace(bare, mac=_mac(self._mac_key(), last, bare))
                out += msgspec.json.encode(last) + b"\n"
                added.add(told)
            if out:
                if end.whole + len(out) > self.most_bytes:
                    raise self._too_long()
                end.stamp = ()
                end.stamp = self._write(bytes(out), end.whole)
                end.last, end.whole = last, end.whole + len(out)
                end.known |= added
            return len(added)

    def _find_end(self) -> _End:
        end = self._end
        try:
            with self.path.open("rb") as file:
                stamp = _stamp(file.fileno())
                if stamp != end.stamp:
                    lines, end.whole = _parse(self._all_of(file), self._mac_key())
                    end.last = lines[-1] if lines else None
                    end.known = {(line.kind, line.id) for line in lines}
                    end.stamp = stamp
        except FileNotFoundError:
            end.stamp, end.last, end.whole, end.known = (), None, 0, set()
        return end

    def _write(self, data: bytes, whole: int) -> tuple[int, ...]:
        # A killed append leaves a part of a line, or whole lines; what was cut short is written over.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with full_disk():
                os.ftruncate(handle, whole)
                try:
                    view = memoryview(data)
                    at = whole
                    while view:
                        done = os.pwrite(handle, view, at)
                        view, at = view[done:], at + done
                    os.fsync(handle)
                    stamp = _stamp(handle)
                except OSError:
                    os.ftruncate(handle, whole)
                    raise
        finally:
            os.close(handle)
        if not whole:
            sync_folder(self.key_dir)
        return stamp

    def _all_of(self, file: BinaryIO) -> bytes:
        data = file.read(self.most_bytes + 1)
        if len(data) > self.most_bytes:
            raise self._too_long()
        return data

    def _too_long(self) -> Unsupported:
        return Unsupported(
            "vault.forgotten_size",
            "The list of what was destroyed and erased, beside the root key, is longer than "
            f"{self.most_bytes >> 20} MiB, or would be; nothing of it was changed. A later carelake may read more.",
        )

    def _mac_key(self) -> bytes:
        return hmac.digest(self.secret, bind("carelake-forgotten-mac-1", self.workspace), hashlib.sha256)


def _stamp(handle: int) -> tuple[int, ...]:
    told = os.fstat(handle)
    return told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size


def _mac(key: bytes, before: Line | None, bare: Line) -> str:
    said = (before.mac if before else _GENESIS).encode() + msgspec.json.encode(bare)
    return hmac.digest(key, said, hashlib.sha256).hex()


def _parse(data: bytes, key: bytes) -> tuple[list[Line], int]:
    """The lines, and how many bytes of the data are whole lines."""
    whole = data.rfind(b"\n") + 1
    lines: list[Line] = []
    for text in data[:whole].splitlines():
        try:
            line = msgspec.json.decode(text, type=decodable(Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _altered() from None
        bare = msgspec.structs.replace(line, mac="")
        before = lines[-1] if lines else None
        if line.n != len(lines) + 1 or not hmac.compare_digest(_mac(key, before, bare), line.mac):
            raise _altered()
        lines.append(line)
    return lines, whole


def _altered() -> Corrupt:
    return Corrupt(
        "vault.forgotten",
        "The list of what was destroyed and erased, beside the root key, was altered or is another workspace's; "
        "restore it from a backup of the key folder.",
    )


def replay(vault: Vault) -> int:
    """Erase again whoever the list tells of and the database does not; answers how many erasures that were.

    Also the other way round: what the database tells of and the list lacks is appended to it. `Vault.open` calls
    this. Destroyed keys are replayed by the key ring itself, when it is opened.
    """
    listed = {line.id for line in vault.forgotten.lines() if line.kind == "patient"}
    query = select(forgotten_patient).order_by(forgotten_patient.c.at, forgotten_patient.c.id)
    with vault.database.snapshot() as connection:
        known = list(connection.execute(query))
    for row in known:
        if row.id not in listed:
            vault.forgotten.note_patient(row.id, row.account, row.name, row.at)
    if listed.issubset(row.id for row in known):
        return 0
    with vault.database.ledger() as connection:
        return erase_listed(connection, vault.forgotten)


def erase_listed(connection: Connection, forgotten: Forgotten) -> int:
    """As `replay`, in a transaction that is open already, for example a restore's; appends nothing to the list.

    Only keys as old as the erasure go: who came back after it has a new one, by rights.
    """
    known = set(connection.scalars(select(forgotten_patient.c.id)))
    missing = [line for line in forgotten.lines() if line.kind == "patient" and line.id not in known]
    if not missing:
        return 0
    wanted: dict[tuple[str, str], str] = {}
    for line in missing:
        who = (line.account, line.name)
        wanted[who] = max(line.at, wanted.get(who, ""))
    for account, patient, created in _owners(connection):
        erased = wanted.get((account, forgotten_name(forgotten.secret, account, patient)))
        if erased is not None and created <= erased:
            own = (patient_key.c.account == account, patient_key.c.patient == patient)
            connection.execute(delete(patient_key).where(*own, patient_key.c.created <= erased))
            _note_due(connection, account, patient)
    said = [{"id": line.id, "account": line.account, "name": line.name, "at": line.at} for line in missing]
    connection.execute(insert(forgotten_patient), said)
    raise_epoch(connection)
    return len(missing)


def _note_due(connection: Connection, account: str, patient: str) -> None:
    """Their rows and files are to go too, before anybody opens the copy. Who came back since has a key, and stays."""
    due = (forgotten_due.c.account == account, forgotten_due.c.patient == patient)
    own = (patient_key.c.account == account, patient_key.c.patient == patient)
    back = connection.execute(select(patient_key.c.version).where(*own)).first()
    if back is None and connection.execute(select(forgotten_due.c.patient).where(*due)).first() is None:
        connection.execute(insert(forgotten_due).values(account=account, patient=patient))


def _owners(connection: Connection) -> Iterator[tuple[str, str, str]]:
    columns = (patient_key.c.account, patient_key.c.patient, patient_key.c.created)
    yield from ((row.account, row.patient, row.created) for row in connection.execute(select(*columns)).all())


def due(vault: Vault) -> list[str]:
    """Accounts with patients whose rows and files a replay left to be taken out."""
    with vault.database.snapshot() as connection:
        return sorted(connection.scalars(select(forgotten_due.c.account).distinct()))


def raise_epoch(connection: Connection) -> None:
    """From here on no cached patient key is good any more."""
    epoch = metadata.tables["vault_epoch"]
    connection.execute(update(epoch).values(epoch=epoch.c.epoch + 1))
