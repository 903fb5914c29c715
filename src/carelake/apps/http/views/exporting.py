"""``$viewdefinition-export``, ``$sqlquery-export``, ``$sql-export``: a job is begun, asked after, its files are read.

What is wrong with a request is told at once. A job that has ended sends who asks after it to its result (303): the
manifest, or the error that it ended with.
"""

from __future__ import annotations

from email.utils import format_datetime
from typing import Any

from starlette.responses import Response, StreamingResponse

from carelake.apps.http import answers
from carelake.apps.http.bulk.exports import cancel, most_jobs, refuse_if_sync
from carelake.apps.http.bulk.held import file_of, job_of
from carelake.apps.http.bulk.running import WAKE
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import json_only
from carelake.apps.http.fhir.parameters import code, parameters, string, uri
from carelake.apps.http.views.asking import Ask, Given, given
from carelake.apps.http.views.forms import MEDIA, form_of
from carelake.apps.http.views.running import among
from carelake.apps.http.views.subjects import Subjects, name_of
from carelake.core.clock import instant
from carelake.core.errors import Invalid, NotFound
from carelake.lake import asof
from carelake.lake.views.queries import Node
from carelake.pipelines.view_export import ACTION, KIND, AskedViews, begin
from carelake.store.jobs import Job, Jobs, Part

__all__ = ["PATH", "export", "file", "status", "stop"]

PATH = "$sql-export"
_RESULT = "result"
_RETRY = "2"
_BLOCK = 1 << 20
_MOST_SUBJECTS = 200


def export(call: Call, ask: Ask, *, inside: bool) -> Response:
    """Begin a job.

    Args:
        inside: whether the address names the one subject.
    """
    refuse_if_sync(call)
    told = given(call, ask, inside=inside)
    form = form_of(call, told.one("_format") or "ndjson", fhir=False)
    with call.enter(ACTION, "lake") as permit:
        vault = call.door.vault
        names, nodes = _subjects(Subjects(call, permit, ask, told), told, ask, call.path["id"] if inside else None)
        snapshot = asof.as_of(permit, vault, call.door.nouns)
        over = among(call, permit, snapshot, told)
        asked = AskedViews(
            request=f"{call.base}{call.raw_path}",
            names=names,
            nodes=tuple(dict(node) for node in nodes),
            snapshot=snapshot.ref,
            form=form,
            header=told.one("header") is not False,
            patients=None if over.patients is None else tuple(sorted(over.patients)),
            since=told.one("_since") or "",
            tracking=told.one("clientTrackingId") or "",
        )
        job = begin(vault, permit, asked, most=most_jobs(call))
    WAKE.set()
    address = f"{call.base}/fhir/{PATH}/{job}"
    said = [string("exportId", job), code("status", "accepted"), uri("location", address)]
    return answers.fhir(parameters(*said, *_tracking(asked.tracking)), 202, {"Content-Location": address})


def _subjects(subjects: Subjects, told: Given, ask: Ask, key: str | None) -> tuple[tuple[str, ...], list[Node]]:
    wanted: list[Given] = [told] if key is not None else told.all(ask.named)
    if not 0 < len(wanted) <= _MOST_SUBJECTS:
        raise Invalid("http.parameter", f"Expected 1 to {_MOST_SUBJECTS} of {ask.named}.", expression=ask.named)
    names, nodes = [], []
    for number, one in enumerate(wanted, 1):
        own, node = subjects.found(one, key)
        names.append(name_of(one.one("name"), own, number))
        nodes.append(node)
    if len(set(names)) != len(names):
        raise Invalid("http.parameter", "Two outputs would have one name; name them.", expression=ask.named)
    subjects.used()
    return tuple(names), nodes


def _tracking(said: str) -> list[dict[str, Any]]:
    return [string("clientTrackingId", said)] if said else []


def status(call: Call) -> Response:
    """``GET /fhir/$sql-export/JOB``"""
    json_only(call)
    call.only("_format", "_pretty")
    job, parts = _job(call)
    address = f"{call.base}/fhir/{PATH}/{job.id}"
    if job.state not in ("accepted", "running"):
        return Response(status_code=303, headers={"Location": f"{address}/{_RESULT}"})
    done = sum(part.done for part in parts)
    told = "accepted" if job.state == "accepted" else "in-progress"
    said = parameters(string("exportId", job.id), code("status", told), uri("location", address))
    return answers.fhir(said, 202, {"X-Progress": f"{done} of {len(parts)} files", "Retry-After": _RETRY})


def stop(call: Call) -> Response:
    """``DELETE /fhir/$sql-export/JOB``"""
    return cancel(call, ACTION, KIND)


def file(call: Call) -> Response:
    """``GET /fhir/$sql-export/JOB/NAME``: the result, or one of its files."""
    call.only("_format", "_pretty")
    return _result(call) if call.path["name"] == _RESULT else _file(call)


def _job(call: Call) -> tuple[Job, list[Part]]:
    with call.enter(ACTION, "lake") as permit, call.door.vault.database.reading(permit) as tx:
        job = job_of(call, permit, tx, KIND)
        return job, Jobs(call.door.vault).parts(tx, job.id)


def _result(call: Call) -> Response:
    json_only(call)
    job, parts = _job(call)
    if job.state == "failed":
        issue = {"severity": "error", "code": "exception", "details": {"text": job.error}}
        issue["diagnostics"] = "The job failed; begin it anew."
        return answers.fhir({"resourceType": "OperationOutcome", "issue": [issue]}, 500)
    if job.state != "done":
        raise NotFound("http.no_such_file", "The job has no result yet; ask for its status.")
    answer = answers.fhir(_manifest(job, parts, f"{call.base}/fhir/{PATH}/{job.id}"))
    if job.expires:
        answer.headers["Expires"] = format_datetime(instant(job.expires), usegmt=True)
    return answer


def _manifest(job: Job, parts: list[Part], address: str) -> dict[str, Any]:
    took = instant(job.ended or job.created) - instant(job.created)
    said = [
        string("exportId", job.id),
        *_tracking(str(job.asked.get("tracking", ""))),
        code("status", "completed"),
        uri("location", address),
        code("_format", str(job.asked["form"])),
        {"name": "exportStartTime", "valueInstant": job.created},
        {"name": "exportEndTime", "valueInstant": job.ended},
        {"name": "exportDuration", "valueInteger": int(took.total_seconds())},
    ]
    for name, part in zip(job.asked["names"], parts, strict=True):
        place = uri("location", f"{address}/{part.object.rpartition('/')[2]}")
        said.append({"name": "output", "part": [string("name", name), place]})
    return parameters(*said)


def _file(call: Call) -> Response:
    with call.enter(ACTION, "lake") as permit:
        job, part, content = file_of(call, permit, KIND)
    headers = {"Content-Length": str(part.size)}
    return StreamingResponse(content, media_type=MEDIA[str(job.asked["form"])], headers=headers)
