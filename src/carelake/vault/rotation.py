"""Rotation: a new version for what is new; old versions stay, to read. No data is rewritten.

NIST SP 800-57 part 1 section 5.3.5: the time in which a key protects is bounded, the time in which it reads is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select, update

from carelake.core.clock import Clock, instant, iso
from carelake.core.errors import Refused
from carelake.core.permit import Permit, check
from carelake.core.settings import KeysSettings
from carelake.vault.database import Database
from carelake.vault.drafting import Draft
from carelake.vault.key_names import account_of_key, kind_of_key, usable
from carelake.vault.keyring import Key, Keyring
from carelake.vault.ring import ROOT, RingFile
from carelake.vault.tables import patient_key
from carelake.vault.wrapping import bind, unwrap, wrap

__all__ = ["Rotated", "due", "rewrap", "rotate", "rotates_at", "waiting"]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Rotated:
    """Which version a key has now.

    Attributes:
        rewrapped: keys below it that were wrapped anew.
    """

    key: str
    version: int
    rewrapped: int


def rotate(permit: Permit, keyring: Keyring, clock: Clock, name: str, *, below: bool = False) -> list[Rotated]:
    """Give a key its next version; an account's key wraps those below it anew.

    Args:
        below: of an account: the keys below it too, but for those that must not be rotated.

    Raises:
        Refused: the permit has no grant ``keys:write`` in the key's account; ``vault.key_not_rotated``, with the
            reason; ``vault.key_disabled``.
        NotFound: ``vault.no_such_key``.
    """
    check(permit, "keys:write", now=clock.now(), account=account_of_key(name))
    _check_rotates(name)
    done = keyring.change(lambda draft: _rotate(draft, name, below=below))
    for one in done:
        permit.log.key(f"{one.key}/v{one.version}")
    return done


def _rotate(draft: Draft, name: str, *, below: bool) -> list[Rotated]:
    parent = draft.parent(name)
    for each in (name, parent):
        usable(draft.file, each)
    entry = draft.add(name, parent)
    children = draft.children(name)
    draft.rewrap(children)
    done = [Rotated(name, entry.version, len(children))]
    if below and parent == ROOT:
        leaves = [each for each in dict.fromkeys(child.name for child in children) if _refusal(each) is None]
        done += [one for leaf in leaves if _free(draft.file, leaf) for one in _rotate(draft, leaf, below=False)]
    return done


def _free(file: RingFile, name: str) -> bool:
    try:
        usable(file, name)
    except Refused:
        return False
    return True


def _check_rotates(name: str) -> None:
    why = _refusal(name)
    if why is not None:
        raise Refused("vault.key_not_rotated", f"The key {name} is not rotated: {why}", key=name)


def _refusal(name: str) -> str | None:
    kind = kind_of_key(name)
    if kind == ROOT:
        return "a new root key is made by `carelake key root rotate`, or elsewhere by `carelake key root move`."
    if kind == "reference":
        return (
            "every ref of the account's patient data is an HMAC under it, so all refs would change and lineage would "
            "break. It would take a new account, into which the sources are ingested again."
        )
    if kind == "database":
        return (
            "it encrypts every page of the database, which would have to be rewritten while nobody has it open. "
            "Rotate the account and the root above it instead, which wrap it; to have another database key, "
            "restore a backup into a new workspace."
        )
    return None


def rotates_at(file: RingFile, settings: KeysSettings, name: str) -> str | None:
    """When a key is due for rotation by age (FHIR instant); None where it never is."""
    days = settings.max_age(kind_of_key(name))
    if not days or _refusal(name) is not None:
        return None
    created = next((entry.created for entry in file.keys if entry.name == name and entry.state == "active"), "")
    return iso(instant(created) + timedelta(days=days)) if created else None


def due(keyring: Keyring, clock: Clock, settings: KeysSettings) -> list[str]:
    """Names of the keys whose newest version is older than its kind's setting, accounts first."""
    file, now = keyring.current().file, iso(clock.now())
    told = {name: rotates_at(file, settings, name) for name in keyring.names()}
    return sorted(
        (name for name, at in told.items() if at is not None and at <= now), key=lambda n: (n.count("/"), n)
    )


def rewrap(permit: Permit, keyring: Keyring, database: Database, clock: Clock) -> int:
    """Wrap the account's patient keys by the newest wrapping key, a page per transaction; answers how many.

    Old versions of the wrapping key are then needed by nothing but copies. May be stopped and run again.

    Raises:
        Refused: the permit has no grant ``keys:write``.
    """
    account, name = permit.account, f"{permit.account}/patient"
    check(permit, "keys:write", now=clock.now())
    done, after = 0, ("", 0)
    while True:
        with database.writing(permit) as connection:
            above = keyring.use(permit, "keys:write", name)
            rows = list(connection.execute(_others(account, above.version, after)))
            done += _rewrap(keyring, connection, account, above, rows)
            permit.log.count(rewrapped=len(rows))
        if len(rows) < _PAGE:
            return done
        after = (rows[-1].patient, rows[-1].version)


def _others(account: str, version: int, after: tuple[str, int]) -> Select[Any]:
    key = patient_key.c
    return (
        select(patient_key)
        .where(key.account == account, key.parent_version != version)
        .where(or_(key.patient > after[0], and_(key.patient == after[0], key.version > after[1])))
        .order_by(key.patient, key.version)
        .limit(_PAGE)
    )


def _rewrap(keyring: Keyring, connection: Connection, account: str, above: Key, rows: list[Row[Any]]) -> int:
    ring, done = keyring.current(), 0
    for row in rows:
        if ring.why_not(above.name, row.parent_version) is not None:
            continue  # disabled or destroyed: it stays as it is
        old = ring.key(above.name, row.parent_version)
        said = ("carelake-patient-1", ring.file.workspace, account, row.patient, row.version, above.name)
        secret = unwrap(old.secret, row.wrapped, bind(*said, old.version))
        connection.execute(
            update(patient_key)
            .where(patient_key.c.account == account, patient_key.c.patient == row.patient)
            .where(patient_key.c.version == row.version)
            .values(parent_version=above.version, wrapped=wrap(above.secret, secret, bind(*said, above.version)))
        )
        done += 1
    return done


def waiting(database: Database, account: str, version: int) -> int:
    """How many patients' keys of an account are wrapped by another version than this one."""
    query = select(func.count()).select_from(patient_key)
    with database.snapshot() as connection:
        found = connection.execute(
            query.where(patient_key.c.account == account, patient_key.c.parent_version != version)
        )
        return int(found.scalar_one())
