"""Captured predictions joined with what came of them, once their follow-up has ended.

Only rows whose whole follow-up lies before the end of the data have an outcome: who came back early in a follow-up
that is not over is no outcome yet, since those who will not come back cannot be known at the same time, and keeping
the early ones alone would make risks look too low. Labels with that rule are the cohort's (`features.cohort`: null
while the 30 days are not over).

The reverse is as wrong: who is asked about weeks after a discharge has not come back since, or it would not be their
last stay. A prediction that was made more than two days after its prediction time counts for nothing here. Of several
for one stay the latest prediction time counts, as it was first told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.features import cohort, readmission
from carelake.lake import query
from carelake.models.matrix import GROUPS, Floats
from carelake.monitor.performance import Labelled
from carelake.serving.capture import Seen
from carelake.vault.workspace import Vault

__all__ = ["LABELLED", "Joined", "join", "of_lake"]

LABELLED = ("readmission",)
"""Models whose outcomes the lake tells."""

_IN_TIME = timedelta(days=2)


@dataclass(frozen=True)
class Joined:
    """Predictions and outcomes.

    Attributes:
        seen: the rows whose follow-up has ended.
        x: (n, p) their features.
        groups: (n,) subgroup labels by name; "unknown" where missing.
        waiting: (m,) risks of those whose follow-up has not ended.
        waiting_owner: (m,) a number per patient.
        outside: predictions for stays that the cohort does not have.
        late: predictions that were made when a part of the outcomes could be known.
        replaced: predictions that another one for the same stay took the place of.
    """

    seen: Labelled
    x: Floats
    groups: Mapping[str, np.ndarray]
    waiting: Floats
    waiting_owner: np.ndarray
    outside: int
    late: int
    replaced: int


def join(captured: Seen, labels: pa.Table | None, threshold: float) -> Joined:
    """Join by stay with outcomes that were joined to the predictions before, else with labels.

    Args:
        labels: ``encounter_id``, ``label`` (bool, null while the follow-up has not ended), and what there is of
            `GROUPS`; one row a stay. None where the lake tells no outcomes of this model.
    """
    stays = labels.column("encounter_id").to_pylist() if labels is not None else []
    told = labels.column("label").to_pylist() if labels is not None else []
    place = {stay: at for at, stay in enumerate(stays)}
    timely = [at for at in range(len(captured.p)) if _in_time(captured, at)]
    latest = _latest(captured, timely)
    rows = [place.get(captured.encounter[at], -1) for at in latest]
    found = [_outcome(float(captured.y[at]), row, told) for at, row in zip(latest, rows, strict=True)]
    ended = np.asarray([one is not None for one in found], dtype=np.bool_)
    outside = np.asarray([row < 0 and labels is not None for row in rows], dtype=np.bool_) & ~ended
    done, waiting = latest[ended], latest[~ended & ~outside]
    y = np.asarray([one for one in found if one is not None], dtype=np.bool_)
    kept = [row for row, one in zip(rows, found, strict=True) if one is not None]
    named = [name for name in GROUPS if labels is not None and name in labels.column_names]
    return Joined(
        Labelled(y, captured.p[done], captured.owner[done], threshold),
        captured.x[done],
        {name: _labels(labels, name, kept) for name in named},
        captured.p[waiting],
        captured.owner[waiting],
        int(outside.sum()),
        len(captured.p) - len(timely),
        len(timely) - len(latest),
    )


def _outcome(y: float, row: int, told: list[bool | None]) -> bool | None:
    if y == y:
        return y > 0.5
    return told[row] if row >= 0 else None


def _in_time(captured: Seen, at: int) -> bool:
    return instant(captured.asked[at]) - instant(captured.at[at]) <= _IN_TIME


def _latest(captured: Seen, timely: list[int]) -> np.ndarray:
    """Places of the prediction that counts for each stay; captures come newest first."""
    best: dict[str, int] = {}
    for at in timely:
        stay = captured.encounter[at]
        if stay not in best or captured.at[at] >= captured.at[best[stay]]:
            best[stay] = at
    return np.asarray(sorted(best.values()), dtype=np.int64)


def _labels(table: pa.Table | None, name: str, rows: list[int]) -> np.ndarray:
    values = table.column(name).to_pylist() if table is not None else []
    return np.asarray([str(values[at]) if at >= 0 and values[at] else "unknown" for at in rows], dtype=np.str_)


def of_lake(permit: Permit, vault: Vault, nouns: Nouns, model: str) -> tuple[pa.Table | None, datetime | None]:
    """Labels of a model's stays, as the lake's newest snapshot has them, and the end of its data; None for none.

    Needs the grants ``lake:read``, ``rows:read``.
    """
    if model not in LABELLED:
        return None, None
    try:
        snapshot = query.snapshot_of(permit, vault, nouns)
    except NotFound:
        return None, None
    tables = query.views(permit, vault, snapshot, ("encounters", "patients", "observations"))
    end = cohort.data_end_of(tables, vault.clock.now())
    permit.log.read(snapshot.ref)
    table = cohort.choose(cohort.stays(tables, end, limits=vault.settings.lake), end).table
    told = {name: table.column(name) for name in ("encounter_id", "label", "sex", "race")}
    return pa.table({**told, "age_group": readmission.age_groups(table.column("age"))}), end
