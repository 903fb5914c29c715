"""Resource bodies under their patient's key (decision D4).

Sealed form: format byte ``01``, key version (2 bytes, big-endian), nonce (12), AES-256-GCM ciphertext and tag. The
AAD binds workspace, account, owner and the caller's context, so a body cannot be moved to another resource.

A patient's key is a row of ``patient_key``; it is made in the transaction that first seals under it. If that
transaction rolls back, the key is gone and whatever else was sealed under it is lost: so a key that a write
transaction made or read is that transaction's own until it has committed, and only then joins the cache. The cache
is split by erasure epoch, which every transaction reads first: once a key is erased, by whatever process, no later
transaction finds it in a cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, bindparam, delete, insert, select

from carelake.core.clock import Clock, iso
from carelake.core.errors import CarelakeError, Corrupt, Gone, Invalid, Refused
from carelake.core.permit import Permit, check
from carelake.vault.database import Scope, scope_of
from carelake.vault.forgotten import forgotten_name, raise_epoch
from carelake.vault.keyring import Key, Keyring
from carelake.vault.tables import forgotten_patient, patient_key
from carelake.vault.unlocked import Unlocked
from carelake.vault.wrapping import NONCE_BYTES, TAG_BYTES, bind, new_key, unwrap, wrap

__all__ = ["PageKeys", "Sealer"]

_FORMAT = b"\x01"
_HEAD_BYTES = 3
_OVERHEAD = _HEAD_BYTES + NONCE_BYTES + TAG_BYTES
_MAX_OWNER = 256
_LOOKUP = 500


@dataclass(frozen=True, slots=True)
class _SealKey:
    """One key made ready: what is the same for all that it seals."""

    aead: AESGCM
    bound: bytes
    head: bytes

    def seal(self, context: bytes, data: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self.head + nonce + self.aead.encrypt(nonce, data, self.bound + context)

    def open(self, context: bytes, sealed: bytes) -> bytes:
        cut = _HEAD_BYTES + NONCE_BYTES
        try:
            return self.aead.decrypt(sealed[_HEAD_BYTES:cut], sealed[cut:], self.bound + context)
        except (InvalidTag, ValueError):
            raise _tampered() from None


@dataclass(frozen=True, slots=True)
class _Blocked:
    """A key that is not to be had, since one above it is disabled or destroyed: each use says why."""

    why: CarelakeError

    def seal(self, context: bytes, data: bytes) -> bytes:
        raise self._again()

    def open(self, context: bytes, sealed: bytes) -> bytes:
        raise self._again()

    def _again(self) -> CarelakeError:
        return type(self.why)(self.why.code, self.why.message, **self.why.facts)


_Versions = dict[int, _SealKey | _Blocked]
"""A patient's keys by version; the highest one seals."""


_CacheKey = tuple[int, int, str, str]
"""Generation of the key ring, erasure epoch, account, owner."""


@dataclass(slots=True)
class _Cache:
    """Bounded, in two generations: what is asked for moves to the young one, a full young one ages.

    Every step is one dict operation, so threads need no lock.
    """

    limit: int
    young: dict[_CacheKey, _Versions] = field(default_factory=dict)
    old: dict[_CacheKey, _Versions] = field(default_factory=dict)

    def get(self, key: _CacheKey) -> _Versions | None:
        found = self.young.get(key)
        if found is None:
            found = self.old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: _CacheKey, versions: _Versions) -> None:
        if len(self.young) * 2 >= self.limit:
            self.old, self.young = self.young, {}
        self.young[key] = versions


class Sealer:
    """Seals and opens resource bodies."""

    def __init__(self, keyring: Keyring, workspace: str, clock: Clock, *, cached: int = 100_000) -> None:
        self._keyring = keyring
        self._workspace = workspace
        self._clock = clock
        self._cache = _Cache(cached)
        self._zone_keys: dict[tuple[str, int], _SealKey] = {}

    def seal(self, permit: Permit, tx: Connection, owner: str, context: bytes, data: bytes) -> bytes:
        """Seal ``data`` under the owner's key, making the key in this transaction if there is none.

        Args:
            owner: id of the one patient, or "" for the key of the account's clinical zone.
            context: what the body belongs to, for example type, id and version; the same is needed to open.

        Raises:
            Refused: the permit has no grant ``rows:write``.
        """
        return self.keys_for(permit, tx, (owner,)).seal(owner, context, data)

    def open(self, permit: Permit, tx: Connection, owner: str, context: bytes, sealed: bytes) -> bytes:
        """The data back.

        Raises:
            Refused: the permit has no grant ``rows:read``.
            Gone: ``vault.erased``, the patient's key is no more.
            Corrupt: ``vault.sealed``, altered or sealed for another owner or context.
        """
        return self.keys_for(permit, tx, (owner,), create=False).open(owner, context, sealed)

    def keys_for(self, permit: Permit, tx: Connection, owners: Iterable[str], *, create: bool = True) -> PageKeys:
        """The keys of many owners in few statements, good until the transaction ends.

        Args:
            create: to seal: make the keys that are missing (grant ``rows:write``). Without: to open (``rows:read``).
        """
        account = permit.account
        grant = "rows:write" if create else "rows:read"
        above = self._keyring.use(permit, grant, f"{account}/patient")
        scope = scope_of(tx)
        if create and not scope.writing:
            raise Invalid("vault.read_only", "Sealing may make a key; use Database.transaction, not a reading.")
        keys: dict[str, _Versions] = {}
        missing = []
        for owner in owners:
            if owner in keys:
                continue
            if owner == "":
                keys[owner] = self._zone(permit, grant)
                continue
            found = self._known(scope, account, owner)
            if found is None:
                missing.append(owner)
            else:
                keys[owner] = found
        if missing:
            self._fill(scope, account, above, dict.fromkeys(missing), keys, create=create)
        return PageKeys(scope, scope.generation, keys, create)

    def forget(self, permit: Permit, tx: Connection, owner: str) -> int:
        """Delete the patient's key: every body sealed under it is unreadable from this transaction on.

        Needs the grant ``rows:erase``. Returns the number of keys deleted.

        Raises:
            Unsupported: ``vault.forgotten_full``: what is erased could not be kept from coming back with a backup.
        """
        # Erasing unwraps nothing: it goes on where the key above is disabled or destroyed.
        check(permit, "rows:erase", now=self._clock.now())
        scope = scope_of(tx)
        own = (patient_key.c.account == permit.account, patient_key.c.patient == owner)
        made = tx.scalars(select(patient_key.c.created).where(*own)).all()
        gone = tx.execute(delete(patient_key).where(*own)).rowcount
        raise_epoch(tx)
        # Not before its keys were made, whatever the clock says by now: older copies erase by this time.
        self._note_forgotten(permit, tx, scope, owner, max([iso(self._clock.now()), *made]))
        # From here this transaction reads keys from their table: the new epoch is not real until it has committed.
        scope.epoch = None
        scope.drop_fresh()
        return gone

    def forgotten(self, permit: Permit, tx: Connection, owners: Iterable[str]) -> set[str]:
        """Those of them whose keys were erased, and who have got none since; needs the grant ``rows:read``."""
        check(permit, "rows:read", now=self._clock.now())
        own = forgotten_patient.c.account == permit.account
        names = set(tx.scalars(select(forgotten_patient.c.name).where(own)))
        if not names:
            return set()
        secret = self._keyring.forgotten.secret
        gone = [one for one in set(owners) if forgotten_name(secret, permit.account, one) in names]
        there: set[str] = set()
        for start in range(0, len(gone), _LOOKUP):
            page = {"account": permit.account, "patients": gone[start : start + _LOOKUP]}
            there.update(row.patient for row in tx.execute(_FIND, page))
        return set(gone) - there

    def _note_forgotten(self, permit: Permit, tx: Connection, scope: Scope, owner: str, at: str) -> None:
        # The row goes with the transaction; the list outside follows the commit, at the latest at the next open.
        listed, account = self._keyring.forgotten, permit.account
        # Now: afterwards the keys are gone. No more lines are coming of this transaction than it has hooks.
        listed.check_room(len(scope.after) + 1)
        entry = os.urandom(16).hex()
        name = forgotten_name(listed.secret, account, owner)
        tx.execute(insert(forgotten_patient).values(id=entry, account=account, name=name, at=at))
        scope.after.append(lambda: listed.note_patient(entry, account, name, at))

    def _zone(self, permit: Permit, grant: str) -> _Versions:
        key = self._keyring.use(permit, grant, f"{permit.account}/clinical")
        ring = self._keyring.current()
        found: _Versions = {}
        for version in (entry.version for entry in ring.versions(key.name)):
            why = ring.why_not(key.name, version)
            found[version] = _Blocked(why) if why else self._ready(ring.key(key.name, version), permit.account)
        return found

    def _ready(self, key: Key, account: str) -> _SealKey:
        found = self._zone_keys.get((key.name, key.version))
        if found is None:
            bound = bind("carelake-seal-1", self._workspace, account, "")
            found = self._zone_keys[(key.name, key.version)] = _SealKey(key.aead, bound, _head(key.version))
        return found

    def _known(self, scope: Scope, account: str, owner: str) -> _Versions | None:
        if scope.fresh:
            found: _Versions | None = scope.fresh.get((account, owner))
            if found is not None:
                return found
        # What was unwrapped before a key was disabled or destroyed is not found after it.
        ring = self._keyring.current().file.generation
        return None if scope.epoch is None else self._cache.get((ring, scope.epoch, account, owner))

    def _fill(
        self,
        scope: Scope,
        account: str,
        above: Key,
        owners: dict[str, None],
        keys: dict[str, _Versions],
        *,
        create: bool,
    ) -> None:
        # One ring for all of it: what it let unwrap is cached as its own, also when a newer one comes meanwhile.
        unlocked = self._keyring.current()
        ring = unlocked.file.generation
        found = self._load(scope.connection, account, owners, unlocked)
        if create:
            wanted = {owner: 1 for owner in owners if owner not in found}
            # A patient whose key went with the one above it gets a new one for what is new.
            wanted |= {owner: max(v) + 1 for owner, v in found.items() if _lost(v[max(v)])}
            for owner, made in self._make(scope.connection, account, above, wanted).items():
                found[owner] = found.get(owner, {}) | made
        for owner, versions in found.items():
            keys[owner] = versions
            if not scope.writing and scope.epoch is not None:
                self._cache.put((ring, scope.epoch, account, owner), versions)
        if scope.writing:
            if not scope.fresh:
                scope.after.append(lambda: self._keep(scope, ring))
            scope.fresh.update({(account, owner): versions for owner, versions in found.items()})

    def _keep(self, scope: Scope, ring: int) -> None:
        if scope.epoch is not None:
            for (account, owner), versions in scope.fresh.items():
                self._cache.put((ring, scope.epoch, account, owner), versions)
        scope.fresh.clear()

    def _load(self, tx: Connection, account: str, owners: Iterable[str], ring: Unlocked) -> dict[str, _Versions]:
        out: dict[str, _Versions] = {}
        names = list(owners)
        for start in range(0, len(names), _LOOKUP):
            for row in tx.execute(_FIND, {"account": account, "patients": names[start : start + _LOOKUP]}):
                why = ring.why_not(f"{account}/patient", row.parent_version)
                if why is not None:
                    out.setdefault(row.patient, {})[row.version] = _Blocked(why)
                    continue
                above = ring.key(f"{account}/patient", row.parent_version)
                secret = unwrap(above.secret, row.wrapped, self._wrap_bound(account, row.patient, row.version, above))
                out.setdefault(row.patient, {})[row.version] = self._patient(
                    account, row.patient, row.version, secret
                )
        return out

    def _make(self, tx: Connection, account: str, above: Key, owners: dict[str, int]) -> dict[str, _Versions]:
        out: dict[str, _Versions] = {}
        rows = []
        created = iso(self._clock.now())
        for owner, version in owners.items():
            if len(owner) > _MAX_OWNER:
                raise Invalid("vault.owner", f"An owner's id is longer than {_MAX_OWNER} characters.")
            secret = new_key()
            rows.append(
                {
                    "account": account,
                    "patient": owner,
                    "version": version,
                    "parent_version": above.version,
                    "wrapped": wrap(above.secret, secret, self._wrap_bound(account, owner, version, above)),
                    "created": created,
                }
            )
            out[owner] = {version: self._patient(account, owner, version, secret)}
        if rows:
            tx.execute(insert(patient_key), rows)
        return out

    def _wrap_bound(self, account: str, owner: str, version: int, above: Key) -> bytes:
        return bind("carelake-patient-1", self._workspace, account, owner, version, above.name, above.version)

    def _patient(self, account: str, owner: str, version: int, secret: bytes) -> _SealKey:
        return _SealKey(AESGCM(secret), bind("carelake-seal-1", self._workspace, account, owner), _head(version))


_FIND = select(patient_key).where(
    patient_key.c.account == bindparam("account"), patient_key.c.patient.in_(bindparam("patients", expanding=True))
)


@dataclass(frozen=True, slots=True)
class PageKeys:
    """Keys of a page's owners; checked once, used many times, void when their transaction has ended."""

    _scope: Scope
    _generation: int
    _keys: dict[str, _Versions]
    _sealing: bool

    def seal(self, owner: str, context: bytes, data: bytes) -> bytes:
        """As `Sealer.seal`, for an owner that was asked for."""
        if not self._sealing:
            raise Refused("vault.keys_for_opening", "These keys were asked for to open, not to seal.")
        versions = self._of(owner)
        return versions[max(versions)].seal(context, data)

    def open(self, owner: str, context: bytes, sealed: bytes) -> bytes:
        """As `Sealer.open`, for an owner that was asked for."""
        if self._sealing:
            raise Refused("vault.keys_for_sealing", "These keys were asked for to seal, not to open.")
        if len(sealed) < _OVERHEAD or sealed[:1] != _FORMAT:
            raise _tampered()
        key = self._of(owner).get(int.from_bytes(sealed[1:_HEAD_BYTES], "big"))
        if key is None:
            raise _tampered()
        return key.open(context, sealed)

    def _of(self, owner: str) -> _Versions:
        if self._scope.generation != self._generation:
            raise Invalid(
                "vault.keys_expired", "The transaction that these keys were asked for has ended or undone them."
            )
        versions = self._keys.get(owner)
        if versions is None:
            raise Gone("vault.erased", "The patient's key is gone: the record was erased and cannot be read again.")
        return versions


def _lost(key: _SealKey | _Blocked) -> bool:
    return isinstance(key, _Blocked) and isinstance(key.why, Gone)


def _head(version: int) -> bytes:
    return _FORMAT + version.to_bytes(2, "big")


def _tampered() -> Corrupt:
    return Corrupt(
        "vault.sealed", "A sealed body fails its check: it was altered, or belongs to another record or patient."
    )
