"""Bodies of InvokeEndpoint: rows in, risks out, in the formats of SageMaker's built-in algorithms.

https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-inference.html. In: ``application/json``
(``{"instances": [...]}``), ``application/jsonlines``, ``text/csv``. A row is a list of numbers in the model's order,
``{"features": [...]}``, or an object of named features; objects may also name ``subject_id``, ``encounter_id`` and
``prediction_time``. CSV may have a header line with the same names. What is empty, null or not sent is missing.
Errors never quote a value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from carelake.core.clock import instant
from carelake.core.errors import Invalid, Unsupported
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats
from carelake.serving.predictions import Prediction
from carelake.serving.scoring import Asked, Endpoint

__all__ = ["ACCEPTED", "MOST_ROWS", "Body", "answer", "parse"]

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
ACCEPTED = (JSON, LINES, CSV)
MOST_ROWS = 10_000
_FACTS = ("subject_id", "encounter_id", "prediction_time")
_LONGEST_ID = 64


class _Instances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instances: list[list[float | None] | dict[str, Any]]


Row = list[float | None] | Mapping[str, Any]


class Body:
    """The rows of a request.

    Attributes:
        keys: by which each is routed: its patient's id, "" where that is not told.
    """

    def __init__(self, rows: Sequence[Row], now: datetime, *, loose: bool = False) -> None:
        """Take rows.

        Args:
            loose: what a row names beside the features is left alone, and not an error.

        Raises:
            Invalid: ``serving.rows``.
        """
        if not 0 < len(rows) <= MOST_ROWS:
            raise _wrong(f"1 to {MOST_ROWS} rows are answered by one request")
        self._loose = loose
        self._rows = [_flat(row) for row in rows]
        told = [_facts(row) for row in self._rows]
        self.keys = [subject for subject, _, _ in told]
        self._encounters = [encounter for _, encounter, _ in told]
        self._at = [at or now for _, _, at in told]

    def asked(self, endpoint: Endpoint) -> Asked:
        """As a model takes them.

        Raises:
            Invalid: ``serving.rows``: another number of features, an unknown one, or none of the model's.
        """
        names = endpoint.files.scorer.names
        x = np.empty((len(self._rows), len(names)))
        for at, row in enumerate(self._rows):
            x[at] = _listed(row, len(names)) if isinstance(row, list) else _named(row, names, self._loose)
        if np.isinf(x).any():
            raise _wrong("a feature is infinite")
        return Asked(x.astype(np.float32).astype(np.float64), self.keys, self._encounters, self._at)


def _flat(row: Row) -> Row:
    if isinstance(row, Mapping) and isinstance(row.get("features"), list):
        inner: Any = row["features"]
        facts = {name: row[name] for name in _FACTS if row.get(name) is not None}
        if row.keys() - {"features", *_FACTS}:
            raise _wrong("a row with a list of features has other members too")
        return {"": inner, **facts} if facts else inner
    return row


def _facts(row: Row) -> tuple[str, str, datetime | None]:
    if isinstance(row, list):
        return "", "", None
    subject, encounter = (str(row.get(name) or "") for name in _FACTS[:2])
    if len(subject) > _LONGEST_ID or len(encounter) > _LONGEST_ID or (encounter and not subject):
        raise _wrong("subject_id and encounter_id are ids as FHIR has them, and no encounter is without a subject")
    at = row.get("prediction_time")
    if at is None:
        return subject, encounter, None
    try:
        return subject, encounter, instant(str(at))
    except ValueError:
        raise _wrong("prediction_time is not an ISO 8601 instant") from None


def _listed(row: Sequence[Any], width: int) -> Floats:
    if len(row) != width:
        raise _wrong(f"a row has {len(row)} features, the model {width}")
    try:
        return np.asarray([np.nan if value is None else float(value) for value in row])
    except (TypeError, ValueError, OverflowError):
        raise _wrong("a feature is not a number") from None


def _named(row: Mapping[str, Any], names: Sequence[str], loose: bool) -> Floats:
    if isinstance(inner := row.get(""), list):  # of `_flat`; a column without a name is none of the model's
        return _listed(inner, len(names))
    unknown = row.keys() - set(names) - set(_FACTS)
    known = row.keys() & set(names)
    if (unknown and not loose) or not known:
        raise _wrong(f"a row names {len(unknown)} features that the model has not, and {len(known)} that it has")
    return _listed([row.get(name) for name in names], len(names))


def parse(body: bytes, content_type: str, now: datetime) -> Body:
    """The rows of a body.

    Raises:
        Unsupported: ``serving.content_type``. Invalid: ``serving.rows``.
    """
    kind = _kind(content_type or JSON, "serving.content_type")
    readers: Mapping[str, Callable[[bytes], Sequence[Row]]] = {JSON: _json, LINES: _lines, CSV: _csv}
    return Body(readers[kind](body), now)


def _kind(said: str, code: str) -> str:
    kind = said.partition(";")[0].strip().lower()
    kind = {"application/jsonlines+json": LINES, "application/x-jsonlines": LINES}.get(kind, kind)
    if kind not in ACCEPTED:
        raise Unsupported(code, f"Rows come and go as {', '.join(ACCEPTED)}.")
    return kind


def _json(body: bytes) -> Sequence[Row]:
    try:
        return msgspec.json.decode(body, type=decodable(_Instances)).instances
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _wrong('the body is not {"instances": [...]} with rows as docs/endpoints.md describes them') from None


def _lines(body: bytes) -> Sequence[Row]:
    try:
        return [
            msgspec.json.decode(line, type=list[float | None] | dict[str, Any])
            for line in body.splitlines()
            if line.strip()
        ]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _wrong("a line is not a row as docs/endpoints.md describes it") from None


def _csv(body: bytes) -> Sequence[Row]:
    try:
        lines = [line for line in csv.reader(io.StringIO(body.decode("utf-8")), strict=True) if line]
    except (UnicodeDecodeError, csv.Error):
        raise _wrong("the body is not CSV in UTF-8") from None
    if lines and any(not _number(cell) for cell in lines[0]):
        head, *rest = lines
        if any(len(line) != len(head) for line in rest):
            raise _wrong("a line has another number of cells than the header")
        return [{name: _cell(name, cell) for name, cell in zip(head, line, strict=True)} for line in rest]
    return [[_cell("", cell) for cell in line] for line in lines]


def _number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _cell(name: str, cell: str) -> Any:
    if name in _FACTS or not _number(cell):
        return cell or None
    return float(cell) if cell else None


def answer(found: Sequence[Prediction], accept: str, *, reasons: bool = True) -> tuple[bytes, str]:
    """The body of an answer and its content type; CSV is one risk a line.

    Raises:
        Unsupported: ``serving.accept``.
    """
    kind = _kind(accept if accept and accept.strip() != "*/*" else JSON, "serving.accept")
    if kind == CSV:
        return "".join(f"{one.probability!r}\n" for one in found).encode(), CSV
    told = [_told(one, reasons=reasons) for one in found]
    if kind == LINES:
        return b"".join(msgspec.json.encode(one) + b"\n" for one in told), LINES
    return msgspec.json.encode({"predictions": told}), JSON


def _told(one: Prediction, *, reasons: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "score": one.probability,
        "predicted_label": int(one.flagged),
        "prediction": one.ref,
        "endpoint": one.endpoint,
        "model": one.model,
    }
    if reasons:
        said["reasons"] = [reason.as_json() for reason in one.reasons]
    return {**said, **({"resource": one.resource} if one.resource else {})}


def _wrong(what: str) -> Invalid:
    return Invalid("serving.rows", f"The rows cannot be scored: {what}.")
