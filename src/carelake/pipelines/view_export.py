"""Rows of views and queries as files: one job, one snapshot, a file for each subject, made again where it stopped.

The job is kept as a bulk export is (`export`): begun, carried out by whatever process comes by, in the name of who
asked, each file by the rights that they have then. What is run was resolved when the job began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.lake.query import snapshot_of
from carelake.lake.views.formats import blocks
from carelake.lake.views.queries import Among, evaluate
from carelake.pipelines.export import Enter, Progress, Sink
from carelake.pipelines.job_parts import commit_part, part_by_part, stopped
from carelake.store.jobs import Entry, Job, Jobs, Part
from carelake.vault.workspace import Vault

__all__ = ["ACTION", "KIND", "AskedViews", "begin", "carry_out"]

ACTION = "lake:export"
KIND = "views"


class AskedViews(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, as it is kept with the job.

    Attributes:
        request: the address that was asked.
        names, nodes: of the outputs, and what is run for each (`queries.Node`).
        snapshot: the ref of the one that all are of.
        scope: what bounded the caller's sight; whoever sees less gets no file. Found by `begin`.
    """

    request: str
    names: tuple[str, ...]
    nodes: tuple[dict[str, Any], ...]
    snapshot: str
    form: str = "ndjson"
    header: bool = True
    patients: tuple[str, ...] | None = None
    since: str = ""
    tracking: str = ""
    scope: tuple[str, ...] = ()


def begin(vault: Vault, permit: Permit, asked: AskedViews, *, most: int | None = None) -> str:
    """Write a job down; answers its id.

    Args:
        permit: for `ACTION`.
        most: as `Jobs.begin`.

    Raises:
        Unavailable: ``store.too_many_jobs``.
    """
    jobs = Jobs(vault)
    asked = msgspec.structs.replace(asked, scope=tuple(sorted(permit.scope)))
    parts = [
        Entry("output", "View", b"", 1, f"output-{number:04d}.{asked.form}")
        for number in range(1, len(asked.names) + 1)
    ]
    with vault.database.transaction(permit) as tx:
        job = jobs.begin(permit, tx, KIND, {**msgspec.to_builtins(asked), "nodes": list(asked.nodes)}, most=most)
        jobs.plan(permit, tx, job, parts)
        jobs.release(tx, job)
    return job


def carry_out(
    vault: Vault,
    enter: Enter,
    nouns: Nouns,
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
    said: list[tuple[AskedViews, int]] = []

    def begun(claimed: Job, parts: Sequence[Part]) -> None:
        said.append((msgspec.convert(claimed.asked, decodable(AskedViews)), len(parts)))

    def make(part: Part) -> None:
        asked, of = said[0]
        progress(part.number - 1, of)
        if stop():
            raise stopped()
        with enter("lake") as permit:
            _one(vault, nouns, permit, asked, job, part, sink)

    return part_by_part(vault, lambda: enter("lake"), job, begun, make)


def _one(vault: Vault, nouns: Nouns, permit: Permit, asked: AskedViews, job: str, part: Part, sink: Sink) -> None:
    """One file."""
    snapshot = snapshot_of(permit, vault, nouns, asked.snapshot)
    patients = None if asked.patients is None else frozenset(asked.patients)
    among = Among(patients, instant(asked.since) if asked.since else None)
    found = evaluate(permit, vault, snapshot, asked.nodes[part.number - 1], among)
    draft = sink.write(permit, job, part.object, blocks(found.rows, asked.form, header=asked.header))
    permit.log.count(rows=len(found.rows))
    commit_part(vault, permit, sink, draft, job, part, len(found.rows))
