"""Features, endpoints and pipelines."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec

__all__ = ["FeatureSettings", "PipelineSettings", "ServingSettings"]


class FeatureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Feature groups.

    Attributes:
        groups: of an account, at most; SageMaker's own quota by default.
        ingest_rows: rows of a file that are written together.
        log_rows: rows of the offline log that go into one file.
        redis: where copies of InMemory groups' records are kept: ``rediss://USER@HOST:PORT/DATABASE``; "": nowhere.
        redis_password_file: a file that holds the password and nothing else.
        redis_ca_file: of who signed the server's certificate; "" for whom the machine trusts.
        redis_ms: so long the server may take before SQL is asked.
    """

    groups: int = 100
    ingest_rows: int = 50_000
    log_rows: int = 50_000
    redis: str = ""
    redis_password_file: str = ""
    redis_ca_file: str = ""
    redis_ms: int = 50

    def __post_init__(self) -> None:
        if min(self.groups, self.ingest_rows, self.log_rows, self.redis_ms) < 1:
            raise ValueError("the numbers of features are 1 or more: groups, ingest_rows, log_rows, redis_ms")
        told = urlsplit(self.redis)
        known = told.path if told.scheme == "unix" else told.scheme in ("redis", "rediss") and told.hostname
        if self.redis and (not known or told.password is not None or told.query):
            raise ValueError("features.redis is as rediss://USER@HOST:PORT/DATABASE; the password has its own file")
        if told.scheme == "redis" and told.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("features.redis beyond this machine is rediss://, which is TLS")


class ServingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints: when an alarm is one (docs/endpoints.md). A distance must pass its bound and what chance reaches.

    Attributes:
        errors: share of requests that fail on this side.
        latency_ms: under which 95 of 100 requests stay.
        psi, linf: distances of scores, from what the old version says of the same rows, or from the baseline.
        missing: how far the share of rows that have a feature may fall under the baseline's.
        calibration: how far observed events may be from the expected ones, as a part of these.
        enough, enough_requests, enough_outcomes: under which nothing is said.
        after_bake: what an alarm does once a rollout is over: it is told, or the version before serves again.
        watch_minutes: of the last windows that are looked at once a rollout is over.
        tick_seconds: how often a server looks at rollouts; 0 for never.
        sandbox: ``always`` scores every endpoint in a sandbox, whatever its deployment says (docs/sandbox.md).
        sandbox_seconds: how long a sandbox may take for up to a thousand rows before it is ended.
        sandbox_outer: bubblewrap around it: where it works, always, or never.
    """

    errors: float = 0.05
    latency_ms: float = 500.0
    psi: float = 0.2
    linf: float = 0.1
    missing: float = 0.1
    calibration: float = 0.25
    enough: int = 100
    enough_requests: int = 20
    enough_outcomes: int = 100
    after_bake: Literal["tell", "rollback"] = "tell"
    watch_minutes: int = 60
    tick_seconds: float = 1.0
    sandbox: Literal["asked", "always"] = "asked"
    sandbox_seconds: float = 5.0
    sandbox_outer: Literal["auto", "bubblewrap", "none"] = "auto"

    def __post_init__(self) -> None:
        bounds = (self.errors, self.latency_ms, self.psi, self.linf, self.missing, self.calibration)
        if min(bounds) <= 0 or min(self.enough, self.enough_requests, self.enough_outcomes, self.watch_minutes) < 1:
            raise ValueError("serving: bounds are more than 0, and what is enough is 1 or more")
        if self.tick_seconds < 0:
            raise ValueError("serving.tick_seconds is 0 or more")
        if not 0.01 <= self.sandbox_seconds <= 60:
            raise ValueError("serving.sandbox_seconds is 0.01 to 60")


class PipelineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How steps of pipelines run (docs/pipelines.md).

    Attributes:
        isolation: ``process``: each step in a process of its own, under the limits; ``none``: all in this one,
            without limits of memory and processor time.
        parallel: steps at once, where neither the pipeline nor its execution says.
        memory_mb, cpu_seconds, seconds: limits of one step's process; 0 for none. A step's own
            ``MaxRuntimeInSeconds`` holds where it is less.
        poll_seconds: how often a server looks for executions to carry out and schedules that are due; 0 for never.
    """

    isolation: Literal["process", "none"] = "process"
    parallel: int = 2
    memory_mb: int = 16_384
    cpu_seconds: int = 43_200
    seconds: int = 21_600
    poll_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.parallel <= 64:
            raise ValueError(f"pipelines.parallel is {self.parallel}; 1 to 64 steps run at once")
        if min(self.memory_mb, self.cpu_seconds, self.seconds, self.poll_seconds) < 0:
            raise ValueError("pipelines: limits are 0 or more")
