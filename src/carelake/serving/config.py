"""What an endpoint is told to serve: variants, shadows, and how traffic moves to them, in SageMaker's shapes.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeploymentConfig.html and API_ProductionVariant.html.
Pure functions: the share of traffic at a moment follows from the policy and the time since the rollout began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from carelake.core.errors import Invalid, Unsupported
from carelake.core.shapes import decodable

__all__ = ["ALARMS", "ALL_AT_ONCE", "Policy", "Revised", "Variant", "place_of", "policy_of", "variants_of"]

ALARMS = ("errors", "latency", "score-distribution", "missingness", "calibration")
"""Alarms that a rollout may name; all of them where it names none and traffic does not move at once."""

_LONGEST = 3600
_LONGEST_ALL = 28_800
_MOST_VARIANTS = 10
_HEAVIEST = 1e9


class _Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    type: Literal["CAPACITY_PERCENT", "INSTANCE_COUNT"]
    value: int


class _Routing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    type: Literal["ALL_AT_ONCE", "CANARY", "LINEAR"]
    wait_interval_in_seconds: int = 0
    canary_size: _Capacity | None = None
    linear_step_size: _Capacity | None = None


class _BlueGreen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    traffic_routing_configuration: _Routing
    termination_wait_in_seconds: int = 0
    maximum_execution_timeout_in_seconds: int = 0


class _Alarm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    alarm_name: str


class _Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    alarms: tuple[_Alarm, ...] = ()


class _Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="pascal"):
    blue_green_update_policy: _BlueGreen
    auto_rollback_configuration: _Rollback | None = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model version that answers, or is shadowed.

    Attributes:
        endpoint: ref of the endpoint noun: this model under this name.
        weight: its part of the traffic, among the weights of all.
        sandbox: it is scored in a process of its own that can reach nothing (`sandbox`).
    """

    name: str
    endpoint: str
    model: str
    weight: float = 1.0
    sandbox: bool = False


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How traffic moves.

    Attributes:
        steps: (seconds since the beginning, share of the new revision), in order, the last one 1.
        ends: seconds after which the rollout is over, when nothing is wrong until then.
        timeout: seconds after which it is given up, 0 for never.
        alarms: that roll it back.
        said: the DeploymentConfig, as it was given.
    """

    steps: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
    ends: float = 0.0
    timeout: float = 0.0
    alarms: tuple[str, ...] = ()
    said: dict[str, Any] = {}

    def step(self, seconds: float) -> int:
        """Number of the step at which a rollout stands so long after it began."""
        return max((at for at, (begins, _) in enumerate(self.steps) if begins <= seconds), default=0)

    def share(self, seconds: float) -> float:
        """Share of the traffic that the new revision has then."""
        return self.steps[self.step(seconds)][1]


ALL_AT_ONCE = Policy()
"""Where nothing else is said: at once, without a bake."""


class Revised(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a revision is told."""

    variants: tuple[Variant, ...]
    shadows: tuple[Variant, ...] = ()
    policy: Policy = ALL_AT_ONCE


def policy_of(said: Mapping[str, Any] | None) -> Policy:
    """A DeploymentConfig as steps.

    Raises:
        Invalid: ``serving.deployment_config``. Unsupported: ``serving.rolling``.
    """
    if not said:
        return ALL_AT_ONCE
    if not isinstance(said, Mapping):
        raise _wrong("it is no object")
    if "RollingUpdatePolicy" in said:
        raise Unsupported(
            "serving.rolling", "There are no instances to replace in batches; send a BlueGreenUpdatePolicy, LINEAR."
        )
    try:
        told = msgspec.convert(dict(said), decodable(_Deployment))
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None
    routing, update = told.blue_green_update_policy.traffic_routing_configuration, told.blue_green_update_policy
    wait, rest = routing.wait_interval_in_seconds, update.termination_wait_in_seconds
    if not 0 <= wait <= _LONGEST or not 0 <= rest <= _LONGEST:
        raise _wrong(f"waits are 0 to {_LONGEST} seconds")
    shares = _shares(routing)
    ends = float(len(shares) * wait + rest)
    timeout = update.maximum_execution_timeout_in_seconds
    if timeout and not ends < timeout <= _LONGEST_ALL:
        raise _wrong(f"MaximumExecutionTimeoutInSeconds is more than all waits ({ends:g}), at most {_LONGEST_ALL}")
    steps = tuple((float(at * wait), share) for at, share in enumerate(shares))
    return Policy(steps, ends, float(timeout), _alarms(told, bakes=ends > 0), dict(said))


def _shares(routing: _Routing) -> list[float]:
    if routing.type == "ALL_AT_ONCE":
        return [1.0]
    if routing.type == "CANARY":
        return [_part(routing.canary_size, "CanarySize", 1), 1.0]
    part = _part(routing.linear_step_size, "LinearStepSize", 10)
    percent = round(100 * part)
    return [min(100, percent * (at + 1)) / 100 for at in range(-(-100 // percent))]


def _part(size: _Capacity | None, name: str, least: int) -> float:
    if size is None or size.type != "CAPACITY_PERCENT" or not least <= size.value <= 50:
        raise _wrong(f"{name} is a CAPACITY_PERCENT of {least} to 50: there are no instances to count")
    return size.value / 100


def _alarms(told: _Deployment, *, bakes: bool) -> tuple[str, ...]:
    if told.auto_rollback_configuration is None:
        return ALARMS if bakes else ()
    names = tuple(dict.fromkeys(one.alarm_name for one in told.auto_rollback_configuration.alarms))
    if unknown := [name for name in names if name not in ALARMS]:
        raise _wrong(f"{len(unknown)} of AutoRollbackConfiguration's alarms are none of {', '.join(ALARMS)}")
    return names


def _wrong(what: str) -> Invalid:
    return Invalid(
        "serving.deployment_config",
        f"The DeploymentConfig is not one that can be followed: {what}. docs/serving.md shows some.",
    )


def variants_of(said: Sequence[Mapping[str, Any]], role: str) -> list[tuple[str, str, float]]:
    """Name, model ref and weight of ``ProductionVariants`` or ``ShadowProductionVariants``.

    Raises:
        Invalid: ``serving.variants``.
    """
    found = []
    for number, one in enumerate(said):
        if not isinstance(one, Mapping):
            raise _no_variants()
        name = str(one.get("VariantName") or f"{role}-{number + 1}")
        model, weight = one.get("ModelName"), one.get("InitialVariantWeight", 1.0)
        if (
            not isinstance(model, str)
            or not isinstance(weight, (int, float))
            or not 0 <= weight <= _HEAVIEST
            or len(name) > 63
        ):
            raise _no_variants()
        found.append((name, model, float(weight)))
    named = {name for name, *_ in found}
    if len(named) != len(found) or len(found) > _MOST_VARIANTS or (found and not sum(w for *_, w in found) > 0):
        raise _no_variants()
    return found


def _no_variants() -> Invalid:
    return Invalid(
        "serving.variants",
        f"Variants have different names of at most 63 letters, a ModelName each and weights of at least 0 that are "
        f"not all 0; at most {_MOST_VARIANTS}.",
    )


def place_of(name: str, key: str, what: str = "traffic") -> float:
    """Where a key lies in [0, 1): the same in every process, so that a patient's requests go the same way.

    As a share grows, keys move to the new revision and none moves back.
    """
    digest = hashlib.blake2b("\x1f".join((what, name, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
