"""``keyring.json``, format 2: every key wrapped by the one above it, with what is said of it, under one MAC.

Format 1 (release 0.1.0) had no times, public halves, holds and policies; it is read as format 2 and written as that
at the first change.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from carelake.core.clock import iso
from carelake.core.errors import Corrupt, Unavailable, Unsupported
from carelake.core.shapes import decodable
from carelake.vault.roots import Argon2Costs, RootSettings
from carelake.vault.wrapping import bind

__all__ = [
    "FORMAT",
    "ROOT",
    "Destruction",
    "Entry",
    "Hold",
    "KeyPolicy",
    "Kit",
    "Read",
    "RingFile",
    "bound",
    "check_value",
    "encode",
    "mac_of",
    "read_ring",
    "signing",
    "stamp_of",
]

FORMAT = 2
ROOT = "root"
_MAX_BYTES = 16 << 20

State = Literal["active", "retired", "destroyed"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of one key, wrapped by a version of ``parent``; what is destroyed is wrapped no more.

    Attributes:
        created: FHIR instant.
        public: of a signing key, the public half (SubjectPublicKeyInfo, DER): it outlives the private one.
        id: random: two copies of a workspace that are both changed have different keys under one label.
    """

    name: str
    parent: str
    parent_version: int
    version: int
    state: State
    wrapped: bytes = msgspec.field()
    created: str
    public: bytes = b""
    id: str = ""

    @property
    def mark(self) -> str:
        """How the list of destroyed keys names it (`forgotten`): this key, and no other of the same label."""
        return f"{self.label}#{self.id}" if self.id else self.label

    @property
    def label(self) -> str:
        """How the trail names it: ``production/clinical/v1``."""
        return f"{self.name}/v{self.version}"


class Destruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A destruction that was asked for; due ``days`` after somebody else confirmed it.

    Attributes:
        marks: `Entry.mark` of all that goes, told by the confirmation: an older ring that is put back may lack some.
    """

    asked_by: str
    asked_at: str
    days: int
    confirmed_by: str = ""
    confirmed_at: str = ""
    due: str = ""
    marks: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a key, or one version of it, is not to be used."""

    disabled_by: str = ""
    disabled_at: str = ""
    destruction: Destruction | None = None


class KeyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may use a key, beyond what the permit says; an empty list bounds nothing."""

    actions: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()


class Kit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a recovery kit was made, and of which root key."""

    made_by: str
    made_at: str
    shares: int
    threshold: int
    root_version: int


class RingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        generation: counts the changes; the newest one seen stands outside the workspace too (`forgotten`).
        holds: by key name or label.
        policies: by key name.
        copy: of the workspace, as its settings name it; left out by the original.
    """

    format: int
    workspace: str
    generation: int
    root: RootSettings
    check: bytes
    keys: tuple[Entry, ...]
    holds: dict[str, Hold] = {}
    policies: dict[str, KeyPolicy] = {}
    kit: Kit | None = None
    copy: str | msgspec.UnsetType = msgspec.UNSET
    mac: bytes = b""

    @property
    def copy_id(self) -> str:
        """The copy; "" for the original."""
        return "" if isinstance(self.copy, msgspec.UnsetType) else self.copy


class _Root1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: str = "file"
    argon2: Argon2Costs | None = None


class _Entry1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    parent: str
    parent_version: int
    version: int
    state: Literal["active", "retired"]
    wrapped: bytes


class _File1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    workspace: str
    root: _Root1
    check: bytes
    keys: list[_Entry1]
    mac: bytes = b""


class _Number(msgspec.Struct):
    format: int


def signing(name: str) -> bool:
    """Whether it is a key to sign with."""
    return name.rpartition("/")[2].startswith("sign-")


def bound(workspace: str, name: str, version: int, parent: str, parent_version: int) -> bytes:
    """What a wrapped key is bound to."""
    return bind("carelake-key-1", workspace, name, version, parent, parent_version)


def check_value(root: bytes, workspace: str) -> bytes:
    """Tells whether a root key is the one of a workspace, and nothing of the key."""
    return hmac.digest(root, bind("carelake-root-check-1", workspace), hashlib.sha256)[:16]


def mac_of(root: bytes, file: RingFile | _File1) -> bytes:
    """The MAC over all of the file but itself."""
    bare = msgspec.structs.replace(file, mac=b"")
    label = f"carelake-keyring-mac-{file.format}".encode()
    return hmac.digest(hmac.digest(root, label, hashlib.sha256), msgspec.json.encode(bare), "sha256")


def encode(file: RingFile) -> bytes:
    """The file's bytes."""
    return msgspec.json.format(msgspec.json.encode(file), indent=1)


class Read(msgspec.Struct, frozen=True):
    """What `read_ring` found: as written, for its MAC, and as format 2.

    Attributes:
        stamp: changes whenever the file is replaced.
    """

    written: RingFile | _File1
    file: RingFile
    stamp: tuple[int, ...]


def stamp_of(path: Path) -> tuple[int, ...]:
    """Inode, time and size: another file has others."""
    told = os.stat(path)
    return told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size


def read_ring(path: Path) -> Read:
    """Read the file; its MAC is not checked here, since the root key is had by what stands in it.

    Raises:
        Unavailable: ``vault.no_workspace``; Corrupt: ``vault.keyring``; Unsupported: ``vault.format``.
    """
    try:
        with path.open("rb") as file:
            told = os.fstat(file.fileno())
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise Unavailable(
            "vault.no_workspace",
            f"{path.name} is not in {path.parent}: this is no workspace, or its key ring is lost; restore it.",
        ) from None
    stamp = (told.st_ino, told.st_mtime_ns, told.st_ctime_ns, told.st_size)
    try:
        number = msgspec.json.decode(text, type=decodable(_Number)).format
        if number == 1:
            first = msgspec.json.decode(text, type=decodable(_File1))
            return Read(first, _as_format_2(first, iso(datetime.fromtimestamp(told.st_mtime, UTC))), stamp)
        if number == FORMAT:
            found = msgspec.json.decode(text, type=decodable(RingFile))
            return Read(found, found, stamp)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt("vault.keyring", f"{path.name} is not a key ring; restore it from a backup.") from None
    raise Unsupported("vault.format", f"The key ring has format {number}; this version reads 1 and {FORMAT}.")


def _as_format_2(file: _File1, written: str) -> RingFile:
    # Format 1 was written once, when the workspace was made: the file's time is that of its keys.
    keys = tuple(
        Entry(key.name, key.parent, key.parent_version, key.version, key.state, key.wrapped, written)
        for key in file.keys
    )
    root = RootSettings(file.root.provider, 0, file.root.argon2, made=written)
    return RingFile(FORMAT, file.workspace, 0, root, file.check, keys)
