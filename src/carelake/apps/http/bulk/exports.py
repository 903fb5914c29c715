"""Bulk Data over HTTP: a job is begun, asked after, taken away or cancelled; files are read by who asked for them.

https://hl7.org/fhir/uv/bulkdata/export.html
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from carelake.apps.http import answers
from carelake.apps.http.bulk.held import file_of, job_of
from carelake.apps.http.bulk.running import WAKE
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only
from carelake.apps.http.fhir.parameters import PARAMETERS, Given, asked_with
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.packing import takes_gzip
from carelake.apps.http.routes import Operation
from carelake.core.clock import instant
from carelake.core.errors import Invalid, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.compartment import compartment_types
from carelake.fhir.definitions import is_resource
from carelake.fhir.references import target
from carelake.pipelines.export import ACTION, Asked, begin, manifest
from carelake.store.jobs import Job, Jobs, Part

__all__ = ["begun", "cancel", "follow_up", "most_jobs", "operations", "refuse_if_sync", "streamed"]

_TAKES = {
    "_outputFormat": "string",
    "_since": "instant",
    "_until": "instant",
    "_type": "string*",
    "_typeFilter": "string*",
    "_elements": "string*",
    "patient": "Reference*",
}
_FORMATS = frozenset({"ndjson", "application/ndjson", "application/fhir+ndjson"})
_NDJSON = "application/fhir+ndjson"
_BLOCK = 1 << 20
_LEVEL = 3
_GZIP = 31  # zlib's window bits with gzip's head and check
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RETRY = "2"
_QUERY = "_type, _since, _until, _typeFilter, _elements, _outputFormat (docs/bulk.md)"
_JOB = {"job": "id of the job, as Content-Location has it"}
_FILE = {**_JOB, "name": "name of the file, as the manifest has it"}


def operations() -> list[Operation]:
    """The addresses of exports."""
    begun = {"202": "Begun; Content-Location tells where to ask", "403": "A type that is named may not be exported"}
    group = {"id": "id of a Group of patients"}
    found: list[Operation] = []
    for path, name, summary, handler, parameters in (
        ("/fhir/$export", "export", "Export the record", of_all, {}),
        ("/fhir/Patient/$export", "exportPatients", "Export all patients' records", of_patients, {}),
        ("/fhir/Group/{id}/$export", "exportGroup", "Export the records of a Group's patients", of_group, group),
    ):
        said: dict[str, Any] = {"parameters": parameters, "query": _QUERY, "answers": begun}
        said["media_type"] = answers.FHIR_JSON
        found.append(Operation("GET", path, name, summary, handler, "bulk", **said))
        found.append(Operation("POST", path, f"{name}ByPost", summary, handler, "bulk", body=PARAMETERS, **said))
    gone = {"404": "There is none that is yours; it was cancelled, or its time is over"}
    running = {"202": "It runs; X-Progress tells how far it is", **gone}
    of_job: dict[str, Any] = {"parameters": _JOB, "answers": running}
    return [
        *found,
        Operation("GET", "/fhir/$export/{job}", "exportStatus", "How far an export is", status, "bulk", **of_job),
        Operation("DELETE", "/fhir/$export/{job}", "exportCancel", "Cancel an export, or remove its files", stop,
                  "bulk", parameters=_JOB, answers={"202": "It is gone", **gone}),
        Operation("GET", "/fhir/$export/{job}/{name}", "exportFile", "A file of an export", file, "bulk",
                  parameters=_FILE, media_type=_NDJSON, answers=gone),
    ]  # fmt: skip


# -- kick-off ----------------------------------------------------------------------------------------------------


def of_all(call: Call) -> Response:
    """``/fhir/$export``"""
    return _begin(call, "")


def of_patients(call: Call) -> Response:
    """``/fhir/Patient/$export``"""
    return _begin(call, "Patient")


def of_group(call: Call) -> Response:
    """``/fhir/Group/123/$export``"""
    if not is_id(call.path["id"]):
        raise absent()
    return _begin(call, "Group", call.path["id"])


def _begin(call: Call, level: str, group: str = "") -> Response:
    refuse_if_sync(call)
    given = asked_with(call, _TAKES)
    asked = _asked(call, given, within=bool(level))
    if "patient" in given and not level:
        raise Invalid("http.parameter", "The parameter patient is of exports of patients or of a Group.")
    with call.enter(ACTION, level or next(iter(asked.types), "record")) as permit:
        if group:
            members = _members(call, permit, group)
            chosen = members if asked.patients is None else [one for one in asked.patients if one in members]
            asked = msgspec.structs.replace(asked, patients=tuple(chosen))
        job = begin(call.door.vault, call.door.gate, permit, call.door.resources, asked, most=most_jobs(call))
    WAKE.set()
    return begun(call, "$export", job)


def begun(call: Call, path: str, job: str) -> Response:
    """The answer to who began a job."""
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "information", "code": "informational", "diagnostics": "Begun; ask for its status."}],
    }
    return answers.fhir(outcome, 202, {"Content-Location": f"{call.base}/fhir/{path}/{job}"})


def refuse_if_sync(call: Call) -> None:
    """Raises: Invalid: ``http.not_async``. Unsupported: ``http.format``."""
    json_only(call)
    preferred = {one.strip().lower() for one in call.headers.get("prefer", "").replace(";", ",").split(",")}
    if "respond-async" not in preferred:
        raise Invalid("http.not_async", "This is done in the background only; send Prefer: respond-async.")


def most_jobs(call: Call) -> int:
    """How many jobs of one principal may be not at their end."""
    return int(call.door.settings.bulk.most_jobs)


def _asked(call: Call, given: Given, *, within: bool) -> Asked:
    told = given.text("_outputFormat").strip().replace(" ", "+")
    if told and told not in _FORMATS:
        raise Unsupported("http.output_format", f"Exports are NDJSON only: {_NDJSON}.")
    types = tuple(dict.fromkeys(_listed(given, "_type")))
    if not all(map(is_resource, types)):
        raise Invalid("http.parameter", "The parameter _type names what is no resource type of FHIR R4.")
    if within and types and set(types).isdisjoint(compartment_types("Patient")):
        raise Invalid(
            "http.parameter", "What _type names is in no patient's compartment; export it from /fhir/$export."
        )
    patients = [_patient(one) for one in given.all("patient")]
    address = f"{call.base}{call.raw_path}" + (f"?{call.raw_query}" if call.raw_query else "")
    return Asked(
        request=address,
        types=types,
        since=_micros(given.text("_since")),
        until=_micros(given.text("_until")),
        filters=tuple(given.all("_typeFilter")),
        elements=tuple(_listed(given, "_elements")),
        within=within,
        patients=tuple(dict.fromkeys(patients)) if patients else None,
    )


def _listed(given: Given, name: str) -> Iterator[str]:
    for text in given.all(name):
        yield from (one.strip() for one in str(text).split(",") if one.strip())


def _micros(text: str) -> int | None:
    if not text:
        return None
    try:
        return (instant(text) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        raise Invalid("http.parameter", "_since and _until are instants, in the calendar.") from None


def _patient(reference: Any) -> str:
    pointed = target(str(reference.get("reference", "")))
    if pointed is None or pointed[0] != "Patient":
        raise Invalid("http.parameter", "The parameter patient is a Reference of the form Patient/ID.")
    return str(pointed[1])


def _members(call: Call, permit: Permit, key: str) -> list[str]:
    """Ids of the patients that are in a Group now.

    Raises:
        NotFound: there is none in sight. Unsupported: ``http.group``: it is of no persons, or only described.
    """
    group = call.door.resources.read(permit, "Group", key)
    if group.get("type") != "person" or not group.get("actual", False):
        raise Unsupported("http.group", "Only Groups of actual persons can be exported.")
    found: dict[str, None] = {}
    for one in group.get("member", ()):
        pointed = target(str(one.get("entity", {}).get("reference", "")))
        if pointed is not None and pointed[0] == "Patient" and not one.get("inactive", False):
            found[str(pointed[1])] = None
    return list(found)


# -- status ------------------------------------------------------------------------------------------------------


def status(call: Call) -> Response:
    """``GET /fhir/$export/JOB``"""
    return follow_up(call, ACTION, "$export", partial(manifest, token=True))


def follow_up(call: Call, action: str, path: str, told: Any) -> Response:
    """How far a job is, or what it gave."""
    json_only(call)
    call.only("_format", "_pretty")
    with call.enter(action, "record") as permit, call.door.vault.database.reading(permit) as tx:
        job = job_of(call, permit, tx, path)
        parts = Jobs(call.door.vault).parts(tx, job.id)
    if job.state in ("accepted", "running"):
        return Response(status_code=202, headers={"X-Progress": _progress(job, parts), "Retry-After": _RETRY})
    if job.state == "failed":
        issue = {"severity": "error", "code": "exception", "details": {"text": job.error}}
        issue["diagnostics"] = "The job failed; begin it anew."
        return answers.fhir({"resourceType": "OperationOutcome", "issue": [issue]}, 500)
    address = f"{call.base}/fhir/{path}/{job.id}"
    answer = answers.json(told(job, parts, lambda part: f"{address}/{part.object.rpartition('/')[2]}"))
    if job.expires:
        answer.headers["Expires"] = format_datetime(instant(job.expires), usegmt=True)
    return answer


def _progress(job: Job, parts: list[Part]) -> str:
    if job.kind == "import":
        return f"{sum(part.lines for part in parts)} lines"
    done, of = sum(part.position for part in parts), sum(part.goal for part in parts)
    files = sum(part.done for part in parts)
    return f"{done * 100 // of if of else 0} % ({files} of {len(parts)} files)"


def stop(call: Call) -> Response:
    """``DELETE /fhir/$export/JOB``"""
    return cancel(call, ACTION, "$export")


def cancel(call: Call, action: str, path: str) -> Response:
    """Cancel a job, or remove its files."""
    call.only()
    with call.enter(action, "record") as permit, call.door.vault.database.transaction(permit) as tx:
        job = job_of(call, permit, tx, path)
        Jobs(call.door.vault).drop(permit, tx, job.id, "cancelled")
    return Response(status_code=202)


# -- files -------------------------------------------------------------------------------------------------------


def file(call: Call) -> Response:
    """``GET /fhir/$export/JOB/FILE``"""
    return own_file(call, ACTION, "$export")


def own_file(call: Call, action: str, path: str) -> Response:
    """A file of a job of the caller's. Whether they may have it is decided now, by the type that is in it."""
    call.only()
    name = call.path["name"]
    kind = name.removeprefix("deleted-").partition("-")[0]
    with call.enter(action, kind if is_resource(kind) else "record") as permit:
        _, part, lines = file_of(call, permit, path)
    return streamed(call, lines, part.size)


def streamed(call: Call, blocks: Iterator[bytes], size: int) -> Response:
    """Lines, packed where that is asked for."""
    if takes_gzip(call.headers.get("accept-encoding", "")):
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return StreamingResponse(_packed(blocks), media_type=_NDJSON, headers=headers)
    headers = {"Content-Length": str(size), "Vary": "Accept-Encoding"}
    return StreamingResponse(blocks, media_type=_NDJSON, headers=headers)


def _packed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()
