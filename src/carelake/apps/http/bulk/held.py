"""What an address of a job names: the caller's job, and a file that it made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from sqlalchemy import Connection

from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.pipelines.export import ZONE
from carelake.store.jobs import Job, Jobs, Part
from carelake.store.scopes import bounded

__all__ = ["file_of", "job_of"]

_BLOCK = 1 << 20


def job_of(call: Call, permit: Permit, tx: Connection, path: str) -> Job:
    """The caller's job that the address names."""
    if not is_id(call.path["job"]):
        raise NotFound("store.no_such_job", "There is no such job; it was cancelled, or its time is over.")
    found = Jobs(call.door.vault).get(permit, tx, call.path["job"])
    # The same principal may come with a credential that opens less than the one the job was begun with.
    less = bounded(permit, consents=False) and sorted(permit.scope) != sorted(found.asked.get("scope", ()))
    if found.kind != path.removeprefix("$") or less:
        raise NotFound("store.no_such_job", "There is no such job; it was cancelled, or its time is over.")
    return found


def file_of(call: Call, permit: Permit, path: str) -> tuple[Job, Part, Iterator[bytes]]:
    """The file that the address names, with its job; its bytes can be read when the permit has ended.

    Raises:
        NotFound: ``store.no_such_job``; ``http.no_such_file``, also while the job is not done.
    """
    with call.door.vault.database.reading(permit) as tx:
        job = job_of(call, permit, tx, path)
        parts = Jobs(call.door.vault).parts(tx, job.id)
    wanted = f"bulk/{job.id}/{call.path['name']}"
    found = next((one for one in parts if one.done and one.object == wanted), None)
    if found is None or job.state != "done":
        raise NotFound("http.no_such_file", "There is no such file; the job's manifest lists them.")
    stream = call.door.vault.objects.open(permit, ZONE, wanted)
    permit.log.note(job=job.id)
    permit.log.count(exported=found.lines)
    return job, found, _blocks(stream)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while block := stream.read(_BLOCK):
            yield block
