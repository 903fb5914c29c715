"""Decisions on model versions, with what follows from them: a door calls these, and never the registry alone.

Whoever turns down a version that was approved puts the one before it back, in an act of its own by the principal who
deploys (https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-approve.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carelake.access.identity import Caller
from carelake.access.proofs import Proof, caller_of
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.models.registry import APPROVED, REJECTED
from carelake.pipelines.platform import Platform

__all__ = ["Decided", "approve", "approve_in_plan", "reject", "update"]

_DEPLOYS = "pipeline"
_MAY_SERVE = (APPROVED, REJECTED)
"""Rejected, too: whoever was killed between the two acts says it again, and the endpoints are put back then."""


@dataclass(frozen=True)
class Decided:
    """A version after a decision, and the endpoints that changed what they serve for it."""

    noun: Noun
    endpoints: tuple[str, ...] = ()


def approve(
    platform: Platform, caller: Caller, ref: str, *, description: str = "", proof: Proof | None = None
) -> Decided:
    """Let a version through, as the caller; see `Registry.approve`."""
    with platform.gate.enter(
        caller.principal, "model:approve", ref, caller.purpose, account=caller.account
    ) as permit:
        return Decided(platform.registry.approve(permit, ref, description=description, proof=proof))


def approve_in_plan(platform: Platform, caller: Caller, ref: str, name: str = _DEPLOYS) -> Decided | None:
    """Let a version through as its group's change plan says, as a principal that trains; None where it does not."""
    with platform.acting(name, caller, "model:release", ref) as permit:
        noun = platform.registry.approve_in_plan(permit, ref)
    return Decided(noun) if noun is not None else None


def reject(
    platform: Platform, caller: Caller, ref: str, *, description: str = "", proof: Proof | None = None
) -> Decided:
    """Turn a version down, as the caller; one that was approved is taken out of service where it is."""
    with platform.gate.enter(
        caller.principal, "model:approve", ref, caller.purpose, account=caller.account
    ) as permit:
        before = platform.registry.get(permit, ref)
        noun = platform.registry.reject(permit, ref, description=description, proof=proof)
    if before.state not in _MAY_SERVE:
        return Decided(noun)
    model = str(noun.body["name"])
    with platform.acting(_DEPLOYS, caller, "endpoint:deploy", ref) as permit:
        return Decided(noun, tuple(platform.endpoints.redeploy_previous(permit, model)))


def update(
    platform: Platform, permit: Permit, request: Mapping[str, Any], *, proof: Proof | None = None
) -> dict[str, Any]:
    """UpdateModelPackage, with what follows from a rejection; see `ModelPackages.update`."""
    before = platform.model_packages.find(permit, str(request["ModelPackageArn"]))
    done = platform.model_packages.update(permit, request, proof=proof)
    speaker = caller_of(permit)
    if before.state in _MAY_SERVE and request.get("ModelApprovalStatus") == REJECTED and speaker is not None:
        who = platform.identity.named(_DEPLOYS, speaker)
        told = ("endpoint:deploy", before.ref, permit.purpose)
        with platform.gate.enter(who, *told, account=permit.account) as deploying:
            platform.endpoints.redeploy_previous(deploying, before.name)
    return done
