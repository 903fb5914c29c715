"""What is told of an endpoint: SageMaker's DescribeEndpoint, with the stage, the traffic and the alarms beside it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection

from carelake.audit.nouns import Nouns
from carelake.core.clock import iso
from carelake.models.registry import APPROVED
from carelake.serving import rollout, windows
from carelake.serving.alarms import distances
from carelake.serving.config import Variant
from carelake.serving.guard import Watch
from carelake.serving.rollout import ROLLED_BACK, Revision, Routing

__all__ = ["comparison", "described"]


def described(tx: Connection, nouns: Nouns, seen: Watch, now: datetime) -> dict[str, Any]:
    """The answer of `Endpoints.status`."""
    routing = seen.routing
    newest, main = routing.newest, routing.main
    states = {variant.model: nouns.get(tx, variant.model).state for variant, _ in routing.shares()}
    noun = nouns.get(tx, main.told.variants[0].endpoint)
    word = _word(routing, states)
    said: dict[str, Any] = {
        "EndpointName": newest.name,
        "EndpointStatus": word,
        "EndpointRef": noun.ref,
        "LastModifiedTime": newest.ended or iso(newest.begun),
        "ProductionVariants": [_variant(variant, share) for variant, share in routing.shares()],
        "ShadowProductionVariants": [_variant(variant, 1.0) for variant in routing.shadows],
        "LastDeploymentConfig": newest.told.policy.said or None,
        "revision": newest.number,
        "stage": _stage(newest, now),
        "traffic": {variant.endpoint: round(share, 6) for variant, share in routing.shares()},
        "model": noun.body["model"],
        "model_name": noun.body["model_name"],
        "model_version": noun.body["model_version"],
        "alarms": [{"VariantName": name, **one.as_json()} for name, one in seen.alarms],
    }
    if newest.under_way:
        variants = [_variant(variant, routing.share) for variant in newest.told.variants]
        said["PendingDeploymentSummary"] = {"StartTime": iso(newest.begun), "ProductionVariants": variants}
    if newest.outcome == ROLLED_BACK:
        said["FailureReason"] = f"Revision {newest.number} was rolled back: {newest.reason}."
    return said


def _word(routing: Routing, states: dict[str, str]) -> str:
    if rollout.is_out(routing) or any(state != APPROVED for state in states.values()):
        return "UpdateRollbackFailed" if routing.newest.outcome == ROLLED_BACK and routing.old else "OutOfService"
    return "Updating" if routing.newest.under_way else "InService"


def _variant(variant: Variant, share: float) -> dict[str, Any]:
    return {
        "VariantName": variant.name,
        "EndpointRef": variant.endpoint,
        "ModelName": variant.model,
        "CurrentWeight": round(share, 6),
        "DesiredWeight": variant.weight,
    }


def _stage(newest: Revision, now: datetime) -> dict[str, Any]:
    policy = newest.told.policy
    if not newest.under_way:
        return {"name": newest.outcome, "reason": newest.reason or None}
    gone = newest.seconds(now)
    step = policy.step(gone)
    until = policy.steps[step + 1][0] if step + 1 < len(policy.steps) else policy.ends
    return {
        "name": "baking",
        "step": step + 1,
        "steps": len(policy.steps),
        "share": policy.steps[step][1],
        "seconds": round(gone, 1),
        "seconds_left": round(max(0.0, until - gone), 1),
    }


def comparison(tx: Connection, account: str, routing: Routing, now: datetime) -> list[dict[str, Any]]:
    """Each shadow's scores beside those that were answered to the same rows, since the revision began."""
    shadows = routing.shadows
    counted = windows.sums(tx, account, [one.endpoint for one in shadows], routing.newest.begun, now)
    found = []
    for one in shadows:
        metrics = counted[one.endpoint]
        its, answered = _array(metrics["shadow"]), _array(metrics["shadowed"])
        psi, linf, _, _ = distances(its, answered)
        rows = int(its.sum())
        found.append(
            {
                **_variant(one, 0.0),
                "rows": rows,
                "failed": metrics["error"][5],
                "psi": round(psi, 4) if rows else None,
                "linf": round(linf, 4) if rows else None,
                "mean": _mean(its),
                "answered_mean": _mean(answered),
            }
        )
    return found


def _array(counts: Counter[int]) -> np.ndarray:
    return np.asarray([counts[at] for at in range(windows.SCORE_BINS)], dtype=np.float64)


def _mean(counts: np.ndarray) -> float | None:
    """Of the middles of the bins: as near to the mean risk as counts tell."""
    edges = np.concatenate([[0.0], windows.edges(), [1.0]])
    whole = counts.sum()
    return round(float((counts * (edges[:-1] + edges[1:]) / 2).sum() / whole), 4) if whole else None
