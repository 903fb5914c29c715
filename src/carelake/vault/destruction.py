"""Holding keys back, and destroying them: asked for by one, confirmed by another, done after a waiting period.

A key that is disabled, or whose destruction is confirmed, is used by nobody; both can be undone until the period is
over. Then the wrapped bytes go, and the list outside the workspace tells so for good (`forgotten`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import msgspec

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Refused
from carelake.core.permit import Permit, check
from carelake.vault.drafting import Draft
from carelake.vault.key_names import KEPT, account_of_key, kind_of_key, split, versions_of
from carelake.vault.keyring import Keyring
from carelake.vault.ring import ROOT, Destruction, Entry, Hold, KeyPolicy, RingFile

__all__ = [
    "LEAST_DAYS",
    "MOST_DAYS",
    "Pending",
    "ask",
    "cancel",
    "confirm",
    "destroy_due",
    "disable",
    "enable",
    "pending",
    "set_policy",
    "targets",
]

LEAST_DAYS, MOST_DAYS = 7, 30


@dataclass(frozen=True, slots=True)
class Pending:
    """A destruction that has not happened yet; ``due`` is empty until somebody else has confirmed it."""

    key: str
    asked_by: str
    asked_at: str
    days: int
    confirmed_by: str
    confirmed_at: str
    due: str


def disable(permit: Permit, keyring: Keyring, clock: Clock, key: str) -> None:
    """Let nobody use a key, or one version of it, in any process, until it is enabled.

    Raises:
        Refused: the permit has no grant ``keys:write`` in the key's account; ``vault.key_kept``.
        NotFound: ``vault.no_such_key``.
    """

    def edit(draft: Draft) -> None:
        _alive(draft.file, key)
        hold = draft.file.holds.get(key, Hold())
        _hold(draft, key, msgspec.structs.replace(hold, disabled_by=permit.principal, disabled_at=draft.now))

    _managed(permit, clock, "keys:write", key)
    keyring.change(edit)
    _told(permit, key, disabled=1)


def enable(permit: Permit, keyring: Keyring, clock: Clock, key: str) -> None:
    """Let a disabled key be used again; a destruction that is asked for is not undone by this."""

    def edit(draft: Draft) -> None:
        hold = draft.file.holds.get(key)
        if hold is None or not hold.disabled_at:
            raise Conflict("vault.key_not_disabled", f"The key {key} is not disabled.", key=key)
        _hold(draft, key, msgspec.structs.replace(hold, disabled_by="", disabled_at=""))

    _managed(permit, clock, "keys:write", key)
    keyring.change(edit)
    _told(permit, key, enabled=1)


def set_policy(permit: Permit, keyring: Keyring, clock: Clock, name: str, policy: KeyPolicy) -> None:
    """Bound what may use a key, and those below it, beyond what permits say; an empty policy bounds nothing.

    Raises:
        Refused: the permit has no grant ``keys:write`` in the key's account; ``vault.key_kept``.
        Invalid: ``vault.key_name``: policies are of keys, not of versions.
    """

    def edit(draft: Draft) -> None:
        versions_of(draft.file, name, None)
        others = {key: one for key, one in draft.file.policies.items() if key != name}
        draft.set(policies=others if policy == KeyPolicy() else {**others, name: policy})

    _managed(permit, clock, "keys:write", name)
    if split(name)[1] is not None:
        raise Invalid("vault.key_name", "A policy is of a key, not of one version; leave the version out.")
    keyring.change(edit)
    _told(permit, name, policies=1)


def ask(permit: Permit, keyring: Keyring, clock: Clock, key: str, *, days: int) -> Pending:
    """Ask for a key's destruction, or that of one retired version; somebody else has to confirm it.

    Args:
        days: waiting period after the confirmation, 7 to 30.

    Raises:
        Refused: the permit has no grant ``keys:destroy`` in the key's account; ``vault.key_kept``.
        Invalid: ``vault.key_waiting``. Conflict: ``vault.key_active``, ``vault.key_pending``.
    """

    def edit(draft: Draft) -> Pending:
        _check_destroyable(draft.file, key)
        hold = draft.file.holds.get(key, Hold())
        if hold.destruction is not None:
            raise Conflict("vault.key_pending", f"The destruction of {key} was asked for already.", key=key)
        wanted = Destruction(permit.principal, draft.now, days)
        _hold(draft, key, msgspec.structs.replace(hold, destruction=wanted))
        return _pending(key, wanted)

    _managed(permit, clock, "keys:destroy", key)
    if not LEAST_DAYS <= days <= MOST_DAYS:
        raise Invalid(
            "vault.key_waiting", f"The waiting period is {LEAST_DAYS} to {MOST_DAYS} days; {days} is not in it."
        )
    found = keyring.change(edit)
    _told(permit, key, destructions_asked=1)
    return found


def confirm(permit: Permit, keyring: Keyring, clock: Clock, key: str) -> Pending:
    """Confirm what another principal asked for: from now on nobody uses the key, and the waiting period runs.

    Raises:
        Refused: ``vault.key_two_persons``, the same principal asked for it; no grant ``keys:destroy``.
        Conflict: ``vault.key_not_pending``, ``vault.key_pending``.
    """

    def edit(draft: Draft) -> Pending:
        wanted = _wanted(draft.file, key)
        if wanted.confirmed_at:
            raise Conflict("vault.key_pending", f"The destruction of {key} was confirmed already.", key=key)
        if wanted.asked_by == permit.principal:
            raise Refused(
                "vault.key_two_persons",
                f"The destruction of {key} was asked for by you; another principal has to confirm it.",
                key=key,
            )
        due = iso(clock.now() + timedelta(days=wanted.days))
        marks = tuple(entry.mark for entry in targets(draft.file, key) if entry.state != "destroyed")
        done = msgspec.structs.replace(
            wanted, confirmed_by=permit.principal, confirmed_at=draft.now, due=due, marks=marks
        )
        _hold(draft, key, msgspec.structs.replace(draft.file.holds[key], destruction=done))
        return _pending(key, done)

    _managed(permit, clock, "keys:destroy", key)
    found = keyring.change(edit)
    _told(permit, key, destructions_confirmed=1)
    return found


def cancel(permit: Permit, keyring: Keyring, clock: Clock, key: str) -> None:
    """Call a destruction off; the key is as it was before.

    Raises:
        Refused: no grant ``keys:destroy``; Conflict: ``vault.key_not_pending``.
    """

    def edit(draft: Draft) -> None:
        _wanted(draft.file, key)
        _hold(draft, key, msgspec.structs.replace(draft.file.holds[key], destruction=None))

    _managed(permit, clock, "keys:destroy", key)
    keyring.change(edit)
    _told(permit, key, destructions_cancelled=1)


def pending(file: RingFile) -> list[Pending]:
    """Destructions that were asked for and have not happened, by key."""
    return [_pending(key, hold.destruction) for key, hold in sorted(file.holds.items()) if hold.destruction]


def destroy_due(keyring: Keyring, clock: Clock) -> tuple[str, ...]:
    """Destroy what is confirmed and due; answers the labels. Needs no permit: two principals gave theirs.

    `Vault.open` calls this, and ``carelake key destroy --due``.
    """
    now = iso(clock.now())
    if not any(_is_due(hold, now) for hold in keyring.current().file.holds.values()):
        return ()

    def edit(draft: Draft) -> tuple[str, ...]:
        gone: list[str] = []
        for key in [key for key, hold in draft.file.holds.items() if _is_due(hold, now)]:
            marks = _marks(draft.file.holds[key])
            for entry in _there(draft.file, key):
                if entry.state != "destroyed" and (marks is None or entry.mark in marks):
                    draft.destroy(entry)
                    gone.append(entry.label)
            # An older ring was put back, and lacks some: the newer one must not bring them back.
            for mark in (marks or frozenset()) - {entry.mark for entry in draft.file.keys}:
                keyring.forgotten.note_key(mark, now)
            over = {key, *gone}
            draft.set(holds={name: hold for name, hold in draft.file.holds.items() if name not in over})
        return tuple(gone)

    return keyring.change(edit)


def targets(file: RingFile, key: str) -> list[Entry]:
    """The versions that go with a key: its own, and those of the keys below an account."""
    name, version = split(key)
    own = versions_of(file, name, version)
    if kind_of_key(name) == "account" and version is None:
        own += [entry for entry in file.keys if entry.parent == name]
    return own


def _there(file: RingFile, key: str) -> list[Entry]:
    try:
        return targets(file, key)
    except NotFound:
        return []


def _marks(hold: Hold) -> frozenset[str] | None:
    told = hold.destruction.marks if hold.destruction else ()
    return None if isinstance(told, msgspec.UnsetType) else frozenset(told)


def _is_due(hold: Hold, now: str) -> bool:
    return bool(hold.destruction and hold.destruction.due and hold.destruction.due <= now)


def _check_destroyable(file: RingFile, key: str) -> None:
    name, version = split(key)
    _alive(file, key)
    if kind_of_key(name) == "reference":
        raise Refused("vault.key_kept", f"The key {name} goes with its account only: refs are made by it.", key=key)
    if version is None and name == "security/sign-tokens":
        raise Refused("vault.key_kept", f"The key {name} is in use; rotate it and name a retired version.", key=key)
    if version is not None and versions_of(file, name, version)[0].state == "active":
        raise Conflict(
            "vault.key_active",
            f"{key} is the version in use; rotate the key first, or name the whole key: {name}.",
            key=key,
        )


def _alive(file: RingFile, key: str) -> None:
    name, version = split(key)
    if all(entry.state == "destroyed" for entry in versions_of(file, name, version)):
        raise Conflict("vault.key_is_gone", f"The key {key} was destroyed already.", key=key)


def _managed(permit: Permit, clock: Clock, grant: str, key: str) -> None:
    name, version = split(key) if key != ROOT else (ROOT, None)
    check(permit, grant, now=clock.now(), account=account_of_key(name))
    # A retired version of the trail's signing key may go: its public half stays.
    if name in KEPT and not (version is not None and name == "security/sign-trail"):
        raise Refused(
            "vault.key_kept",
            f"Without the key {name} the workspace does not open, its trail cannot be read, or nobody can be "
            "identified: it is not held back, bounded or destroyed. To end the workspace, destroy its root key.",
            key=key,
        )


def _wanted(file: RingFile, key: str) -> Destruction:
    hold = file.holds.get(key)
    if hold is None or hold.destruction is None:
        raise Conflict("vault.key_not_pending", f"Nobody has asked for the destruction of {key}.", key=key)
    return hold.destruction


def _hold(draft: Draft, key: str, hold: Hold) -> None:
    others = {name: one for name, one in draft.file.holds.items() if name != key}
    draft.set(holds=others if hold == Hold() else {**others, key: hold})


def _pending(key: str, wanted: Destruction) -> Pending:
    return Pending(
        key,
        wanted.asked_by,
        wanted.asked_at,
        wanted.days,
        wanted.confirmed_by,
        wanted.confirmed_at,
        wanted.due,
    )


def _told(permit: Permit, key: str, **counts: int) -> None:
    permit.log.key(key)
    permit.log.count(**counts)
