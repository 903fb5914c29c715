"""Writing a MEDS dataset, a shard of subjects at a time.

A subject's id is the change number of the patient's first version, as OMOP's person_id is; a patient without a birth
date is left out. A code is ``VOCABULARY//CODE``; a coded answer is the event's text_value; free text is not written.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.lake.engines.engine import connect
from carelake.lake.meds.schema import CODES, DATASET, SPLITS, UNIT, VERSION, WRITTEN
from carelake.lake.moments import TIME_MACROS
from carelake.lake.omop.export import EVERYBODY, KINDS_OF_ALL, Source, prepared
from carelake.lake.omop.vocabulary import systems
from carelake.lake.ready import shards as ready
from carelake.lake.ready.parts import Export, part_name

__all__ = ["Written", "export", "split_of"]

_TRAIN, _TUNING = 80, 90


@dataclass(frozen=True)
class Written:
    """What an export wrote."""

    subjects: int
    events: int
    codes: int

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {"subjects": self.subjects, "events": self.events, "codes": self.codes}


@cache
def _events() -> str:
    return files("carelake.lake.meds").joinpath("events.sql").read_text("utf-8")


def split_of(subject: int) -> str:
    """80 % train, 10 % tuning, 10 % held_out: the subject's own for ever, whoever else there is."""
    place = int.from_bytes(hashlib.sha256(f"meds split {subject}".encode()).digest()[:4], "big") % 100
    return "train" if place < _TRAIN else "tuning" if place < _TUNING else "held_out"


def export(source: Source, kept: Export, progress: Callable[[int, int], None] = lambda done, of: None) -> Written:
    """Write ``data/part-NNNNN.parquet`` and ``metadata/``; a shard that was done before is not done again."""
    parts = ready.shards(source.permit, source.vault, source.snapshot)
    kept.of_patients(parts)
    everybody = dict(ready.views(source.permit, source.vault, source.snapshot, EVERYBODY))
    everybody["number_of_all"] = source.numbers.of(KINDS_OF_ALL)
    for number, patients in enumerate(parts, 1):
        kept.shard(str(number), partial(_shard, source, everybody, patients, kept, number))
        progress(number, len(parts))
    done = [kept.done[str(number)] for number in range(1, len(parts) + 1)]
    codes = sorted({code for one in done for code in one["codes"]})
    subjects = sorted(subject for one in done for subject in one["subjects"])
    _metadata(source, kept, codes, subjects)
    made = Written(len(subjects), sum(one["events"] for one in done), len(codes))
    kept.finish()
    return made


def _shard(
    source: Source, everybody: Mapping[str, pa.Table], patients: frozenset[str], kept: Export, number: int
) -> Mapping[str, Any]:
    with connect(source.vault.settings.lake) as connection:
        prepared(connection, source, everybody, patients)
        known = pa.table({"system": list(systems()), "vocabulary": list(systems().values())})
        connection.register("systems", known)
        connection.execute(TIME_MACROS)
        found = connection.sql(_events()).to_arrow_table().cast(WRITTEN)
    kept.place.write(part_name("data", number, "parquet"), _parquet(found))
    source.permit.log.count(rows=len(found))
    return {
        "events": len(found),
        "codes": found.column("code").unique().to_pylist(),
        "subjects": found.column("subject_id").unique().to_pylist(),
    }


def _metadata(source: Source, kept: Export, codes: list[str], subjects: list[int]) -> None:
    told = pa.table(
        [codes, pa.nulls(len(codes), pa.string()), pa.nulls(len(codes), CODES.field(2).type)], schema=CODES
    )
    splits = pa.table([subjects, [split_of(one) for one in subjects]], schema=SPLITS)
    about = {
        "dataset_name": "carelake",
        "dataset_version": source.snapshot.ref,
        "etl_name": "carelake",
        "meds_version": VERSION,
        "created_at": iso(source.at),
        "code_modifier_columns": [UNIT],
    }
    kept.place.write("metadata/codes.parquet", _parquet(told))
    kept.place.write("metadata/subject_splits.parquet", _parquet(splits))
    kept.place.write(DATASET, canonical.dump_pretty(about).encode() + b"\n")


def _parquet(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, compression="zstd")
    return made.getvalue()
