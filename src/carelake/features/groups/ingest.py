"""Files into a feature group: Parquet, CSV or NDJSON with columns called as the features.

A file is written in parts, each with how far it got in one transaction: a run that was killed goes on there, and a
file that is whole is not written twice. A file is known by an HMAC of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq
from sqlalchemy import Connection, delete, insert, select

from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.features.groups import quality
from carelake.features.groups.batches import Batch, Refused, texts_of, write
from carelake.features.groups.definition import Group
from carelake.features.groups.iceberg import arrow_type
from carelake.features.groups.known import find
from carelake.features.groups.sight import check_whole
from carelake.features.groups.tables import feature_ingest as table
from carelake.features.groups.typed import Typed, typed
from carelake.vault.workspace import Vault

__all__ = ["Ingested", "ingest"]


_BLOCK = 16 << 20
_READ = 1 << 20


@dataclass(slots=True)
class Ingested:
    """What came of a file.

    Attributes:
        rows: that it has. stored: that this run stored. before: that earlier runs had done with.
        online: records of the online store that changed. refused: rows that were set apart, see `quality`.
    """

    group: str
    rows: int = 0
    stored: int = 0
    before: int = 0
    online: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)


def ingest(
    permit: Permit,
    vault: Vault,
    outbox: Outbox,
    name: str,
    path: Path,
    *,
    known: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Ingested:
    """Write the rows of a file, those that were not written yet.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.
        known: a column that says when each row became known (``write_time``); by default that is now. Only for
            histories: what it says is believed.
        progress: told bytes or rows done of how many.

    Raises:
        NotFound: ``features.no_group``.
        Invalid: ``features.file``, ``features.columns``; ``features.quality``: parts before it are stored.
        Conflict: ``features.concurrent``: ingest the file again to go on.
    """
    check_whole(permit)
    with vault.database.reading(permit) as tx:
        group = find(tx, permit.account, name)
    state = _state(path)
    source = vault.keyring.reference(permit, "featureset", _digest(path))
    done = Ingested(group.name)
    done.before = _before(permit, vault, group, source)
    at = 0
    for part in _parts(path, group, vault.settings.features.ingest_rows, known):
        start, at = at, at + len(part)
        if _state(path) != state:  # what was read may not be what the file is known by
            raise Invalid(
                "features.file", "The file changed while it was read; rows before are stored. Ingest it again."
            )
        if at > done.before:
            _write(permit, vault, group, part.slice(max(0, done.before - start)), source, done, known)
        progress(at, _rows_in(path))
    done.rows = at
    if done.stored:
        with vault.database.transaction(permit) as tx:
            outbox.publish(tx, permit.account, "features.ingested", group.ref, {"rows": done.stored})
            permit.log.wrote(group.ref)
    return done


def _write(
    permit: Permit, vault: Vault, group: Group, part: pa.Table, source: str, done: Ingested, known: str | None
) -> None:
    line = done.before + done.stored + done.refused + 1
    moments = _moments(part, known) if known else None
    found = typed(group, part.drop_columns([known]) if known and known not in group.names else part)
    report = quality.check(group, found.rows, found.bad)
    quality.refuse(group, report, line)
    good = pa.array([at for at in range(len(part)) if at not in report.breaks], pa.int64())
    batch = Batch(found.rows.take(good), found.time.take(good), None if moments is None else moments.take(good))
    apart = _apart(group, found, report, line)

    def beside(tx: Connection) -> None:
        _note(permit, tx, vault, group, source, line - 1 + len(part), len(batch.rows), len(apart))

    done.online += write(permit, vault, group, batch, refused=apart, source=source, beside=beside)
    done.stored += len(batch.rows)
    done.refused += len(apart)
    for one in apart:
        done.reasons[one.reason] = done.reasons.get(one.reason, 0) + 1
    done.lines = [*done.lines, *(one.line for one in apart)][:20]


def _apart(group: Group, found: Typed, report: quality.Report, line: int) -> list[Refused]:
    numbers = sorted(report.breaks)
    texts = texts_of(group, found.rows.take(pa.array(numbers, pa.int64())))
    return [Refused(line + at, report.breaks[at], said) for at, said in zip(numbers, texts, strict=True)]


def _moments(part: pa.Table, known: str) -> pa.Array:
    if part.column_names.count(known) != 1:
        raise Invalid(
            "features.columns", "The file has no column, or two, of the name that says when rows became known."
        )
    column = part.column(known)
    nanos = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
    try:
        made = column.cast(pa.timestamp("us", "UTC"), safe=not nanos)  # what is less than a microsecond goes
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise Invalid("features.file", "The column of when rows became known has values that are no times.") from None
    if made.null_count:
        raise Invalid("features.file", "The column of when rows became known has rows without a time.")
    return pa.concat_arrays(made.chunks)


def _before(permit: Permit, vault: Vault, group: Group, source: str) -> int:
    with vault.database.reading(permit) as tx:
        query = select(table.c.done).where(table.c.grp == group.id, table.c.source == source)
        return int(tx.execute(query).scalar() or 0)


def _note(
    permit: Permit, tx: Connection, vault: Vault, group: Group, source: str, done: int, stored: int, refused: int
) -> None:
    own = (table.c.grp == group.id, table.c.source == source)
    before = tx.execute(select(table).where(*own)).first()
    tx.execute(delete(table).where(*own))
    row = {
        "grp": group.id,
        "source": source,
        "account": permit.account,
        "done": done,
        "rows": (before.rows if before else 0) + stored,
        "refused": (before.refused if before else 0) + refused,
        "at": iso(vault.clock.now()),
    }
    tx.execute(insert(table).values(**row))


# -- reading --------------------------------------------------------------------------------------------------------


def _state(path: Path) -> tuple[int, ...]:
    """What changes with each change of a file."""
    try:
        told = path.stat()
    except OSError:
        raise _unreadable() from None
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns


def _unreadable() -> Invalid:
    return Invalid("features.file", "The file cannot be read; give a Parquet, CSV or NDJSON file.")


def _digest(path: Path) -> bytes:
    made = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ):
                made.update(piece)
    except OSError:
        raise _unreadable() from None
    return made.digest()


def _rows_in(path: Path) -> int:
    """How many rows there are, where the file says so; 0 else."""
    return int(pq.read_metadata(path).num_rows) if path.suffix == ".parquet" else 0


def _parts(path: Path, group: Group, rows: int, known: str | None) -> Iterator[pa.Table]:
    """Tables of so many rows, the same ones at every run."""
    gathered: list[pa.RecordBatch] = []
    held = 0
    for batch in _batches(path, group, rows, known):
        while held + len(batch) >= rows:
            gathered.append(batch.slice(0, rows - held))
            yield pa.Table.from_batches(gathered)
            batch, gathered, held = batch.slice(rows - held), [], 0
        if len(batch):
            gathered.append(batch)
            held += len(batch)
    if gathered:
        yield pa.Table.from_batches(gathered)


def _batches(path: Path, group: Group, rows: int, known: str | None) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix == ".parquet":
            yield from pq.ParquetFile(path).iter_batches(rows)
        elif path.suffix == ".csv":
            yield from _csv(path)
        elif path.suffix in (".ndjson", ".jsonl", ".json"):
            yield from _ndjson(path, group, known)
        else:
            raise Invalid("features.file", "Expected a file whose name ends with .parquet, .csv or .ndjson.")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        kind = type(error).__name__
        raise Invalid(
            "features.file", f"The file is not what its name says ({kind}); rows before are stored."
        ) from None


def _csv(path: Path) -> Iterator[pa.RecordBatch]:
    """Texts, so that each feature's type says what they are; an empty cell is no value."""
    with path.open("rb") as file:
        names = pcsv.open_csv(file, read_options=pcsv.ReadOptions(block_size=_BLOCK)).schema.names
    convert = pcsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    yield from pcsv.open_csv(path, read_options=pcsv.ReadOptions(block_size=_BLOCK), convert_options=convert)


def _ndjson(path: Path, group: Group, known: str | None) -> Iterator[pa.RecordBatch]:
    fields = [pa.field(one.name, arrow_type(one)) for one in group.features]
    if known and known not in group.names:
        fields.append(pa.field(known, pa.string()))
    parse = pjson.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="error")
    yield from pjson.open_json(path, pjson.ReadOptions(block_size=_BLOCK), parse)
