"""``vault://ZONE/NAME`` for fsspec: the one seam through which pyarrow, pyiceberg and DuckDB touch encrypted files.

One object per permit; fsspec's instance cache is off, so a filesystem cannot outlive or change hands with its permit
(decision D2). Folders are not stored: a name with slashes is in them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import fsspec

from carelake.core.clock import instant
from carelake.core.errors import NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.vault.objects import Objects, ObjectVersion

__all__ = ["VaultFileSystem"]

Info = dict[str, Any]


class VaultFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """The zones of one account as far as one permit opens them."""

    protocol = "vault"
    cachable = False
    root_marker = ""

    def __init__(self, objects: Objects, permit: Permit) -> None:
        super().__init__(skip_instance_cache=True)
        self._objects = objects
        self._permit = permit

    def __reduce__(self) -> Any:
        raise TypeError("a vault filesystem holds a permit and is not carried to another process")

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **_: Any) -> io.IOBase:
        zone, name = self._split(path)
        if mode == "rb":
            try:
                return self._objects.open(self._permit, zone, name)
            except NotFound as error:
                raise FileNotFoundError(error.message) from None
        if mode in ("wb", "xb"):
            if mode == "xb" and self.exists(path):
                raise FileExistsError("The object is there already.")
            return self._objects.create(self._permit, zone, name, if_none_match=mode == "xb")
        raise Unsupported("vault.mode", f"Objects are written whole: mode {mode} is not offered, only rb, wb and xb.")

    def info(self, path: str, **_: Any) -> Info:
        """Size, type and creation time of an object, or of a folder of objects.

        Raises:
            FileNotFoundError: neither is there.
        """
        zone, name = self._split(path)
        if name:
            try:
                return _file(self._objects.stat(self._permit, zone, name))
            except NotFound:
                pass
            if not self._objects.any(self._permit, zone, name + "/"):
                raise FileNotFoundError("There is no such object or folder.")
        return _folder(f"{zone}/{name}" if name else zone)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Objects and folders directly below a path."""
        zone, name = self._split(path)
        prefix = name + "/" if name else ""
        found: dict[str, Info] = {}
        for version in self._objects.list(self._permit, zone, prefix):
            first, slash, _rest = version.name[len(prefix) :].partition("/")
            full = f"{zone}/{prefix}{first}"
            found.setdefault(full, _folder(full) if slash else _file(version))
        if not found and name:
            found = {f"{zone}/{name}": self.info(path)}
        return list(found.values()) if detail else sorted(found)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> list[str] | dict[str, Info]:
        """Every object below a path, in one query."""
        if maxdepth is not None or withdirs:
            deep: list[str] | dict[str, Info] = super().find(path, maxdepth, withdirs, detail=detail)
            return deep
        zone, name = self._split(path)
        found = {info["name"]: info for info in self._below(zone, name)}
        return found if detail else sorted(found)

    def _below(self, zone: str, name: str) -> Iterator[Info]:
        for version in self._objects.list(self._permit, zone, name):
            if not name or version.name == name or version.name.startswith(name + "/"):
                yield _file(version)

    def created(self, path: str) -> datetime:
        """When the object was written."""
        return instant(self.info(path)["created"])

    modified = created

    def rm_file(self, path: str) -> None:
        """Delete one object: in the lake with its bytes, elsewhere by a delete marker."""
        zone, name = self._split(path)
        try:
            self._objects.remove(self._permit, zone, name)
        except NotFound as error:
            raise FileNotFoundError(error.message) from None

    _rm = rm_file

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete objects, or with ``recursive`` all that lie below a folder."""
        for each in [path] if isinstance(path, str) else path:
            for name in self.find(each, maxdepth) if recursive else [each]:
                self.rm_file(name)

    def exists(self, path: str, **_: Any) -> bool:
        """Is there such an object or folder? A refusal is raised, not answered with no, as fsspec would."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        """Is there such an object? See `exists`."""
        try:
            return bool(self.info(path)["type"] == "file")
        except FileNotFoundError:
            return False

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy one object: decrypted and encrypted anew, since its bytes are bound to their place."""
        with self._open(path1) as source, self._open(path2, "wb") as target:
            while piece := source.read(4 << 20):
                target.write(piece)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing to do: folders are not stored."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing to do: folders are not stored."""

    def rmdir(self, path: str) -> None:
        """Nothing to do: folders are not stored."""

    def invalidate_cache(self, path: str | None = None) -> None:
        """Nothing to do: nothing is cached."""

    def _split(self, path: str) -> tuple[str, str]:
        zone, _, name = self._strip_protocol(path).partition("/")
        return zone, name


def _file(version: ObjectVersion) -> Info:
    return {
        "name": f"{version.zone}/{version.name}",
        "size": version.size,
        "type": "file",
        "created": version.created,
        "mtime": instant(version.created),
        "version": version.version,
        "sha256": version.sha256,
    }


def _folder(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}
