"""The key ring: root > account > {database, zone, patient-wrapping, reference, signing} keys (decision D1).

``keyring.json`` holds each key wrapped by the one above it, with a version and a state, so that a key can be rotated:
what is sealed names the version it was sealed under. The file as a whole is under a MAC derived from the root key.
Keys are named ``ACCOUNT``, ``ACCOUNT/ZONE``, ``ACCOUNT/reference``, ``ACCOUNT/patient``, ``ACCOUNT/models``...; the
trail says ``production/clinical/v1`` when one was used.

The file is the one truth for all processes: each use looks whether it was replaced (a ``stat``), so a rotation or a
hold in one process is seen by the others at once. A change is made under a lock, and is there whole or not at all.
"""

from __future__ import annotations

import hmac
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, local
from typing import NoReturn, TypeVar

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hmac import HMAC

from carelake.core.clock import Clock, iso
from carelake.core.errors import Corrupt, Invalid
from carelake.core.permit import Permit, check
from carelake.vault.disk import write_atomic
from carelake.vault.drafting import Draft, as_pem, catch_up, signed_by
from carelake.vault.forgotten import Forgotten, RingNote
from carelake.vault.locking import locked
from carelake.vault.places import ACCOUNTS, ZONES, account_of
from carelake.vault.ring import FORMAT, ROOT, Entry, Read, RingFile, check_value, encode, mac_of, read_ring, stamp_of
from carelake.vault.roots import Root, RootSettings
from carelake.vault.unlocked import Key, Unlocked

__all__ = ["APPROVAL", "Key", "Keyring", "Notice", "RootChooser", "genuine", "read_root_settings"]

_NOTED_MAX = 65536
_REFERRED_MAX = 20_000
RootChooser = Callable[[RootSettings], Root]
_Result = TypeVar("_Result")


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
_SIGNERS = {"models": "models:write", "approvals": "models:approve"}

APPROVAL = b"DSSEv1 38 application/vnd.carelake.approval+json "
"""How the signed text of an approval begins: DSSE's encoding of its type."""

_ATTESTED = b"\x84\x6aSignature1"
"""How the signed text of an attestation begins: COSE's structure for one signature (RFC 9052)."""


def read_root_settings(path: Path) -> RootSettings:
    """How the workspace's root key is had, read before it is."""
    return read_ring(path).file.root


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that opening the key ring found or did, for the trail to tell.

    Attributes:
        kind: ``put_back`` (an older file was there), ``destroyed`` (due, or replayed), ``erased_again`` (patients).
    """

    kind: str
    keys: tuple[str, ...] = ()
    generation: int = 0
    newest: int = 0
    count: int = 0


class Keyring:
    """The keys of one open workspace; unwrapped when first used, and kept in memory only."""

    def __init__(
        self, path: Path, chooser: RootChooser, key_dir: Path, clock: Clock, now: Unlocked, copy: str = ""
    ) -> None:
        self._path = path
        self.chooser = chooser
        self._clock = clock
        self._now = now
        self._noted: dict[tuple[bytes, str], None] = {}
        self._begun: dict[tuple[str, str], HMAC] = {}
        self._referred: dict[tuple[str, str, bytes], str] = {}
        self._lock = RLock()
        self._steady = local()
        self.forgotten = Forgotten(key_dir, now.file.workspace, now.key("security/reference", 1).secret, copy)
        self.notices: list[Notice] = []
        _no_core_dumps()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key ring stays in its process")

    @classmethod
    def create(
        cls, path: Path, *, workspace: str, provider: Root, chooser: RootChooser, key_dir: Path, clock: Clock
    ) -> Keyring:
        """Make all keys of a new workspace and write the file."""
        made = iso(clock.now())
        root, settings = provider.make(1, made, first=True)
        draft = Draft(RingFile(FORMAT, workspace, 0, settings, check_value(root, workspace), ()), root, made)
        for name, parent in _plan():
            draft.add(name, parent)
        file = draft.finish()
        write_atomic(path, encode(file))
        return cls(path, chooser, key_dir, clock, Unlocked(file, root, stamp_of(path)))

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        workspace: str,
        chooser: RootChooser,
        key_dir: Path,
        clock: Clock,
        into: str | None = None,
    ) -> Keyring:
        """Read the file and prove that root key, workspace id and file belong together.

        Then what the list outside tells beyond this file is applied: keys destroyed since, and, where an older file
        was put back, what was disabled in the newest one.

        Args:
            into: the copy that is being restored: its list counts, and not that of the copy the file names.

        Raises:
            Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.workspace_mismatch``, ``vault.forgotten``.
            Unavailable: ``vault.root_key_missing``, ``vault.no_workspace``.
        """
        read = read_ring(path)
        if read.file.workspace != workspace:
            raise Corrupt(
                "vault.workspace_mismatch",
                f"The settings are of workspace {workspace}, the key ring is not; they do not belong together.",
            )
        root = chooser(read.file.root).fetch(read.file.root)
        now = _unlocked(read, root, path.name)
        ring = cls(path, chooser, key_dir, clock, now, read.file.copy_id if into is None else into)
        ring._catch_up()
        return ring

    @property
    def copy(self) -> str:
        """Which copy of the workspace the file is of; "" for the original."""
        return self.current().file.copy_id

    def take_over(self, listed: bytes) -> None:
        """Join what another copy's list tells of what was destroyed and disabled, and apply it."""
        if self.forgotten.merge(listed):
            self._catch_up()

    def become(self, copy: str) -> None:
        """From here on the file is that copy's."""
        self.change(lambda draft: draft.set(copy=copy or msgspec.UNSET))

    # -- inside the room ------------------------------------------------------------------------------------------

    def use(self, permit: Permit, grant: str, name: str, version: int | None = None) -> Key:
        """A key by name, for a permit with ``grant``; the use is noted once for the permit's act.

        Raises:
            Refused: the permit lacks the grant; ``vault.key_disabled``, ``vault.key_policy``.
            Gone: ``vault.key_destroyed``.
        """
        check(permit, grant, now=self._clock.now())
        ring = self.current()
        ring.allow(permit, name)
        key = ring.readable(name) if version is None and not grant.endswith(":write") else ring.key(name, version)
        self._note(permit, key.label)
        return key

    def inner(self, name: str, version: int | None = None) -> Key:
        """A key by name, for modules of this room that have checked the permit."""
        return self.current().key(name, version)

    def versions(self, name: str) -> list[Key]:
        """Every version of a key that may be used, for modules of this room that have checked the permit."""
        ring = self.current()
        return [
            ring.key(name, each.version) for each in ring.versions(name) if ring.why_not(name, each.version) is None
        ]

    def database_key(self) -> bytes:
        """The raw key of the SQL database; `workspace` hands it to `database`, no one else asks."""
        return self._now.key("security/database").secret

    def current(self) -> Unlocked:
        """The ring as it is now, whichever process changed it last.

        Raises:
            Corrupt: ``vault.keyring``, ``vault.keyring_put_back``. Unavailable: ``vault.root_key_missing``.
        """
        steady: Unlocked | None = getattr(self._steady, "ring", None)
        if steady is not None:
            return steady
        now = self._now
        try:
            if stamp_of(self._path) == now.stamp:
                return now
        except FileNotFoundError:
            pass
        with self._lock:
            self._now = self._reread()
            return self._now

    @contextmanager
    def steady(self) -> Iterator[None]:
        """All uses of this thread inside the block are of the ring as it is now: for what was waiting already."""
        self._steady.ring = self.current()
        try:
            yield
        finally:
            self._steady.ring = None

    def change(self, edit: Callable[[Draft], _Result]) -> _Result:
        """Make a change on the newest file, one at a time over all processes, whole or not at all; then note it."""
        with self._lock, locked(self._path.parent):
            before = self._now = self._reread()
            draft = Draft(before.file, before.root, iso(self._clock.now()))
            result = edit(draft)
            file = draft.finish()
            write_atomic(self._path, encode(file))
            self._now = before.followed_by(file, draft.root, stamp_of(self._path))
            self._tell_outside()
        return result

    def _reread(self) -> Unlocked:
        read = read_ring(self._path)
        if read.stamp == self._now.stamp:
            return self._now
        before = self._now
        root = before.root
        if read.file.check != before.file.check:
            root = self.chooser(read.file.root).fetch(read.file.root)
        found = _unlocked(read, root, self._path.name)
        told, known = found.file.generation, before.file.generation
        if told < known or (told == known and found.file.mac != before.file.mac):
            raise Corrupt(
                "vault.keyring_put_back",
                f"An older {self._path.name} was put in place of the newer one while the workspace was open; "
                "close it, put the newest one back, and open it again.",
            )
        return before.followed_by(found.file, root, found.stamp)

    def _catch_up(self) -> None:
        lines = self.forgotten.lines()
        rings = [(line.ring, line.id) for line in lines if line.kind == "ring" and line.ring is not None]
        newest = max((ring for ring, _ in reversed(rings)), key=lambda ring: ring.generation, default=None)
        file = self._now.file
        gone = {line.id for line in lines if line.kind == "key"}
        missing = tuple(entry.label for entry in file.keys if entry.mark in gone and entry.state != "destroyed")
        # As new as the newest, but not it: from a copy that was changed elsewhere.
        foreign = (file.generation, file.mac.hex()[:32]) not in {(ring.generation, name) for ring, name in rings}
        older = newest is not None and newest.generation >= file.generation + (not foreign)
        if missing or older:
            self.change(lambda draft: catch_up(draft, missing, newest if older else None))
            if missing:
                self.notices.append(Notice("destroyed", missing))
            if older and newest is not None:
                self.notices.append(Notice("put_back", (), file.generation, newest.generation))
        elif any(entry.state == "destroyed" and entry.mark not in gone for entry in file.keys) or (
            file.generation > (newest.generation if newest else 1)
        ):
            self._tell_outside()

    def _tell_outside(self) -> None:
        file, at = self._now.file, iso(self._clock.now())
        destroyed = [entry.mark for entry in file.keys if entry.state == "destroyed"]
        note = RingNote(file.generation, file.holds, file.policies)
        self.forgotten.note_ring(at, file.mac.hex()[:32], note, destroyed)

    def _note(self, permit: Permit, label: str) -> None:
        once = (permit.seal, label)
        if once not in self._noted:
            if len(self._noted) > _NOTED_MAX:
                self._noted.clear()
            self._noted[once] = None
            permit.log.key(label)

    def take_notices(self) -> list[Notice]:
        """What opening found or did by itself, once; `audit` puts it on the trail."""
        told, self.notices = self.notices, []
        return told

    # -- for all rooms --------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names of all keys, and of the root: no secrets."""
        return [ROOT, *dict.fromkeys(entry.name for entry in self.current().file.keys)]

    def reference(self, permit: Permit, kind: str, content: bytes) -> str:
        """``KIND:HEX64``, an HMAC-SHA256 under the account's reference key (D4); any genuine permit will do."""
        genuine(permit, self._clock)
        key = self._reference_key(permit)
        known = self._referred.get((key.label, kind, content))
        if known is None:
            if len(self._referred) >= _REFERRED_MAX:
                self._referred.clear()
            known = self._referred[(key.label, kind, content)] = f"{kind}:{self._begin(key, kind)(content).hex()}"
        return known

    def referrer(self, permit: Permit, kind: str) -> Callable[[bytes], bytes]:
        """As `reference`, for many in one go: checked once. Answers the bare HMAC; not to be kept beyond the page."""
        genuine(permit, self._clock)
        return self._begin(self._reference_key(permit), kind)

    def _reference_key(self, permit: Permit) -> Key:
        name = f"{permit.account}/reference"
        ring = self.current()
        ring.allow(permit, name)
        key = ring.key(name)
        self._note(permit, key.label)
        return key

    def _begin(self, key: Key, kind: str) -> Callable[[bytes], bytes]:
        # A copy of one that has read the key costs a third of a new one.
        begun = self._begun.get((key.label, kind))
        if begun is None:
            begun = HMAC(key.secret, hashes.SHA256())
            begun.update(kind.encode() + b"\x1f")
            self._begun[(key.label, kind)] = begun

        def mac(content: bytes) -> bytes:
            one = begun.copy()
            one.update(content)
            return one.finalize()

        return mac

    def sign(self, permit: Permit, purpose: str, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 (DER) by the account's key for models.

        Args:
            purpose: ``models`` (needs the grant ``models:write``), or ``approvals`` (needs ``models:approve``): who
                makes models cannot sign that one is let through, nor the other way round.
            data: for ``approvals``, and for nothing else, it begins as `APPROVAL` does.
        """
        grant = _SIGNERS.get(purpose)
        if grant is None or data.startswith(APPROVAL) != (purpose == "approvals"):
            raise Invalid("vault.signing_purpose", "A permit signs for the purposes 'models' and 'approvals' only.")
        check(permit, grant, now=self._clock.now())
        name = _signing_name(permit.account, "models")
        ring = self.current()
        ring.allow(permit, name)
        signer, label = ring.signer(name)
        self._note(permit, label)
        return signer.sign(data, ec.ECDSA(hashes.SHA256()))

    def verify(
        self, data: bytes, signature: bytes, *, account: str, purpose: str, version: int | None = None
    ) -> bool:
        """Was this signed by that account's key for that purpose? Public keys only: takes no permit.

        Every version counts, the newest first: what was signed before a rotation still verifies, also when the
        private half is destroyed.

        Args:
            version: this one only.
        """
        for entry in reversed(self._signing(account, purpose)):
            if version in (None, entry.version) and signed_by(entry.public, data, signature):
                return True
        return False

    def public_key_pem(self, account: str, purpose: str, version: int | None = None) -> bytes:
        """The public half, as SubjectPublicKeyInfo in PEM; of the newest version, unless another one is named."""
        found = {entry.version: entry.public for entry in self._signing(account, purpose)}
        if version is not None and version not in found:
            raise Corrupt("vault.key_version", f"The key ring has no version {version} of that signing key.")
        return as_pem(found[max(found) if version is None else version])

    def public_keys_pem(self, account: str, purpose: str) -> dict[int, bytes]:
        """The public halves of all versions, newest first."""
        return {entry.version: as_pem(entry.public) for entry in reversed(self._signing(account, purpose))}

    def sign_trail(self, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256 (DER) by the trail's key; for `audit` alone."""
        return self.current().signer("security/sign-trail")[0].sign(data, ec.ECDSA(hashes.SHA256()))

    def trail_public_key(self) -> bytes:
        """PEM of the trail's public key, the newest one."""
        return self.public_key_pem("security", "trail")

    def sign_token(self, data: bytes) -> bytes:
        """An ES256 signature as JOSE has it (r and s, 64 bytes; RFC 7518 section 3.4); for `access` alone."""
        signer, _ = self.current().signer("security/sign-tokens")
        r, s = decode_dss_signature(signer.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def token_public_key(self) -> bytes:
        """PEM of the tokens' public key, the newest one."""
        return self.public_key_pem("security", "tokens")

    def token_public_keys(self) -> list[bytes]:
        """PEM of every version that tokens may be signed with, the newest first: not of what is disabled or gone."""
        ring, name = self.current(), "security/sign-tokens"
        fit = [entry for entry in ring.versions(name) if ring.why_not(name, entry.version) is None]
        return [as_pem(entry.public) for entry in reversed(fit)]

    def attester(self, permit: Permit) -> tuple[str, Callable[[bytes], bytes]]:
        """The label of the key that attests sandboxes, and what signs by it; for `vault.attested` alone.

        The key is made when it is first asked for: who has no sandbox has no such key.
        """
        name = "security/sign-attestation"
        if not self.current().versions(name):
            self.change(lambda draft: None if name in draft.names() else draft.add(name, "security"))
        ring = self.current()
        ring.allow(permit, name)
        signer, label = ring.signer(name)
        self._note(permit, label)

        def sign(data: bytes) -> bytes:
            if not data.startswith(_ATTESTED):
                raise Invalid("vault.signing_purpose", "This key signs attestation documents and nothing else.")
            return signer.sign(data, ec.ECDSA(hashes.SHA256()))

        return label, sign

    def attests(self, label: str, data: bytes, signature: bytes) -> bool | None:
        """Did that version of the key sign this? None of a key that there is not, or that is held back."""
        name, _, version = label.rpartition("/v")
        ring = self.current()
        for entry in ring.versions(name) if name == "security/sign-attestation" else ():
            if str(entry.version) == version and ring.why_not(name, entry.version) is None:
                return signed_by(entry.public, data, signature)
        return None

    def _signing(self, account: str, purpose: str) -> list[Entry]:
        return self.current().versions(_signing_name(account, purpose))


def _no_core_dumps() -> None:
    # A crash must not leave this process's memory, and so keys, in a file.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _unlocked(read: Read, root: bytes, name: str) -> Unlocked:
    file = read.file
    if not hmac.compare_digest(check_value(root, file.workspace), file.check):
        raise Corrupt(
            "vault.wrong_key",
            f"The root key is not the one of workspace {file.workspace}; nothing was opened; give the right one.",
        )
    if not hmac.compare_digest(mac_of(root, read.written), read.written.mac):
        raise Corrupt("vault.keyring", f"{name} was altered after it was written; restore it from a backup.")
    return Unlocked.of(file, root, read.stamp)


def _signing_name(account: str, purpose: str) -> str:
    if purpose not in _SIGNING or (purpose != "models" and account != "security"):
        raise Invalid(
            "vault.signing_purpose", "There is no such signing key; expected models, or security's trail, tokens."
        )
    # Its own leaf: the zone `models` has a key of the plain name.
    return f"{account_of(account)}/sign-{purpose}"
