"""Where the root key comes from, and the one thing besides it that is kept outside the workspace: the trail's head.

Decision D1: the root key never lies in the workspace. A key file lies in the key folder, named by the workspace id;
a passphrase is stretched by Argon2id with the salt and costs that stand in ``keyring.json``; the operating system's
keyring and AWS KMS are in `drivers`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
from argon2.low_level import Type, hash_secret_raw

from carelake.core.errors import Conflict, Corrupt, Invalid, Unavailable
from carelake.vault.disk import private_folder, sync_folder, write_atomic
from carelake.vault.wrapping import KEY_BYTES, new_key

__all__ = [
    "COPY_ID",
    "PROVIDERS",
    "Argon2Costs",
    "HeadFile",
    "KeyFileRoot",
    "KmsSettings",
    "PassphraseRoot",
    "Root",
    "RootSettings",
    "Roots",
    "check_workspace_id",
    "other_copies",
    "outside_name",
    "root_provider",
    "wanted_root",
]

PROVIDERS = ("file", "passphrase", "keyring", "kms")
_WORKSPACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
COPY_ID = re.compile(r"[0-9a-f]{16}")
_OUTSIDE = ("forgotten", "head", "restores")


def check_workspace_id(workspace: str) -> str:
    """The id itself, if it is safe as a file name; `Invalid` ``vault.workspace_id`` otherwise."""
    if not _WORKSPACE_ID.fullmatch(workspace):
        raise Invalid("vault.workspace_id", "A workspace id is 1 to 64 letters, digits, dashes and underscores.")
    return workspace


def outside_name(workspace: str, copy: str) -> str:
    """How the files outside of a copy of a workspace begin: no path leads anywhere else.

    Raises:
        Invalid: ``vault.workspace_id``, ``vault.copy_id``.
    """
    if copy and not COPY_ID.fullmatch(copy):
        raise Invalid("vault.copy_id", "The id of a copy is 16 lower-case hex digits, as `restore` wrote it.")
    return f"{check_workspace_id(workspace)}.{copy}" if copy else check_workspace_id(workspace)


def other_copies(key_dir: Path, workspace: str, copy: str) -> list[str]:
    """Names of the files that other copies of the workspace keep in the key folder; the original is a copy too."""
    own = outside_name(workspace, copy)
    form = re.compile(rf"({re.escape(workspace)}(?:\.{COPY_ID.pattern})?)\.(?:{'|'.join(_OUTSIDE)})")
    there = [path.name for path in key_dir.iterdir()] if key_dir.is_dir() else []
    return sorted(name for name in there if (found := form.fullmatch(name)) and found[1] != own)


class Argon2Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the passphrase was stretched with (RFC 9106); memory in KiB. Bounded, since the file could be altered."""

    salt: bytes
    time: int = 3
    memory: int = 65536
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.time <= 100 and 8 * self.lanes <= self.memory <= 1 << 20 and 1 <= self.lanes <= 64):
            raise ValueError("Argon2id costs out of bounds")


class KmsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root key as AWS KMS gave it: encrypted under ``key``, for this workspace only."""

    key: str
    region: str
    blob: bytes


class RootSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the workspace's root key is had; not secret.

    Attributes:
        version: counts root keys; 0 is that of a workspace of release 0.1.0.
        made: FHIR instant.
    """

    provider: str = "file"
    version: int = msgspec.field(default=1, name="root_version")
    argon2: Argon2Costs | None = None
    kms: KmsSettings | None = None
    made: str = ""


class Root(Protocol):
    """A provider of root keys."""

    def make(self, version: int, made: str, *, first: bool) -> tuple[bytes, RootSettings]:
        """A new root key, kept by the provider from here on.

        The version that it gets may be a later one, where that number was given out before.

        Args:
            first: for a new workspace; `Conflict` ``vault.root_key_exists`` if there is a root key already.
        """
        ...

    def fetch(self, settings: RootSettings) -> bytes:
        """The root key; `Unavailable` ``vault.root_key_missing`` when it is not to be had."""
        ...

    def held(self, before: int) -> list[int]:
        """Versions of root keys earlier than this one that the provider keeps."""
        ...

    def remove(self, version: int) -> None:
        """Let go of a root key for good; nothing happens where the provider holds none."""
        ...


@dataclass(frozen=True)
class KeyFileRoot:
    """The default: 32 random bytes as hex in ``KEY_DIR/WORKSPACE.key``, mode 0600; later ones in ``.key.VERSION``."""

    key_dir: Path
    workspace: str

    def path(self, version: int) -> Path:
        """The key file of a version."""
        later = f".{version}" if version > 1 else ""
        return self.key_dir / f"{check_workspace_id(self.workspace)}.key{later}"

    def make(self, version: int, made: str, *, first: bool) -> tuple[bytes, RootSettings]:
        private_folder(self.key_dir)
        key = new_key()
        while not self._keep(key, version):
            if first:
                raise Conflict(
                    "vault.root_key_exists",
                    f"A root key for this workspace id is already at {self.path(version)}; it is not replaced.",
                )
            version += 1
        return key, RootSettings("file", version, made=made)

    def put(self, key: bytes, version: int) -> None:
        """Keep a key that was recovered; nothing happens if it is there."""
        private_folder(self.key_dir)
        if not self._keep(key, version) and self.fetch(RootSettings("file", version)) != key:
            raise Conflict(
                "vault.root_key_exists",
                f"Another root key is at {self.path(version)}; it is not replaced: move it away.",
            )

    def _keep(self, key: bytes, version: int) -> bool:
        try:
            write_atomic(self.path(version), key.hex().encode() + b"\n", new=True)
        except FileExistsError:
            return False
        return True

    def fetch(self, settings: RootSettings) -> bytes:
        path = self.path(settings.version)
        try:
            text = path.read_bytes()[:1024]
        except FileNotFoundError:
            raise Unavailable(
                "vault.root_key_missing",
                f"The root key of workspace {self.workspace} is missing; it was expected at {path}. "
                "The workspace cannot be read without it: put the key file back, or name its folder.",
            ) from None
        except PermissionError:
            raise Unavailable(
                "vault.root_key_unreadable", f"The root key at {path} may not be read by this user."
            ) from None
        try:
            key = bytes.fromhex(text.decode().strip())
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Corrupt("vault.root_key", f"The root key at {path} is not 64 hex digits; restore the file.")
        return key

    def held(self, before: int) -> list[int]:
        return [version for version in range(1, before) if self.path(version).exists()]

    def remove(self, version: int) -> None:
        path = self.path(version)
        if path.exists():
            path.unlink()
            sync_folder(self.key_dir)


@dataclass(frozen=True)
class PassphraseRoot:
    """A passphrase through Argon2id. ``None`` as passphrase means that none was given."""

    passphrase: str | None
    variable: str = "CARELAKE_PASSPHRASE"

    def __repr__(self) -> str:
        return "PassphraseRoot()"

    def make(self, version: int, made: str, *, first: bool) -> tuple[bytes, RootSettings]:
        if self.passphrase is not None and len(self.passphrase) < 12:
            raise Invalid("vault.passphrase_short", "The passphrase is too short; use at least 12 characters.")
        settings = RootSettings("passphrase", version, new_costs(), made=made)
        return self.fetch(settings), settings

    def fetch(self, settings: RootSettings) -> bytes:
        costs = settings.argon2
        if costs is None:
            raise Corrupt("vault.keyring", "The key ring names a passphrase, but not its salt; restore it.")
        if not self.passphrase:
            raise Unavailable(
                "vault.root_key_missing",
                f"This workspace is locked by a passphrase and none was given; set {self.variable}.",
            )
        return hash_secret_raw(
            self.passphrase.encode(),
            costs.salt,
            time_cost=costs.time,
            memory_cost=costs.memory,
            parallelism=costs.lanes,
            hash_len=KEY_BYTES,
            type=Type.ID,
        )

    def held(self, before: int) -> list[int]:
        return []

    def remove(self, version: int) -> None:
        """It is kept in somebody's head."""


def new_costs() -> Argon2Costs:
    """Fresh salt, the costs of RFC 9106's second recommendation."""
    return Argon2Costs(os.urandom(16))


def root_provider(
    name: str, *, workspace: str, key_dir: Path, passphrase: str | None = None, kms_key: str | None = None
) -> Root:
    """The provider of that name.

    Args:
        passphrase: for ``passphrase``.
        kms_key: for ``kms``, to make a root key: the KMS key's id, ARN or alias.

    Raises:
        Invalid: ``vault.root_provider``; Unavailable: ``vault.root_provider``, its extra is not installed.
    """
    if name == "file":
        return KeyFileRoot(key_dir, workspace)
    if name == "passphrase":
        return PassphraseRoot(passphrase)
    if name == "keyring":
        from carelake.vault.drivers.os_keyring import OsKeyringRoot

        return OsKeyringRoot(workspace)
    if name == "kms":
        from carelake.vault.drivers.aws_kms import KmsRoot

        return KmsRoot(workspace, kms_key)
    raise Invalid(
        "vault.root_provider", f"There is no such provider of root keys; expected one of {', '.join(PROVIDERS)}."
    )


def wanted_root(settings: RootSettings, key_dir: Path, workspace: str) -> str:
    """What must be had to open a workspace with this root key, in words."""
    if settings.provider == "passphrase":
        return "the passphrase of the workspace (CARELAKE_PASSPHRASE)"
    if settings.kms is not None:
        return f"use of the AWS KMS key {settings.kms.key}"
    if settings.provider == "keyring":
        return f"the item of workspace {workspace} in the operating system's keyring, or the recovery kit"
    return f"the root key file {KeyFileRoot(key_dir, workspace).path(settings.version)}"


@dataclass(frozen=True)
class Roots:
    """Chooses the provider of one workspace's root key: the one that its key ring names, or any by name."""

    workspace: str
    key_dir: Path
    passphrase: str | None = field(repr=False)

    def __call__(self, settings: RootSettings) -> Root:
        return self.named(settings.provider)

    def named(self, name: str, *, kms_key: str | None = None) -> Root:
        """As `root_provider`."""
        return root_provider(
            name, workspace=self.workspace, key_dir=self.key_dir, passphrase=self.passphrase, kms_key=kms_key
        )


@dataclass(frozen=True)
class HeadFile:
    """The trail's signed head, outside the workspace (decision D3): cutting the trail's tail fails against it."""

    key_dir: Path
    workspace: str
    copy: str = ""

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return self.key_dir / f"{outside_name(self.workspace, self.copy)}.head"

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
