"""30-day readmission in the UCI file: rows with features as of discharge, the label, groups and a score like LACE.

Every feature is known when the patient leaves: the stay itself, its diagnoses and medicines, and visits of the year
before. No identifier is one, nor the order of the file. Race is not one either: the report looks at it.

**Scores.** HOSPITAL cannot be computed: the file has no haemoglobin and no sodium. LACE cannot be computed as
published: emergency visits are those of a year in place of six months, and comorbidity is what three listed
diagnoses show. `lace_like` is that approximation under a name of its own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carelake.features.scores import lace
from carelake.features.split import Fractions, patient_group
from carelake.features.uci_read import Encounters, needed, said

__all__ = ["GROUPS", "NOT_COMPUTABLE", "SCORES", "Feature", "Made", "build", "features", "icd9", "sets"]

Numbers = NDArray[np.float64]
GROUPS = ("race", "sex", "age_group")
SCORES = ("lace_like",)
NOT_COMPUTABLE = {
    "lace": "The file counts emergency visits of a year, not of six months, and lists three diagnoses; lace_like "
    "is computed on these in its place.",
    "hospital": "The file has no haemoglobin and no sodium.",
    "hospital_2013": "The file has no haemoglobin and no sodium.",
}
_DIAGNOSES = ("diag_1", "diag_2", "diag_3")
_OPEN = ("medical_specialty", "payer_code")  # lists that are longer than the levels that have features


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature and how to say it."""

    name: str
    description: str


@dataclass(frozen=True)
class Made:
    """Rows of the file.

    Attributes:
        table: ``encounter_id``, ``outside`` (why a row is outside the cohort, null: inside), the features (float64),
            ``lace_like``, the groups; with labels also ``subject_id`` and ``label``.
        features: in the order of their columns.
        odd: rows by column whose value is no number or no known level; they count as missing there.
    """

    table: pa.Table
    features: Sequence[Feature]
    odd: Mapping[str, int]


def build(read: Encounters, *, labelled: bool) -> Made:
    """Make the rows. Of labelled ones, those without a label and repeated encounters are left out (``odd``)."""
    odd: dict[str, int] = {}
    made: dict[str, tuple[str, Numbers]] = {}
    for part in (_age, _counts, _categories, _drugs, _diagnoses):
        made.update(part(read, odd))
    columns: dict[str, Any] = {"encounter_id": pa.array(read.ids, pa.string()), "outside": _outside(read)}
    columns |= {name: pa.array(values, pa.float64(), from_pandas=True) for name, (_, values) in made.items()}
    columns |= {"lace_like": pa.array(_lace_like(read)), **_groups(read)}
    table = pa.table(columns)
    if labelled:
        table = _labelled(read, table, odd)
    return Made(table, [Feature(name, words) for name, (words, _) in made.items()], odd)


@cache
def features() -> tuple[Feature, ...]:
    """The features, in the order of their columns."""
    nobody = Encounters({name: pa.array([], pa.string()) for name in needed()}, [], [])
    return tuple(build(nobody, labelled=False).features)


def _labelled(read: Encounters, table: pa.Table, odd: dict[str, int]) -> pa.Table:
    told = said()["label"]
    known = {**dict.fromkeys(told["positive"], 1.0), **dict.fromkeys(told["negative"], 0.0)}
    label = read.mapped(told["column"], lambda value: known.get(value or "", np.nan))
    _, first = np.unique(np.asarray(read.ids), return_index=True)
    once = np.zeros(len(read), dtype=bool)
    once[first] = True
    keep = once & ~np.isnan(label)
    table = table.add_column(1, "subject_id", read.columns["patient_nbr"])
    table = table.add_column(2, "label", pa.array(label == 1.0))
    odd |= {name: n for name, n in (("no_label", int(np.isnan(label).sum())), ("repeated", int((~once).sum()))) if n}
    return table.filter(pa.array(keep))


def sets(table: pa.Table, *, seed: int = 1, fractions: Fractions | None = None) -> pa.Array:
    """``train``, ``calibration`` or ``test`` for each row, by patient; null outside the cohort.

    The file has no dates, so this split looks at strangers, not forward in time.
    """
    fractions = fractions or Fractions(test_patients=0.2, calibration_patients=0.05)
    group = {
        patient: patient_group(patient, seed, fractions) for patient in set(table.column("subject_id").to_pylist())
    }
    rows = zip(table.column("subject_id").to_pylist(), table.column("outside").to_pylist(), strict=True)
    return pa.array([group[patient] if outside is None else None for patient, outside in rows], pa.string())


def _number(text: str | None) -> float:
    try:
        value = float(text) if text is not None else np.nan
    except ValueError:
        return np.nan
    return value if 0 <= value < 1e6 else np.nan


def _noted(read: Encounters, column: str, values: Numbers, odd: dict[str, int]) -> Numbers:
    """The values; where one was given and not understood, it is counted."""
    given = read.columns[column].is_valid().to_numpy(zero_copy_only=False)
    count = int((np.isnan(values) & given).sum())
    if count:
        odd[column] = odd.get(column, 0) + count
    return values


def _years(text: str | None) -> float:
    """The middle of a band ("[70-80)"), or the age."""
    low, dash, high = (text or "").strip("[]()").partition("-")
    return (_number(low) + _number(high)) / 2.0 if dash else _number(low or None)


def _age(read: Encounters, odd: dict[str, int]) -> dict[str, tuple[str, Numbers]]:
    return {"age": ("Age, by bands of ten years", _noted(read, "age", read.mapped("age", _years), odd))}


def _counts(read: Encounters, odd: dict[str, int]) -> dict[str, tuple[str, Numbers]]:
    made = {}
    for one in said()["number"]:
        column = one["column"]
        values = _noted(read, column, read.mapped(column, _number), odd)
        made[column] = (one["title"], values)
        if one.get("log"):
            made[f"{column}_log"] = (f"{one['title']} (logarithm)", np.log1p(values))
    visits = sum(made[name][1] for name in ("number_outpatient", "number_emergency", "number_inpatient"))
    made["visits_log"] = ("Visits and stays in the year before (logarithm)", np.log1p(visits))
    return made


def _categories(read: Encounters, odd: dict[str, int]) -> dict[str, tuple[str, Numbers]]:
    made = {}
    for one in said()["category"]:
        column, levels = one["column"], one["levels"]
        if column not in _OPEN:
            known = {value for values in levels.values() for value in values} | set(one.get("other", ()))
            _noted(read, column, read.mapped(column, _known(known)), odd)
        for name, values in levels.items():
            words = f"{one['title']}: {name.replace('_', ' ')}"
            made[f"{column.removesuffix('_id')}_{name}"] = (words, read.mapped(column, _among(values)))
    return made


def _known(values: set[str]) -> Callable[[str | None], float]:
    return lambda value: 0.0 if value in values else np.nan


def _among(values: Sequence[str]) -> Callable[[str | None], float]:
    """1 for a value of the list; "?" in it stands for a missing one."""
    return lambda value: float(("?" if value is None else value) in values)


def _drugs(read: Encounters, odd: dict[str, int]) -> dict[str, tuple[str, Numbers]]:
    told = said()["drugs"]
    every = [*told["single"], told["insulin"], *told["rare"]]
    for name in every:
        _noted(read, name, read.mapped(name, _known({"no", "steady", "up", "down"})), odd)
    given = {name: read.mapped(name, _among(["steady", "up", "down"])) for name in every}
    up, down = ({name: read.mapped(name, _among([way])) for name in every} for way in ("up", "down"))
    made = {name: (f"{name.capitalize()} given", given[name]) for name in (*told["single"], told["insulin"])}
    insulin = told["insulin"]
    made |= {f"{insulin}_up": ("Insulin raised", up[insulin]), f"{insulin}_down": ("Insulin lowered", down[insulin])}
    made["drugs_rare"] = ("Another diabetes medicine given", np.maximum.reduce([given[n] for n in told["rare"]]))
    made["drugs_given"] = ("Diabetes medicines given", np.sum(list(given.values()), axis=0))
    made["drugs_up"] = ("Diabetes medicines raised", np.sum(list(up.values()), axis=0))
    made["drugs_down"] = ("Diabetes medicines lowered", np.sum(list(down.values()), axis=0))
    return made


Spans = list[tuple[float, float]]


def icd9(code: str | None) -> float:
    """A code as a number to compare: V codes from 1000, E codes from 2000; NaN for what is none."""
    text = (code or "").strip().lower()
    start = {"v": 1000.0, "e": 2000.0}.get(text[:1])
    number = _number(text[1:] if start is not None else text or None)
    return number + (start or 0.0) if number < 1000.0 else np.nan


def _spans(ranges: Sequence[str]) -> Spans:
    """Of "250", "410-414" or "250.4-250.49": from, and up to but not with."""
    out = []
    for one in ranges:
        low, dash, high = one.partition("-")
        last = high if dash else low
        out.append((icd9(low), icd9(last) + (0.001 if "." in last else 1.0)))
    return out


@cache
def _icd9_groups() -> list[tuple[str, str, Spans]]:
    told = tomllib.loads(files("carelake.features").joinpath("uci_icd9.toml").read_text("utf-8"))
    return [(name, words, _spans(ranges)) for name, words, ranges in told["group"]]


def _group_of(code: str | None) -> float:
    number = icd9(code)
    for at, (_, _, spans) in enumerate(_icd9_groups()):
        if any(low <= number < high for low, high in spans):
            return float(at)
    return np.nan


def _diagnoses(read: Encounters, odd: dict[str, int]) -> dict[str, tuple[str, Numbers]]:
    found = {column: _noted(read, column, read.mapped(column, _group_of), odd) for column in _DIAGNOSES}
    made = {}
    for at, (name, words, _) in enumerate(_icd9_groups()):
        here = {column: (values == at).astype(np.float64) for column, values in found.items()}
        made[f"primary_{name}"] = (f"Main diagnosis: {words}", here["diag_1"])
        made[f"any_{name}"] = (f"Diagnosis: {words}", np.maximum.reduce(list(here.values())))
    # Neighbours in the classification are alike, so trees find what no list of groups has foreseen.
    for number, column in enumerate(_DIAGNOSES, 1):
        made[f"{column}_order"] = (f"Diagnosis {number}: place in ICD-9", read.mapped(column, icd9))
    made["charlson_listed"] = ("Comorbidity points of the listed diagnoses", _charlson(read))
    return made


def _charlson(read: Encounters) -> Numbers:
    """LACE's Charlson points, of the three listed diagnoses."""
    items = [(points, _spans(ranges)) for points, ranges in said()["lace_like"]["charlson"]]
    total = np.zeros(len(read))
    for points, spans in items:
        has = [read.mapped(column, partial(_within, spans)) for column in _DIAGNOSES]
        total += points * np.maximum.reduce(has)
    return total


def _within(spans: Spans, code: str | None) -> float:
    number = icd9(code)
    return float(any(low <= number < high for low, high in spans))


def _lace_like(read: Encounters) -> Numbers:
    acute = read.mapped("admission_type_id", _among(said()["lace_like"]["acute"]))
    days, visits = read.mapped("time_in_hospital", _number), read.mapped("number_emergency", _number)
    rows = zip(days, acute, _charlson(read), np.nan_to_num(visits), strict=True)
    return np.asarray(
        [
            float(lace(days=None if np.isnan(d) else d, acute=bool(a), charlson=int(c), ed_visits=int(v)))
            for d, a, c, v in rows
        ]
    )


def _outside(read: Encounters) -> pa.Array:
    reasons = [None, *(one["reason"] for one in said()["outside"])]
    of = {str(code): at for at, one in enumerate(said()["outside"], 1) for code in one["dispositions"]}
    found = read.mapped("discharge_disposition_id", lambda value: float(of.get(value or "", 0)))
    return pa.array([reasons[int(at)] for at in found], pa.string())


def _groups(read: Encounters) -> dict[str, pa.Array]:
    told = said()["groups"]
    bands = [(below, name) for below, name in told["age_group"]]

    def of_age(value: str | None) -> str | None:
        years = _years(value)
        return next((name for below, name in bands if years < below), None)

    return {
        "race": _words(read, "race", told["race"].get),
        "sex": _words(read, "gender", told["sex"].get),
        "age_group": _words(read, "age", of_age),
    }


def _words(read: Encounters, column: str, of: Callable[[Any], str | None]) -> pa.Array:
    coded = read.columns[column].dictionary_encode()
    return pa.array(
        [of(value) if value is not None else None for value in coded.dictionary.to_pylist()], pa.string()
    ).take(coded.indices)
