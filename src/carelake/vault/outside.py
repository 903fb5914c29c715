"""Files outside of the workspace that hold no PHI: anchors of the trail's head, and exports.

An anchor only grows: a folder gets one new file per head, a file one more line. So it can lie where nothing can be
replaced, for example on a WORM share. An export is written into a folder beside its place and renamed when whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from carelake.core.errors import Conflict, Invalid, Unavailable
from carelake.vault.disk import full_disk, private_folder, sync_folder

__all__ = ["Anchor", "ExportFolder", "FileAnchor", "FolderAnchor", "anchor_at", "export_folder"]

_MAX_HEAD = 16 * 1024


class Anchor(Protocol):
    """A place that remembers signed heads and forgets none."""

    def add(self, number: int, head: bytes) -> None:
        """Remember a head; the same one again is no change. `Unavailable` ``vault.anchor`` when it cannot."""
        ...

    def heads(self) -> Iterator[bytes]:
        """All heads, of all copies, in any order. `Unavailable` ``vault.anchor`` when it cannot be read."""
        ...


@dataclass(frozen=True)
class FolderAnchor:
    """One file per head: ``WORKSPACE[.COPY]-000000000012.head``, made once and never replaced."""

    folder: Path
    name: str

    def add(self, number: int, head: bytes) -> None:
        path = self.folder / f"{self.name}-{number:012d}.head"
        with _reachable(self.folder), full_disk():
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                return
            with os.fdopen(handle, "wb") as file:
                file.write(head + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.folder)

    def heads(self) -> Iterator[bytes]:
        with _reachable(self.folder):
            if not self.folder.is_dir():
                raise FileNotFoundError
            workspace = self.name.partition(".")[0]
            found = (self.folder.glob(f"{workspace}{more}-*.head") for more in ("", ".*"))
            for path in sorted(chain.from_iterable(found)):
                with path.open("rb") as file:
                    yield file.read(_MAX_HEAD).rstrip(b"\n")


@dataclass(frozen=True)
class FileAnchor:
    """One file, one line per head, opened for appending only."""

    path: Path

    def add(self, number: int, head: bytes) -> None:
        with _reachable(self.path), full_disk():
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            with os.fdopen(handle, "ab", buffering=0) as file:
                # A line that a full disk cut short must not swallow the next one.
                file.write(b"\n" + head + b"\n")
                os.fsync(file.fileno())

    def heads(self) -> Iterator[bytes]:
        with _reachable(self.path), self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line[:_MAX_HEAD].strip()


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            "vault.anchor",
            f"The anchor of the trail at {path} cannot be used ({error.strerror or type(error).__name__}); "
            "mount it again, or change [audit] anchor.",
        ) from None


def anchor_at(text: str, name: str, *, forbidden: Iterable[Path]) -> Anchor:
    """The anchor of a setting: a folder when it is one or ends with a slash, otherwise a file.

    Args:
        name: of the copy of the workspace, `Settings.copy_name`.

    Raises:
        Invalid: ``vault.anchor_inside``, when it lies in one of ``forbidden``.
    """
    path = Path(text).expanduser().absolute()
    if any(path.resolve().is_relative_to(place.resolve()) for place in forbidden):
        raise Invalid(
            "vault.anchor_inside",
            "[audit] anchor lies inside of the workspace or its key folder, where whoever alters the trail can alter "
            "it too; name a place elsewhere.",
        )
    return FolderAnchor(path, name) if path.is_dir() or text.endswith("/") else FileAnchor(path)


class ExportFolder:
    """A folder that is being written; see `export_folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, chunks: Iterable[bytes]) -> int:
        """One file, streamed and synced; answers its bytes.

        Raises:
            Unavailable: ``vault.disk_full``.
        """
        path, size = self._folder / name, 0
        private_folder(path.parent)
        with full_disk(), path.open("xb") as file:
            for chunk in chunks:
                size += file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o600)
        return size


@contextmanager
def export_folder(path: Path) -> Iterator[ExportFolder]:
    """A new folder at ``path``: there whole after a clean exit, and otherwise not at all.

    Raises:
        Conflict: ``vault.export_exists``, when there is something already, also at the end.
    """
    path = path.expanduser().absolute()
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise Conflict("vault.export_exists", "The folder to export to holds something already; name a new one.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    private_folder(path.parent)
    temporary.mkdir(mode=0o700)
    try:
        yield ExportFolder(temporary)
        sync_folder(temporary)
        try:
            # Over nothing, or over an empty folder; anything else stays as it is.
            os.rename(temporary, path)
        except OSError:
            raise Conflict("vault.export_exists", "Something was put where the export should go.") from None
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
