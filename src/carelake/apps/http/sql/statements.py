"""``/sql``: a statement is asked, its result read in pages or whole, cancelled, or removed. See docs/asking.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from carelake.apps.asking import ACTION as READ
from carelake.apps.asking import TARGET, Question
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id
from carelake.apps.http.routes import Operation
from carelake.apps.http.sql.forms import FORMS, JSON, STREAMED, Batches, columns_of, form_of, page_of
from carelake.apps.http.sql.running import (
    ACTION,
    KIND,
    LIMITED,
    ZONE,
    Found,
    Statement,
    Statements,
    failed,
    name_of,
)
from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import Invalid, NotFound, Refused, Unavailable
from carelake.core.permit import Permit
from carelake.store.jobs import Job, Jobs
from carelake.vault.slips import Slips

__all__ = ["operations"]

_WAIT_SECONDS = 10.0
_ROWS, _MOST_ROWS = 1000, 10_000
_WAIT = re.compile(r"wait\s*=\s*(\d{1,4})")
_RETRY = "1"
_JOB = {"job": "id of the statement, as Content-Location has it"}
_GONE = {"404": "There is none that is yours; it was cancelled, or its time is over"}
_FAILED = {"409": "It ended with an error, whose code is in failed"}
_RUNNING = {"202": "It runs; ask again at Location"}
_BODY = {
    "type": "object",
    "required": ["statement"],
    "additionalProperties": False,
    "properties": {
        "statement": {"type": "string", "description": "one SELECT"},
        "parameters": {
            "description": "values of ? and $1 in order, or of $name by name",
            "oneOf": [{"type": "array"}, {"type": "object"}, {"type": "null"}],
        },
        "as_of": {"type": ["string", "null"], "description": "a snapshot's ref, a tag, a day or an instant"},
        "fresh": {"type": "boolean", "description": "bring the lake up to the record before"},
        "format": {"enum": [*FORMS, None], "description": "else Accept tells"},
        "limit": {"type": ["integer", "null"], "minimum": 0, "description": "so many rows in all, and no more"},
        "rows": {"type": "integer", "minimum": 1, "maximum": _MOST_ROWS, "description": "of one page of JSON"},
    },
}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    statement: str
    parameters: list[Any] | dict[str, Any] | None = None
    as_of: str | None = None
    fresh: bool = False
    format: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    rows: Annotated[int, msgspec.Meta(ge=1, le=_MOST_ROWS)] = _ROWS


def operations(statements: Statements) -> list[Operation]:
    """The addresses of statements."""
    some = "page: the token of a page of JSON, as the page before it has it in next"
    media = ", ".join(one for one in FORMS.values() if one != JSON)
    return [
        Operation(
            "POST", "/sql", "sqlAsk", f"Ask one SELECT; answered as JSON in pages, or whole as {media}",
            partial(_ask, statements), "sql", body=_BODY,
            answers={**_RUNNING, "409": "Cancelled", "429": "Too many of yours run", "503": "Over a limit (lake.*)"},
        ),
        Operation(
            "GET", "/sql/{job}", "sqlRead", "Read the result of a statement, while it is kept", _read, "sql",
            parameters=_JOB, query=some, answers={**_RUNNING, **_GONE, **_FAILED},
        ),
        Operation(
            "DELETE", "/sql/{job}", "sqlCancel", "Cancel a statement, or remove its result",
            partial(_cancel, statements), "sql", parameters=_JOB, answers={"204": "It is gone", **_GONE},
        ),
    ]  # fmt: skip


# -- asking --------------------------------------------------------------------------------------------------------


def _ask(statements: Statements, call: Call) -> Response:
    call.only()
    caller = call.caller(ACTION, TARGET)
    asked = call.json(_Asked)
    form = form_of(asked.format, call.headers.get("accept", ""))
    question = Question(
        statement=asked.statement,
        parameters=asked.parameters,
        as_of=asked.as_of,
        fresh=asked.fresh,
        limit=asked.limit,
    )
    one = Statement(caller, question, asked.rows, partial(_first, call, form, asked.rows))
    statements.ask(one)
    try:
        if (answer := one.wait(_patience(call))) is not None:
            return answer
        if not one.begun.wait(_WAIT_SECONDS):
            one.stop.cancel()
            raise Unavailable("http.busy", "Too many statements wait here; try again later.", retry_after=2)
        if one.done.done():
            one.done.result()  # it may have been refused meanwhile
        return _later(call, one.id)
    except Refused as error:
        one.act = one.act or str(error.facts.get("act", ""))
        raise
    finally:
        call.act = one.act


def _patience(call: Call) -> float:
    """How long the caller wants to wait (RFC 7240); not at all with ``respond-async`` alone."""
    preferred = call.headers.get("prefer", "").lower()
    most = float(call.door.settings.serve.answer_seconds) / 2
    if said := _WAIT.search(preferred):
        return min(float(said[1]), most)
    return 0.0 if "respond-async" in preferred else min(_WAIT_SECONDS, most)


def _later(call: Call, job: str) -> Response:
    headers = {"Location": f"{call.base}/sql/{job}", "Retry-After": _RETRY}
    said = canonical.dump_as_given({"id": job, "state": "running"})
    return Response(said, 202, headers, media_type=JSON)


def _first(call: Call, form: str, rows: int, permit: Permit, one: Statement, found: Found) -> Response:
    """The answer to who waited: all of it, or the first page."""
    if form != "json":
        if not found.kept:
            return _streamed(form, found.schema, found.head)
        answer = _stored(call, permit, one.id, form)
        answer.headers["Content-Location"] = f"{call.base}/sql/{one.id}"
        return answer
    page = page_of(_Held(found.head), (0, 0), rows)
    place = page.after or ((len(found.head), 0) if len(page.rows) < found.rows else None)
    told = _Told(one.id if found.kept else None, found.rows, found.more, rows)
    return _page(call, permit, told, found.schema, page.rows, place)


class _Held(NamedTuple):
    """Batches that are here, by number."""

    held: Sequence[pa.RecordBatch]

    @property
    def num_record_batches(self) -> int:
        return len(self.held)

    def get_batch(self, number: int) -> pa.RecordBatch:
        return self.held[number]


# -- reading -------------------------------------------------------------------------------------------------------


def _read(call: Call) -> Response:
    call.only("page")
    form = form_of(None, call.headers.get("accept", ""))
    token = call.one("page")
    with call.enter(READ, TARGET) as permit:
        with call.door.vault.database.reading(permit) as tx:
            job = _job(call, permit, tx)
            parts = Jobs(call.door.vault).parts(tx, job.id)
        if job.state == "failed":
            raise failed(job.error)
        if job.state != "done" or not parts:
            return _later(call, job.id)
        permit.log.note(job=job.id)
        if form != "json":
            permit.log.count(rows=parts[0].lines)
            return _stored(call, permit, job.id, form)
        place, rows = _taken(call, permit, job, token)
        told = _Told(job.id, parts[0].lines, parts[0].type == LIMITED, rows)
        with call.door.vault.objects.open(permit, ZONE, name_of(job.id)) as stream:
            batches = pa.ipc.open_file(stream)
            page = page_of(batches, place, rows)
            permit.log.count(rows=len(page.rows))
            return _page(call, permit, told, batches.schema, page.rows, page.after)


def _job(call: Call, permit: Permit, tx: Connection) -> Job:
    """The caller's statement that the address names, asked in the sight that they have now."""
    found = Jobs(call.door.vault).get(permit, tx, call.path["job"]) if is_id(call.path["job"]) else None
    if found is None or found.kind != KIND or sorted(found.asked.get("scope", ())) != sorted(permit.scope):
        raise NotFound("store.no_such_job", "There is no such job; it was cancelled, or its time is over.")
    # It may not have been swept yet.
    if found.expires is not None and instant(found.expires) <= call.door.vault.clock.now():
        raise NotFound("store.no_such_job", "There is no such job; it was cancelled, or its time is over.")
    return found


def _stored(call: Call, permit: Permit, job: str, form: str) -> Response:
    """All rows of a result that is kept, read while they are sent."""
    stream = call.door.vault.objects.open(permit, ZONE, name_of(job))
    batches = pa.ipc.open_file(stream)
    return _streamed(form, batches.schema, _whole(stream, batches))


def _whole(stream: BinaryIO, batches: Batches) -> Iterator[pa.RecordBatch]:
    with stream:
        for number in range(batches.num_record_batches):
            yield batches.get_batch(number)


def _streamed(form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Response:
    return StreamingResponse(STREAMED[form](schema, batches), media_type=FORMS[form])


class _Told(NamedTuple):
    """What a page says of its result.

    Attributes:
        id: None where it is not kept.
    """

    id: str | None
    total: int
    limited: bool
    rows: int


def _page(
    call: Call,
    permit: Permit,
    told: _Told,
    schema: pa.Schema,
    rows: Sequence[tuple[Any, ...]],
    place: tuple[int, int] | None,
) -> Response:
    following = None
    headers: dict[str, str] = {}
    if told.id is not None:
        headers["Content-Location"] = f"{call.base}/sql/{told.id}"
        if place is not None:
            following = _slips(call, permit, told.id).give(msgspec.msgpack.encode((*place, told.rows)))
    said = {
        "id": told.id,
        "state": "done",
        "columns": columns_of(schema),
        "rows": rows,
        "total": told.total,
        "limited": told.limited,
        "next": following,
    }
    return Response(canonical.dump_as_given(said), 200, headers, media_type=JSON)


def _taken(call: Call, permit: Permit, job: Job, token: str | None) -> tuple[tuple[int, int], int]:
    """Where a page begins, and how many rows it has; without a token the first one."""
    if token is None:
        return (0, 0), _ROWS
    try:
        said = _slips(call, permit, job.id).take(token)
        number, row, rows = msgspec.msgpack.decode(said, type=tuple[int, int, int])
    except (Invalid, msgspec.MsgspecError):
        raise Invalid("http.page", "This is no page of this result; take next of the page before it.") from None
    return (number, row), rows


def _slips(call: Call, permit: Permit, job: str) -> Slips:
    return Slips(permit, call.door.vault.keyring, "sql", msgspec.msgpack.encode((permit.principal, job)))


# -- cancelling ----------------------------------------------------------------------------------------------------


def _cancel(statements: Statements, call: Call) -> Response:
    call.only()
    with call.enter(ACTION, TARGET) as permit, call.door.vault.database.transaction(permit) as tx:
        job = _job(call, permit, tx)
        Jobs(call.door.vault).drop(permit, tx, job.id, "cancelled")
    statements.cancel(job.id)
    return Response(status_code=204)
