"""Rows to answers: the risk, its reasons, and the sealed content that proves both. Nothing is kept here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.models import matrix
from carelake.models.artifact import ModelFiles
from carelake.models.matrix import Floats
from carelake.serving import capture
from carelake.serving.predictions import Prediction, resource_id
from carelake.serving.sandbox.scorer import BoxedScorer
from carelake.serving.words import reasons
from carelake.vault.workspace import Vault

__all__ = ["Answered", "Asked", "Endpoint", "answers", "of_table"]


@dataclass(frozen=True)
class Endpoint:
    """A deployed model version, loaded and checked."""

    noun: Noun
    files: ModelFiles

    @property
    def ref(self) -> str:
        """``endpoint:DIGEST``."""
        return self.noun.ref

    @property
    def name(self) -> str:
        """What callers name it by."""
        return str(self.noun.body["name"])


@dataclass(frozen=True)
class Asked:
    """Rows to score.

    Attributes:
        x: (n, p) features in the model's order, NaN where missing, rounded to float32.
        subject, encounter: ids, "" where they are not told.
        at: prediction times.
        scores: clinical scores by name, (n,) each.
        outside: as `Prediction.outside`, one a row.
    """

    x: Floats
    subject: Sequence[str]
    encounter: Sequence[str]
    at: Sequence[datetime]
    scores: Mapping[str, Floats] = field(default_factory=dict)
    outside: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.subject)

    def where(self, numbers: Sequence[int]) -> Asked:
        """Some of the rows."""
        return Asked(
            self.x[list(numbers)],
            [self.subject[at] for at in numbers],
            [self.encounter[at] for at in numbers],
            [self.at[at] for at in numbers],
            {name: score[list(numbers)] for name, score in self.scores.items()},
            [self.outside[at] for at in numbers] if self.outside else (),
        )


@dataclass(frozen=True)
class Answered:
    """One row's answer, and what is sealed of it."""

    prediction: Prediction
    said: bytes


def of_table(endpoint: Endpoint, rows: pa.Table) -> Asked:
    """Rows of a feature table.

    Raises:
        Invalid: as `models.matrix.features`.
    """
    x = matrix.features(rows, endpoint.files.scorer.names)
    subject, encounter, moments = (
        rows.column(name).to_pylist() for name in ("subject_id", "encounter_id", "prediction_time")
    )
    outside = rows.column("reason").to_pylist() if "reason" in rows.column_names else ()
    return Asked(
        x,
        [str(one) for one in subject],
        [str(one) for one in encounter],
        [_utc(one) for one in moments],
        matrix.scores(rows),
        [one or "" for one in outside],
    )


def answers(vault: Vault, permit: Permit, endpoint: Endpoint, asked: Asked, role: str = "") -> list[Answered]:
    """Risks with reasons, in the order of the rows.

    Args:
        role: ``shadow`` for what is never answered: it has refs of its own.
    """
    if not len(asked):
        return []
    scorer = endpoint.files.scorer
    risk, parts, scores = _scored(scorer, asked)
    words = _words(scorer)
    risks_are_told = np.isfinite(scorer.threshold)  # a forecast tells an amount, which is no risk of a patient's
    out = []
    for at, subject in enumerate(asked.subject):
        p, when, encounter = float(risk[at]), asked.at[at], asked.encounter[at]
        assessed = encounter and subject and risks_are_told
        said = capture.content(asked.x[at], p, encounter, when)
        named = f"{role}{endpoint.ref}\x1f{subject}\x1f".encode() + said
        prediction = Prediction(
            ref=vault.keyring.reference(permit, "prediction", named),
            endpoint=endpoint.ref,
            model=endpoint.files.ref,
            subject=subject,
            encounter=encounter,
            at=when,
            probability=p,
            threshold=scorer.threshold,
            flagged=p >= scorer.threshold,
            reasons=reasons(scorer.names, asked.x[at], parts[at], words),
            scores={name: _one(points[at], risks[at]) for name, (points, risks) in scores.items()},
            resource=f"RiskAssessment/{resource_id(endpoint.ref, encounter, when)}" if assessed else "",
            outside=asked.outside[at] if asked.outside else "",
        )
        out.append(Answered(prediction, said))
    return out


def _scored(scorer: Any, asked: Asked) -> tuple[Floats, Floats, dict[str, tuple[Floats, Floats]]]:
    """Risks, what each feature adds, and clinical scores with their risks."""
    if isinstance(scorer, BoxedScorer):
        said = scorer.scored(asked.x, asked.scores)  # one question, not three
        return said.risk, said.parts, {name: (asked.scores[name], one) for name, one in said.scores.items()}
    return scorer.risk(asked.x), scorer.contributions(asked.x)[0], _scores(scorer, asked.scores)


def _words(scorer: Any) -> Mapping[str, str]:
    """Readable names of features, where the kind of model has some."""
    found: Mapping[str, str] = getattr(getattr(scorer, "description", None), "words", {})
    return found


def _scores(scorer: Any, points: Mapping[str, Floats]) -> dict[str, tuple[Floats, Floats]]:
    risks = scorer.score_risks(points) if points and hasattr(scorer, "score_risks") else {}
    return {name: (points[name], risks[name]) for name in risks}


def _one(points: Any, risk: Any) -> dict[str, float | None]:
    return {"score": None if np.isnan(points) else float(points), "risk": round(float(risk), 4)}


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
