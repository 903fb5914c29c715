"""Batch transform: a file of rows, page by page, to a file of answers; broken off, it goes on where it was.

Beside the answers lies ``OUT.part`` while it runs: what it is about in its first line, then a line a row. A page is
captured in one transaction before its lines are written, so a row may be asked twice and is never left out; the same
row is the same prediction. Whoever begins again with another file or endpoint is told.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from carelake.apps.cli.session import Session
from carelake.apps.cli.tables import progress
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.serving.predictions import Prediction

__all__ = ["transform"]

_KINDS = (".parquet", ".csv", ".jsonl")
_MIB = 1024 * 1024
# Ids are text: read as numbers, 007 would be the patient 7.
_IDS = pa_csv.ConvertOptions(
    column_types=dict.fromkeys(("subject_id", "encounter_id", "prediction_time"), pa.string())
)


def transform(session: Session, name: str, source: Path, out: Path, page: int) -> dict[str, Any]:
    """Score every row of a file; answers how many, and at which it went on.

    Raises:
        Invalid: ``apps.transform``. Conflict: ``apps.transform_other``.
    """
    if source.suffix.lower() not in _KINDS or out.suffix.lower() not in _KINDS:
        raise Invalid("apps.transform", f"Files of rows are {', '.join(_KINDS)}.")
    if not source.is_file():
        raise NotFound("apps.no_file", "There is no such file to read.")
    workspace, caller = session.workspace, session.caller()
    part = out.with_name(out.name + ".part")
    with workspace.enter(caller, "endpoint:invoke", name, job=True) as permit:
        endpoints = workspace.endpoints
        endpoints.find(permit, name)
        said = {"endpoint": name, "source": _digest(source), "at": iso(workspace.vault.clock.now())}
        done, said = _begun(part, said)
        with progress() as bars, part.open("ab") as lines:
            task = bars.add_task("Scoring", total=_count(source), completed=done)
            resumed = done
            for rows in _pages(source, page, done):
                answers = endpoints.batch(permit, name, rows, instant(said["at"]))
                lines.writelines(_line(one, row) for one, row in zip(answers, rows, strict=True))
                lines.flush()
                os.fsync(lines.fileno())
                done += len(answers)
                bars.update(task, completed=done)
        while endpoints.write_back(permit):
            pass
        permit.log.count(rows=done)
    _finish(part, out)
    return {"endpoint": name, "rows": done, "resumed_at": resumed, "out": str(out)}


def _digest(path: Path) -> str:
    made = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_MIB):
            made.update(piece)
    return made.hexdigest()


def _begun(part: Path, said: dict[str, str]) -> tuple[int, dict[str, str]]:
    """How many rows are done, and what was said at the beginning; a line that was not finished is cut off."""
    if not part.exists():
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(said).encode() + b"\n")
        return 0, said
    whole = rows = 0
    with part.open("rb") as file:
        before: dict[str, str] = {}
        for number, line in enumerate(file):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            before = json.loads(line) if number == 0 else before
            rows = number
    if (before.get("endpoint"), before.get("source")) != (said["endpoint"], said["source"]):
        raise Conflict(
            "apps.transform_other", f"{part.name} was begun with another file or endpoint; finish that, or remove it."
        )
    os.truncate(part, whole)
    return rows, before


def _count(source: Path) -> int | None:
    return pq.read_metadata(source).num_rows if source.suffix.lower() == ".parquet" else None


def _pages(source: Path, page: int, skip: int) -> Iterator[list[Mapping[str, Any]]]:
    waiting: list[Mapping[str, Any]] = []
    for row in _rows(source, page):
        if skip:
            skip -= 1
            continue
        waiting.append(row)
        if len(waiting) == page:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _rows(source: Path, page: int) -> Iterator[Mapping[str, Any]]:
    kind = source.suffix.lower()
    try:
        if kind == ".jsonl":
            with source.open("rb") as lines:
                yield from map(_object, (json.loads(line) for line in lines if line.strip()))
            return
        batches = (
            pq.ParquetFile(source).iter_batches(page)
            if kind == ".parquet"
            else pa_csv.open_csv(source, convert_options=_IDS)
        )
        for batch in batches:
            yield from map(_plain, batch.to_pylist())
    except (pa.ArrowInvalid, ValueError):
        raise Invalid("apps.transform", "The file's rows cannot be read; is it what its name says?") from None


def _object(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ValueError("a line is no object")
    return row


def _plain(row: Mapping[str, Any]) -> Mapping[str, Any]:
    plain = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}
    return {name: None if value == "" else value for name, value in plain.items()}


def _line(one: Prediction, row: Mapping[str, Any]) -> bytes:
    told = {name: row[name] for name in ("encounter_id", "subject_id") if row.get(name) is not None}
    said = {**told, "probability": one.probability, "flagged": one.flagged, "prediction": one.ref, "model": one.model}
    return json.dumps(said).encode() + b"\n"


def _finish(part: Path, out: Path) -> None:
    with part.open("rb") as lines:
        next(lines)
        if out.suffix.lower() == ".jsonl":
            draft = part.with_name(part.name + "s")
            with draft.open("wb") as file:
                file.writelines(lines)
        else:
            table = pa.Table.from_pylist([json.loads(line) for line in lines])
            draft = part.with_name(part.name + "s")
            pq.write_table(table, draft) if out.suffix.lower() == ".parquet" else pa_csv.write_csv(table, draft)
    os.chmod(draft, 0o600)
    os.replace(draft, out)
    part.unlink()
