"""Point-in-time joins: for each label, what was known of its subject at its time, and nothing later.

A feature row speaks of a moment (``event_time``) and became known at another (``write_time``). It may be used at
time T only when both are at or before T, that is when ``max(event_time, write_time) <= T``: one number per row. So
rows are put in the order of that number, the best row so far (greatest event time, then write time, then position)
is carried along, and one backward as-of join finds it for each label. Late writes and corrections need nothing more.

A row with ``is_deleted`` is a statement too: where it is the best known at T, nothing is known. Labels before the
deletion keep what was valid then. One row comes out for each label row, in order, whatever the groups hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import polars as pl
import pyarrow as pa

from carelake.core.errors import Invalid

__all__ = ["join"]

KEYS = ("event_time", "write_time", "is_deleted")
_MICROSECONDS = timedelta(microseconds=1)

Staleness = timedelta | Mapping[str, timedelta] | None


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
        labels: has ``subject`` and ``at`` (a timestamp); any other columns pass through.
        groups: each has ``subject``, ``event_time``, ``write_time``, ``is_deleted`` and feature columns. A null
            ``write_time`` is taken as the event time, a null ``is_deleted`` as false; rows without an event time
            or a subject are never joined.
        staleness: the greatest age (``at`` minus ``event_time``) that a value may have, for all groups or by
            group; older values come out null.

    Returns:
        As many rows as ``labels``; null where nothing was known. Times are compared in UTC at microseconds.

    Raises:
        Invalid: ``features.asof_column`` when a needed column is missing or an output column would hide another.
    """
    _need(labels, (subject, at), "labels")
    joined = labels
    when = _micros(labels.column(at))
    for name, group in groups.items():
        _need(group, (subject, *KEYS), name)
        limit = staleness.get(name) if isinstance(staleness, Mapping) else staleness
        rows = _known(labels.column(subject), when, group, subject, limit)
        for feature in group.column_names:
            if feature not in (subject, *KEYS):
                joined = _append(joined, f"{name}__{feature}", group.column(feature).take(rows))
    return joined


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


def _micros(column: pa.ChunkedArray) -> pl.Series:
    """Microseconds since 1970 UTC as integers, null where there is no time."""
    return pl.Series(column.cast(pa.timestamp("us")).cast(pa.int64()))


def _known(who: pa.ChunkedArray, when: pl.Series, group: pa.Table, subject: str, limit: timedelta | None) -> pa.Array:
    """For each label the row number in ``group`` of the best row known then, null where nothing was known."""
    facts = _facts(group, subject)
    wanted = pl.DataFrame({"subject": pl.Series(who), "at": when}).with_row_index("label")
    found = (
        wanted.filter(pl.col("subject").is_not_null() & pl.col("at").is_not_null())
        .sort("at")
        .join_asof(facts, left_on="at", right_on="known", by="subject", strategy="backward", check_sortedness=False)
    )
    alive = pl.col("best").is_not_null() & ~pl.col("deleted")
    if limit is not None:
        alive &= (pl.col("at") - pl.col("event")) <= limit // _MICROSECONDS
    found = found.select("label", pl.when(alive).then(pl.col("best")).alias("best"))
    rows = np.full(len(wanted), -1, dtype=np.int64)
    rows[found["label"].to_numpy()] = found["best"].fill_null(-1).to_numpy()
    return pa.array(rows, mask=rows < 0)


def _facts(group: pa.Table, subject: str) -> pl.DataFrame:
    """One row per feature row: when it became known, and the best row known from then on."""
    event, write = _micros(group.column("event_time")), _micros(group.column("write_time"))
    ranked = (
        pl.DataFrame(
            {
                "subject": pl.Series(group.column(subject)),
                "event": event,
                "write": write,
                "deleted": pl.Series(group.column("is_deleted").cast(pa.bool_())),
            }
        )
        .with_row_index("row")
        .drop_nulls(["subject", "event"])
        .with_columns(pl.col("write").fill_null(pl.col("event")), pl.col("deleted").fill_null(False))
        .sort("event", "write", "row")
    )
    # Ranked by (event, write, row), a greater rank is a better row: the best so far is a running maximum.
    known = (
        ranked.select("subject", known=pl.max_horizontal("event", "write"), rank=pl.int_range(pl.len()))
        .sort("known", maintain_order=True)
        .with_columns(best=pl.col("rank").cum_max().over("subject"))
    )
    best = ranked.select(pl.col("row").cast(pl.Int64).alias("best"), "event", "deleted")[known["best"]]
    return known.select("subject", "known").hstack(best)
