"""Carrying out a job part by part: each part is one file, one act and one row, there whole or not at all.

A run that was killed, or whose process ends, is gone on with by the next one, at the first part that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from carelake.core.errors import CarelakeError, Conflict, Unavailable
from carelake.core.permit import Permit
from carelake.store.jobs import Job, Jobs, Part
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from carelake.pipelines.export import Sink

__all__ = ["commit_part", "give_back", "part_by_part", "stopped"]

_AGAIN = ("pipelines.stopped", "permit.expired")


def part_by_part(
    vault: Vault,
    enter: Callable[[], AbstractContextManager[Permit]],
    job: str,
    begun: Callable[[Job, Sequence[Part]], None],
    make: Callable[[Part], None],
) -> Job:
    """Take a job up, make the parts that are not there yet, and end it; the job as it is then.

    Args:
        enter: the gate, for the job as a whole; each part passes it by itself.
        begun: told of the job and its parts before the first one.

    Raises:
        Conflict: ``store.job_running``, ``store.job_cancelled``. What ``make`` raises; the job fails then, unless it
            is for the next one.
    """
    jobs = Jobs(vault)
    with enter() as permit, vault.database.transaction(permit) as tx:
        claimed = jobs.claim(permit, tx, job)
        permit.log.note(job=job, change="begun")
        parts = jobs.parts(tx, job)
    try:
        begun(claimed, parts)
        for part in parts:
            if not part.done:
                make(part)
    except Exception as error:
        with enter() as permit:
            give_back(vault, permit, job, error)
        raise
    with enter() as permit, vault.database.transaction(permit) as tx:
        jobs.end(tx, job, seconds=vault.settings.bulk.keep_seconds)
        permit.log.note(job=job, change="done")
        return jobs.get(permit, tx, job)


def commit_part(vault: Vault, permit: Permit, sink: Sink, draft: Any, job: str, part: Part, lines: int) -> None:
    """A part's file is there with what is noted of it, or not at all."""
    try:
        with vault.database.transaction(permit) as tx:
            values = {"lines": lines, "position": part.goal, "size": sink.commit(draft), "done": True}
            Jobs(vault).advance(tx, job, part.number, object=sink.name(job, part.object), **values)
    finally:
        sink.discard(draft)


def stopped() -> Conflict:
    """The process ends between two parts, or in one."""
    return Conflict("pipelines.stopped", "The process is ending; the job goes on with the next one.")


def give_back(vault: Vault, permit: Permit, job: str, error: Exception) -> None:
    """A job that was cancelled stays so; one whose process ends is for the next one; any other has failed."""
    code = error.code if isinstance(error, CarelakeError) else "fault"
    if code == "store.job_cancelled":
        return
    jobs = Jobs(vault)
    with vault.database.transaction(permit) as tx:
        if code in _AGAIN or isinstance(error, Unavailable):
            jobs.release(tx, job)
        else:
            jobs.end(tx, job, seconds=vault.settings.bulk.keep_seconds, error=code)
        permit.log.note(job=job, change=code)
