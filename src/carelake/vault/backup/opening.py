"""What a restore needs of a workspace that is none yet: its key ring, its tables compared, a place for a drill."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from carelake.core.clock import Clock
from carelake.vault.backup.manifest import Body
from carelake.vault.backup.tables import count_rows, digest_rows
from carelake.vault.database import Database
from carelake.vault.disk import private_folder
from carelake.vault.keyring import Keyring, read_root_settings
from carelake.vault.roots import Roots, wanted_root

__all__ = ["drill_place", "open_ring", "unlike", "wanted_for"]


def open_ring(
    path: Path, workspace: str, copy: str, *, root_keys: Path, beside: Path, passphrase: str | None, clock: Clock
) -> Keyring:
    """The key ring at ``path``, with what was destroyed in its workspace since applied to it.

    What the list of the original tells joins that of the copy; the original's stays as it is.

    Args:
        copy: id of the copy that is being made.
        root_keys: folder of the root key, where that is a file, and of the original's list.
        beside: folder of the copy's list, head and records.

    Raises:
        Unavailable: ``vault.root_key_missing``, saying which file or passphrase is wanted.
        Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.forgotten``.
    """
    choose = Roots(workspace, root_keys, passphrase)
    keyring = Keyring.open(path, workspace=workspace, chooser=choose, key_dir=beside, clock=clock, into=copy)
    listed = replace(keyring.forgotten, key_dir=root_keys, copy=keyring.copy)
    keyring.take_over(listed.read())
    return keyring


def wanted_for(root: Path, key_dir: Path, workspace: str) -> str:
    """What must be had to restore a backup of this workspace, in words."""
    return wanted_root(read_root_settings(root / "keyring.json"), key_dir, workspace)


def unlike(database: Database, body: Body, progress: Callable[[str, int, int], None]) -> list[str]:
    """Names of tables whose rows are not those that were backed up. Tells no row, and so takes no permit."""
    total, done = sum(rows for rows, _ in body.tables.values()), 0

    def step(rows: int) -> None:
        nonlocal done
        done += rows
        progress("tables", done, total)

    with database.snapshot() as connection:
        counts = count_rows(connection)
        wrong = {name for name, (rows, _) in body.tables.items() if counts.get(name) != rows}
        digested = [name for name, (_, digest) in body.tables.items() if digest and name in counts]
        found = digest_rows(connection, digested, step)
    return sorted(wrong | {name for name, told in found.items() if told != tuple(body.tables[name])})


@contextmanager
def drill_place() -> Iterator[tuple[Path, Path]]:
    """A folder for the copy that a drill makes and one for its head; both are removed with all that is in them.

    Sealed files only come to lie there. The root key is not copied.
    """
    with tempfile.TemporaryDirectory(prefix="carelake-drill-") as place:
        folder, heads = Path(place) / "workspace", Path(place) / "heads"
        private_folder(heads)
        yield folder, heads
