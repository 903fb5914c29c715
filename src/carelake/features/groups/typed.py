"""Many rows at once, from whatever types a file has, in the types of a group; rows that are not in them are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import CarelakeError, Invalid
from carelake.features.groups.definition import Feature, Group
from carelake.features.groups.iceberg import arrow_type
from carelake.features.groups.values import IDENTIFIER_BYTES, RECORD_BYTES, canonical, event_micros, event_text
from carelake.features.ticks import NEVER, ticks

__all__ = ["Typed", "typed"]

_ISO = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$"
_US = pa.timestamp("us", "UTC")


class Typed:
    """Rows of a group.

    Attributes:
        rows: a column for each feature, under its name.
        time: event times, timestamps in UTC; null where a row is bad.
        bad: reasons by number of the row, from 0: the feature and what it lacks, never a value.
    """

    def __init__(self, group: Group, given: pa.Table) -> None:
        self.bad: dict[int, str] = {}
        self._group = group
        self._size = len(given)
        columns = [self._column(feature, given) for feature in group.features]
        self.rows = pa.table(columns, names=list(group.names))
        self.time = self._times()
        self._check_sizes()

    def _mark(self, wrong: Any, reason: str) -> None:
        for at in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
            self.bad.setdefault(at, reason)

    def _column(self, feature: Feature, given: pa.Table) -> pa.Array:
        kind = arrow_type(feature)
        if feature.name not in given.column_names:
            return pa.nulls(self._size, kind)
        column = given.column(feature.name).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks == 1 else column
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, kind)
        if feature.name == self._group.event and pa.types.is_temporal(column.type):
            column = _event_texts(column, feature.kind)
        if pa.types.is_string(column.type) and feature.name in (self._group.record, self._group.said.subject):
            self._check_texts(feature, column)
        try:
            return column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return self._one_by_one(feature, column, kind)

    def _check_texts(self, feature: Feature, column: pa.Array) -> None:
        """Texts of numbers that name records or patients, as PutRecord takes them."""
        if feature.kind != "String":
            for at, text in enumerate(column.to_pylist()):
                if text is not None and not canonical(feature, text):
                    self.bad.setdefault(at, f"{feature.name}: a number that names something, written in another way")

    def _one_by_one(self, feature: Feature, column: pa.Array, kind: pa.DataType) -> pa.Array:
        made: list[Any] = []
        for at, value in enumerate(column):
            try:
                made.append(value.cast(kind).as_py())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                made.append(None)
                self.bad.setdefault(at, f"{feature.name}: not of type {feature.kind}")
        return pa.array(made, kind)

    def _times(self) -> pa.Array:
        group = self._group
        texts = self.rows.column(group.event).combine_chunks()
        self._mark(pc.is_null(texts), f"{group.event}: no event time")
        record = self.rows.column(group.record).combine_chunks()
        self._mark(pc.is_null(record), f"{group.record}: no record identifier")
        if pa.types.is_floating(record.type):
            self._mark(pc.invert(pc.is_finite(record)), f"{group.record}: no number")
        if pa.types.is_string(record.type):
            self._mark(pc.equal(pc.binary_length(record), 0), f"{group.record}: no record identifier")
            self._mark(pc.greater(pc.binary_length(record), IDENTIFIER_BYTES), f"{group.record}: more than 2 KB")
        if group.event_kind == "Fractional":
            return self._read(texts, lambda one: event_micros(repr(one), "Fractional"))
        formed = pc.fill_null(pc.match_substring_regex(texts, _ISO), False)
        self._mark(pc.invert(formed), f"{group.event}: not an event time as SageMaker writes it")
        texts = pc.if_else(formed, texts, pa.scalar(None, pa.string()))
        try:
            return texts.cast(_US)
        except pa.ArrowInvalid:
            return self._read(texts, lambda one: event_micros(str(one), "String"))

    def _read(self, values: pa.Array, read: Callable[[Any], int]) -> pa.Array:
        made: list[int | None] = []
        for at, value in enumerate(values.to_pylist()):
            try:
                made.append(None if value is None else read(value))
            except CarelakeError:
                made.append(None)
                self.bad.setdefault(at, f"{self._group.event}: not an event time")
        return pa.array(made, pa.int64()).cast(_US)

    def _check_sizes(self) -> None:
        if self.rows.nbytes < RECORD_BYTES:
            return
        texts = [one for one in self.rows.columns if pa.types.is_string(one.type)]
        if texts:
            lengths = [pc.fill_null(pc.binary_length(one), 0).cast(pa.int64()) for one in texts]
            whole = lengths[0]
            for more in lengths[1:]:
                whole = pc.add(whole, more)
            self._mark(pc.greater(whole, RECORD_BYTES), "more than 350 KB")


def _event_texts(column: pa.Array, kind: str) -> pa.Array:
    """Timestamps and dates as event times, with milliseconds; what has no zone is taken as UTC."""
    numbers = ticks(column).tolist()
    texts = [None if one == NEVER else event_text(one // 1_000 * 1_000, kind) for one in numbers]
    return pa.array(texts, pa.string())


def typed(group: Group, given: pa.Table) -> Typed:
    """Rows in a group's types; columns that are missing are null.

    Raises:
        Invalid: ``features.columns``: a column that the group does not define, or none for a needed one, or two of
            one name.
    """
    if len(set(given.column_names)) < given.num_columns:
        raise Invalid("features.columns", "The file has two columns of one name; rename or drop one.")
    unknown = set(given.column_names) - set(group.names)
    missing = {group.record, group.event} - set(given.column_names)
    if unknown or missing:
        raise Invalid(
            "features.columns",
            f"{len(unknown)} columns are not of the feature group, and {len(missing)} of {group.record} and "
            f"{group.event} are missing; a file has columns called as the features.",
        )
    return Typed(group, given)
