"""One chunk of patients, made from the run's arguments and its number alone: the unit of work of a process."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from carelake.synth import hospital, tables
from carelake.synth.calendar import Calendar
from carelake.synth.chart import Chart
from carelake.synth.draw import stream
from carelake.synth.history import live
from carelake.synth.population import World, born
from carelake.synth.truth import Truth

__all__ = ["CHUNK", "Done", "Run", "make", "write_house"]

CHUNK = 500
_TYPE_AT = len('{"resourceType":"')


@dataclass(frozen=True, slots=True)
class Run:
    """What decides every byte of the output."""

    out: Path
    patients: int
    seed: int
    shift: str
    start: date
    years: float
    vitals: bool = False

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.patients // CHUNK)


@dataclass(frozen=True, slots=True)
class Done:
    """A chunk that is on disk. ``truth`` holds Arrow IPC streams by table."""

    file: str
    patients: int
    size: int
    counts: dict[str, int]
    truth: dict[str, bytes]


@lru_cache(maxsize=4)
def _world(shift: str, start: date, years: float) -> World:
    calendar = Calendar(start, years)
    return World(calendar, tables.shift(shift), tables.codes(), tables.model(), tables.people(), tables.phrases())


def make(run: Run, number: int) -> Done:
    """Make the ``number``-th chunk (from 0) and put its file in place."""
    world = _world(run.shift, run.start, run.years)
    first, last = number * CHUNK, min((number + 1) * CHUNK, run.patients)
    truth, lines = Truth(world), list[str]()
    key = ("synth", run.seed, run.shift, run.start.isoformat(), repr(float(run.years)))
    for index in range(first, last):
        ids = stream(*key, index, "ids")
        course = stream(*key, index, "course")
        history = live(course, ids, world, born(course, ids, world, _mrn(run, index)))
        watch = stream(*key, index, "vitals") if run.vitals else None
        lines += Chart(stream(*key, index, "chart"), world, history, truth, watch).lines()
    name = f"{number + 1:04d}.ndjson"
    size = put(run.out / "fhir" / name, lines)
    return Done(name, last - first, size, _count(lines), _packed(truth))


def _mrn(run: Run, index: int) -> str:
    """A medical record number of ten digits, unique within a run: the factor has no divisor in common with 10."""
    first = stream("synth", run.seed, run.shift, "mrn").getrandbits(40)
    return f"{(first + index * 7_368_787) % 10**10:010d}"


def write_house(run: Run) -> Done:
    """The file of the house itself, 0000."""
    lines = hospital.lines(tables.people())
    size = put(run.out / "fhir" / "0000.ndjson", lines)
    return Done("0000.ndjson", 0, size, _count(lines), {})


def put(path: Path, lines: list[str]) -> int:
    """Write lines to a file that appears whole or not at all; returns its size in bytes."""
    data = ("\n".join(lines) + "\n").encode()
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(data)
    os.replace(draft, path)
    return len(data)


def _count(lines: list[str]) -> dict[str, int]:
    return dict(Counter(line[_TYPE_AT : line.index('"', _TYPE_AT)] for line in lines))


def _packed(truth: Truth) -> dict[str, bytes]:
    out = {}
    for name, batch in truth.batches().items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream_writer:
            stream_writer.write_batch(batch)
        out[name] = sink.getvalue().to_pybytes()
    return out
