"""``validate``: files against FHIR R4 and profiles, without a workspace."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from carelake.apps.cli.session import Options, answer, existing, note
from carelake.apps.cli.tables import plain, progress
from carelake.core.errors import Invalid
from carelake.core.settings import MIB
from carelake.fhir.issues import Issue
from carelake.fhir.profiles.packages import MAX_PACKAGE, load
from carelake.fhir.profiles.registry import Registry, shipped
from carelake.fhir.validate import LEVELS, Mode, in_text, readable
from carelake.fhir.validate import validate as issues_of

__all__ = ["validate"]

_INVALID = 2
_MAX_BYTES = 256 * MIB
_LONG = 2 * MIB
_LINES = (".ndjson", ".jsonl")
_KNOWN = (".json", *_LINES)


@dataclass
class _Found:
    """What was found so far; issues only up to a limit."""

    limit: int
    files: int = 0
    resources: int = 0
    invalid: int = 0
    severities: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, line: int, issues: list[Issue]) -> None:
        """Issues of one resource whose text begins at a line of a file, 0 for the first."""
        self.resources += 1
        self.invalid += any(issue.bad for issue in issues)
        self.severities.update(issue.severity for issue in issues)
        for issue in issues[: self.limit - len(self.rows)]:
            self.rows.append(
                {
                    "file": name,
                    "line": issue.line + line,
                    "column": issue.column,
                    "severity": issue.severity,
                    "code": issue.code,
                    "expression": issue.expression,
                    "message": issue.message,
                }
            )


def validate(
    options: Options,
    *,
    json_out: bool,
    paths: list[Path],
    profile: str | None,
    package: list[Path],
    level: str,
    limit: int,
) -> int:
    """Validate every resource of the files; 2 when one is invalid.

    Raises:
        Invalid: ``apps.validate``, ``apps.no_such_path``, ``fhir.package``. NotFound: ``fhir.profile``.
    """
    asked = _Asked.of(profile, package, level)
    files = list(dict.fromkeys(_files(paths)))
    if not files:
        raise Invalid("apps.validate", "There is no .json or .ndjson file there, compressed (.gz) or not.")
    found = _Found(limit)
    total = sum(file.stat().st_size for file in files)
    with progress() if total > _LONG else nullcontext() as bars:
        task = bars.add_task("Files validated", total=len(files)) if bars else None
        for file in files:
            name = plain(str(file)).replace("\n", "\\n")
            for line, data in _texts(file):
                found.add(name, line, [data] if isinstance(data, Issue) else asked.issues(data))
                if bars and task is not None and found.resources % 100 == 0:
                    bars.update(task, description=f"Files validated, {found.resources:,} resources")
            found.files += 1
            if bars and task is not None:
                bars.advance(task)
    if profile and not asked.applied:
        raise Invalid("apps.validate", f"The profile is of {asked.kind}, and there is no such resource in the files.")
    _tell(found, json_out)
    return _INVALID if found.invalid else 0


@dataclass(slots=True)
class _Asked:
    """What is asked of each resource; ``applied`` counts those of the profile's type."""

    level: Mode
    profile: str | None
    kind: str
    registry: Registry | None
    applied: int = 0

    @classmethod
    def of(cls, profile: str | None, packages: list[Path], level: str) -> _Asked:
        """What the options ask for; wrong ones are told before anything is read."""
        wanted = next((one for one in LEVELS if one == level), None)
        if wanted is None:
            raise Invalid("apps.validate", f"The level is one of {', '.join(LEVELS)}.")
        if wanted != "strict" and (profile or packages):
            raise Invalid("apps.validate", "Profiles are a matter of the level strict; leave --level out.")
        registry = None
        for file in packages:
            registry = load(_bytes(existing(file)), registry or shipped())
        kind = (registry or shipped()).profile(profile).type if profile else ""
        return cls(wanted, profile, kind, registry)

    def issues(self, data: bytes) -> list[Issue]:
        """Of one resource's text. The profile is asked of resources of its type."""
        resource = readable(data)
        if isinstance(resource, Issue):
            return [resource]
        applies = isinstance(resource, dict) and resource.get("resourceType") == self.kind
        self.applied += applies
        found = issues_of(resource, self.profile if applies else None, mode=self.level, registry=self.registry)
        return in_text(data, resource, found)


def _bytes(file: Path) -> bytes:
    if file.stat().st_size > MAX_PACKAGE:
        raise Invalid("fhir.package", f"The FHIR package is larger than {MAX_PACKAGE // MIB} MiB; it was not read.")
    return file.read_bytes()


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if existing(path).is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and _bare(p).endswith(_KNOWN))
        else:
            yield path


def _bare(file: Path) -> str:
    return file.name.lower().removesuffix(".gz")


def _texts(file: Path) -> Iterator[tuple[int, bytes | Issue]]:
    """The texts of resources, each with how many lines stand before it; what cannot be read on ends with an issue."""
    number = 0
    try:
        with _open(file) as stream:
            if not _bare(file).endswith(_LINES):
                yield 0, _limited(stream.read(_MAX_BYTES + 1))
                return
            while line := _limited(stream.readline(_MAX_BYTES + 1)):
                if line.strip():
                    yield number, line
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield number, _unread("The file is not the gzip that its name says, or a part of it is missing.")
    except OSError:
        yield number, _unread("The file cannot be read; check that it is there, and its permissions.")
    except Invalid as error:
        yield number, _unread(error.message)


def _unread(why: str) -> Issue:
    return Issue("fatal", "structure", "", why, 1, 1)


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file)) if file.name.lower().endswith(".gz") else file.open("rb")


def _limited(data: bytes) -> bytes:
    if len(data) > _MAX_BYTES:
        raise Invalid("apps.validate", f"A document or line is longer than {_MAX_BYTES // MIB} MiB.")
    return data


def _tell(found: _Found, json_out: bool) -> None:
    listed = sum(found.severities.values())
    if json_out:
        answer(
            {
                "files": found.files,
                "resources": found.resources,
                "invalid": found.invalid,
                "counts": {name: found.severities[name] for name in ("fatal", "error", "warning", "information")},
                "issues": found.rows,
                "complete": listed == len(found.rows),
            }
        )
        return
    for row in found.rows:
        # As compilers have it, a line each: editors jump to it, and no table folds a long path.
        where = f"{row['file']}:{row['line']}:{row['column']}"
        sys.stdout.write(f"{where}: {row['severity']}: {row['expression'] or '(all of it)'}: {row['message']}\n")
    if listed > len(found.rows):
        note(f"{listed - len(found.rows):,} more issues are not listed; see --limit.")
    wrong = f"{found.invalid:,} invalid" if found.invalid else "all valid"
    note(f"{found.resources:,} resources in {found.files:,} files: {wrong}.")
