"""The recovery kit: the root key in shares, any few of which make it again (SLIP-39, library shamir-mnemonic).

https://github.com/satoshilabs/slips/blob/master/slip-0039.md. A share is 33 words; fewer than the threshold tell
nothing. Which workspace and which root key a kit is for is proven by the key ring, when the kit is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carelake.core.clock import Clock
from carelake.core.errors import Conflict, Corrupt, Invalid, Unavailable
from carelake.core.permit import Permit, check
from carelake.vault.disk import private_folder, write_atomic
from carelake.vault.drafting import Draft
from carelake.vault.keyring import Keyring
from carelake.vault.ring import Kit, check_value, mac_of, read_ring
from carelake.vault.roots import KeyFileRoot

__all__ = ["RecoveryKit", "combine", "make", "restore", "share_text", "words_of", "write_shares"]

_MOST = 16
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RecoveryKit:
    """The shares, each a list of words; shown once, kept nowhere by us."""

    workspace: str
    root_version: int
    threshold: int
    shares: tuple[str, ...] = field(repr=False)


def make(
    permit: Permit,
    keyring: Keyring,
    clock: Clock,
    *,
    shares: int,
    threshold: int,
    keep: Callable[[RecoveryKit], object] = lambda kit: None,
) -> RecoveryKit:
    """Split the root key; any ``threshold`` of the ``shares`` make it again.

    Args:
        keep: hands the shares on, before the ring says that there is a kit; where it fails, none was made.

    Raises:
        Refused: the permit has no grant ``keys:write`` in the account ``security``.
        Invalid: ``vault.kit_shares``: 2 to 16 shares, a threshold of 2 up to their number.
    """
    check(permit, "keys:write", now=clock.now(), account="security")
    if not 2 <= threshold <= shares <= _MOST:
        raise Invalid("vault.kit_shares", f"A kit has 2 to {_MOST} shares, and needs 2 up to all of them.")
    library = _library()

    def edit(draft: Draft) -> RecoveryKit:
        version = draft.file.root.version
        draft.set(kit=Kit(permit.principal, draft.now, shares, threshold, version))
        (group,) = library.generate_mnemonics(1, [(threshold, shares)], draft.root)
        made = RecoveryKit(draft.file.workspace, version, threshold, tuple(group))
        keep(made)
        return made

    kit = keyring.change(edit)
    permit.log.key(f"root/v{kit.root_version}")
    permit.log.count(kits=1, kit_shares=shares, kit_threshold=threshold)
    return kit


def share_text(kit: RecoveryKit, number: int) -> str:
    """One share as a page to print: what it is for, then its words."""
    words = kit.shares[number - 1].split()
    rows = [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
    return "\n".join(
        [
            f"# carelake recovery kit, share {number} of {len(kit.shares)}; any {kit.threshold} make the root key.",
            f"# workspace {kit.workspace}, root key v{kit.root_version}. SLIP-39.",
            "# Keep it apart from the others and from the workspace. carelake key kit restore",
            *rows,
            "",
        ]
    )


def write_shares(kit: RecoveryKit, folder: Path) -> list[Path]:
    """Write each share to a file of its own, mode 0600; all of them or none.

    Raises:
        Conflict: ``vault.kit_exists``, there are shares already.
        Invalid: ``vault.kit_folder``, it cannot be written to. Unavailable: ``vault.disk_full``.
    """
    paths = [folder / f"share-{n}-of-{len(kit.shares)}.txt" for n in range(1, len(kit.shares) + 1)]
    with ExitStack() as undo:
        try:
            private_folder(folder)
            for number, path in enumerate(paths, start=1):
                write_atomic(path, share_text(kit, number).encode(), new=True)
                undo.callback(path.unlink, missing_ok=True)
        except FileExistsError:
            raise Conflict(
                "vault.kit_exists", "There are shares of a kit in that folder already; name another one."
            ) from None
        except OSError:
            raise Invalid(
                "vault.kit_folder", "The shares cannot be written to that folder; name another one."
            ) from None
        undo.pop_all()
    return paths


def words_of(path: Path) -> str:
    """The words of a share's file; lines that begin with ``#`` are for people."""
    try:
        text = path.read_bytes()[:_MAX_BYTES].decode()
    except (OSError, UnicodeDecodeError):
        raise Invalid("vault.kit_share", f"{path.name} cannot be read as a share; expected a text file.") from None
    return " ".join(line.strip() for line in text.splitlines() if not line.startswith("#")).strip()


def combine(shares: Sequence[str]) -> bytes:
    """The root key out of enough shares.

    Raises:
        Invalid: ``vault.kit_share``: too few, mistyped, or of different kits.
    """
    library = _library()
    told = [" ".join(share.lower().split()) for share in shares if share.strip()]
    try:
        parsed = [library.Share.from_mnemonic(words) for words in told]
    except (library.MnemonicError, ValueError):
        good = [_parses(library, words) for words in told]
        which = ", ".join(str(at) for at, fine in enumerate(good, start=1) if not fine)
        raise Invalid(
            "vault.kit_share",
            f"Share {which} of those given is not one: a word is wrong or missing; look at it again.",
        ) from None
    if len({(share.identifier, share.extendable) for share in parsed}) > 1:
        raise Invalid("vault.kit_share", "These shares are of different kits; take those of one.")
    need = parsed[0].member_threshold if parsed else 0
    indexes = {share.index: words for share, words in zip(parsed, told, strict=True)}
    if not parsed or len(indexes) < need:
        raise Invalid("vault.kit_share", f"{len(indexes)} different shares were given, {need or 'some'} are needed.")
    try:
        secret: bytes = library.combine_mnemonics(list(indexes.values())[:need])
    except (library.MnemonicError, ValueError):
        raise Invalid("vault.kit_share", "These shares do not make one secret; look at each again.") from None
    return secret


def restore(path: Path, *, workspace: str, key_dir: Path, shares: Sequence[str], clock: Clock) -> Path:
    """Make the workspace's root key out of a kit and keep it as a key file; answers where.

    Where the root key came from elsewhere (passphrase, OS keyring, KMS), the key ring names the key file from now on.

    Args:
        path: ``keyring.json``.

    Raises:
        Invalid: as `combine`; Corrupt: ``vault.wrong_key``, the kit is another workspace's or of another root key.
        Conflict: ``vault.root_key_exists``.
    """
    root = combine(shares)
    read = read_ring(path)
    if read.file.workspace != workspace or check_value(root, workspace) != read.file.check:
        raise Corrupt(
            "vault.wrong_key",
            "The kit is not of this workspace's root key: it is another workspace's, or was made before the root key "
            "was changed; take the newest kit.",
        )
    if mac_of(root, read.written) != read.written.mac:
        raise Corrupt("vault.keyring", f"{path.name} was altered after it was written; restore it from a backup.")
    file, version = KeyFileRoot(key_dir, workspace), read.file.root.version
    file.put(root, version)
    if read.file.root.provider != "file":
        _now_a_file(path, workspace, key_dir, root, clock)
    return file.path(version)


def _now_a_file(path: Path, workspace: str, key_dir: Path, root: bytes, clock: Clock) -> None:
    had = KeyFileRoot(key_dir, workspace)
    keyring = Keyring.open(path, workspace=workspace, chooser=lambda _: had, key_dir=key_dir, clock=clock)

    def edit(draft: Draft) -> None:
        settings = draft.file.root
        draft.set(root=type(settings)("file", settings.version, made=settings.made))

    keyring.change(edit)


def _parses(library: Any, words: str) -> bool:
    try:
        library.Share.from_mnemonic(words)
    except (library.MnemonicError, ValueError):
        return False
    return True


def _library() -> Any:
    try:
        import shamir_mnemonic
    except ImportError:
        raise Unavailable(
            "vault.kit_library", "A recovery kit needs the extra: pip install 'carelake[keys]'."
        ) from None
    return shamir_mnemonic
