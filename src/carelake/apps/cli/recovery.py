"""``key root ...`` and ``key kit ...``: another root key, and the shares that make it again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.wiring import key_folder, read_settings
from carelake.core.clock import SystemClock
from carelake.core.errors import Invalid
from carelake.vault import recovery, reroot
from carelake.vault.roots import PassphraseRoot, Root, Roots

__all__ = ["make_kit", "move", "restore_kit"]

_MAX_INPUT = 1 << 20


def move(session: Session, *, json_out: bool, to: str | None, kms_key: str | None, forget_old: bool) -> None:
    """Make a new root key."""
    vault = session.workspace.vault
    caller = replace(session.caller(), account="security")
    with session.workspace.enter(caller, "key:manage", "keys", job=True) as permit:
        before = vault.keyring.current().file.root
        name = to or before.provider
        if kms_key is None and before.kms is not None and name == "kms":
            kms_key = before.kms.key
        provider = _provider(vault.settings.workspace, name, kms_key)
        done = reroot.move(permit, vault.keyring, vault.clock, provider, keep_old=not forget_old)
    if json_out:
        answer(asdict(done))
        return
    note(f"The root key is version {done.version}, from: {done.provider}. A recovery kit made before is void.")
    if done.old_kept:
        note("The old root key is still in its place: copies and backups made before open with it alone.")
    if done.left:
        note(f"Earlier root keys that still open old copies: {', '.join(done.left)}.")


def _provider(workspace: str, name: str, kms_key: str | None) -> Root:
    if name == "passphrase":
        if not os.environ.get("CARELAKE_NEW_PASSPHRASE"):
            raise Invalid("apps.new_passphrase", "Set CARELAKE_NEW_PASSPHRASE to the passphrase that is to be used.")
        return PassphraseRoot(os.environ["CARELAKE_NEW_PASSPHRASE"], "CARELAKE_NEW_PASSPHRASE")
    return Roots(workspace, key_folder(os.environ), None).named(name, kms_key=kms_key)


def make_kit(session: Session, *, json_out: bool, shares: int, threshold: int, out: Path | None) -> None:
    """Split the root key; the shares are shown once and kept nowhere."""
    vault = session.workspace.vault
    if out is not None and out.resolve().is_relative_to(vault.root.resolve()):
        raise Invalid("apps.kit_inside", "The shares must not lie inside the workspace; name a folder outside it.")
    caller = replace(session.caller(), account="security")
    with session.workspace.enter(caller, "key:manage", "keys", job=True) as permit:
        files: list[str] = []

        def keep(kit: recovery.RecoveryKit) -> None:
            if out is not None:
                files.extend(map(str, recovery.write_shares(kit, out)))

        kit = recovery.make(permit, vault.keyring, vault.clock, shares=shares, threshold=threshold, keep=keep)
    said = {"workspace": kit.workspace, "root_version": kit.root_version, "shares": shares, "threshold": threshold}
    if json_out:
        answer({**said, "files": files} if files else {**said, "words": list(kit.shares)})
        return
    if not files:
        sys.stdout.write("\n".join(recovery.share_text(kit, n) for n in range(1, shares + 1)))
    note(f"Any {threshold} of the {shares} shares make the root key. Give each to somebody else; none is kept here.")


def restore_kit(options: Options, *, json_out: bool, files: Sequence[Path]) -> None:
    """Make the root key file again. No gate: there is none without a root key, and the shares are the right."""
    root = Session.root(options)
    settings = read_settings(root, os.environ)
    told = [recovery.words_of(path) for path in files] or _typed()
    path = recovery.restore(
        root / "keyring.json",
        workspace=settings.workspace,
        key_dir=key_folder(os.environ),
        shares=told,
        clock=SystemClock(),
    )
    if json_out:
        answer({"workspace": settings.workspace, "root_key": str(path)})
    else:
        note(f"The root key is at {path}.")


def _typed() -> list[str]:
    """Shares from standard input: one a paragraph; lines that begin with # do not count."""
    text = sys.stdin.read(_MAX_INPUT)
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    paragraphs = "\n".join(lines).split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]
