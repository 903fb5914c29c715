"""Cut one file into pieces, as a process of its own: ``python -m carelake.vault.backup.copier FILE OUT BYTES END``.

The live database must not be opened by the process that has it open through SQLite: closing any descriptor of it
drops all POSIX locks that the process holds on it (fcntl(2)). So this child reads it. Each line on standard output
tells of one piece: ``NAME LENGTH NEW``; the last one is ``done``, or ``error REASON``. END is where to stop, 0 for
the end of the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from carelake.core.errors import CarelakeError
from carelake.vault.backup.pieces import Pieces

__all__ = ["main"]

_AHEAD = 8


def main(file: str, out: str, piece_bytes: int, end: int) -> int:
    """Copy; answers the exit code."""
    pieces = Pieces(Path(out))
    try:
        for line in _copied(Path(file), pieces, piece_bytes, end):
            _say(line)
        pieces.settle()
    except BrokenPipeError:
        return 1  # the parent is gone
    except CarelakeError as error:
        _say(f"error {error.code}")
        return 1
    except OSError as error:
        _say(f"error {type(error).__name__}")
        return 1
    _say("done")
    return 0


def _copied(file: Path, pieces: Pieces, piece_bytes: int, end: int) -> Iterator[str]:
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        # Threads: writing a piece waits for the disk, and hashing lets go of the interpreter.
        with ThreadPoolExecutor(2) as pool:
            for datas in _batches(handle, piece_bytes, end or os.fstat(handle).st_size):
                for data, (name, new) in zip(datas, pool.map(pieces.put, datas), strict=True):
                    yield f"{name} {len(data)} {int(new)}"
    finally:
        os.close(handle)


def _batches(handle: int, piece_bytes: int, end: int) -> Iterator[list[bytes]]:
    at, batch = 0, []
    while at < end and (data := os.pread(handle, min(piece_bytes, end - at), at)):
        at += len(data)
        batch.append(data)
        if len(batch) == _AHEAD:
            yield batch
            batch = []
    if batch:
        yield batch


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
