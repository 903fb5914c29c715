"""The folder that an export in parts is written to: files in the clear for the owner alone."""

from __future__ import annotations

from pathlib import Path

from carelake.core.errors import Conflict, Invalid
from carelake.lake.ready.parts import MANIFEST
from carelake.vault.disk import private_folder, write_atomic

__all__ = ["PartsFolder"]

_MAX_SMALL = 256 * 1024 * 1024


class PartsFolder:
    """A folder as `lake.ready.parts.Place`.

    Raises:
        Conflict: ``lake.export_there``, when it holds files that are of no export.
    """

    def __init__(self, folder: Path) -> None:
        private_folder(folder)
        self._folder = folder
        if not (folder / MANIFEST).is_file() and next(folder.iterdir(), None) is not None:
            raise Conflict("lake.export_there", "The folder is not empty; give a new or empty one.")

    def read(self, name: str) -> bytes | None:
        """A small file, or None."""
        path = self._folder / name
        if not path.is_file():
            return None
        if path.stat().st_size > _MAX_SMALL:
            raise Invalid("lake.export_there", "The folder's export.json is too large to be ours; give a new folder.")
        return path.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all, mode 0600."""
        path = self._folder / name
        private_folder(path.parent)
        write_atomic(path, data)
