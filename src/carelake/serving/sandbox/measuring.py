"""What a sandbox is made of, as its launcher sees it: digests of every file that it runs, and the kernel's word.

The process tells which Python modules it loaded; which native code it runs is read from the kernel (``/proc``). The
files are read and digested here. It is measured when everything is loaded and before the walls are up: from then on
the process can load nothing more.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from carelake.core import canonical
from carelake.core.errors import Unavailable
from carelake.vault.attested.document import PCRS, ZERO, measured

__all__ = ["Standing", "measure", "of_model", "standing"]

_OURS = "carelake"
_EXECUTABLE = re.compile(r"^\S+ \S\Sx\S \S+ \S+ [1-9]\d* +(/.+)$", re.MULTILINE)
_WRITTEN = re.compile(r"^\S+ \Swx", re.MULTILINE)
_FIELDS = {"NoNewPrivs": "1", "Seccomp": "2", "TracerPid": "0", "Threads": "1"}
_known: dict[tuple[str | int, ...], str] = {}
_lock = Lock()


class Standing(Exception):
    """The kernel says that a wall is not up; in ``args`` which."""


def measure(pid: int, modules: Mapping[str, str], policy: bytes, model: str, *, debug: bool) -> dict[str, str]:
    """The measurements of a process, by name.

    Args:
        modules: the files of the Python modules that it loaded, by module.
        policy: the walls. model: as `of_model`.
    """
    if debug:
        return dict.fromkeys(PCRS, ZERO)
    ours: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, path in modules.items():
        is_ours = name == "__main__" or name.partition(".")[0] == _OURS
        (ours if is_ours else others)[name] = _digest(path)
    native = sorted({_digest(path) for path in _mapped(pid)})
    runtime = {"modules": others, "native": native, "python": platform.python_version(), "on": platform.machine()}
    return dict(
        zip(
            PCRS,
            (measured(canonical.dump(ours)), measured(canonical.dump(runtime)), measured(policy), model),
            strict=True,
        )
    )


def of_model(ref: str, digests: Mapping[str, str]) -> str:
    """The measurement of a model version: its ref, and the SHA-256 of the files that its risks are made of."""
    return measured(canonical.dump({"model": ref, "files": dict(digests)}))


def standing(pid: int) -> None:
    """Let pass a process of which the kernel says that its walls are up and nobody looks into it.

    Raises:
        Standing
    """
    said = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    wrong = [name for name, wanted in _FIELDS.items() if said.get(name, "").strip() != wanted]
    if wrong:
        raise Standing(*wrong)


def _mapped(pid: int) -> set[str]:
    maps = _read(f"/proc/{pid}/maps")
    if _WRITTEN.search(maps):  # code that could become another after it was measured
        raise Unavailable("serving.sandbox_start", "The sandbox has memory that can be both written to and run.")
    return set(_EXECUTABLE.findall(maps))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        raise Unavailable("serving.sandbox_start", "The sandbox ended before it could be measured.") from None


def _digest(path: str) -> str:
    """SHA-256 of a file; of one that has not changed since, from memory."""
    try:
        found = os.stat(path)
        # Of its times one can be set at will, the other not.
        key = (path, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        with _lock:
            known = _known.get(key)
        if known is None:
            with Path(path).open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            with _lock:
                _known[key] = known
    except OSError:
        raise Unavailable("serving.sandbox_start", "A file of the sandbox cannot be measured.") from None
    return known
