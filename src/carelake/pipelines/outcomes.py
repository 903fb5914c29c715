"""Outcomes of predictions: what the record says of them once the follow-up has ended, joined back to the captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.features import readmission
from carelake.lake import query
from carelake.pipelines.platform import Platform
from carelake.serving import outcomes

__all__ = ["from_file", "from_record"]

_FOLLOW_UP = timedelta(days=30)

Known = Mapping[str, tuple[datetime, bool]]
"""By encounter: the moment that an outcome counts from, and the outcome."""


def from_record(platform: Platform, permit: Permit, name: str) -> dict[str, int]:
    """Join what the lake tells, as of its last sync; what is not over yet stays waiting.

    A prediction of a stay that was not over is preliminary, and is joined to nothing.

    Raises:
        Unsupported: ``pipelines.no_outcomes`` for models whose outcome the record does not tell.
        Conflict: ``pipelines.lake_behind``, before the first sync.
    """
    noun = platform.endpoints.find(permit, name)
    look = _LOOKS.get(str(noun.body["model_name"]))
    if look is None:
        raise Unsupported(
            "pipelines.no_outcomes", "The record does not tell outcomes of this model; give them by --labels FILE."
        )
    known = look(platform, permit)
    labels: dict[str, bool] = {}
    left = 0
    with platform.vault.database.reading(permit) as tx:
        refs = [one.ref for one in platform.nouns.find(tx, "endpoint", permit.account, name=name)]
        for page in outcomes.waiting(permit, tx, platform.vault, refs):
            for one in page:
                since, label = known.get(one.captured.encounter, (None, False))
                if since is not None and since <= instant(one.captured.at) < since + _FOLLOW_UP:
                    labels[one.ref] = label
                else:
                    left += 1
    return {**_joined(platform, permit, labels), "waiting": left}


def _readmitted(platform: Platform, permit: Permit) -> Known:
    try:
        snapshot = query.snapshot_of(permit, platform.vault, platform.nouns)
    except NotFound:
        raise Conflict("pipelines.lake_behind", "The lake is empty; run `carelake lake sync` first.") from None
    views = query.views(permit, platform.vault, snapshot)
    limits = platform.vault.settings.lake
    return _known(readmission.build(views, now=platform.vault.clock.now(), limits=limits))


def _known(rows: pa.Table) -> Known:
    columns = (rows.column(name).to_pylist() for name in ("encounter_id", "prediction_time", "label"))
    return {key: (_utc(since), label) for key, since, label in zip(*columns, strict=True) if label is not None}


def _utc(moment: datetime) -> datetime:
    """To the millisecond, as captures tell it."""
    return instant(iso(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))


_LOOKS: Mapping[str, Callable[[Platform, Permit], Known]] = {"readmission": _readmitted}
"""By the model's name."""


def from_file(platform: Platform, permit: Permit, name: str, lines: Iterator[bytes]) -> dict[str, int]:
    """Join ground truth as SageMaker has it.

    Raises:
        Invalid: ``serving.ground_truth``.
    """
    platform.endpoints.find(permit, name)
    truths = list(outcomes.ground_truth(lines))
    with platform.vault.database.reading(permit) as tx:
        labels = outcomes.named(permit, tx, platform.vault, name, truths)
    return {**_joined(platform, permit, labels), "unmatched": len(truths) - len(labels)}


def _joined(platform: Platform, permit: Permit, labels: Mapping[str, bool]) -> dict[str, int]:
    with platform.vault.database.transaction(permit) as tx:
        kept = outcomes.join(permit, tx, platform.vault, labels)
    return {"joined": kept, "known": len(labels) - kept}
