"""Where the root key comes from, and the one thing besides it that is kept outside the workspace: the trail's head.

Decision D1: the root key never lies in the workspace. A key file lies in the key folder, named by the workspace id;
a passphrase is stretched by Argon2id with the salt and costs that stand in ``keyring.json``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from argon2.low_level import Type, hash_secret_raw

from carelake.core.errors import Conflict, Corrupt, Invalid, Unavailable
from carelake.vault.disk import private_folder, write_atomic
from carelake.vault.wrapping import KEY_BYTES, new_key

__all__ = ["Argon2Costs", "HeadFile", "KeyFileRoot", "PassphraseRoot", "Root", "check_workspace_id"]

_WORKSPACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_workspace_id(workspace: str) -> str:
    """The id itself, if it is safe as a file name; `Invalid` ``vault.workspace_id`` otherwise."""
    if not _WORKSPACE_ID.fullmatch(workspace):
        raise Invalid("vault.workspace_id", "A workspace id is 1 to 64 letters, digits, dashes and underscores.")
    return workspace


class Argon2Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the passphrase was stretched with (RFC 9106); memory in KiB. Bounded, since the file could be altered."""

    salt: bytes
    time: int = 3
    memory: int = 65536
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.time <= 100 and 8 * self.lanes <= self.memory <= 1 << 20 and 1 <= self.lanes <= 64):
            raise ValueError("Argon2id costs out of bounds")


class Root(Protocol):
    """A provider of the root key."""

    @property
    def name(self) -> str:
        """The word for it in ``keyring.json``."""
        ...

    def make(self) -> bytes:
        """A root key for a new workspace; `Conflict` ``vault.root_key_exists`` if there is one."""
        ...

    def fetch(self) -> bytes:
        """The root key; `Unavailable` ``vault.root_key_missing`` when it is not to be had."""
        ...


@dataclass(frozen=True)
class KeyFileRoot:
    """The default: 32 random bytes as hex in ``KEY_DIR/WORKSPACE.key``, mode 0600."""

    key_dir: Path
    workspace: str
    name: str = "file"

    @property
    def path(self) -> Path:
        """The key file."""
        return self.key_dir / f"{check_workspace_id(self.workspace)}.key"

    def make(self) -> bytes:
        private_folder(self.key_dir)
        key = new_key()
        try:
            write_atomic(self.path, key.hex().encode() + b"\n", new=True)
        except FileExistsError:
            raise Conflict(
                "vault.root_key_exists",
                f"A root key for this workspace id is already at {self.path}; it is not replaced.",
            ) from None
        return key

    def fetch(self) -> bytes:
        try:
            text = self.path.read_bytes()[:1024]
        except FileNotFoundError:
            raise Unavailable(
                "vault.root_key_missing",
                f"The root key of workspace {self.workspace} is missing; it was expected at {self.path}. "
                "The workspace cannot be read without it: put the key file back, or name its folder.",
            ) from None
        except PermissionError:
            raise Unavailable(
                "vault.root_key_unreadable", f"The root key at {self.path} may not be read by this user."
            ) from None
        try:
            key = bytes.fromhex(text.decode().strip())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Corrupt("vault.root_key", f"The root key at {self.path} is not 64 hex digits; restore the file.")
        return key


@dataclass(frozen=True)
class PassphraseRoot:
    """A passphrase through Argon2id. ``None`` as passphrase means that none was given."""

    passphrase: str | None
    costs: Argon2Costs
    name: str = "passphrase"

    def make(self) -> bytes:
        if self.passphrase is not None and len(self.passphrase) < 12:
            raise Invalid("vault.passphrase_short", "The passphrase is too short; use at least 12 characters.")
        return self.fetch()

    def fetch(self) -> bytes:
        if not self.passphrase:
            raise Unavailable(
                "vault.root_key_missing",
                "This workspace is locked by a passphrase and none was given; set CARELAKE_PASSPHRASE.",
            )
        return hash_secret_raw(
            self.passphrase.encode(),
            self.costs.salt,
            time_cost=self.costs.time,
            memory_cost=self.costs.memory,
            parallelism=self.costs.lanes,
            hash_len=KEY_BYTES,
            type=Type.ID,
        )


def new_costs() -> Argon2Costs:
    """Fresh salt, the costs of RFC 9106's second recommendation."""
    return Argon2Costs(os.urandom(16))


@dataclass(frozen=True)
class HeadFile:
    """The trail's signed head, outside the workspace (decision D3): cutting the trail's tail fails against it."""

    key_dir: Path
    workspace: str

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return self.key_dir / f"{check_workspace_id(self.workspace)}.head"

    def read(self) -> bytes | None:
        """The last head, or None before the first."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, head: bytes) -> None:
        """Replace the head, atomically."""
        private_folder(self.key_dir)
        write_atomic(self.path, head)
