"""Bulk import over HTTP: files of the folder that the settings name, an outcome for each line.

https://github.com/smart-on-fhir/bulk-import
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.bulk.exports import begun, cancel, follow_up, most_jobs, refuse_if_sync, streamed
from carelake.apps.http.bulk.held import job_of
from carelake.apps.http.bulk.running import WAKE
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.parameters import PARAMETERS
from carelake.apps.http.routes import Operation
from carelake.core import canonical
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.pipelines.imports import ACTION, begin, packed_outcomes, unpacked, unpacked_size
from carelake.pipelines.imports_manifest import read_manifest
from carelake.store.jobs import Job, Jobs, Part

__all__ = ["operations"]

_PATH = "$import"
_ROLES = {"output": "success", "error": "failure"}


def operations() -> list[Operation]:
    """The addresses of imports."""
    gone = {"404": "There is none that is yours; it was cancelled, or its time is over"}
    job = {"job": "id of the job, as Content-Location has it"}
    file = {**job, "name": "success.ndjson or failure.ndjson"}
    began = {"202": "Begun; Content-Location tells where to ask"}
    return [
        Operation("POST", "/fhir/$import", "import", "Import files of bulk.import_folder", kick_off, "bulk",
                  body=PARAMETERS, media_type=answers.FHIR_JSON, answers=began),
        Operation("GET", "/fhir/$import/{job}", "importStatus", "How far an import is", status, "bulk",
                  parameters=job, answers={"202": "It runs", **gone}),
        Operation("DELETE", "/fhir/$import/{job}", "importCancel", "End an import; what is imported stays", stop,
                  "bulk", parameters=job, answers={"202": "It is ended", **gone}),
        Operation("GET", "/fhir/$import/{job}/{name}", "importFile", "What became of each line", file_of, "bulk",
                  parameters=file, media_type="application/fhir+ndjson", answers=gone),
    ]  # fmt: skip


def kick_off(call: Call) -> Response:
    """``POST /fhir/$import``"""
    refuse_if_sync(call)
    call.only("_format", "_pretty")
    with call.enter(ACTION, "record") as permit:
        told = canonical.load(call.body or b"null")
        if not isinstance(told, dict):
            raise Invalid("http.body", "The body is no JSON object; send Parameters as application/fhir+json.")
        folder = call.door.settings.bulk.import_folder
        if not folder:
            raise Unsupported("http.import_off", "Nothing is imported over HTTP until bulk.import_folder is set.")
        read_manifest(told, Path(folder))
        asked = {"manifest": told, "request": f"{call.base}/fhir/{_PATH}"}
        with call.door.vault.database.transaction(permit) as tx:
            job = begin(call.door.vault, permit, tx, asked, "import", most=most_jobs(call))
    WAKE.set()
    return begun(call, _PATH, job)


def status(call: Call) -> Response:
    """``GET /fhir/$import/JOB``"""
    return follow_up(call, ACTION, _PATH, _manifest)


def _manifest(job: Job, parts: Sequence[Part], url: Callable[[Part], str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "transactionTime": job.time,
        "request": job.asked["request"],
        "requiresAccessToken": True,
    }
    counts: Counter[str] = Counter()
    for part in parts:
        counts[part.role] += part.lines
    addresses = {part.role: url(part) for part in parts}
    for name, role in _ROLES.items():
        listed = {"type": "OperationOutcome", "url": addresses.get(role), "count": counts[role]}
        found[name] = [listed] if counts[role] else []
    return found


def stop(call: Call) -> Response:
    """``DELETE /fhir/$import/JOB``"""
    return cancel(call, ACTION, _PATH)


def file_of(call: Call) -> Response:
    """``GET /fhir/$import/JOB/success.ndjson``"""
    call.only()
    role = call.path["name"].removesuffix(".ndjson")
    if role not in _ROLES.values():
        raise NotFound("http.no_such_file", "There is no such file; the job's manifest lists them.")
    vault = call.door.vault
    with call.enter(ACTION, "record") as permit, vault.database.reading(permit) as tx:
        job = job_of(call, permit, tx, _PATH)
        count = len(Jobs(vault).parts(tx, job.id, role))
        # Sealed blocks are opened under the permit; each is unpacked when it is its turn.
        blocks = list(packed_outcomes(vault, permit, tx, job.id, role)) if count else []
        permit.log.note(job=job.id)
    return streamed(call, map(unpacked, blocks), sum(map(unpacked_size, blocks)))
