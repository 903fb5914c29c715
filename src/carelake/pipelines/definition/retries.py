"""Retry policies of a step: which failures are tried again, how often, and after how long.

https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-retry-policy.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from carelake.pipelines.definition.places import Place

__all__ = ["EXCEPTIONS", "Retry", "policies", "wait_before"]

EXCEPTIONS = (
    "Step.SERVICE_FAULT",
    "Step.THROTTLING",
    "SageMaker.JOB_INTERNAL_ERROR",
    "SageMaker.CAPACITY_ERROR",
    "SageMaker.RESOURCE_LIMIT",
)
"""Kinds of failure. Here: a part was unavailable; the state of things forbade it now; the job failed or crashed;
(never); the job went beyond its limits."""

_KEYS = frozenset({"ExceptionType", "BackoffRate", "IntervalSeconds", "MaxAttempts", "ExpireAfterMin"})


@dataclass(frozen=True, slots=True)
class Retry:
    """One policy. Times in seconds; ``attempts`` and ``expires`` are 0 where not given."""

    exceptions: frozenset[str]
    backoff: float = 2.0
    interval: float = 1.0
    attempts: int = 0
    expires: float = 0.0


DEFAULT = Retry(frozenset({"Step.SERVICE_FAULT"}), attempts=2)
"""Where a step says nothing, what was unavailable is tried twice more."""


def policies(place: Place) -> tuple[Retry, ...]:
    """The policies of a step, checked."""
    return tuple(_policy(one) for one in place.items(10))


def _policy(one: Place) -> Retry:
    one.keys(_KEYS, frozenset({"ExceptionType"}))
    kinds = [kind.value for kind in one["ExceptionType"].items(10)]
    if not kinds or set(kinds) - set(EXCEPTIONS):
        raise one["ExceptionType"].wrong(f"some of {', '.join(EXCEPTIONS)}")
    if ("MaxAttempts" in one) == ("ExpireAfterMin" in one):
        raise one.wrong("either MaxAttempts or ExpireAfterMin")
    return Retry(
        frozenset(kinds),
        one["BackoffRate"].number(0, 100) if "BackoffRate" in one else 2.0,
        one["IntervalSeconds"].number(0, 86_400) if "IntervalSeconds" in one else 1.0,
        int(one["MaxAttempts"].number(1, 20, whole=True)) if "MaxAttempts" in one else 0,
        one["ExpireAfterMin"].number(0, 14_400) * 60 if "ExpireAfterMin" in one else 0.0,
    )


def wait_before(retries: Sequence[Retry], failures: Iterable[str], since: float) -> float | None:
    """Seconds to wait before another attempt, None where there shall be none.

    Args:
        failures: the kinds of all failures of the step so far, the last one last.
        since: seconds since its first attempt began.
    """
    kinds = list(failures)
    for one in retries or (DEFAULT,):
        if kinds[-1] in one.exceptions:
            before = sum(kind in one.exceptions for kind in kinds)
            wait = one.interval * one.backoff ** (before - 1)
            if one.attempts:
                return wait if before <= one.attempts else None
            return wait if since + wait <= one.expires else None
    return None
