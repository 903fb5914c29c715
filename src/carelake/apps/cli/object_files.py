"""Files in the clear that go into an object or come out of one: streams, ranges, large uploads, progress."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from carelake.apps.cli.tables import progress
from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.vault.multipart import Part, Upload
from carelake.vault.objects import Objects, ObjectVersion

__all__ = ["clear_file", "copy", "put_large", "put_small", "span_of"]

_BLOCK = 4 << 20
_PART = ".carelake-part"
_QUIET = 32 << 20
_RANGE = re.compile(r"(\d{0,19})-(\d{0,19})")


@contextmanager
def clear_file(name: str, mode: Literal["rb", "wb", "xb"]) -> Iterator[BinaryIO]:
    """A file that the user names, or ``-``. One that is written is there once it is whole, and else nothing is.

    Args:
        mode: ``xb`` never replaces a file, not even one that comes while this one is written.

    Raises:
        Invalid: ``apps.no_such_path``. Conflict: ``apps.file_exists``.
    """
    if name == "-":
        yield sys.stdin.buffer if mode == "rb" else sys.stdout.buffer
    elif mode == "rb":
        with _opening():
            handle = open(name, "rb")  # noqa: SIM115
        with handle as file:
            yield file
    else:
        with _written(Path(name), replace=mode == "wb") as file:
            yield file


@contextmanager
def _written(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    part = path.with_name(f".{secrets.token_hex(6)}.{os.getpid()}{_PART}")
    with _opening():
        if not replace and os.path.lexists(path):  # a link that leads nowhere is there too
            raise FileExistsError
        if path.exists() and not path.is_file():
            raise IsADirectoryError
        _sweep(path.parent)
        handle, named = _unnamed(path.parent), False
        if handle < 0:
            handle, named = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), True
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if not named:
                with _opening():
                    _name(handle, part if replace else path)
        with _opening():
            if replace:
                part.replace(path)
            elif named:
                _move(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _opening() -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise Conflict("apps.file_exists", "The file is there already; name another one, or say --force.") from None
    except OSError:
        raise Invalid("apps.no_such_path", "The file cannot be opened; check the path given.") from None


def _unnamed(folder: Path) -> int:
    """A new file without a name, of which a kill leaves nothing; -1 where the system has none."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return -1
    try:
        return os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o600)
    except OSError:  # the file system has none, or the folder is at fault: then a named one fails as well
        return -1


def _name(handle: int, path: Path) -> None:
    # Only with a folder given does Python call linkat, which alone follows this link.
    os.link(f"/proc/self/fd/{handle}", path, src_dir_fd=handle)


def _move(part: Path, path: Path) -> None:
    """Give a file its name, if no other file has it."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: take the name first
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        part.replace(path)


def _sweep(folder: Path) -> None:
    """Remove what killed processes of this user left in the clear."""
    for left in folder.glob(f".*{_PART}"):
        number = left.name.removesuffix(_PART).rpartition(".")[2]
        with suppress(OSError):
            if number.isdecimal() and left.lstat().st_uid == os.getuid() and not _alive(int(number)):
                left.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def span_of(text: str | None, size: int) -> tuple[int, int]:
    """Start and length of ``FIRST-LAST``, ``FIRST-`` or ``-LENGTH`` (RFC 9110 section 14.1.2, without its unit).

    Raises:
        Invalid: ``apps.range``: not of that form, or nothing of it is in the object.
    """
    if text is None:
        return 0, size
    told = _RANGE.fullmatch(text)
    first, last = (told[1], told[2]) if told else ("", "")
    if first:
        start, end = int(first), min(size, int(last) + 1) if last else size
    else:
        start, end = size - min(size, int(last or 0)), size
    if start >= end:
        raise Invalid("apps.range", "A range is FIRST-LAST, FIRST- or -LENGTH, and within the object.")
    return start, end - start


def copy(source: Any, target: Any, length: int, words: str) -> None:
    """Copy that many bytes, or all there are where ``length`` is negative; with a bar where it takes long."""
    with progress_of(words, length) as done:
        left = length
        while left and (block := source.read(_BLOCK if left < 0 else min(_BLOCK, left))):
            target.write(block)
            left -= len(block) if left > 0 else 0
            done(len(block))
    if left > 0:
        raise _changed()


@contextmanager
def progress_of(words: str, size: int) -> Iterator[Any]:
    """A function to tell of bytes that are done; it shows a bar on a terminal where there are many."""
    if size < _QUIET or not sys.stderr.isatty():
        yield lambda number: None
        return
    with progress() as bars:
        task = bars.add_task(words, total=size)
        yield lambda number: bars.advance(task, number)


def put_small(
    objects: Objects,
    permit: Permit,
    zone: str,
    name: str,
    file: BinaryIO,
    size: int,
    tags: Mapping[str, str],
    where: Mapping[str, Any],
) -> ObjectVersion:
    """Put a stream as one blob."""
    writer = objects.create(permit, zone, name, tags=tags, **where)
    writer.commit_on_close = False
    try:
        copy(file, writer, -1, "Putting")
        return writer.commit()
    finally:
        writer.discard()


def put_large(
    objects: Objects,
    permit: Permit,
    zone: str,
    name: str,
    file: BinaryIO,
    size: int,
    tags: Mapping[str, str],
    where: Mapping[str, Any],
    *,
    resume: bool,
) -> tuple[ObjectVersion, int]:
    """Put a file in parts; the version, and how many parts were there from an earlier attempt.

    A part that is there is taken only if its digest is that of the file's bytes, so a file that has changed since
    goes up as it is now.
    """
    upload = _begin(objects, permit, zone, name, size, tags, resume=resume)
    there = {part.number: part for part in objects.uploads.parts(permit, zone, upload.id)}
    parts, resumed = [], 0
    with progress_of("Putting", size) as done:
        for number, start in enumerate(range(0, size, upload.part_bytes), 1):
            length = min(upload.part_bytes, size - start)
            known = there.get(number)
            if known is not None and known == Part(number, length, _sha256(file, start, length)):
                parts.append(known)
                resumed += 1
                done(length)
                continue
            file.seek(start)
            with objects.uploads.part(permit, zone, upload.id, number) as writer:
                left = length
                while left and (block := file.read(min(_BLOCK, left))):
                    writer.write(block)
                    left -= len(block)
                    done(len(block))
                if left:
                    raise _changed()
                parts.append(writer.commit())
    if file.seek(0, os.SEEK_END) != size:
        raise _changed()
    # An upload that goes on may have been begun with other tags.
    return objects.uploads.complete(permit, zone, upload.id, parts, tags=tags, **where), resumed


def _changed() -> Conflict:
    return Conflict(
        "apps.source_changed",
        "What was copied grew or shrank meanwhile, so nothing was kept; do it again when it rests.",
    )


def _begin(
    objects: Objects, permit: Permit, zone: str, name: str, size: int, tags: Mapping[str, str], *, resume: bool
) -> Upload:
    begun = objects.uploads.list(permit, zone, name)
    if resume and begun and -(-size // begun[-1].part_bytes) <= 10_000:
        return begun[-1]
    if not resume:
        for old in begun:
            objects.uploads.abort(permit, zone, old.id)
    return objects.uploads.begin(permit, zone, name, tags=tags, part_bytes=_part_bytes(objects, size))


def _part_bytes(objects: Objects, size: int) -> int:
    """The setting, or more where the parts would be too many."""
    part: int = objects.uploads.part_bytes
    while -(-size // part) > 10_000:
        part *= 2
    return part


def _sha256(file: BinaryIO, start: int, length: int) -> str:
    file.seek(start)
    digest = hashlib.sha256()
    left = length
    while left and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()
