"""Predict: a patient's record, or the lake's, to features, to a captured answer with its reasons."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.clock import instant
from carelake.core.errors import Conflict, NotFound
from carelake.core.permit import Permit
from carelake.features import readmission
from carelake.lake import flat, query
from carelake.pipelines.platform import Platform
from carelake.serving import worklist
from carelake.serving.predictions import STILL_IN, Prediction

__all__ = ["for_patient", "morning_list"]


def for_patient(platform: Platform, permit: Permit, named: str, patient: str) -> Prediction:
    """The risk of one patient as of their last stay, from the record as it is now: reads its own writes.

    A patient who is still in gets an answer as if discharged now; it says so, and its RiskAssessment is preliminary.

    Raises:
        NotFound: ``features.no_stay``, ``pipelines.no_such_patient``, ``serving.no_such_endpoint``.
        Conflict: ``pipelines.outside_cohort``: died in the stay, under age, age unknown, or transferred.
    """
    endpoint = platform.endpoints.load(permit, named)
    record = platform.resources.resources_of(permit, patient)
    told = [(ref, resource) for ref, resource in record if resource["resourceType"] in flat.reads()]
    if not any(resource["resourceType"] == "Patient" for _, resource in told):
        raise NotFound("pipelines.no_such_patient", "There is no such patient in this account's record.")
    views = flat.flatten([resource for _, resource in told], limits=platform.vault.settings.lake)
    row = readmission.latest(views, patient, platform.vault.clock.now(), limits=platform.vault.settings.lake)
    reason = row.column("reason").to_pylist()[0]
    if reason not in (None, STILL_IN):
        raise Conflict(
            "pipelines.outside_cohort",
            f"The patient's last stay is outside of what the model was made for ({reason}), so there is no answer.",
            reason=reason,
        )
    [answer] = platform.endpoints.predict(permit, endpoint, row, made_from={patient: [ref for ref, _ in told]})
    return answer


def morning_list(platform: Platform, permit: Permit, named: str, days: float) -> list[Prediction]:
    """Risks of everyone whose last stay ended within ``days`` of the end of the lake's data, highest first.

    The lake answers as of its last sync; `Platform.sync` first where that matters.

    Raises:
        Conflict: ``pipelines.lake_behind``, before the first sync.
    """
    endpoint = platform.endpoints.load(permit, named)
    try:
        snapshot = query.snapshot_of(permit, platform.vault, platform.nouns)
    except NotFound:
        raise Conflict("pipelines.lake_behind", "The lake is empty; run `carelake lake sync` first.") from None
    views = query.views(permit, platform.vault, snapshot)
    now = platform.vault.clock.now()
    rows = readmission.build(views, now=now, limits=platform.vault.settings.lake)
    end = _end(readmission.attrition(rows).get("data_end"), now)
    chosen = _alive(worklist.morning_list(rows, end, days), views["patients"])
    sources = platform.resources.refs_of(permit, chosen.column("subject_id").to_pylist(), flat.reads())
    made_from = {subject: [snapshot.ref, *refs] for subject, refs in sources.items()}
    answers = platform.endpoints.predict(permit, endpoint, chosen, made_from=made_from)
    return sorted(answers, key=lambda one: -one.probability)


def _alive(rows: pa.Table, patients: pa.Table) -> pa.Table:
    dead = patients.filter(pc.fill_null(patients.column("deceased"), False)).column("subject_id")
    return rows.filter(pc.invert(pc.is_in(rows.column("subject_id"), dead.combine_chunks())))


def _end(text: str | None, now: datetime) -> datetime:
    # Data may end long before today (a bulk load of past years): the list is of its last days, not of ours.
    return min(now, instant(text)) if text else now.astimezone(UTC)
