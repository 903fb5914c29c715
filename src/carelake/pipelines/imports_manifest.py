"""What is to be imported: a folder, files, or a manifest that lists files.

Taken are the Parameters of ``$import`` (https://github.com/smart-on-fhir/bulk-import), ``{"input": [{"type",
"url"}]}``, and the manifest that a bulk export gives, deletions included. Files are those beside the manifest: no
address is fetched, and no file outside of its folder is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from carelake.core import canonical
from carelake.core.errors import Invalid, Unsupported
from carelake.ingest.sources import ENDINGS, Found, Source, expand

__all__ = ["MANIFEST", "Inputs", "inputs_of", "read_manifest"]

MANIFEST = "manifest.json"
_MOST_BYTES = 16 << 20
_MODES = {"": "incremental", "incremental": "incremental", "incrementalload": "incremental"}
_MODES |= {"initial": "initial", "initialload": "initial"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files to import, in order.

    Attributes:
        deleted: files of deletions, which come last.
        mode: ``incremental``, or ``initial``: each line is the newest.
        time: the instant of the export whose deletions these are, "" where it is not told.
    """

    found: Found
    deleted: tuple[Source, ...] = ()
    mode: str = "incremental"
    time: str = ""


def inputs_of(path: Path) -> Inputs:
    """What a path means: a folder with a manifest, one without, a manifest, or a file of resources.

    Raises:
        Invalid: ``pipelines.manifest``; as `ingest.sources.expand`. Unsupported: ``pipelines.import_url``.
    """
    manifest = path / MANIFEST if path.is_dir() else path
    if manifest.is_file() and manifest.name.endswith(".json"):
        told = _manifest(manifest)
        if told is not None:
            return read_manifest(told, manifest.parent)
    return Inputs(expand([path]))


def read_manifest(told: Mapping[str, Any], folder: Path) -> Inputs:
    """The files that a manifest lists, all of them below ``folder``."""
    time = told.get("transactionTime", "")
    if told.get("resourceType") == "Parameters":
        told = dict(_plain(told))
    mode = _MODES.get(str(told.get("mode", "")).lower())
    if mode is None:
        raise Invalid("pipelines.manifest", "The mode of an import is InitialLoad or IncrementalLoad.")
    listed = told["output"] if "output" in told else told.get("input")
    if not isinstance(listed, list) or not (listed or "output" in told):
        raise Invalid("pipelines.manifest", "The manifest lists no files; expected input or output.")
    files = tuple(_files(listed, folder))
    return Inputs(Found(files, 0), tuple(_files(told.get("deleted", []), folder)), mode, str(time))


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a file; None where it is one of resources."""
    if path.stat().st_size > _MOST_BYTES:
        return None
    try:
        with Source(path, 0).open() as file:
            told = canonical.load(file.read())
    except Invalid:
        return None  # it is told as what it is when it is read as resources
    if not isinstance(told, dict) or told.get("resourceType", "Parameters") != "Parameters":
        return None
    if "resourceType" in told and not any(one.get("name") == "input" for one in _listed(told.get("parameter"))):
        return None
    return told


def _plain(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Parameters of ``$import`` as the plain form."""
    found: list[dict[str, Any]] = []
    for one in _listed(parameters.get("parameter")):
        if one.get("name") == "input":
            found.append({str(part.get("name")): _value(part) for part in _listed(one.get("part"))})
        elif one.get("name") == "inputFormat":
            if str(_value(one)).strip().lower() not in ("application/fhir+ndjson", "application/ndjson", "ndjson"):
                raise Unsupported("pipelines.import_format", "Only NDJSON is imported: application/fhir+ndjson.")
        else:
            yield str(one.get("name")), _value(one)
    yield "input", found


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _value(part: Mapping[str, Any]) -> Any:
    return next((value for name, value in part.items() if name.startswith("value")), "")


def _files(listed: Any, folder: Path) -> Iterator[Source]:
    for number, one in enumerate(_listed(listed), 1):
        url = one.get("url")
        if not isinstance(url, str) or not url:
            raise Invalid("pipelines.manifest", f"Entry {number} of the manifest has no url.")
        yield _file(url, folder, number)


def _file(url: str, folder: Path, number: int) -> Source:
    try:
        split = urlsplit(url)
    except ValueError:
        split = urlsplit("none:")
    if split.scheme not in ("", "file") or split.netloc not in ("", "localhost"):
        raise Unsupported(
            "pipelines.import_url",
            f"Entry {number} of the manifest is no file, and nothing is fetched: put the file beside the manifest.",
        )
    root = folder.resolve()
    try:
        path = (root / unquote(split.path)).resolve()
        size = path.stat().st_size if path.is_relative_to(root) and path.is_file() else -1
    except (OSError, ValueError):
        size = -1
    if size < 0 or not path.name.lower().endswith(ENDINGS):
        raise Invalid(
            "pipelines.manifest", f"Entry {number} of the manifest names no FHIR file in the manifest's folder."
        )
    return Source(path, size)
