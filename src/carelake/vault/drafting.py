"""A change of the key ring while it is made: keys added, wrapped anew, retired or destroyed; then one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from carelake.core.errors import Corrupt, Gone, NotFound
from carelake.vault.forgotten import RingNote
from carelake.vault.ring import (
    ROOT,
    Entry,
    RingFile,
    bound,
    check_value,
    mac_of,
    signing,
)
from carelake.vault.roots import RootSettings
from carelake.vault.wrapping import new_key, unwrap, wrap

__all__ = [
    "Draft",
    "as_pem",
    "catch_up",
    "destroyed",
    "load_signer",
    "public_half",
    "signed_by",
    "unwrapped",
]


def _fresh_secret(name: str) -> bytes:
    if not signing(name):
        return new_key()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_signer(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The private half out of its DER."""
    loaded = serialization.load_der_private_key(secret, None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    return loaded


def public_half(secret: bytes) -> bytes:
    """SubjectPublicKeyInfo (DER) of a private half."""
    return (
        load_signer(secret)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def signed_by(public: bytes, data: bytes, signature: bytes) -> bool:
    """Was this signed by the private half of this public one?"""
    key = serialization.load_der_public_key(public)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def as_pem(public: bytes) -> bytes:
    """A public half in PEM."""
    key = serialization.load_der_public_key(public)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Draft:
    """The next file. ``secret`` unwraps whatever is still wrapped, held back or not: wrapping anew is no use."""

    def __init__(self, file: RingFile, root: bytes, now: str) -> None:
        self.file = file
        self.root = root
        self.now = now
        self._entries = {(entry.name, entry.version): entry for entry in file.keys}
        self._secrets: dict[tuple[str, int], bytes] = {}

    def __repr__(self) -> str:
        return f"Draft({self.file.workspace}, {self.file.generation})"

    def set(self, **fields: Any) -> None:
        """Replace fields of the file."""
        self.file = msgspec.structs.replace(self.file, **fields)

    def names(self) -> list[str]:
        """Every key but the root, parents first."""
        return list(dict.fromkeys(name for name, _ in self._entries))

    def parent(self, name: str) -> str:
        """The name of the key above."""
        return self.versions(name)[-1].parent

    def versions(self, name: str) -> list[Entry]:
        """All versions of a key, oldest first; `NotFound` ``vault.no_such_key``."""
        found = [entry for (known, _), entry in self._entries.items() if known == name]
        if not found:
            raise NotFound("vault.no_such_key", "There is no such key; `carelake key list` shows them.")
        return sorted(found, key=lambda entry: entry.version)

    def active(self, name: str) -> Entry | None:
        """The version that is used for what is new, if there is one."""
        return next((entry for entry in self.versions(name) if entry.state == "active"), None)

    def children(self, name: str) -> list[Entry]:
        """All versions of the keys that this one wraps, but for those that are destroyed."""
        return [entry for entry in self._entries.values() if entry.parent == name and entry.state != "destroyed"]

    def put(self, entry: Entry) -> None:
        """Add an entry, or replace it."""
        self._entries[(entry.name, entry.version)] = entry

    def add(self, name: str, parent: str) -> Entry:
        """The next version of a key, active; the one that was active is retired."""
        known = [entry for (n, _), entry in self._entries.items() if n == name]
        for entry in known:
            if entry.state == "active":
                self.put(msgspec.structs.replace(entry, state="retired"))
        version = 1 + max((entry.version for entry in known), default=0)
        secret = _fresh_secret(name)
        self._secrets[(name, version)] = secret
        public = public_half(secret) if signing(name) else b""
        bare = Entry(name, parent, 0, version, "active", b"", self.now, public, os.urandom(8).hex())
        entry = self._wrapped(bare, secret)
        self.put(entry)
        return entry

    def rewrap(self, entries: Iterable[Entry]) -> None:
        """Wrap by the newest version of the key above."""
        for entry in list(entries):
            self.put(self._wrapped(entry, self.secret(entry.name, entry.version)))

    def reroot(self, root: bytes, settings: RootSettings) -> None:
        """Another root key: the accounts' keys are wrapped by it."""
        below = self.children(ROOT)
        for entry in below:
            self.secret(entry.name, entry.version)
        self.root = root
        self.set(root=settings, check=check_value(root, self.file.workspace))
        self.rewrap(below)

    def destroy(self, entry: Entry) -> None:
        """Forget the wrapped bytes for good."""
        self._secrets.pop((entry.name, entry.version), None)
        self.put(msgspec.structs.replace(entry, state="destroyed", wrapped=b""))

    def secret(self, name: str, version: int) -> bytes:
        """A key, unwrapped; `Gone` ``vault.key_destroyed``."""
        found = self._secrets.get((name, version))
        if found is None:
            found = self._secrets[(name, version)] = unwrapped(
                self.file.workspace, self._look, self.root, name, version
            )
        return found

    def _look(self, name: str, version: int) -> Entry | None:
        return self._entries.get((name, version))

    def _wrapped(self, entry: Entry, secret: bytes) -> Entry:
        if entry.parent == ROOT:
            version, above = self.file.root.version, self.root
        else:
            top = self.active(entry.parent)
            if top is None:
                raise Gone(
                    "vault.key_destroyed", f"The key {entry.parent} above it was destroyed; rotate that one first."
                )
            version, above = top.version, self.secret(top.name, top.version)
        aad = bound(self.file.workspace, entry.name, entry.version, entry.parent, version)
        return msgspec.structs.replace(entry, parent_version=version, wrapped=wrap(above, secret, aad))

    def finish(self) -> RingFile:
        """The file, one generation on, under its MAC."""
        self.set(keys=tuple(self._entries.values()), generation=self.file.generation + 1)
        self.set(mac=mac_of(self.root, self.file))
        return self.file


def unwrapped(
    workspace: str, look: Callable[[str, int], Entry | None], root: bytes, name: str, version: int
) -> bytes:
    """A key's bytes, by unwrapping from the root down.

    Raises:
        Corrupt: ``vault.key_version``; Gone: ``vault.key_destroyed``.
    """
    entry = look(name, version)
    if entry is None:
        raise Corrupt("vault.key_version", f"The key ring has no version {version} of the key {name}.")
    if entry.state == "destroyed":
        raise destroyed(entry.label)
    above = root if entry.parent == ROOT else unwrapped(workspace, look, root, entry.parent, entry.parent_version)
    return unwrap(above, entry.wrapped, bound(workspace, name, version, entry.parent, entry.parent_version))


def destroyed(label: str) -> Gone:
    """The error of a key that is no more."""
    return Gone(
        "vault.key_destroyed",
        f"The key {label} was destroyed: what was sealed under it cannot be read by anyone again.",
        key=label,
    )


def catch_up(draft: Draft, missing: tuple[str, ...], newest: RingNote | None) -> None:
    """Destroy these versions; with ``newest``, be as new as that, with nothing enabled that it had disabled."""
    for entry in [entry for entry in draft.file.keys if entry.label in missing]:
        draft.destroy(entry)
    if newest is not None:
        generation = max(newest.generation - 1, draft.file.generation)
        draft.set(generation=generation, holds=newest.holds, policies=newest.policies)
