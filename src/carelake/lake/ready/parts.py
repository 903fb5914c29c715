"""An export in parts: one for each shard of patients, written whole or not at all, taken up where it was left.

``export.json`` tells what the export is of and which shards are done; a run that finds it goes on with the same
snapshot. Parts are named by their number, never by a patient.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from carelake.core import canonical
from carelake.core.errors import Conflict, Invalid

__all__ = ["FORMATS", "MANIFEST", "Export", "Place", "encoded", "part_name"]

MANIFEST = "export.json"


class Place(Protocol):
    """Where the files go: a folder of the user's."""

    def read(self, name: str) -> bytes | None:
        """A small file, or None where there is none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; ``name`` may have folders in it."""
        ...


def _parquet(table: pa.Table) -> bytes:
    made = io.BytesIO()
    pq.write_table(table, made, compression="zstd")
    return made.getvalue()


def _csv(table: pa.Table) -> bytes:
    """Nothing between the commas is null, ``""`` is an empty text."""
    made = io.BytesIO()
    csv.write_csv(table, made)
    return made.getvalue()


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {"parquet": _parquet, "csv": _csv}


def encoded(form: str, table: pa.Table) -> bytes:
    """The table in a format.

    Raises:
        Invalid: ``lake.export_format``.
    """
    work = FORMATS.get(form)
    if work is None:
        raise Invalid("lake.export_format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    return work(table)


def part_name(folder: str, number: int, form: str) -> str:
    """``FOLDER/part-00001.FORM``."""
    return f"{folder}/part-{number:05d}.{form}"


@dataclass
class Export:
    """The state of an export: what it is of, and what each shard that is done said of itself."""

    place: Place
    said: Mapping[str, Any]
    done: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, place: Place, *, later: Mapping[str, str], **said: Any) -> Export:
        """A new export, or one that was begun with the same words and not finished.

        Args:
            later: what may be told by the first run alone, for example ``snapshot``: "" to go on with what it told.
            said: what the export is of.

        Raises:
            Conflict: ``lake.export_there``, when the folder holds another one or a finished one.
        """
        found = place.read(MANIFEST)
        if found is None:
            made = cls(place, {**said, **later})
            made.start()
            return made
        told = canonical.load(found)
        before = told.get("of", {}) if isinstance(told, dict) else {}
        wanted = {**said, **{name: value or before.get(name) for name, value in later.items()}}
        if before != wanted or told.get("finished"):
            raise Conflict("lake.export_there", "The folder holds another export or a finished one; give a new one.")
        return cls(place, before, dict(told.get("done", {})))

    def start(self, **said: Any) -> None:
        """Tell what was not known at first."""
        self.said = {**self.said, **said}
        self._keep(finished=False)

    def of_patients(self, shards: Sequence[frozenset[str]]) -> None:
        """Keep who is in which shard, as a digest: the parts of a run that goes on must fit those that are there.

        Raises:
            Conflict: ``lake.export_there``, when consent or an erasure has moved somebody since the first run.
        """
        one = hashlib.sha256()
        for shard in shards:
            one.update(canonical.dump([*sorted(shard)]) + b"\n")
        self.shard("patients", lambda: {"rows": {}, "digest": one.hexdigest()})
        if self.done["patients"].get("digest") != one.hexdigest():
            raise Conflict(
                "lake.export_there", "Who is in the lake for you has changed since then; give a new folder."
            )

    def shard(self, key: str, work: Callable[[], Mapping[str, Any]]) -> None:
        """Do a shard's work, unless it was done, and keep what it says."""
        if key in self.done:
            return
        self.done[key] = dict(work())
        self._keep(finished=False)

    def finish(self) -> None:
        """Nothing more is to come."""
        self._keep(finished=True)

    def _keep(self, *, finished: bool) -> None:
        told = {"format": 1, "of": dict(self.said), "finished": finished, "done": {} if finished else self.done}
        self.place.write(MANIFEST, canonical.dump(told) + b"\n")
