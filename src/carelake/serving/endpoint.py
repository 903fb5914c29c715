"""Endpoints: an approved model version under a name, that answers with reasons and captures every answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core import canonical, nouns
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.models import matrix
from carelake.models.artifact import ModelFiles
from carelake.models.registry import APPROVED, Registry
from carelake.serving import capture
from carelake.serving.predictions import Prediction, resource_id, risk_assessment
from carelake.serving.words import reasons
from carelake.vault.workspace import Vault

__all__ = ["IN_SERVICE", "OUT_OF_SERVICE", "Endpoint", "Endpoints"]

IN_SERVICE, OUT_OF_SERVICE = "InService", "OutOfService"
_MOST_ROWS = 100_000
Row = tuple[Prediction, bytes]


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


class Endpoints:
    """The endpoints of a workspace. The noun's body: ``name``, ``model``, ``model_name``, ``model_version``."""

    def __init__(self, vault: Vault, nouns: Nouns, outbox: Outbox, registry: Registry, keep: capture.Keeper) -> None:
        self._vault = vault
        self._nouns = nouns
        self._outbox = outbox
        self._registry = registry
        self._keep = keep

    def deploy(self, permit: Permit, name: str, model: str) -> Noun:
        """Put an approved model version behind a name; what was there before goes out of service.

        Needs the grants ``models:read``, ``rows:read``, ``rows:write``.

        Raises:
            Conflict: ``serving.not_approved``.
            NotFound: ``models.no_such_version``, in another account, too.
        """
        self._registry.files(permit, model)
        with self._vault.database.transaction(permit) as tx:
            version = self._approved(tx, permit, model)
            said = {"name": name, "account": permit.account, "model": model}
            ref = nouns.ref("endpoint", canonical.dump(said))
            body = {
                "name": name,
                "model": model,
                "model_name": version.body["name"],
                "model_version": version.body["version"],
            }
            for other in self._nouns.find(tx, "endpoint", permit.account, name=name):
                if other.ref != ref and other.state == IN_SERVICE:
                    self._nouns.set_state(tx, other.ref, OUT_OF_SERVICE)
            noun = Noun(ref, permit.account, IN_SERVICE, permit.act, (model,), body)
            self._nouns.write(tx, noun)
            self._nouns.set_state(tx, ref, IN_SERVICE)
            permit.log.wrote(ref)
            self._outbox.publish(tx, permit.account, "endpoint.state", ref, {"name": name, "state": IN_SERVICE})
        return noun

    def find(self, permit: Permit, named: str) -> Noun:
        """An endpoint by ref, or the one in service under a name. Needs ``rows:read``.

        Raises:
            NotFound: ``serving.no_such_endpoint``; in another account, too.
        """
        with self._vault.database.reading(permit) as tx:
            every = self._nouns.find(tx, "endpoint", permit.account)
        found = [n for n in every if n.ref == named or (n.body["name"] == named and n.state == IN_SERVICE)]
        if not found:
            raise NotFound("serving.no_such_endpoint", "No endpoint of that name or ref is in this account.")
        return found[0]

    def load(self, permit: Permit, named: str) -> Endpoint:
        """Read and check an endpoint's model. Needs ``models:read``, ``rows:read``."""
        noun = self.find(permit, named)
        return Endpoint(noun, self._registry.files(permit, str(noun.body["model"])))

    def predict(
        self,
        permit: Permit,
        endpoint: Endpoint,
        rows: pa.Table,
        *,
        made_from: Mapping[str, Sequence[str]] | None = None,
        basis: Mapping[str, Sequence[str]] | None = None,
        along: Callable[[Connection, Sequence[Prediction]], None] = lambda tx, answers: None,
    ) -> list[Prediction]:
        """Risks with reasons, in the order of ``rows``, captured before they are returned.

        Args:
            rows: ``encounter_id``, ``subject_id``, ``prediction_time``, the model's features, and scores if known.
            made_from: refs of what informed it, by subject id: the resource versions, or the lake's snapshot.
            basis: relative references per encounter id that informed that one, for the RiskAssessment.
            along: keeps more about the answers, in the transaction that captures them.

        Needs ``models:read``, ``clinical:write``, ``rows:read``, ``rows:write``.

        Raises:
            Invalid: ``serving.too_many``, ``models.feature_missing`` and others of `models.matrix.features`.
            Conflict: ``serving.out_of_service``, ``serving.not_approved`` when it has changed since.
        """
        if rows.num_rows > _MOST_ROWS:
            raise Invalid("serving.too_many", f"At most {_MOST_ROWS} rows are scored in a call; split them.")
        answers = self._score(permit, endpoint, rows)
        name = f"{endpoint.noun.body['model_name']} v{endpoint.noun.body['model_version']}"
        informed, sources = basis or {}, made_from or {}
        with self._vault.database.transaction(permit) as tx:
            self._serving(tx, permit, endpoint)
            kept = capture.known(tx, permit.account, [prediction.ref for prediction, _ in answers])
            fresh = {p.ref: (p, said) for p, said in answers if p.ref not in kept}
            capture.capture(
                permit,
                tx,
                self._vault,
                self._nouns,
                self._keep,
                [
                    (p, said, risk_assessment(p, name, informed.get(p.encounter, ())), sources.get(p.subject, ()))
                    for p, said in fresh.values()
                ],
            )
            along(tx, [prediction for prediction, _ in answers])
        return [prediction for prediction, _ in answers]

    def _approved(self, tx: Connection, permit: Permit, model: str) -> Noun:
        version = self._nouns.get(tx, model)
        if version.state != APPROVED or version.account != permit.account:
            raise Conflict(
                "serving.not_approved",
                f"The model version is {version.state}; only an Approved one is deployed and answers.",
                model=model,
            )
        return version

    def _serving(self, tx: Connection, permit: Permit, endpoint: Endpoint) -> None:
        self._approved(tx, permit, endpoint.files.ref)
        state = self._nouns.get(tx, endpoint.ref).state
        if state != IN_SERVICE or endpoint.noun.account != permit.account:
            raise Conflict("serving.out_of_service", f"The endpoint is {state}; deploy a model to it.")
        permit.log.read(endpoint.ref)

    def _score(self, permit: Permit, endpoint: Endpoint, rows: pa.Table) -> list[Row]:
        scorer = endpoint.files.scorer
        x = matrix.features(rows, scorer.names)
        if not len(x):
            return []
        risk = scorer.risk(x)
        parts, _ = scorer.contributions(x)
        scores = _scores(endpoint, rows)
        columns = (rows.column(name).to_pylist() for name in ("subject_id", "encounter_id", "prediction_time"))
        outside = rows.column("reason").to_pylist() if "reason" in rows.column_names else [None] * len(rows)
        out: list[Row] = []
        for at, (subject, encounter, moment) in enumerate(zip(*columns, strict=True)):
            when = _utc(moment)
            said = capture.content(x[at], float(risk[at]), str(encounter), when)
            named = endpoint.ref.encode() + b"\x1f" + str(subject).encode() + b"\x1f" + said
            prediction = Prediction(
                ref=self._vault.keyring.reference(permit, "prediction", named),
                endpoint=endpoint.ref,
                model=endpoint.files.ref,
                subject=str(subject),
                encounter=str(encounter),
                at=when,
                probability=float(risk[at]),
                threshold=scorer.threshold,
                flagged=bool(risk[at] >= scorer.threshold),
                reasons=reasons(scorer.names, x[at], parts[at], scorer.description.words),
                scores={name: _one(points[at], risks[at]) for name, (points, risks) in scores.items()},
                resource=f"RiskAssessment/{resource_id(endpoint.ref, str(encounter), when)}",
                outside=outside[at] or "",
            )
            out.append((prediction, said))
        return out


def _scores(endpoint: Endpoint, rows: pa.Table) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    points = matrix.scores(rows)
    risks = endpoint.files.scorer.score_risks(points)
    return {name: (points[name], risks[name]) for name in risks}


def _one(points: Any, risk: Any) -> dict[str, float | None]:
    return {"score": None if np.isnan(points) else float(points), "risk": round(float(risk), 4)}


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
