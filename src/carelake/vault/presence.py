"""Who has the workspace open, so that what a killed process left behind is swept when nobody is writing.

Each process that writes leaves a mark, and takes it away when it closes; a mark without its process means that
there may be orphans. A shared lock on one file tells that somebody is here; only who is alone may sweep.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from carelake.vault.disk import full_disk, sync_folder

__all__ = ["Presence"]


class Presence:
    """One open workspace's part in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._mark = folder / f".open-{secrets.token_hex(8)}"
        self._marked = False

    def alone(self) -> bool:
        """Try to be the only one; until `share`, newcomers wait."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Be here, beside others."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def left_behind(self) -> list[Path]:
        """Marks; when alone, each is of a process that did not close."""
        return list(self._folder.glob(".open-*"))

    def mark(self) -> None:
        """About to write or remove files."""
        if not self._marked:
            with full_disk():
                os.close(os.open(self._mark, os.O_WRONLY | os.O_CREAT, 0o600))
                sync_folder(self._folder)
            self._marked = True

    def leave(self, *, clean: bool) -> None:
        """Close; an unclean leave keeps the mark. Does nothing the second time."""
        if self._lock < 0:
            return
        if clean:
            self._mark.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1
