"""30-day unplanned readmission: who is in, when they are looked at, and what came of it.

* **Index admission**: an inpatient stay (class IMP or ACUTE), finished, with a known discharge, of an adult (18 full
  years at admission) discharged alive and not to another acute hospital. Stays of a patient less than 24 hours apart
  are one stay: transfers and short leaves. The merged stay is named by its last encounter.
* **Exclusions** are counted under the first reason that fits, in the order of ``cohort.toml``. Hospice and leaving
  against advice stay in; their disposition is a feature.
* **Label**: an unplanned inpatient stay that starts within 30 days after discharge. Planned: recorded priority is
  elective or routine. Where no priority is recorded, admission through an emergency department is unplanned, and
  an unknown way in counts as unplanned too. A planned stay in between hides nothing.
* **Death** within 30 days without readmission is a competing event: label false, ``died_first`` true. Training may
  leave these rows out as a sensitivity analysis.
* **Censoring**: where the 30 days reach beyond the end of the data, the label is null, for those who came back in
  the part that was seen as well: keeping them would keep early events and drop early non-events.
* **End of the data**: given, or the latest start or end of an encounter, or time of an observation, that is not after
  the present; with many encounters the start that all but one in a thousand do not pass.
* **Prediction time** is the discharge of the merged stay. Someone who walks out and is back within 24 hours was
  scored at the first discharge when it happened; in training only the later one counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.features.engines import Run
from carelake.lake.engines.engine import run

MANY = 1000
"""Encounters from which on the latest starts decide where the data end."""

__all__ = ["MANY", "Cohort", "choose", "codes", "cohort", "data_end_of", "naive", "rules", "sql", "stays"]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Index admissions and how they were come by.

    Attributes:
        table: one row per index admission, by patient and admission.
        attrition: counts in order: ``stays``, each reason, ``index``, then ``censored``, ``labelled``,
            ``readmitted``, ``died_first``.
        data_end: the end of the data, UTC.
    """

    table: pa.Table
    attrition: Mapping[str, int]
    data_end: datetime


@cache
def rules() -> dict[str, Any]:
    """The cohort's numbers, code lists and reasons (``cohort.toml``)."""
    return tomllib.loads(files("carelake.features").joinpath("cohort.toml").read_text("utf-8"))


@cache
def codes() -> pa.Table:
    """The code lists as a table: list, code."""
    pairs = [(name, code) for name, listed in rules()["codes"].items() for code in listed]
    return pa.table({"list": [name for name, _ in pairs], "code": [code for _, code in pairs]})


@cache
def sql(name: str) -> str:
    """The text of one of this room's SQL files."""
    return files("carelake.features").joinpath(name).read_text("utf-8")


def naive(moment: datetime) -> datetime:
    """UTC without a zone, as the views' timestamps are; naive input is taken as UTC."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def data_end_of(tables: Mapping[str, pa.Table], now: datetime | None = None) -> datetime:
    """The moment up to which the data tell what happened.

    A date that was typed wrong must not move it: moments after ``now`` do not count, and where there are many
    encounters the latest of each thousand does not either, since an end that is too late takes follow-up for
    complete that is not.

    Args:
        now: the present; None takes every date for true.

    Raises:
        Invalid: ``features.no_data``, when there is no encounter with a time.
    """
    encounters = tables["encounters"]
    void = pc.is_in(encounters.column("status"), pa.array(rules()["codes"]["void_encounter"]))
    happened = encounters.filter(pc.invert(void))
    starts = _until(happened.column("start_time"), now)
    if len(starts) >= MANY:
        end: datetime = (
            pc.quantile(starts.cast(pa.int64()), 1 - 1 / MANY, interpolation="lower")[0].cast(starts.type).as_py()
        )
        return end
    seen = [starts, _until(happened.column("end_time"), now)]
    if "observations" in tables:
        seen.append(_until(tables["observations"].column("time"), now))
    latest: list[datetime] = [t for t in (pc.max(column).as_py() for column in seen) if t is not None]
    if not latest:
        raise Invalid("features.no_data", "There is no encounter with a time; ingest some and sync the lake first.")
    return max(latest)


def _until(times: pa.ChunkedArray, now: datetime | None) -> pa.ChunkedArray:
    known = times.drop_null()
    return known if now is None else known.filter(pc.less_equal(known, pa.scalar(naive(now), known.type)))


def stays(
    tables: Mapping[str, Any], data_end: datetime, *, limits: LakeSettings | None = None, on: Run = run
) -> pa.Table:
    """Every merged inpatient stay up to ``data_end``, with its reason to be excluded (null: index) and its label.

    Args:
        on: the engine that runs the statement, and knows the tables.
    """
    inputs = {name: tables[name] for name in ("encounters", "patients")}
    numbers = {k: rules()[k] for k in ("gap_hours", "emergency_hours", "adult_age", "follow_up_days")}
    return on(
        sql("cohort.sql"),
        inputs,
        {**numbers, "data_end": naive(data_end)},
        constants={"codes": codes()},
        limits=limits,
    )


def cohort(tables: Mapping[str, pa.Table], *, data_end: datetime | None = None) -> Cohort:
    """Index admissions of the lake's views ``encounters`` and ``patients``, with labels and an attrition table."""
    end = naive(data_end) if data_end else data_end_of(tables)
    return choose(stays(tables, end), end)


def choose(every: pa.Table, data_end: datetime) -> Cohort:
    """The index admissions among all merged stays (`stays`)."""
    index = every.filter(pc.is_null(every.column("reason")))
    return Cohort(index, _attrition(every, index), data_end)


def _attrition(every: pa.Table, index: pa.Table) -> dict[str, int]:
    reasons = every.column("reason").to_pylist()
    labels = index.column("label").to_pylist()
    return {
        "stays": len(every),
        **{step["reason"]: reasons.count(step["reason"]) for step in rules()["attrition"]},
        "index": len(index),
        "censored": labels.count(None),
        "labelled": len(labels) - labels.count(None),
        "readmitted": labels.count(True),
        "died_first": index.column("died_first").to_pylist().count(True),
    }
