"""The key ring: root > account > {database, zone, patient-wrapping, reference, signing} keys (decision D1).

``keyring.json`` holds each key wrapped by the one above it, with a version and a state, so that a key can be rotated:
what is sealed names the version it was sealed under. The file as a whole is under a MAC derived from the root key.
Keys are named ``ACCOUNT``, ``ACCOUNT/ZONE``, ``ACCOUNT/reference``, ``ACCOUNT/patient``, ``ACCOUNT/models``...; the
trail says ``production/clinical/v1`` when one was used.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carelake.core.clock import Clock
from carelake.core.errors import Corrupt, Invalid, Unavailable, Unsupported
from carelake.core.permit import Permit, check
from carelake.vault.disk import write_atomic
from carelake.vault.places import ACCOUNTS, ZONES, account_of
from carelake.vault.roots import Argon2Costs, Root
from carelake.vault.wrapping import bind, new_key, unwrap, wrap

__all__ = ["Key", "Keyring", "genuine", "read_root_settings"]

FORMAT = 1
ROOT = "root"
_MAX_BYTES = 16 << 20
_NOTED_MAX = 65536

State = Literal["active", "retired"]


class RootSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the root key is had; not secret."""

    provider: str = "file"
    argon2: Argon2Costs | None = None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of one key, wrapped by the newest version of ``parent`` at the time."""

    name: str
    parent: str
    parent_version: int
    version: int
    state: State
    wrapped: bytes


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    workspace: str
    root: RootSettings
    check: bytes
    keys: list[_Entry]
    mac: bytes = b""


@dataclass(frozen=True, slots=True)
class Key:
    """An unwrapped key, for use inside this room only."""

    name: str
    version: int
    secret: bytes = field(repr=False)
    aead: AESGCM = field(repr=False)

    @property
    def label(self) -> str:
        """How the trail names it: ``production/clinical/v1``."""
        return f"{self.name}/v{self.version}"


def genuine(permit: Permit, clock: Clock) -> None:
    """Let pass any permit that is unaltered, unexpired and opens something at all; `Refused` otherwise."""
    check(permit, next(iter(getattr(permit, "grants", ())), "any"), now=clock.now())


def _plan() -> Iterator[tuple[str, str]]:
    """Name and parent of every key of a new workspace, parents first."""
    for account in ACCOUNTS:
        yield account, ROOT
        for leaf in (*ZONES, "reference", "patient", "sign-models"):
            yield f"{account}/{leaf}", account
    for leaf in ("database", "sign-trail", "sign-tokens"):
        yield f"security/{leaf}", "security"


_SIGNING = frozenset({"models", "trail", "tokens"})


def _fresh_secret(name: str) -> bytes:
    if not name.rpartition("/")[2].startswith("sign-"):
        return new_key()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _bound(workspace: str, name: str, version: int, parent: str, parent_version: int) -> bytes:
    return bind("carelake-key-1", workspace, name, version, parent, parent_version)


def _mac(root: bytes, file: _File) -> bytes:
    bare = msgspec.structs.replace(file, mac=b"")
    return hmac.digest(
        hmac.digest(root, b"carelake-keyring-mac-1", hashlib.sha256), msgspec.json.encode(bare), "sha256"
    )


def _check_value(root: bytes, workspace: str) -> bytes:
    return hmac.digest(root, bind("carelake-root-check-1", workspace), hashlib.sha256)[:16]


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        raise Unavailable(
            "vault.no_workspace",
            f"{path.name} is not in {path.parent}: this is no workspace, or its key ring is lost; restore it.",
        ) from None
    try:
        found = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Corrupt("vault.keyring", f"{path.name} is not a key ring; restore it from a backup.") from None
    if found.format != FORMAT:
        raise Unsupported("vault.format", f"The key ring has format {found.format}; this version reads {FORMAT}.")
    return found


def read_root_settings(path: Path) -> RootSettings:
    """How the workspace's root key is had, read before it is."""
    return _read(path).root


class Keyring:
    """The keys of one open workspace; unwrapped when first used, and kept in memory only."""

    def __init__(self, file: _File, root: bytes, clock: Clock) -> None:
        self._workspace = file.workspace
        self._root = root
        self._clock = clock
        self._entries = {(entry.name, entry.version): entry for entry in file.keys}
        self._newest = {entry.name: entry.version for entry in file.keys if entry.state == "active"}
        self._keys: dict[tuple[str, int], Key] = {}
        self._signers: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._noted: dict[tuple[bytes, str], None] = {}
        self._lock = Lock()

    @classmethod
    def create(cls, path: Path, *, workspace: str, provider: Root, clock: Clock) -> Keyring:
        """Make all keys of a new workspace and write the file."""
        root = provider.make()
        costs = getattr(provider, "costs", None)
        file = _File(FORMAT, workspace, RootSettings(provider.name, costs), _check_value(root, workspace), [])
        secrets = {ROOT: root}
        for name, parent in _plan():
            secrets[name] = _fresh_secret(name)
            parent_version = 0 if parent == ROOT else 1
            wrapped = wrap(secrets[parent], secrets[name], _bound(workspace, name, 1, parent, parent_version))
            file.keys.append(_Entry(name, parent, parent_version, 1, "active", wrapped))
        file.mac = _mac(root, file)
        write_atomic(path, msgspec.json.format(msgspec.json.encode(file), indent=1))
        return cls(file, root, clock)

    @classmethod
    def open(cls, path: Path, *, workspace: str, provider: Root, clock: Clock) -> Keyring:
        """Read the file and prove that root key, workspace id and file belong together.

        Raises:
            Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.workspace_mismatch``.
            Unavailable: ``vault.root_key_missing``, ``vault.no_workspace``.
        """
        file = _read(path)
        if file.workspace != workspace:
            raise Corrupt(
                "vault.workspace_mismatch",
                f"The settings are of workspace {workspace}, the key ring is not; they do not belong together.",
            )
        root = provider.fetch()
        if not hmac.compare_digest(_check_value(root, workspace), file.check):
            raise Corrupt(
                "vault.wrong_key",
                f"The root key is not the one of workspace {workspace}; nothing was opened; give the right one.",
            )
        if not hmac.compare_digest(_mac(root, file), file.mac):
            raise Corrupt("vault.keyring", f"{path.name} was altered after it was written; restore it from a backup.")
        return cls(file, root, clock)

    # -- inside the room ------------------------------------------------------------------------------------------

    def use(self, permit: Permit, grant: str, name: str, version: int | None = None) -> Key:
        """A key by name, for a permit with ``grant``; the use is noted once for the permit's act."""
        check(permit, grant, now=self._clock.now())
        key = self._key(name, version)
        self._note(permit, key.label)
        return key

    def inner(self, name: str, version: int | None = None) -> Key:
        """A key by name, for modules of this room that have checked the permit."""
        return self._key(name, version)

    def versions(self, name: str) -> list[Key]:
        """Every version of a key, for modules of this room that have checked the permit."""
        return [self._key(name, number) for found, number in self._entries if found == name]

    def database_key(self) -> bytes:
        """The raw key of the SQL database; `workspace` hands it to `database`, no one else asks."""
        return self._key("security/database").secret

    def _note(self, permit: Permit, label: str) -> None:
        once = (permit.seal, label)
        if once not in self._noted:
            if len(self._noted) > _NOTED_MAX:
                self._noted.clear()
            self._noted[once] = None
            permit.log.key(label)

    def _key(self, name: str, version: int | None = None) -> Key:
        number = self._newest[name] if version is None else version
        found = self._keys.get((name, number))
        if found is None:
            secret = self._unwrap(name, number)
            # A signing key is no AES key; its Key is made by `_signer` and never comes here.
            found = self._keys[(name, number)] = Key(name, number, secret, AESGCM(secret))
        return found

    def _unwrap(self, name: str, version: int) -> bytes:
        entry = self._entries.get((name, version))
        if entry is None:
            raise Corrupt("vault.key_version", f"The key ring has no version {version} of the key {name}.")
        above = self._root if entry.parent == ROOT else self._key(entry.parent, entry.parent_version).secret
        bound = _bound(self._workspace, name, version, entry.parent, entry.parent_version)
        return unwrap(above, entry.wrapped, bound)

    def _signer(self, name: str) -> ec.EllipticCurvePrivateKey:
        with self._lock:
            if name not in self._signers:
                loaded = serialization.load_der_private_key(self._unwrap(name, self._newest[name]), None)
                assert isinstance(loaded, ec.EllipticCurvePrivateKey)
                self._signers[name] = loaded
            return self._signers[name]

    # -- for all rooms --------------------------------------------------------------------------------------------

    def reference(self, permit: Permit, kind: str, content: bytes) -> str:
        """``KIND:HEX64``, an HMAC-SHA256 under the reference key of the permit's account (decision D4).

        Any genuine permit will do: the name tells nothing about the content.
        """
        genuine(permit, self._clock)
        key = self._key(f"{permit.account}/reference")
        self._note(permit, key.label)
        digest = hmac.digest(key.secret, kind.encode() + b"\x1f" + content, "sha256")
        return f"{kind}:{digest.hex()}"

    def sign(self, permit: Permit, purpose: str, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 (DER) by the signing key of the permit's account.

        Args:
            purpose: ``models``; needs the grant ``models:write``.
        """
        if purpose != "models":
            raise Invalid("vault.signing_purpose", "A permit signs for the purpose 'models' only.")
        check(permit, "models:write", now=self._clock.now())
        name = _signing_name(permit.account, purpose)
        self._note(permit, f"{name}/v{self._newest[name]}")
        return self._signer(name).sign(data, ec.ECDSA(hashes.SHA256()))

    def verify(self, data: bytes, signature: bytes, *, account: str, purpose: str) -> bool:
        """Was this signed by that account's key for that purpose? Public keys only: takes no permit."""
        public = self._signer(_signing_name(account, purpose)).public_key()
        try:
            public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def public_key_pem(self, account: str, purpose: str) -> bytes:
        """The public half, as SubjectPublicKeyInfo in PEM."""
        public = self._signer(_signing_name(account, purpose)).public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign_trail(self, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 (DER) by the trail's key; for `audit` alone."""
        return self._signer("security/sign-trail").sign(data, ec.ECDSA(hashes.SHA256()))

    def trail_public_key(self) -> bytes:
        """PEM of the trail's public key."""
        return self.public_key_pem("security", "trail")

    def sign_token(self, data: bytes) -> bytes:
        """An ES256 signature as JOSE has it (r and s, 64 bytes; RFC 7518 section 3.4); for `access` alone."""
        r, s = decode_dss_signature(self._signer("security/sign-tokens").sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token_public_key(self) -> bytes:
        """PEM of the tokens' public key."""
        return self.public_key_pem("security", "tokens")


def _signing_name(account: str, purpose: str) -> str:
    if purpose not in _SIGNING or (purpose != "models" and account != "security"):
        raise Invalid(
            "vault.signing_purpose", "There is no such signing key; expected models, or security's trail, tokens."
        )
    # Its own leaf: the zone `models` has a key of the plain name.
    return f"{account_of(account)}/sign-{purpose}"
