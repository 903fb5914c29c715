"""Which code makes a job's result: a digest of its modules, of all of ours that they import, and of the libraries.

Rooms that carry bytes and keep rights do not make results; a change in them leaves the digest as it is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["code_of"]

_PLUMBING = ("access", "apps", "audit", "core", "events", "pipelines.definition", "pipelines.execution", "vault")
_MORE = ("pipelines.platform", "pipelines.tables", "store", "ingest")
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([^\n]+))", re.MULTILINE
)
_NAMED = re.compile(r"(\w+)(?:[ \t]+as[ \t]+\w+)?")
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}


@cache
def code_of(module: str) -> str:
    """The digest of the code of a module's functions, in hex."""
    found: dict[str, str] = {}
    libraries: set[str] = set()
    ahead = [module]
    own = importlib.util.find_spec(module.partition(".")[0])
    root = Path(own.origin).parent if own is not None and own.origin else Path()
    while ahead:
        name = ahead.pop()
        path = None if name in found else _source(name, root)
        if path is None:
            continue
        data = path.read_bytes()
        found[name] = hashlib.sha256(data).hexdigest()
        for other in _imports(data.decode()):
            if other.partition(".")[0] != module.partition(".")[0]:
                libraries.add(other.partition(".")[0])
            elif not _carries(other):
                ahead.append(other)
    said = hashlib.sha256(f"python {platform.python_version()}".encode())
    for name in sorted(found):
        said.update(f"\n{name} {found[name]}".encode())
    for name in sorted(libraries - set(sys.stdlib_module_names)):
        said.update(f"\n{name} {_version(name)}".encode())
    return said.hexdigest()


def _carries(name: str) -> bool:
    inner = name.partition(".")[2]
    return any(inner == one or inner.startswith(one + ".") for one in (*_PLUMBING, *_MORE))


def _source(name: str, root: Path) -> Path | None:
    inner = root.joinpath(*name.split(".")[1:])
    return next((one for one in (inner.with_suffix(".py"), inner / "__init__.py") if one.is_file()), None)


def _imports(text: str) -> set[str]:
    """Modules that a source imports, anywhere in it; ``from A import B`` may mean A.B."""
    found: set[str] = set()
    for one in _IMPORT.finditer(text):
        if one[3]:
            found.update(part.split()[0] for part in one[3].split(",") if part.strip())
        else:
            found.add(one[1])
            found.update(f"{one[1]}.{name}" for name in _NAMED.findall(one[2]))
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(_DISTRIBUTIONS.get(name, name))
    except metadata.PackageNotFoundError:
        return ""
