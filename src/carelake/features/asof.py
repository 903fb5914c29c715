"""Point-in-time joins: for each label, what was known of its subject at its time, and nothing later.

A feature row speaks of a moment (``event_time``) and became known at another (``write_time``). It may be used at
time T only when both are at or before T, that is when ``max(event_time, write_time) <= T``: one number per row. The
best of those is the one with the greatest event time, then write time, then position.

So a row that became known no earlier than a better row of its subject is never the best of any moment. Without such
rows, those of a subject are in the order of both numbers at once, and one binary search finds each label's. Where
writes came in the order of events there are none, which a comparison of neighbours tells: nothing is sorted then
but subjects, by counting.

A row with ``is_deleted`` is a statement too: where it is the best known at T, nothing is known. Labels before the
deletion keep what was valid then. One row comes out for each label row, in order, whatever the groups hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.features.plain import plain, takeable
from carelake.features.ticks import LAST, NEVER, ticks, unit_of

__all__ = ["CALLED", "KEYS", "Best", "Staleness", "best", "features_of", "join", "limit_of", "with_features"]

KEYS = ("event_time", "write_time", "is_deleted")
CALLED = "api_invocation_time"
"""When a row of SageMaker's offline store was asked for: a column of the store's own, and no feature."""
_DIGIT, _MASK = 16, 0xFFFF
"""Numbers of 16 bits are sorted by counting."""

Staleness = timedelta | Mapping[str, timedelta] | None
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Best:
    """For each label, the best row of a group that was known at its time.

    Attributes:
        rows: its place in the group, -1 where nothing was known; a deletion has a place too.
        usable: whether its values may be used: there is one, it is no deletion, and it is not stale.
    """

    rows: Ints
    usable: Flags

    def taken(self) -> pa.Array:
        """Places to take values from, null where there is none."""
        return pa.array(self.rows, mask=~self.usable)


def join(
    labels: pa.Table,
    groups: Mapping[str, pa.Table],
    *,
    subject: str = "subject_id",
    at: str = "prediction_time",
    staleness: Staleness = None,
) -> pa.Table:
    """The label rows in their order, unchanged, plus one column ``GROUP__FEATURE`` per feature.

    Args:
        labels: has ``subject`` and ``at`` (a timestamp or a date); any other columns pass through.
        groups: each has ``subject``, ``event_time``, ``write_time``, ``is_deleted`` and feature columns. A null
            ``write_time`` is taken as the event time, a null ``is_deleted`` as false; rows without an event time
            or a subject are never joined, and a label without a subject or a time knows nothing. `CALLED` is no
            feature.
        staleness: the greatest age (``at`` minus ``event_time``) that a value may have, for all groups or by
            group; older values come out null.

    Returns:
        As many rows as ``labels``; null where nothing was known. Times without a zone are UTC; they are compared at
        microseconds, or at nanoseconds where a column has them.

    Raises:
        Invalid: ``features.asof_column`` when a needed column is missing or an output column would hide another;
            ``features.asof_time``, ``features.asof_subject``, ``features.asof_staleness``.
    """
    found = best(labels, groups, subject=subject, at=at, staleness=staleness)
    return with_features(labels, groups, found, subject=subject)


def best(
    labels: pa.Table,
    groups: Mapping[str, pa.Table],
    *,
    subject: str = "subject_id",
    at: str = "prediction_time",
    staleness: Staleness = None,
) -> dict[str, Best]:
    """The best row of each group for each label; arguments and errors as those of `join`."""
    _need(labels, (subject, at), "labels")
    if isinstance(staleness, Mapping) and (unknown := sorted(set(staleness) - set(groups))):
        raise Invalid("features.asof_staleness", f"There is no group {unknown[0]} to limit the age of.")
    wanted, when = _Wanted(labels.column(subject)), plain(labels.column(at))
    found = {}
    for name, group in groups.items():
        _need(group, (subject, *KEYS), name)
        events, writes = (plain(group.column(one)) for one in KEYS[:2])
        unit = unit_of(when, events, writes)
        codes = wanted.codes_of(group.column(subject))
        facts = _Facts(codes, events, writes, _deleted(group, name), unit)
        limit = limit_of(staleness, name)
        found[name] = facts.best(wanted, ticks(when, unit), None if limit is None else min(limit * unit, LAST))
    return found


def with_features(
    labels: pa.Table, groups: Mapping[str, pa.Table], found: Mapping[str, Best], *, subject: str = "subject_id"
) -> pa.Table:
    """The labels with the features of what was found."""
    joined = labels
    for name, group in groups.items():
        rows = found[name].taken()
        for feature in features_of(group, subject):
            joined = _append(joined, f"{name}__{feature}", takeable(group.column(feature)).take(rows))
    return joined


def features_of(group: pa.Table, subject: str = "subject_id") -> list[str]:
    """Names of a group's features, in order."""
    return [name for name in group.column_names if name not in (subject, *KEYS, CALLED)]


def limit_of(staleness: Staleness, group: str) -> int | None:
    """The greatest age of a group's values in microseconds, None where there is none.

    Raises:
        Invalid: ``features.asof_staleness``.
    """
    limit = staleness.get(group) if isinstance(staleness, Mapping) else staleness
    if limit is None:
        return None
    if isinstance(limit, (int, float, str)):
        raise Invalid("features.asof_staleness", "The greatest age of a value has no unit; expected a timedelta.")
    if limit < timedelta(0):
        raise Invalid("features.asof_staleness", "The greatest age of a value is negative; expected 0 or more.")
    return limit // timedelta(microseconds=1)


def _append(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    if name in table.column_names:
        raise Invalid("features.asof_column", "A joined column would hide another; rename the group or the feature.")
    return table.append_column(name, column)


def _need(table: pa.Table, names: tuple[str, ...], place: str) -> None:
    missing = sorted(set(names) - set(table.column_names))
    if missing:
        raise Invalid(
            "features.asof_column",
            f"{place} lacks the columns {', '.join(missing)}; a group has a subject, {', '.join(KEYS)}.",
        )
    if len(set(table.column_names)) < len(table.column_names):
        raise Invalid("features.asof_column", f"{place} has two columns of one name; rename one.")


class _Wanted:
    """Subjects of the labels as small whole numbers; -1 is nobody."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        column = _subjects(column)
        self._who = pc.drop_null(pc.unique(column))
        self.count = len(self._who)
        self.codes = self._found(column)

    def _found(self, column: pa.ChunkedArray) -> Codes:
        found = pc.index_in(column, self._who, skip_nulls=True)
        codes: Codes = pc.fill_null(found, -1).to_numpy()
        return codes

    def codes_of(self, column: pa.ChunkedArray) -> Codes:
        """The same numbers for a group's subjects."""
        column = _subjects(column)
        if column.type != self._who.type:
            if pa.types.is_null(column.type) or pa.types.is_null(self._who.type):
                return np.full(len(column), -1, dtype=np.int32)
            raise Invalid(
                "features.asof_subject",
                f"Subjects are {self._who.type} in the labels and {column.type} in a group; expected one kind.",
            )
        return self._found(column)


def _subjects(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as large_string, whole numbers as int64, however they are stored."""
    column = plain(column)
    kind = column.type
    if pa.types.is_integer(kind) and kind != pa.int64():
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise Invalid(
                "features.asof_subject", "A subject's number does not fit into 64 bits with sign."
            ) from None
    if pa.types.is_nested(kind) or pa.types.is_floating(kind):
        raise Invalid("features.asof_subject", f"A subject cannot be {kind}; expected text or a whole number.")
    return column


def _deleted(group: pa.Table, name: str) -> Flags:
    """Which rows of a group are deletions; null is none."""
    column = plain(group.column("is_deleted"))
    try:
        said = column.cast(pa.bool_())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # its message would repeat the value
        raise Invalid("features.asof_column", f"is_deleted of {name} is {column.type}; expected booleans.") from None
    flags: Flags = pc.fill_null(said, False).to_numpy()
    return flags


class _Facts:
    """A group's rows of the wanted subjects that are ever best, by subject and by how good they are."""

    def __init__(
        self, codes: Codes, events: pa.ChunkedArray, writes: pa.ChunkedArray, deleted: Flags, unit: int
    ) -> None:
        self._event, write = ticks(events, unit), ticks(writes, unit)
        if writes.null_count:
            write = np.where(pc.is_null(writes), self._event, write)
        if events.null_count:
            codes = np.where(pc.is_null(events), np.int32(-1), codes)
        known = np.maximum(self._event, write)
        rows = _ranked(codes, self._event, write)
        # What is in order for everybody is so for each; to look there first spares a walk through the rows.
        self._rows = rows if _rises(known) else rows[_ever_best(codes[rows], known[rows])]
        self._codes, self._known = codes[self._rows], known[self._rows]
        self._deleted = deleted

    def best(self, wanted: _Wanted, at: Ints, limit: int | None) -> Best:
        """The best row for each of the wanted at a time; ``limit`` in ticks."""
        if not len(self._rows):
            return Best(np.full(len(at), -1, dtype=np.int64), np.zeros(len(at), dtype=bool))
        starts = np.searchsorted(self._codes, np.arange(wanted.count + 1))
        who = np.maximum(wanted.codes, 0)
        low = starts[who]
        place = _last_until(self._known, low, np.where(wanted.codes < 0, low, starts[who + 1]), at)
        there = place >= low
        rows = np.where(there, self._rows[place], -1)
        usable = there & ~self._deleted[rows]
        if limit is not None:
            usable &= self._event[rows] >= np.maximum(at, NEVER + limit) - limit
        return Best(rows, usable)


def _ranked(codes: Codes, event: Ints, write: Ints) -> Ints:
    """Places of the rows of somebody, by subject, event, write and place."""
    rows = _by_subject(codes)
    if _rises(event, write):
        return rows
    who, when, then = codes[rows], event[rows], write[rows]
    if not ((who[1:] == who[:-1]) & _back(when, then)).any():
        return rows
    by_time = pl.DataFrame({"event": event, "write": write}).select(
        pl.arg_sort_by("event", "write", maintain_order=True)
    )
    rows = by_time.to_series().cast(pl.Int64).to_numpy()
    return rows[_by_subject(codes[rows])]


def _rises(first: Ints, second: Ints | None = None) -> bool:
    return not _back(first, second).any()


def _back(first: Ints, second: Ints | None) -> Flags:
    """Whether each row but the first is before its neighbour."""
    before: Flags = first[1:] < first[:-1]
    if second is not None:
        before = before | ((first[1:] == first[:-1]) & (second[1:] < second[:-1]))
    return before


def _by_subject(codes: Codes) -> Ints:
    """Places by subject, rows of one in their order; without rows of nobody. Digit by digit, each by counting."""
    rows = np.flatnonzero(codes >= 0)
    wanted = codes if len(rows) == len(codes) else codes[rows]
    order = np.argsort((wanted & _MASK).astype(np.uint16), kind="stable")
    if len(wanted) and int(wanted.max()) > _MASK:
        order = order[np.argsort((wanted[order] >> _DIGIT).astype(np.uint16), kind="stable")]
    return rows[order]


def _ever_best(codes: Codes, known: Ints) -> Flags:
    """Of ranked rows, those that became known before every better one of their subject."""
    if not ((codes[1:] == codes[:-1]) & (known[1:] < known[:-1])).any():
        return np.ones(len(known), dtype=bool)
    later = pl.DataFrame({"who": codes, "known": known}).select(pl.col("known").cum_min(reverse=True).over("who"))
    return known <= later.to_series().to_numpy()


def _last_until(known: Ints, low: Ints, high: Ints, at: Ints) -> Ints:
    """For each label the last place from ``low``, before ``high``, that was known at its time; else ``low - 1``."""
    low, high = low.copy(), high.copy()
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        middle = (low + high) >> 1
        open_ = low < high
        yes = open_ & (known[np.minimum(middle, len(known) - 1)] <= at)
        low, high = np.where(yes, middle + 1, low), np.where(open_ & ~yes, middle, high)
    return low - 1
