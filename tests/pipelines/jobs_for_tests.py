"""Jobs that tests' pipelines name; they are imported by the processes of steps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from carelake.core.errors import Invalid, Unavailable
from carelake.pipelines.execution.work import Files, Made, Work
from carelake.pipelines.jobs.catalogue import Job

__all__ = ["JOBS", "add", "crash", "eat", "fail_until", "function", "rows", "sleep", "write"]

_HERE = "jobs_for_tests"


def write(work: Work) -> Made:
    """A number as a file; each time it is done leaves a line in a log where one is told."""
    _log(work)
    number = float(work.settings.get("number", "0"))
    return Made({"out": Files({"value.json": json.dumps({"value": number}).encode()})}, metrics={"value": number})


def add(work: Work) -> Made:
    """The sum of the files of all inputs."""
    _log(work)
    total = float(work.settings.get("number", "0"))
    with work.acting("pipeline:step", work.pipeline) as permit:
        for name in sorted(work.inputs):
            total += json.loads(work.read(permit, work.ref(name), "value.json"))["value"]
    files = Files({"value.json": json.dumps({"value": total}).encode()})
    return Made({"out": files, "model": files}, metrics={"value": total})


def function(work: Work) -> Made:
    """A function: the sum of its two numbers, and a word."""
    return Made(values={"sum": work.settings["a"] + work.settings["b"], "word": "done"})


def fail_until(work: Work) -> Made:
    """Unavailable until it was tried so many times."""
    tried = _log(work)
    if tried < int(work.settings["times"]):
        raise Unavailable("test.away", "Not here yet.")
    return Made({"out": Files({"value.json": b'{"value": 1}'})})


def refuse(work: Work) -> Made:
    """Fails for good."""
    raise Invalid("test.never", "This never works.")


def sleep(work: Work) -> Made:
    """Takes its time."""
    _log(work)
    time.sleep(float(work.settings["seconds"]))
    return write(work)


def eat(work: Work) -> Made:
    """Takes memory."""
    held = bytearray(int(work.settings["mb"]) << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(5)
    return Made()


def spin(work: Work) -> Made:
    """Takes processor time."""
    until = time.process_time() + float(work.settings["seconds"])
    while time.process_time() < until:
        pass
    return Made()


def crash(work: Work) -> Made:
    """Its process ends without a word."""
    os._exit(3)


def rows(work: Work) -> Made:
    """A training set of made-up stays; ``shift`` moves the people, ``worse`` the outcome of one group."""
    import numpy as np
    import pyarrow as pa

    from carelake.features import parquet

    _log(work)
    count, told = int(work.settings.get("count", "1500")), work.settings
    drawn = np.random.default_rng(int(told.get("seed", "1")))
    age, before = drawn.normal(60 + 12 * float(told.get("shift", "0")), 10, count), drawn.poisson(1.0, count)
    sex = np.where(drawn.random(count) < 0.5, "female", "male")
    risk = 1 / (1 + np.exp(-(0.04 * (age - 60) + 0.8 * before - 1.8)))
    risk = np.where(sex == "female", np.clip(risk + float(told.get("worse", "0")), 0, 1), risk)
    part = np.arange(count) / count
    columns = {
        "subject_id": [f"p{number % (count * 2 // 3)}" for number in range(count)],
        "label": drawn.random(count) < risk,
        "set": np.where(part < 0.4, "train", np.where(part < 0.5, "calibration", "test")),
        "sex": sex,
        "race": drawn.choice(["Asian", "Black", "White"], count),
        "age": age,
        "before": before.astype(float),
        "guess": drawn.normal(60, 5, count),
    }
    with work.acting("features:build", work.pipeline) as permit:
        vault, nouns = work.platform.vault, work.platform.nouns
        body = {"features": ["age", "before"], "attrition": {"stays": count}, "data_end": "2026-01-01T00:00:00Z"}
        noun = parquet.keep(permit, vault, nouns, "trainingset", pa.table(columns), (), body)
    return Made({"dataset": noun.ref})


def _log(work: Work) -> int:
    told = work.settings.get("log")
    if not told:
        return 0
    path = Path(told)
    with path.open("a") as opened:
        opened.write(work.step + "\n")
    return path.read_text().splitlines().count(work.step)


JOBS = {
    name: Job(name, f"{_HERE}:{does}")
    for name, does in (
        ("test.write", "write"),
        ("test.add", "add"),
        ("test.function", "function"),
        ("test.flaky", "fail_until"),
        ("test.refuse", "refuse"),
        ("test.sleep", "sleep"),
        ("test.eat", "eat"),
        ("test.spin", "spin"),
        ("test.crash", "crash"),
        ("test.rows", "rows"),
    )
}
