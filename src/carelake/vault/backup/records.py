"""What is kept beside the root key of a workspace that was restored: the list of its restores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carelake.vault.disk import private_folder, write_atomic
from carelake.vault.roots import check_workspace_id

__all__ = ["RestoresFile"]

_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class RestoresFile:
    """Signed records, one a line, oldest first; `carelake.audit.restores` writes and reads them."""

    key_dir: Path
    workspace: str

    @property
    def path(self) -> Path:
        """``KEY_DIR/WORKSPACE.restores``."""
        return self.key_dir / f"{check_workspace_id(self.workspace)}.restores"

    def read(self) -> bytes:
        """All records, empty when there are none."""
        try:
            with self.path.open("rb") as file:
                return file.read(_MAX_BYTES)
        except FileNotFoundError:
            return b""

    def write(self, data: bytes) -> None:
        """Replace the file, atomically."""
        private_folder(self.key_dir)
        write_atomic(self.path, data)
