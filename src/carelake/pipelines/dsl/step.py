"""What every step may have, and where SageMaker would run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carelake.pipelines.dsl.values import join, plain

__all__ = ["Machine", "Retry", "Step", "inputs", "job", "outputs"]

_ROOT = "/opt/ml/processing"
_S3_INPUT = {"S3DataType": "S3Prefix", "S3InputMode": "File"}


@dataclass(frozen=True)
class Machine:
    """What SageMaker must know beside: where a job runs, as whom, where outputs go. Nothing of it counts here."""

    image: Any = "carelake"
    role: Any = "arn:aws:iam::000000000000:role/carelake"
    bucket: Any = "carelake"
    instance: Any = "ml.m5.large"
    gigabytes: int = 30

    def resources(self) -> dict[str, Any]:
        """One instance."""
        return {"InstanceCount": 1, "InstanceType": self.instance, "VolumeSizeInGB": self.gigabytes}

    def uri(self, *parts: str) -> dict[str, Any]:
        """An address in the bucket."""
        return join("/", "s3:/", self.bucket, *parts)


@dataclass(frozen=True)
class Retry:
    """Tries a step again: how often in all beside the first time, after so many seconds, each wait longer."""

    exceptions: Sequence[str] = ("Step.SERVICE_FAULT", "Step.THROTTLING")
    attempts: int = 3
    seconds: float = 1
    backoff: float = 2.0

    def said(self) -> dict[str, Any]:
        """The policy."""
        waits = {"IntervalSeconds": self.seconds, "BackoffRate": self.backoff, "MaxAttempts": self.attempts}
        return {"ExceptionType": list(self.exceptions), **waits}


@dataclass
class Step(ABC):
    """What every step may have. ``cache`` is how long a result counts, for example ``P30D``; "" for no cache."""

    name: str
    title: str = field(default="", kw_only=True)
    after: Sequence[Step | str] = field(default=(), kw_only=True)
    cache: str = field(default="", kw_only=True)
    retries: Sequence[Retry] = field(default=(), kw_only=True)

    _type = ""

    def said(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        """The step as it stands in the definition."""
        found: dict[str, Any] = {"Name": self.name, "Type": self._type, **self._parts(machine, pipeline)}
        found |= {"DisplayName": self.title} if self.title else {}
        found |= (
            {"DependsOn": [one if isinstance(one, str) else one.name for one in self.after]} if self.after else {}
        )
        found |= {"CacheConfig": {"Enabled": True, "ExpireAfter": self.cache}} if self.cache else {}
        return found | ({"RetryPolicies": [one.said() for one in self.retries]} if self.retries else {})

    @abstractmethod
    def _parts(self, machine: Machine, pipeline: str) -> dict[str, Any]:
        """What a step of its type has beside name and type."""

    def get(self, path: str) -> dict[str, Any]:
        """A reference to a property."""
        return {"Get": f"Steps.{self.name}.{path}"}


def job(name: str) -> list[str]:
    """The entry point of a named job."""
    return ["carelake-job", name]


def inputs(named: Mapping[str, Any]) -> list[dict[str, Any]]:
    """ProcessingInputs by name."""
    return [
        {"InputName": name, "S3Input": {**_S3_INPUT, "S3Uri": plain(one), "LocalPath": f"{_ROOT}/in/{name}"}}
        for name, one in named.items()
    ]


def outputs(names: Sequence[str], machine: Machine, *place: str) -> dict[str, Any]:
    """ProcessingOutputConfig of these outputs, below a place in the bucket."""
    found = []
    for name in names:
        output = {"S3Uri": plain(machine.uri(*place, name)), "LocalPath": f"{_ROOT}/out/{name}"}
        found.append({"OutputName": name, "S3Output": {**output, "S3UploadMode": "EndOfJob"}})
    return {"Outputs": found}
