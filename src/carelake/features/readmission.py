"""Features of 30-day readmission as of discharge: one row per index admission, the same offline and online.

`build` makes the rows of a whole cohort from the lake's flat views, `latest` the row of one patient's current or last
stay from the views of their own resources (`lake.flat.flatten`); both run `readmission.sql`. Names, order, units and
sources of the features are data (``readmission.toml``), as are comorbidities and laboratory codes.

What the point in time rests on: an observation counts from ``issued``, a condition from ``recordedDate``, anything
else from when it happened. A resource that was corrected later is seen as it is now; the record's own version times
say when it was loaded, which for a history loaded in bulk is not when the hospital knew.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid, NotFound
from carelake.core.settings import LakeSettings
from carelake.features import cohort as cohorts
from carelake.features.engines import Run
from carelake.features.scores import HOSPITAL_2013, HOSPITAL_2016, hospital, lace
from carelake.lake.engines.engine import run

__all__ = ["FACTS", "GROUPS", "SCORES", "Feature", "age_groups", "attrition", "build", "features", "latest"]

SCORES = ("lace", "hospital", "hospital_2013")
GROUPS = ("sex", "race", "age_group")
FACTS = ("admitted", "readmitted", "died_first", "discharge_disposition", "reason")
_FROM_VIEWS = ("encounters", "conditions", "observations", "medications", "procedures")
_AGE_GROUPS = ((40, "18-39"), (65, "40-64"), (80, "65-79"), (200, "80+"))


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature as `readmission.toml` tells of it; ``unit`` is UCUM."""

    name: str
    description: str
    unit: str
    source: str


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(files("carelake.features").joinpath(name).read_text("utf-8"))


@cache
def features() -> tuple[Feature, ...]:
    """The features, in the order of their columns."""
    return tuple(Feature(**said) for said in _toml("readmission.toml")["feature"])


@cache
def _lists() -> Mapping[str, pa.Table]:
    """The data files as the tables that the SQL joins."""
    items = [(p, c["name"]) for c in _toml("comorbidities.toml")["item"] for p in c["prefixes"]]
    readings = _toml("readings.toml")["reading"]
    coded = [(r["name"], code) for r in readings for code in r["loinc"]]
    units = [(r["name"], *unit) for r in readings for unit in r["units"]]
    return {
        "codes": cohorts.codes(),
        "comorbidity": _columns(items, ("prefix", "item")),
        "reading": _columns(coded, ("name", "code")),
        "unit": _columns(units, ("name", "unit", "factor", "shift")),
    }


def _columns(rows: Sequence[tuple[Any, ...]], names: tuple[str, ...]) -> pa.Table:
    return pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})


@cache
def _statement() -> str:
    columns = ",\n".join(f'CAST({_expression(f.name)} AS DOUBLE) AS "{f.name}"' for f in features())
    return f"SELECT encounter_id,\n{columns}\nFROM (\n{cohorts.sql('readmission.sql')})"


def _expression(name: str) -> str:
    """SQL of one feature over the columns that `readmission.sql` gives."""
    items = {item["name"]: item for item in _toml("comorbidities.toml")["item"]}
    if name in ("charlson", "charlson_lace"):
        weight = "lace" if name == "charlson_lace" else "charlson"
        return " + ".join(_weighed(item, item[weight]) for item in items.values() if item[weight])
    if name.removeprefix("has_") in items:
        return _has(name.removeprefix("has_"))
    for end, part in (("_last", "last"), ("_change", "change")):
        if name.endswith(end):
            return f"readings['{name.removesuffix(end)}'].{part}"
    return name


def _has(item: str) -> str:
    return f"CAST(list_contains(items, '{item}') AS INTEGER)"


def _weighed(item: Mapping[str, Any], weight: int) -> str:
    less = f" * (1 - {_has(item['graver'])})" if "graver" in item else ""
    return f"{weight} * {_has(item['name'])}{less}"


def build(
    tables: Mapping[str, Any],
    *,
    data_end: datetime | None = None,
    now: datetime | None = None,
    patient: str | None = None,
    limits: LakeSettings | None = None,
    on: Run = run,
) -> pa.Table:
    """One row per index admission, by patient and admission.

    Args:
        tables: the lake's flat views: patients, encounters, conditions, observations, medications, procedures.
        data_end: end of the data (UTC); by default `cohort.data_end_of`, which needs Arrow tables.
        now: the present, after which no date is believed.
        patient: only this patient's rows, of Arrow tables.
        on: the engine; the rows are the same.

    Returns:
        ``encounter_id``, ``subject_id``, ``prediction_time`` (timestamp, UTC), ``label`` (bool; null while the 30
        days are not over), the facts of `FACTS`, the features (float64), the scores of `SCORES` (float64; HOSPITAL
        by the international cut-offs of 2016, ``hospital_2013`` by the derivation's) and the groups of `GROUPS`.
        The schema's metadata holds the attrition table (`attrition`).

    Raises:
        Invalid: ``features.no_table``, ``features.no_data``.
    """
    _need(tables)
    tables = _of_patient(tables, patient) if patient is not None else tables
    end = cohorts.naive(data_end) if data_end else cohorts.data_end_of(tables, now)
    every = cohorts.stays(tables, end, limits=limits, on=on)
    chosen = cohorts.choose(every, end)
    made = _features(tables, every, chosen.table, chosen.table.column("discharged"), limits, on)
    said = {"attrition": dict(chosen.attrition), "data_end": end.isoformat()}
    return made.replace_schema_metadata({b"carelake": json.dumps(said).encode()})


def latest(
    tables: Mapping[str, pa.Table], patient: str, now: datetime, *, limits: LakeSettings | None = None
) -> pa.Table:
    """One row of the columns of `build` for the patient's most recent stay that had begun by ``now``.

    The prediction time is the discharge, or ``now`` while the patient is in. ``reason`` says why the stay is outside
    the cohort that a model was trained on (null: inside); ``no_discharge`` is the reason of a patient still in.

    Raises:
        NotFound: ``features.no_stay``.
    """
    _need(tables)
    moment = cohorts.naive(now)
    tables = _of_patient(tables, patient)
    every = cohorts.stays(tables, moment, limits=limits)
    if not len(every):
        raise NotFound("features.no_stay", "The patient has no inpatient stay; features are made as of a stay.")
    last = every.slice(len(every) - 1)
    over = pc.less_equal(last.column("discharged"), pa.scalar(moment, pa.timestamp("us")))
    at = pc.if_else(pc.fill_null(over, False), last.column("discharged"), pa.scalar(moment, pa.timestamp("us")))
    return _features(tables, every, last, at, limits)


def attrition(table: pa.Table) -> Mapping[str, Any]:
    """What `build` noted about the rows it left out: ``{"attrition": {...}, "data_end": "..."}``."""
    said = (table.schema.metadata or {}).get(b"carelake")
    return json.loads(said) if said else {}


def _need(tables: Mapping[str, Any]) -> None:
    missing = sorted({"patients", *_FROM_VIEWS} - set(tables))
    if missing:
        raise Invalid("features.no_table", f"The views {', '.join(missing)} are missing; pass all that the lake has.")


def _of_patient(tables: Mapping[str, pa.Table], patient: str) -> dict[str, pa.Table]:
    return {name: t.filter(pc.equal(t.column("subject_id"), patient)) for name, t in tables.items()}


def _features(
    tables: Mapping[str, Any],
    every: pa.Table,
    chosen: pa.Table,
    at: pa.ChunkedArray,
    limits: LakeSettings | None,
    on: Run = run,
) -> pa.Table:
    index = chosen.append_column("as_of", at)
    inputs = {name: tables[name] for name in _FROM_VIEWS} | {"stays": every, "index_stays": index}
    hours = {"emergency_hours": cohorts.rules()["emergency_hours"]}
    made = on(_statement(), inputs, hours, constants=_lists(), limits=limits)
    columns: dict[str, Any] = {
        "encounter_id": chosen.column("encounter_id"),
        "subject_id": chosen.column("subject_id"),
        "prediction_time": at,
        "label": chosen.column("label"),
        **{name: chosen.column(name) for name in FACTS},
        **{feature.name: made.column(feature.name) for feature in features()},
        **_scores(made),
        "sex": chosen.column("sex"),
        "race": chosen.column("race"),
        "age_group": age_groups(chosen.column("age")),
    }
    return pa.table(columns)


def _scores(made: pa.Table) -> dict[str, pa.Array]:
    names = (
        "los_days", "emergent_admission", "charlson_lace", "ed_visits_6m", "hemoglobin_last", "oncology_service",
        "sodium_last", "procedures_stay", "admissions_12m",
    )  # fmt: skip
    rows = list(zip(*(made.column(name).to_pylist() for name in names), strict=True))
    return {
        "lace": pa.array([float(_lace(row)) for row in rows], pa.float64()),
        "hospital": pa.array([float(_hospital(row, HOSPITAL_2016)) for row in rows], pa.float64()),
        "hospital_2013": pa.array([float(_hospital(row, HOSPITAL_2013)) for row in rows], pa.float64()),
    }


def _lace(row: tuple[Any, ...]) -> int:
    days, emergent, charlson, visits, *_ = row
    return lace(days=days, acute=bool(emergent), charlson=int(charlson or 0), ed_visits=int(visits or 0))


def _hospital(row: tuple[Any, ...], cutoffs: tuple[int, int]) -> int:
    days, emergent, _, _, hemoglobin, oncology, sodium, procedures, admissions = row
    return hospital(
        hemoglobin=hemoglobin,
        oncology=bool(oncology),
        sodium=sodium,
        procedure=bool(procedures),
        urgent=bool(emergent),
        admissions=int(admissions or 0),
        days=days,
        cutoffs=cutoffs,
    )


def age_groups(ages: pa.ChunkedArray) -> pa.Array:
    """The group of `GROUPS` that an age in years is in, null for null."""

    def group(age: int | None) -> str | None:
        return None if age is None else next(name for below, name in _AGE_GROUPS if age < below)

    return pa.array([group(age) for age in ages.to_pylist()], pa.string())
