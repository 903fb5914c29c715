"""One generation of the key ring as it is used: an immutable file, its root key, and what was unwrapped so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carelake.core.errors import CarelakeError, Corrupt, NotFound, Refused
from carelake.core.permit import Permit
from carelake.vault.drafting import destroyed, load_signer, public_half, unwrapped
from carelake.vault.ring import ROOT, Entry, Hold, RingFile, signing

__all__ = ["Key", "Unlocked"]


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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key stays in its process")


class Unlocked:
    """Never changed; another generation is another object, so threads need no lock."""

    def __init__(self, file: RingFile, root: bytes, stamp: tuple[int, ...]) -> None:
        self.file = file
        self.root = root
        self.stamp = stamp
        self._entries = {(entry.name, entry.version): entry for entry in file.keys}
        self._newest = {entry.name: entry.version for entry in file.keys if entry.state == "active"}
        self._versions: dict[str, list[Entry]] = {}
        for entry in sorted(file.keys, key=lambda entry: entry.version):
            self._versions.setdefault(entry.name, []).append(entry)
        self._keys: dict[tuple[str, int], Key] = {}
        self._signers: dict[tuple[str, int], ec.EllipticCurvePrivateKey] = {}
        self._why: dict[tuple[str, int], CarelakeError | None] = {}

    def __repr__(self) -> str:
        return f"Unlocked({self.file.workspace}, {self.file.generation})"

    @classmethod
    def of(cls, file: RingFile, root: bytes, stamp: tuple[int, ...]) -> Unlocked:
        """As the constructor; of a ring of format 1 the public halves are made up for."""
        bare = cls(file, root, stamp)
        if all(entry.public for entry in file.keys if signing(entry.name)):
            return bare
        keys = tuple(
            msgspec.structs.replace(entry, public=public_half(bare._secret(entry.name, entry.version)))
            if signing(entry.name) and not entry.public
            else entry
            for entry in file.keys
        )
        return cls(msgspec.structs.replace(file, keys=keys), root, stamp)

    def followed_by(self, file: RingFile, root: bytes, stamp: tuple[int, ...]) -> Unlocked:
        """The next generation, with what is unwrapped already of keys that are still there."""
        after = Unlocked.of(file, root, stamp)
        alive = {at for at, entry in after._entries.items() if entry.state != "destroyed"}
        after._keys = {at: key for at, key in self._keys.copy().items() if at in alive}
        after._signers = {at: key for at, key in self._signers.copy().items() if at in alive}
        return after

    def versions(self, name: str) -> list[Entry]:
        """All versions of a key, oldest first."""
        return self._versions.get(name, [])

    def newest(self, name: str) -> int:
        """The version for what is new.

        Raises:
            Gone: ``vault.key_destroyed``, all are; NotFound: ``vault.no_such_key``.
        """
        number = self._newest.get(name)
        if number is None:
            if not self.versions(name):
                raise NotFound("vault.no_such_key", "There is no such key; `carelake key list` shows them.")
            raise destroyed(name)
        return number

    def key(self, name: str, version: int | None = None) -> Key:
        """A key; the newest version, unless another one is named.

        Raises:
            Refused: ``vault.key_disabled``; Gone: ``vault.key_destroyed``; Corrupt: ``vault.key_version``.
        """
        number = self.newest(name) if version is None else version
        self._usable(name, number)
        found = self._keys.get((name, number))
        if found is None:
            # A signing key is no AES key; it is made by `signer` and never comes here.
            secret = self._secret(name, number)
            found = self._keys[(name, number)] = Key(name, number, secret, AESGCM(secret))
        return found

    def readable(self, name: str) -> Key:
        """The newest version that may be used, to read; fails as `key` does when there is none.

        That the version in use is held back is no reason not to read what older ones sealed.
        """
        for entry in reversed(self.versions(name)):
            if self.why_not(name, entry.version) is None:
                return self.key(name, entry.version)
        return self.key(name)

    def signer(self, name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
        """The newest private half, and its label."""
        number = self.newest(name)
        self._usable(name, number)
        found = self._signers.get((name, number))
        if found is None:
            found = self._signers[(name, number)] = load_signer(self._secret(name, number))
        return found, f"{name}/v{number}"

    def allow(self, permit: Permit, name: str) -> None:
        """Let pass a permit that the policies of the key and of its account let use it.

        Raises:
            Refused: ``vault.key_policy``.
        """
        if not self.file.policies:
            return
        for each in (name, name.partition("/")[0]):
            policy = self.file.policies.get(each)
            if policy is None:
                continue
            for what, value, allowed in (
                ("action", permit.action, policy.actions),
                ("purpose", permit.purpose, policy.purposes),
                ("principal", permit.principal, policy.principals),
            ):
                if allowed and value not in allowed:
                    raise Refused(
                        "vault.key_policy",
                        f"The policy of the key {each} does not let this {what} use it; "
                        f"`carelake key policy {each}` shows what may.",
                        key=each,
                        bound=what,
                    )

    def why_not(self, name: str, version: int) -> CarelakeError | None:
        """The error of a use of this version, or None when it may be used."""
        if (name, version) not in self._why:
            self._why[(name, version)] = self._reason(name, version)
        return self._why[(name, version)]

    def _usable(self, name: str, version: int) -> None:
        why = self.why_not(name, version)
        if why is not None:
            # A new one each time: an exception that is raised twice would gather tracebacks.
            raise type(why)(why.code, why.message, **why.facts)

    def _reason(self, name: str, version: int) -> CarelakeError | None:
        entry = self._entries.get((name, version))
        if entry is None:
            return Corrupt("vault.key_version", f"The key ring has no version {version} of the key {name}.")
        if entry.state == "destroyed":
            return destroyed(entry.label)
        for held in (name, entry.label):
            error = _held(held, self.file.holds.get(held))
            if error is not None:
                return error
        return None if entry.parent == ROOT else self._reason(entry.parent, entry.parent_version)

    def _secret(self, name: str, version: int) -> bytes:
        return unwrapped(self.file.workspace, self._look, self.root, name, version)

    def _look(self, name: str, version: int) -> Entry | None:
        return self._entries.get((name, version))


def _held(name: str, hold: Hold | None) -> CarelakeError | None:
    if hold is None:
        return None
    if hold.destruction is not None and hold.destruction.confirmed_at:
        return Refused(
            "vault.key_disabled",
            f"The key {name} awaits its destruction on {hold.destruction.due}; `carelake key cancel` keeps it.",
            key=name,
        )
    if hold.disabled_at:
        return Refused(
            "vault.key_disabled",
            f"The key {name} is disabled; `carelake key enable {name}` lets it be used again.",
            key=name,
        )
    return None
