"""Another root key for a workspace: at the same provider (rotation) or another one (a move). No data is rewritten.

The new root key is kept by its provider first; then ``keyring.json`` is replaced, in one step, by one whose account
keys it wraps. Killed before that step, the old root key opens the workspace and the new one is of no use; killed
after it, the new one does. The old ones are kept, since copies of the workspace made before open with them alone,
until they are told to go.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict, Unavailable
from carelake.core.permit import Permit, check
from carelake.vault.drafting import Draft
from carelake.vault.keyring import Keyring
from carelake.vault.roots import Root, RootSettings, other_copies

__all__ = ["Moved", "move"]

_KEEPERS = ("file", "keyring")


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the root key is now.

    Attributes:
        old_kept: the earlier root key is still at its provider: copies made before open with it.
        left: where the earlier ones were to go, those that still open old copies: ``keyring/v2``, ``kms/v3``.
    """

    provider: str
    version: int
    was: str
    old_kept: bool
    left: tuple[str, ...] = ()


def move(permit: Permit, keyring: Keyring, clock: Clock, to: Root, *, keep_old: bool) -> Moved:
    """Give the workspace a new root key, made by ``to``.

    Args:
        keep_old: leave the earlier root keys where they are; else all that the old and the new provider keep go, and
            copies of the workspace made before, backups as well, open with a recovery kit made before only. Not so
            where the root key came of a passphrase or from KMS: what they need to open lies in those copies.

    Raises:
        Refused: the permit has no grant ``keys:write`` in the account ``security``.
        Unavailable, Invalid: as the provider's.
        Conflict: ``vault.root_shared``: another copy of the workspace may open with the earlier root key.
    """
    check(permit, "keys:write", now=clock.now(), account="security")
    before = keyring.current().file.root
    if not keep_old:
        _check_alone(keyring)
    root, settings = to.make(max(1, before.version) + 1, iso(clock.now()), first=False)

    def edit(draft: Draft) -> RootSettings:
        was = draft.file.root
        draft.reroot(root, settings)
        return was

    was = keyring.change(edit)
    gone, left = (0, ()) if keep_old else _forget(keyring, was, settings)
    permit.log.key(f"root/v{settings.version}")
    permit.log.count(roots=1, roots_removed=gone)
    kept = keep_old and was.provider in _KEEPERS
    return Moved(settings.provider, settings.version, was.provider, kept, left)


def _forget(keyring: Keyring, was: RootSettings, now: RootSettings) -> tuple[int, tuple[str, ...]]:
    """Remove every earlier root key at the two providers; answers how many, and what is left elsewhere."""
    gone, left = 0, []
    for name in _KEEPERS:
        provider = keyring.chooser(RootSettings(name))
        if name in (was.provider, now.provider):
            held = provider.held(now.version)
            for version in held:
                provider.remove(version)
            gone += len(held)
            continue
        with suppress(Unavailable):  # there may be no keyring here
            left += [f"{name}/v{version}" for version in provider.held(now.version)]
    if was.provider not in _KEEPERS:
        left.append(f"{was.provider}/v{was.version}")
    return gone, tuple(left)


def _check_alone(keyring: Keyring) -> None:
    listed = keyring.forgotten
    if others := other_copies(listed.key_dir, listed.workspace, listed.copy):
        raise Conflict(
            "vault.root_shared",
            f"Another copy of the workspace is known beside the root key ({', '.join(others)}) and may open with the "
            "earlier root key alone. Keep it, or remove these files first if that copy is gone for good.",
        )
