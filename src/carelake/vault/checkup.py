"""What `carelake doctor` looks at below the gate: machine, files, keys, database, object store. No row is read.

Each check is ``ok``, ``warn`` (works, and should be better) or ``fail`` (does not work, or is not safe), and says
what to do. None of them opens anything that an ordinary command would not open.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from carelake.core.clock import Clock
from carelake.core.errors import CarelakeError, Corrupt, NotFound
from carelake.core.settings import Settings
from carelake.vault.blobs import Blob
from carelake.vault.disk import ABANDONED_SECONDS
from carelake.vault.drivers.choice import blobs_for
from carelake.vault.presence import Presence
from carelake.vault.roots import KeyFileRoot, RootSettings

__all__ = ["Check", "files", "keys", "machine", "objects"]

State = Literal["ok", "warn", "fail"]

_GIB = 1 << 30
_LEAST_FREE, _GOOD_FREE = 100 << 20, 2 * _GIB
_LOOKED_AT = 20_000
_PLAIN = {"carelake.toml", "policies"}
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
    "TIB": 1 << 40,
}


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Attributes:
        do: what to do about it, "" where there is nothing to do.
    """

    check: str
    state: State
    found: str
    do: str = ""

    def as_json(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)


# -- machine -------------------------------------------------------------------------------------------------------


def machine(root: Path, settings: Settings | None) -> Iterator[Check]:
    """Room on the disk, and free memory against what the settings ask for."""
    yield _disk(root)
    free = _free_memory()
    if free is None:
        yield Check("memory", "warn", "free memory cannot be told on this system", "look yourself")
    elif settings is not None:
        asked = _bytes(settings.lake.memory_limit)
        if asked is None:
            yield Check("memory", "fail", "[lake] memory_limit is no size", 'write it as "4GB"')
        elif asked > free:
            yield Check(
                "memory",
                "warn",
                f"[lake] memory_limit is {asked / _GIB:.1f} GiB, free are {free / _GIB:.1f} GiB",
                "lower memory_limit, or free memory: a large query could be killed",
            )
        else:
            yield Check("memory", "ok", f"{free / _GIB:.1f} GiB free")


def _disk(root: Path) -> Check:
    place = next((p for p in (root, *root.parents) if p.is_dir()), Path("/"))
    said = os.statvfs(place)
    free = said.f_bavail * said.f_frsize
    found = f"{free / _GIB:.1f} GiB free"
    if said.f_files and said.f_favail < 1000:
        return Check("disk", "fail", f"{said.f_favail} free inodes", "remove small files, or move the workspace")
    if free < _LEAST_FREE:
        return Check("disk", "fail", found, "free space: writes are about to fail")
    return Check("disk", "ok" if free >= _GOOD_FREE else "warn", found, "" if free >= _GOOD_FREE else "free space")


def _free_memory() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else None


def _bytes(text: str) -> int | None:
    """The size that DuckDB understands by a text such as ``4GB``."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)\s*", text.upper())
    return int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else None


# -- files ---------------------------------------------------------------------------------------------------------


def files(root: Path, key_dir: Path, clock: Clock) -> Iterator[Check]:
    """Permissions of the workspace's files, what killed processes left, and who is here."""
    open_ = [str(path.relative_to(root)) for path in _workspace_files(root) if _open_to_others(path, root)]
    if open_:
        shown = ", ".join(open_[:3])
        yield Check(
            "permissions",
            "fail",
            f"{len(open_)} files or folders are open to other users: {shown}",
            f"chmod -R go-rwx {root}",
        )
    else:
        yield Check("permissions", "ok", "files are their owner's alone")
    yield _others(root)
    old = clock.now().timestamp() - ABANDONED_SECONDS
    left = [path for folder in (root, key_dir) for path in folder.glob(".*.tmp") if _modified(path) < old]
    if left:
        yield Check(
            "leftovers", "warn", f"{len(left)} temporary files of killed processes", "remove the .*.tmp files"
        )
    else:
        yield Check("leftovers", "ok", "no temporary files")


def _workspace_files(root: Path) -> Iterable[Path]:
    yield root
    yield from islice(root.rglob("*"), _LOOKED_AT)


def _open_to_others(path: Path, root: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    allowed = 0o022 if path != root and path.relative_to(root).parts[0] in _PLAIN else 0o077
    return not stat.S_ISLNK(mode) and bool(mode & allowed)


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return float("inf")


def _others(root: Path) -> Check:
    folder = root / "vault"
    if not (folder / ".lock").exists():
        return Check("processes", "warn", "nobody has opened the workspace yet, or its lock file is gone")
    presence = Presence(folder)
    try:
        if not presence.alone():
            return Check("processes", "ok", "another process has the workspace open")
        left = presence.left_behind()
    finally:
        presence.leave(clean=True)
    if left:
        return Check(
            "processes",
            "warn",
            f"{len(left)} processes were killed while they wrote",
            "nothing: the next command removes what they left",
        )
    return Check("processes", "ok", "nobody else is here, no stale marks")


# -- keys -----------------------------------------------------------------------------------------------------


def keys(root: Path, key_dir: Path, settings: Settings, told: RootSettings) -> Iterator[Check]:
    """The root key's file and folder, where it is kept in one."""
    if key_dir.resolve().is_relative_to(root.resolve()):
        yield Check(
            "key folder",
            "fail",
            "the root key lies inside the workspace: a copy of one is a copy of both",
            "move the key folder out, and name it by CARELAKE_KEY_DIR",
        )
    elif not key_dir.is_dir():
        yield Check("key folder", "warn", "it is not there", "name it by CARELAKE_KEY_DIR")
    elif stat.S_IMODE(key_dir.stat().st_mode) & 0o077:
        yield Check("key folder", "fail", "other users may enter it", f"chmod 700 {key_dir}")
    else:
        yield Check("key folder", "ok", "outside the workspace, its owner's alone")
    if told.provider != "file":
        yield Check("root key", "ok", f"provider {told.provider}")
        return
    yield _key_file(KeyFileRoot(key_dir, settings.workspace).path(told.version))


def _key_file(path: Path) -> Check:
    try:
        said = path.stat()
    except FileNotFoundError:
        return Check(
            "root key",
            "fail",
            "its file is missing",
            f"put it back at {path}, or name its folder by CARELAKE_KEY_DIR",
        )
    except OSError:
        return Check("root key", "fail", "its file cannot be looked at", f"let this user read {path.parent}")
    if stat.S_IMODE(said.st_mode) & 0o177:
        return Check("root key", "fail", f"its file has mode {stat.S_IMODE(said.st_mode):04o}", f"chmod 600 {path}")
    if said.st_uid != os.getuid():
        return Check("root key", "warn", "its file belongs to another user", f"chown it: {path}")
    return Check("root key", "ok", "a file of mode 0600")


# -- object store --------------------------------------------------------------------------------------------------


def objects(root: Path, settings: Settings) -> Check:
    """Whether the object store answers: it is asked for an object that is not there."""
    nothing = Blob("security", "audit", "0" * 32)
    driver = settings.objects.driver
    try:
        store: Any = blobs_for(root / "vault", settings)
        store.open(nothing).close()
    except (NotFound, Corrupt):
        return Check("objects", "ok", f"the store {driver} answers")
    except CarelakeError as error:
        return Check("objects", "fail", f"{error.message} [{error.code}]", "see docs/objects.md")
    return Check("objects", "ok", f"the store {driver} answers")
