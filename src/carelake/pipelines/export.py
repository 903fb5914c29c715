"""Bulk export: what is asked for becomes lists of versions in one snapshot, and each list becomes a file.

A part is one file, one act and one row. The row says that the file is there, whole; a run that was killed goes on
with the parts that have none. What is in a part was decided when the export was asked for, so it is the same whoever
makes it, and whenever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec
from sqlalchemy import Connection

from carelake.access.gate import Gate
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.fhir.compartment import compartment_types
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import Query, parse
from carelake.fhir.query.settings import SETTINGS
from carelake.pipelines.job_parts import commit_part, part_by_part, stopped
from carelake.store import Resources
from carelake.store.export import Chosen, Wanted
from carelake.store.export_lines import Liner
from carelake.store.export_lists import pack_seqs, pieces, unpack_seqs
from carelake.store.jobs import Entry, Job, Jobs, Part
from carelake.vault.objects import ObjectWriter
from carelake.vault.workspace import Vault

__all__ = [
    "ACTION",
    "ZONE",
    "Asked",
    "Enter",
    "Progress",
    "Sink",
    "VaultSink",
    "begin",
    "carry_out",
    "drop_copies",
    "liner_of",
    "manifest",
]

ACTION = "record:export"
ZONE = "clinical"
_NOT_FILTERS = SETTINGS | {"_include", "_revinclude", "_type", "_page"}
_MOST_FIELDS = 100
_MOST_FILTERS = 100
_between = re.compile(r"(?<!\\),(?=[A-Z][A-Za-z]+\?)").split
"""Searches are listed with commas, which stand between the values of one search too, and escaped within one."""
_PREFIXES = {"output": "", "deleted": "deleted-"}

Enter = Callable[[str], AbstractContextManager[Permit]]
"""Pass the gate for `ACTION` on a target."""

Progress = Callable[[int, int], None]
"""Told how many versions are done, of how many."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as it is kept with the job.

    Attributes:
        request: the address that was asked, or the command.
        types: named types; () for all that the caller may have.
        filters: ``Type?criteria``.
        elements: ``name`` or ``Type.name``.
        within: what is in patients' compartments only; ``patients``: of these only.
        left_out: types that the caller may not have, whether there are any or not; found by `begin`.
        scope: what bounded the caller's sight; whoever sees less gets no file. Found by `begin`.
    """

    request: str
    types: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    filters: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    within: bool = False
    patients: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()


class Sink(Protocol):
    """Where files go."""

    def write(self, permit: Permit, job: str, name: str, blocks: Iterator[bytes]) -> Any:
        """Write a file that is not there yet; answers what `commit` takes."""
        ...

    def commit(self, draft: Any) -> int:
        """The file is there, whole, with the transaction that is open; answers its size in bytes."""
        ...

    def discard(self, draft: Any) -> None:
        """Drop what was not committed."""
        ...

    def name(self, job: str, name: str) -> str:
        """What the file is called where it lies."""
        ...


@dataclass(frozen=True)
class VaultSink:
    """Sealed objects of the clinical zone, below ``bulk/JOB/``."""

    vault: Vault

    def write(self, permit: Permit, job: str, name: str, blocks: Iterator[bytes]) -> ObjectWriter:
        writer = self.vault.objects.create(permit, ZONE, self.name(job, name))
        try:
            for block in blocks:
                writer.write(block)
        except BaseException:
            writer.discard()
            raise
        return writer

    def commit(self, draft: ObjectWriter) -> int:
        return draft.commit().size

    def discard(self, draft: ObjectWriter) -> None:
        draft.discard()

    def name(self, job: str, name: str) -> str:
        return f"bulk/{job}/{name}"


# -- beginning ---------------------------------------------------------------------------------------------------


def begin(
    vault: Vault,
    gate: Gate,
    permit: Permit,
    resources: Resources,
    asked: Asked,
    *,
    kind: str = "export",
    most: int | None = None,
) -> str:
    """Choose what is exported and write it down as a job; answers its id.

    Args:
        permit: for `ACTION`; it is widened to the types that are exported and those that filters touch. A type that
            is named and denied refuses the export; of others, those that are denied are left out and told,
            whether there is one or not: what there is of them is not to be told.
        kind: ``export`` for the server, ``dump`` for a command.
        most: as `Jobs.begin`.

    Raises:
        Refused: ``access.denied``. Invalid: ``pipelines.filter``, ``pipelines.elements``; as a search.
        Unavailable: ``store.too_many_jobs``.
    """
    jobs = Jobs(vault)
    exports = resources.exports
    with vault.database.reading(permit) as tx:
        registry = exports.registry(tx, permit.account)
        filters = _filters(asked.filters, lambda kind, pairs: parse(kind, pairs, registry=registry))
        reach = set(compartment_types("Patient") if asked.within else resource_types())
        allowed = tuple(one for one in asked.types or exports.types(tx, permit.account) if one in reach)
        left_out: tuple[str, ...] = ()
        if not asked.types:
            left_out = tuple(one for one in sorted(reach) if not gate.reaches(permit, tx, one))
            allowed = tuple(one for one in allowed if one not in left_out)
    kinds = {one for queries in filters.values() for query in queries for one in query.kinds()}
    wider = gate.widen(permit, {*allowed, *kinds})
    asked = msgspec.structs.replace(asked, left_out=left_out, scope=tuple(sorted(wider.scope)))
    liner_of(asked)
    patients = frozenset(asked.patients) if asked.patients is not None else None
    wanted = Wanted(allowed, asked.since, asked.until, asked.within, patients, filters)
    with vault.database.transaction(wider) as tx:
        # Writers are served one after another: whatever is later than this one's time is later than the snapshot too.
        job = jobs.begin(wider, tx, kind, msgspec.to_builtins(asked), most=most)
    try:
        with vault.database.reading(wider) as tx:
            found = exports.select(wider, tx, wanted, resources.terminology(wider, tx))
        parts = _parts(found.lists, left_out, vault.settings.bulk.part_resources)
        with vault.database.transaction(wider) as tx:
            jobs.plan(wider, tx, job, parts, seq=found.seq, updated=found.updated)
            jobs.release(tx, job)
    except BaseException:
        with vault.database.transaction(wider) as tx:
            jobs.drop(wider, tx, job, "cancelled")
        raise
    return job


def _filters(
    texts: Sequence[str], read: Callable[[str, list[tuple[str, str]]], Query]
) -> dict[str, tuple[Query, ...]]:
    """Searches by type; several of one type are alternatives, each by itself or listed with commas."""
    found: dict[str, tuple[Query, ...]] = {}
    listed = [one for text in texts for one in _between(text)]
    if len(listed) > _MOST_FILTERS:
        raise Invalid("pipelines.filter", f"An export has at most {_MOST_FILTERS} filters; each is a search.")
    for text in listed:
        kind, mark, criteria = text.partition("?")
        try:
            pairs = parse_qsl(criteria, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            pairs = []
        if not mark or not pairs or any(name.partition(":")[0] in _NOT_FILTERS for name, _ in pairs):
            raise Invalid(
                "pipelines.filter", "A filter of an export is a search of one type by what matches: Type?name=value."
            )
        found[kind] = (*found.get(kind, ()), read(kind, pairs))
    return found


def liner_of(asked: Asked) -> Liner:
    """What makes the lines; `Invalid` ``pipelines.elements``."""
    wanted: dict[str, tuple[str, ...]] = {}
    for one in asked.elements:
        kind, dot, name = one.rpartition(".")
        if not name.isidentifier() or (dot and not kind.isidentifier()):
            raise Invalid("pipelines.elements", "An element is the name of an outermost one, also as Type.name.")
        wanted[kind] = (*wanted.get(kind, ()), name)
    return Liner(wanted)


def _parts(lists: Sequence[Chosen], left_out: Sequence[str], size: int) -> list[Entry]:
    found: list[Entry] = []
    for one in lists:
        role = "deleted" if one.deleted else "output"
        for number, piece in enumerate(pieces(one.seqs, size), 1):
            name = f"{_PREFIXES[role]}{one.type}-{number:04d}.ndjson"
            found.append(Entry(role, one.type, pack_seqs(piece), len(piece), name))
    if left_out:
        found.append(Entry("error", "OperationOutcome", b"", 0, "errors-0001.ndjson"))
    return found


# -- carrying out ------------------------------------------------------------------------------------------------


def carry_out(
    vault: Vault,
    enter: Enter,
    resources: Resources,
    job: str,
    sink: Sink,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda done, of: None,
) -> Job:
    """Make the files that are not there yet; each is one act, decided anew.

    Raises:
        Conflict: ``store.job_running``, ``store.job_cancelled``, ``pipelines.stopped``: the next one goes on.
        Refused: the right to it was withdrawn. The job fails then, as on other errors of ours.
    """
    return _Run(vault, enter, resources, sink, stop, progress).all(job)


@dataclass
class _Run:
    """One process's work on a job."""

    vault: Vault
    enter: Enter
    resources: Resources
    sink: Sink
    stop: Callable[[], bool]
    progress: Progress

    def all(self, job_id: str) -> Job:
        return part_by_part(self.vault, lambda: self.enter("record"), job_id, self._begun, self._part)

    def _begun(self, job: Job, parts: Sequence[Part]) -> None:
        self.job, self.jobs = job, Jobs(self.vault)
        self.asked = msgspec.convert(job.asked, decodable(Asked))
        self.of, self.done = sum(part.goal for part in parts), sum(part.goal for part in parts if part.done)
        self.progress(self.done, self.of)

    def _part(self, part: Part) -> None:
        job = self.job.id
        with self.enter(part.type if part.role != "error" else "record") as permit:
            counting = _Counting(self.stop, lambda lines: self.progress(self.done + lines, self.of))
            with self.vault.database.reading(permit) as tx:
                blocks = counting.pass_on(self._blocks(permit, tx, part))
                draft = self.sink.write(permit, job, part.object, blocks)
            commit_part(self.vault, permit, self.sink, draft, job, part, counting.lines)
        self.done += part.goal
        self.progress(self.done, self.of)

    def _blocks(self, permit: Permit, tx: Connection, part: Part) -> Iterator[tuple[int, bytes]]:
        if part.role == "error":
            return _told(self.asked)
        seqs = unpack_seqs(self.jobs.source(tx, self.job.id, part.number))
        exports = self.resources.exports
        if part.role == "deleted":
            return exports.deletions(permit, tx, seqs)
        return exports.lines(permit, tx, seqs, liner_of(self.asked), within=self.asked.within)


@dataclass
class _Counting:
    """Blocks on their way into a file, counted."""

    stop: Callable[[], bool]
    told: Callable[[int], None]
    lines: int = 0

    def pass_on(self, blocks: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        for count, block in blocks:
            if self.stop():
                raise stopped()
            self.lines += count
            self.told(self.lines)
            yield block


def _told(asked: Asked) -> Iterator[tuple[int, bytes]]:
    """What was left out, an OperationOutcome on each line."""
    for kind in asked.left_out:
        issue = {
            "severity": "information",
            "code": "suppressed",
            "details": {"text": "access.denied"},
            "diagnostics": f"{kind} was left out: policy does not allow its export to who asked.",
        }
        yield 1, msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]}) + b"\n"


def drop_copies(vault: Vault, permit: Permit, patients: frozenset[str]) -> dict[str, int]:
    """For erasures: no file of an export, and no outcome of an import, stays where somebody is erased."""
    with vault.database.transaction(permit) as tx:
        return {"bulk_jobs": Jobs(vault).drop_files(permit, tx)}


def manifest(job: Job, parts: Sequence[Part], url: Callable[[Part], str], *, token: bool) -> Mapping[str, Any]:
    """What an export gave (https://hl7.org/fhir/uv/bulkdata/export.html#response---complete-status)."""
    files: dict[str, list[dict[str, Any]]] = {"output": [], "deleted": [], "error": []}
    for part in parts:
        if part.done and part.role in files:
            kind = "Bundle" if part.role == "deleted" else part.type
            files[part.role].append({"type": kind, "url": url(part), "count": part.lines})
    said = {"transactionTime": job.time, "request": job.asked["request"], "requiresAccessToken": token}
    return {**said, **files}
