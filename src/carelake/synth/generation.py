"""Generating a synthetic hospital: chunks over processes, files into place, truth beside them."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carelake.core.errors import Conflict, Invalid
from carelake.synth import chunk, tables
from carelake.synth.chunk import Done, Run
from carelake.synth.truth import SCHEMAS

__all__ = ["Summary", "generate"]

MOST_PATIENTS = 5_000_000
_README = "README.txt"


@dataclass(frozen=True, slots=True)
class Summary:
    """What was written.

    Attributes:
        counts: number of resources by type.
        files: the FHIR files, sorted.
        size: bytes of the FHIR files.
        admissions: stays that ended within the record; ``readmissions`` of them were followed by an unplanned
            admission within 30 days, among the ``eligible`` ones (alive, not to hospice, not censored).
        truth: the truth tables by name.
    """

    patients: int
    counts: dict[str, int]
    files: tuple[Path, ...]
    size: int
    admissions: int
    eligible: int
    readmissions: int
    truth: dict[str, Path]

    @property
    def resources(self) -> int:
        """Number of resources of all types."""
        return sum(self.counts.values())


def generate(
    out: Path,
    *,
    patients: int,
    seed: int,
    shift: str | None = None,
    start: date = date(2021, 1, 1),
    years: float = 3.0,
    workers: int = 2,
    vitals: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Summary:
    """Write a synthetic hospital to ``out``: ``fhir/NNNN.ndjson``, ``truth/*.parquet`` and ``README.txt``.

    The same arguments give the same bytes, whatever ``workers`` is, and patient k does not depend on ``patients``.
    The record begins 365 days before ``start`` (burn-in) and ends ``years`` after it.

    Args:
        shift: a name in ``shifts.toml``; None is ``none``.
        workers: processes; 1 works in this process.
        vitals: vital signs every six hours of each stay too (`synth.vitals`); all else stays as it is.
        progress: called with the number of patients that are done, after each chunk.

    Raises:
        Invalid: ``synth.arguments`` or ``synth.shift``.
        Conflict: ``synth.not_empty``: ``out`` holds something else, or a run with other arguments.
    """
    _check(patients, years, workers)
    tables.shift(shift)
    run = Run(Path(out), patients, int(seed), shift or "none", start, float(years), vitals)
    _claim_folder(run)
    house = chunk.write_house(run)
    done, totals = [house], Counter[str]()
    with _truth(run) as keep, _each_chunk(run, min(workers, run.chunks)) as finished:
        for item in finished:
            totals += keep(item)
            done.append(Done(item.file, item.patients, item.size, item.counts, {}))
            if progress is not None:
                progress(sum(one.patients for one in done))
    return _summary(run, done, totals)


def _check(patients: int, years: float, workers: int) -> None:
    if not 1 <= patients <= MOST_PATIENTS:
        raise Invalid("synth.arguments", f"The number of patients must be 1 to {MOST_PATIENTS}.", patients=patients)
    if not 0.25 <= years <= 20.0:
        raise Invalid("synth.arguments", "The window must last 0.25 to 20 years.", years=years)
    if not 1 <= workers <= 64:
        raise Invalid("synth.arguments", "The number of workers must be 1 to 64.", workers=workers)


def _readme(run: Run) -> str:
    try:
        release = version("carelake")
    except PackageNotFoundError:
        release = "unknown"
    return (
        "SYNTHETIC DATA. No person in these files exists; no clinical conclusion may be drawn from them.\n"
        "\n"
        f"Made by carelake {release}, room synth.\n"
        f"patients: {run.patients}\nseed: {run.seed}\nshift: {run.shift}\nstart: {run.start.isoformat()}\n"
        f"years: {run.years:g}\n"
        f"{'vitals: every six hours' + chr(10) if run.vitals else ''}"
        "\n"
        "fhir/   FHIR R4 resources, newline-delimited JSON; 0000 holds the hospital itself.\n"
        "truth/  true risks, outcomes and gold spans of the notes, as Parquet tables. Not part of the record.\n"
        "The causal model and the columns are told in docs/synth.md. The same arguments give the same bytes.\n"
    )


def _claim_folder(run: Run) -> None:
    """Make the folder ours: the README goes first, so that an interrupted run can be taken up again."""
    readme, text = run.out / _README, _readme(run)
    if run.out.exists() and not run.out.is_dir():
        raise Conflict("synth.not_empty", "The output path is a file; expected a folder.")
    if run.out.exists() and any(run.out.iterdir()):
        ours = readme.is_file() and readme.read_bytes() == text.encode()
        if not ours:
            raise Conflict(
                "synth.not_empty",
                "The output folder holds other files, or a run with other arguments or of another version; "
                "choose an empty folder.",
            )
    (run.out / "fhir").mkdir(parents=True, exist_ok=True)
    (run.out / "truth").mkdir(exist_ok=True)
    draft = run.out / f".{_README}.part"
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, readme)


@contextmanager
def _each_chunk(run: Run, workers: int) -> Iterator[Iterator[Done]]:
    """The finished chunks in order, made here or by worker processes."""
    work = partial(chunk.make, run)
    if workers == 1:
        yield map(work, range(run.chunks))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool.imap(work, range(run.chunks))


@contextmanager
def _truth(run: Run) -> Iterator[Callable[[Done], Counter[str]]]:
    """Opens the truth tables; they take their names when all chunks are in."""
    drafts = {name: run.out / "truth" / f".{name}.parquet.part" for name in SCHEMAS}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(pq.ParquetWriter(drafts[name], schema, compression="zstd"))
            for name, schema in SCHEMAS.items()
        }

        def keep(done: Done) -> Counter[str]:
            read = {name: pa.ipc.open_stream(data).read_all() for name, data in done.truth.items()}
            for name, table in read.items():
                writers[name].write_table(table)
            return _outcomes(read["admissions"])

        yield keep
    for name, draft in drafts.items():
        os.replace(draft, run.out / "truth" / f"{name}.parquet")


def _outcomes(admissions: pa.Table) -> Counter[str]:
    returned = pc.and_(admissions["eligible"], pc.fill_null(admissions["readmitted_30d"], False))
    return Counter(
        admissions=admissions.num_rows,
        eligible=pc.sum(admissions["eligible"]).as_py() or 0,
        readmissions=pc.sum(returned).as_py() or 0,
    )


def _summary(run: Run, done: list[Done], totals: Counter[str]) -> Summary:
    counts: Counter[str] = Counter()
    for item in done:
        counts.update(item.counts)
    return Summary(
        patients=run.patients,
        counts=dict(sorted(counts.items())),
        files=tuple(run.out / "fhir" / item.file for item in done),
        size=sum(item.size for item in done),
        admissions=totals["admissions"],
        eligible=totals["eligible"],
        readmissions=totals["readmissions"],
        truth={name: run.out / "truth" / f"{name}.parquet" for name in SCHEMAS},
    )
