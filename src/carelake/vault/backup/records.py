"""What is kept beside the root key of a workspace that was restored: the list of its restores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carelake.vault.disk import private_folder, write_atomic
from carelake.vault.roots import HeadFile, outside_name

__all__ = ["Original", "RestoresFile"]

_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class RestoresFile:
    """Signed records, one a line, oldest first; `carelake.audit.restores` writes and reads them."""

    key_dir: Path
    workspace: str
    copy: str = ""

    @property
    def path(self) -> Path:
        """``KEY_DIR/WORKSPACE[.COPY].restores``."""
        return self.key_dir / f"{outside_name(self.workspace, self.copy)}.restores"

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


@dataclass(frozen=True)
class Original:
    """The copy that was backed up, as far as it is known beside the root key; a restore reads that and changes none.

    Attributes:
        copy: its id; "" for a workspace that was never restored.
    """

    key_dir: Path
    workspace: str
    copy: str

    def head(self) -> bytes | None:
        """Its signed head, which may have gone on since the backup."""
        return HeadFile(self.key_dir, self.workspace, self.copy).read()

    def records(self) -> bytes:
        """The records of the restores that it came from."""
        return RestoresFile(self.key_dir, self.workspace, self.copy).read()
