"""What a restore needs of a workspace that is none yet: its key ring, its tables compared, a place for a drill."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from carelake.core.clock import Clock
from carelake.vault.backup.manifest import Body
from carelake.vault.backup.records import RestoresFile
from carelake.vault.backup.tables import count_rows, digest_rows
from carelake.vault.database import Database
from carelake.vault.disk import private_folder
from carelake.vault.forgotten import Forgotten
from carelake.vault.keyring import Keyring, read_root_settings
from carelake.vault.roots import HeadFile, Roots, wanted_root

__all__ = ["drill_place", "open_ring", "unlike", "wanted_for"]


def open_ring(
    path: Path, workspace: str, *, root_keys: Path, beside: Path, passphrase: str | None, clock: Clock
) -> Keyring:
    """The key ring at ``path``; what the list in ``beside`` tells of destroyed keys is applied to it.

    Args:
        root_keys: folder of the root key, where that is a file. beside: of the list, the head and the records.

    Raises:
        Unavailable: ``vault.root_key_missing``, saying which file or passphrase is wanted.
        Corrupt: ``vault.wrong_key``, ``vault.keyring``, ``vault.forgotten``.
    """
    choose = Roots(workspace, root_keys, passphrase)
    return Keyring.open(path, workspace=workspace, chooser=choose, key_dir=beside, clock=clock)


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
def drill_place(key_dir: Path, workspace: str) -> Iterator[tuple[Path, Path]]:
    """A folder for a drill and one for its head and records, copied; both are removed with all that is in them.

    Sealed files only come to lie there. The root key is not copied.
    """
    with tempfile.TemporaryDirectory(prefix="carelake-drill-") as place:
        folder, heads = Path(place) / "workspace", Path(place) / "heads"
        private_folder(heads)
        forgotten = Forgotten(key_dir, workspace, b"").path
        for path in (HeadFile(key_dir, workspace).path, RestoresFile(key_dir, workspace).path, forgotten):
            if path.exists():
                shutil.copy2(path, heads / path.name)
        yield folder, heads
