"""In which form rows are answered, and the answer itself (operations-common of the guide)."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

import pyarrow as pa
from starlette.responses import Response, StreamingResponse

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.core import canonical
from carelake.core.errors import Invalid, Unsupported
from carelake.lake.views.formats import blocks
from carelake.lake.views.numbers import plain_number

__all__ = ["MEDIA", "answer", "form_of", "wants_envelope"]

MEDIA: Mapping[str, str] = {
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.stream",
}
_FHIR = answers.FHIR_JSON
_ALSO = {"application/ndjson": "ndjson", "application/fhir+ndjson": "ndjson", "text/json": "json"}
_BY_MEDIA = {media: name for name, media in MEDIA.items()} | _ALSO
_ANY = frozenset({"", "*/*", "application/*", "text/*", "application/octet-stream"})
_ROWS = 2_000
_KINDS: tuple[tuple[Any, str], ...] = (
    (pa.types.is_boolean, "Boolean"),
    (pa.types.is_integer, "Integer"),
    (pa.types.is_floating, "Decimal"),
    (pa.types.is_decimal, "Decimal"),
    (pa.types.is_string, "String"),
    (pa.types.is_large_string, "String"),
    (pa.types.is_date, "Date"),
    (pa.types.is_time, "Time"),
    (pa.types.is_timestamp, "DateTime"),
    (pa.types.is_binary, "Base64Binary"),
    (pa.types.is_null, "String"),
)


def form_of(call: Call, said: str | None, *, fhir: bool) -> str:
    """The form that is asked for: by ``_format``, else by ``Accept``, else ``ndjson``.

    Args:
        fhir: whether there is a form of FHIR's own.

    Raises:
        Unsupported: ``http.output_format``; ``http.format`` (406).
    """
    if said is not None:
        form = _BY_MEDIA.get(said.strip().lower(), said.strip().lower())
        if form in MEDIA or (fhir and form == "fhir"):
            return form
        raise Unsupported("http.output_format", f"The forms are {', '.join(_names(fhir))}.", expression="_format")
    accepted = _accepted(call)
    if not accepted or any(one in _ANY for one in accepted):
        return next((_BY_MEDIA[one] for one in accepted if one in _BY_MEDIA), "ndjson")
    for one in accepted:
        if one in _BY_MEDIA:
            return _BY_MEDIA[one]
    if _FHIR in accepted:
        return "ndjson"
    raise Unsupported("http.format", f"Rows are answered as {', '.join(MEDIA.values())}.")


def _names(fhir: bool) -> list[str]:
    return [*MEDIA, *(["fhir"] if fhir else [])]


def _accepted(call: Call) -> list[str]:
    told = call.headers.get("accept", "").lower().split(",")
    return [one.partition(";")[0].strip() for one in told if one.strip() and one.partition(";")[2].strip() != "q=0"]


def wants_envelope(call: Call) -> bool:
    """Whether the caller takes FHIR alone, so that rows come inside of a Binary."""
    accepted = _accepted(call)
    return _FHIR in accepted and not any(one in _ANY or one in _BY_MEDIA for one in accepted)


def answer(call: Call, table: pa.Table, form: str, *, header: bool, headers: Mapping[str, str]) -> Response:
    """The rows.

    Raises:
        Invalid: ``lake.view_format``: a column has no form in FHIR.
    """
    if form == "fhir":
        kinds = [_kind(one) for one in table.schema]
        return StreamingResponse(
            _parameters(table, kinds), media_type=f"{_FHIR}; charset=utf-8", headers=dict(headers)
        )
    made = blocks(table, form, header=header)
    if wants_envelope(call):
        data = base64.b64encode(b"".join(made)).decode()
        binary = {"resourceType": "Binary", "contentType": MEDIA[form], "data": data}
        return answers.fhir(binary, headers=headers)
    media = MEDIA[form] + ("; charset=utf-8" if form == "csv" else "")
    return StreamingResponse(made, media_type=media, headers=dict(headers))


def _kind(column: pa.Field) -> str:
    for fits, kind in _KINDS:
        if fits(column.type):
            zoned = kind == "DateTime" and column.type.tz is not None
            return "Instant" if zoned else kind
    raise Invalid("lake.view_format", "A column of a list or an object has no form in Parameters; ask for json.")


def _parameters(table: pa.Table, kinds: list[str]) -> Iterator[bytes]:
    """A Parameters resource with a ``row`` for each."""
    yield b'{"resourceType":"Parameters"'
    first = True
    for batch in table.to_batches(max_chunksize=_ROWS):
        made = []
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            told = zip(table.column_names, kinds, values, strict=True)
            parts = [_part(name, kind, value) for name, kind, value in told if value is not None]
            made.append(canonical.dump_as_given({"name": "row", **({"part": parts} if parts else {})}))
        if made:
            yield (b',"parameter":[' if first else b",") + b",".join(made)
            first = False
    yield b"}" if first else b"]}"


def _part(name: str, kind: str, value: Any) -> dict[str, Any]:
    if kind == "Integer" and not -(2**31) <= value < 2**31:
        return {"name": name, "valueDecimal": value}  # R4 has no integer64
    if kind == "Decimal" and isinstance(value, float):
        value = plain_number(value)
    elif kind == "Instant":
        value = value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    elif kind in ("Date", "Time", "DateTime"):
        value = value.isoformat()
    elif kind == "Base64Binary":
        value = base64.b64encode(value).decode()
    return {"name": name, f"value{kind}": value}
