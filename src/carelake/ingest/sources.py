"""Paths to sources: what is read, in which order, and what is left out.

In folders only FHIR JSON by its ending is taken; a file that is named is taken whatever its ending. Symbolic links
are followed only where they stay inside the folder that was named. This is the one module of the room that opens
files: they are the user's, outside the workspace, and are only read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from carelake.core.errors import Invalid

__all__ = ["ENDINGS", "Found", "Source", "expand"]

ENDINGS = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        size: bytes on disk, for progress and for the choice of workers.
    """

    path: Path
    size: int

    @property
    def name(self) -> str:
        """The path as it was given. It may be PHI (a patient's name): encrypted rows only, never a message."""
        # A name that is not UTF-8 must not make the database refuse the row.
        return os.fsencode(self.path).decode("utf-8", "replace")

    @property
    def lines(self) -> bool:
        """Whether its ending says one resource on each line; the content has the last word."""
        return self.path.name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl"))

    def open(self) -> BinaryIO:
        """The bytes as they lie on disk."""
        return open(self.path, "rb", buffering=0)


@dataclass(frozen=True, slots=True)
class Found:
    """Sources in the order in which they are read, each file once, and how many files were left out."""

    sources: tuple[Source, ...]
    skipped: int

    @property
    def size(self) -> int:
        """Bytes on disk of all sources."""
        return sum(source.size for source in self.sources)


def expand(paths: Iterable[Path | str]) -> Found:
    """Files as they are, folders with all that is in them, sorted by path within each.

    Raises:
        Invalid: ``ingest.no_such_path``, ``ingest.not_a_file`` (a device or pipe), ``ingest.nothing`` (no paths).
    """
    taken: dict[Path, Source] = {}
    skipped = 0
    given = [Path(path) for path in paths]
    if not given:
        raise Invalid("ingest.nothing", "Nothing to read; give at least one file or folder.")
    for number, path in enumerate(given, 1):
        state = _state(path, number)
        if stat.S_ISDIR(state.st_mode):
            for file, source in _walk(path):
                skipped += source is None
                if source is not None:
                    taken.setdefault(file.resolve(), source)
        elif stat.S_ISREG(state.st_mode):
            taken.setdefault(path.resolve(), Source(path, state.st_size))
        else:
            raise Invalid("ingest.not_a_file", f"Path number {number} is neither a file nor a folder.")
    return Found(tuple(taken.values()), skipped)


def _state(path: Path, number: int) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError):
        # A loop of links and a name that is too long are told apart from a wrong name by nobody.
        raise Invalid(
            "ingest.no_such_path", f"Path number {number} does not exist or cannot be reached; check its spelling."
        ) from None


def _walk(folder: Path) -> Iterator[tuple[Path, Source | None]]:
    root = folder.resolve()
    files = [Path(at) / name for at, _, names in os.walk(folder, followlinks=False) for name in names]
    for file in sorted(files):
        yield file, _inside(file, root)


def _inside(file: Path, root: Path) -> Source | None:
    if not file.name.lower().endswith(ENDINGS):
        return None
    try:
        state = file.stat()
        inside = file.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return None
    return Source(file, state.st_size) if inside and stat.S_ISREG(state.st_mode) else None
