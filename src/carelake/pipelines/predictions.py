"""Predict: a patient's record, or the lake's, to features, to a captured answer with its reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from carelake.core.errors import Conflict, NotFound, Unsupported
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import readmission
from carelake.features.datasets import build, sources
from carelake.lake import flat, query
from carelake.lake.ready.shards import people
from carelake.pipelines.platform import Platform
from carelake.serving import feedback, worklist
from carelake.serving.endpoint import Endpoint
from carelake.serving.predictions import STILL_IN, Prediction
from carelake.vault.workspace import Vault

__all__ = ["Advice", "advise", "for_patient", "morning_list", "recorded"]

Told = tuple[str, dict[str, Any]]
"""Ref, "" for what is not in the record, and resource."""

Sent = Callable[[], Sequence[Mapping[str, Any]]]
Answer = TypeVar("Answer")
Along = Callable[[Connection, Prediction, Endpoint], None]


@dataclass(frozen=True)
class Advice:
    """A prediction with the endpoint that made it."""

    prediction: Prediction
    endpoint: Endpoint


def for_patient(platform: Platform, permit: Permit, named: str, patient: str) -> Prediction:
    """The risk of one patient as of their last stay, from the record as it is now: reads its own writes.

    A patient who is still in gets an answer as if discharged now; it says so, and its RiskAssessment is preliminary.

    Raises:
        NotFound: ``features.no_stay``, ``pipelines.no_such_patient``, ``serving.no_such_endpoint``.
        Conflict: ``pipelines.outside_cohort``: died in the stay, under age, age unknown, or transferred.
        Unsupported: ``pipelines.no_lookup``: the model takes other features than `features.readmission` makes.
    """
    begun = platform.vault.clock.now()
    platform.endpoints.find(permit, named)  # before the work
    told = recorded(platform, permit, patient)

    def ask() -> Prediction:
        endpoint = platform.endpoints.load(permit, named, patient)
        return _answered(platform, permit, endpoint, patient, told, begun)

    return _again(ask)


def _again(ask: Callable[[], Answer]) -> Answer:
    """Once more where the rollout of an endpoint went on in between: whoever answers now is asked."""
    try:
        return ask()
    except Conflict as error:
        if error.code != "serving.out_of_service":
            raise
        return ask()


def advise(
    platform: Platform,
    permit: Permit,
    named: str,
    patient: str,
    *,
    encounter: str = "",
    sent: Sent = lambda: (),
    along: Along = lambda tx, answer, endpoint: None,
) -> Advice:
    """As `for_patient`, with what the caller sent of a patient whom the record does not have.

    Args:
        encounter: what it must be about; "" for the last stay, whichever it is.
        along: keeps more about the answer, in the transaction that captures it.
        sent: gives valid resources, once it is known that they are needed; those of others are not looked at.

    Raises:
        NotFound, Conflict: as `for_patient`; ``pipelines.no_such_encounter``, ``pipelines.another_stay``.
    """
    if not feedback.reaches(permit, patient):
        raise _no_patient()  # who sees a part of the record only would be advised by that part
    begun = platform.vault.clock.now()
    platform.endpoints.find(permit, named)
    try:
        told = recorded(platform, permit, patient)
    except NotFound:
        told = _sent(patient, sent())
    if encounter and not any((one["resourceType"], one.get("id")) == ("Encounter", encounter) for _, one in told):
        raise NotFound("pipelines.no_such_encounter", "The encounter is not among what is known of the patient.")

    def ask() -> Advice:
        endpoint = platform.endpoints.load(permit, named, patient)

        def keep(tx: Connection, answers: Sequence[Prediction]) -> None:
            for answer in answers:
                along(tx, answer, endpoint)

        return Advice(_answered(platform, permit, endpoint, patient, told, begun, encounter, keep), endpoint)

    return _again(ask)


def recorded(platform: Platform, permit: Permit, patient: str) -> list[Told]:
    """Ref and resource of all in a patient's record that features are made of.

    Raises:
        NotFound: ``pipelines.no_such_patient``.
    """
    record = platform.resources.resources_of(permit, patient)
    told = [(ref, resource) for ref, resource in record if resource["resourceType"] in flat.reads()]
    if not any(resource["resourceType"] == "Patient" for _, resource in told):
        raise _no_patient()
    return told


def _sent(patient: str, sent: Sequence[Mapping[str, Any]]) -> list[Told]:
    known = [("", dict(one)) for one in sent if one["resourceType"] in flat.reads()]
    there = any((one["resourceType"], one.get("id")) == ("Patient", patient) for _, one in known)
    if not there:
        raise _no_patient()
    return known


def _no_patient() -> NotFound:
    return NotFound("pipelines.no_such_patient", "There is no such patient in this account's record.")


def _answered(
    platform: Platform,
    permit: Permit,
    endpoint: Endpoint,
    patient: str,
    told: list[Told],
    begun: datetime,
    encounter: str = "",
    along: Callable[[Connection, Sequence[Prediction]], None] = lambda tx, answers: None,
) -> Prediction:
    limits = platform.vault.settings.lake
    views = flat.flatten([resource for _, resource in told], limits=limits)
    row = readmission.latest(views, patient, platform.vault.clock.now(), limits=limits)
    if encounter and row.column("encounter_id").to_pylist() != [encounter]:
        raise Conflict("pipelines.another_stay", "The encounter is not the patient's last inpatient stay.")
    reason = row.column("reason").to_pylist()[0]
    if reason not in (None, STILL_IN):
        raise Conflict(
            "pipelines.outside_cohort",
            f"The patient's last stay is outside of what the model was made for ({reason}), so there is no answer.",
            reason=reason,
        )
    _fits(endpoint, row)
    sources = {patient: [ref for ref, _ in told if ref]}
    [answer] = platform.endpoints.predict(permit, endpoint, row, made_from=sources, along=along, begun=begun)
    return answer


def _fits(endpoint: Endpoint, rows: pa.Table) -> None:
    if not set(endpoint.files.scorer.names) <= set(rows.column_names):
        raise Unsupported(
            "pipelines.no_lookup",
            "The model takes other features than those of `readmission`, which are the ones looked up for a patient "
            "here; send it rows: `endpoint invoke --in`, or `endpoint transform`.",
        )


def morning_list(platform: Platform, permit: Permit, named: str, days: float) -> list[Prediction]:
    """Risks of everyone whose last stay ended within ``days`` of the end of the lake's data, highest first.

    The lake answers as of its last sync; `Platform.sync` first where that matters.

    Raises:
        Conflict: ``pipelines.lake_behind``, before the first sync. Unsupported: ``pipelines.no_lookup``.
    """
    platform.endpoints.find(permit, named)  # before the work
    try:
        snapshot = query.snapshot_of(permit, platform.vault, platform.nouns)
    except NotFound:
        raise Conflict("pipelines.lake_behind", "The lake is empty; run `carelake lake sync` first.") from None
    chosen = _discharged(permit, platform.vault, snapshot, days)
    refs = platform.resources.refs_of(permit, chosen.column("subject_id").to_pylist(), flat.reads())
    made_from = {subject: [snapshot.ref, *some] for subject, some in refs.items()}
    answers: list[Prediction] = []
    for endpoint, numbers in platform.endpoints.split(permit, named, chosen.column("subject_id").to_pylist()):
        _fits(endpoint, chosen)
        answers += platform.endpoints.predict(permit, endpoint, chosen.take(numbers), made_from=made_from)
    return sorted(answers, key=lambda one: -one.probability)


def _discharged(permit: Permit, vault: Vault, snapshot: Noun, days: float) -> pa.Table:
    """Rows of those who left within ``days`` of the data's end and are not known to have died, by subject.

    Rows are made of some patients at a time, and few of them stay: memory does not grow with the lake.
    """
    read, now, limits = sources.reader(permit, vault, snapshot), vault.clock.now(), vault.settings.lake
    data_end = build.ending(read, now)
    # Data may end long before today (a bulk load of past years): the list is of its last days, not of ours.
    end = min(now, data_end.replace(tzinfo=UTC))
    parts = []
    for some in people(permit, vault, snapshot, [flat.view(name).resource for name in flat.names()], build.SHARD):
        views = read(flat.names(), some)
        rows = readmission.build(views, data_end=data_end, now=now, limits=limits)
        parts.append(_alive(worklist.morning_list(rows, end, days), views["patients"]))
    return pa.concat_tables(parts).sort_by("subject_id")


def _alive(rows: pa.Table, patients: pa.Table) -> pa.Table:
    dead = patients.filter(pc.fill_null(patients.column("deceased"), False)).column("subject_id")
    return rows.filter(pc.invert(pc.is_in(rows.column("subject_id"), dead.combine_chunks())))
