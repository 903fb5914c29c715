"""What is true, beside the data: risks, outcomes, gold spans, as Parquet tables; docs/synth.md tells the columns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa

from carelake.synth.calendar import DAY, Calendar
from carelake.synth.history import QUIET, History
from carelake.synth.notes import Note
from carelake.synth.population import World
from carelake.synth.risk import emergency_rate
from carelake.synth.stay import Stay

__all__ = ["HORIZON", "SCHEMAS", "Truth"]

HORIZON = 180 * DAY
_TEXT, _FLAG, _REAL, _COUNT = pa.string(), pa.bool_(), pa.float64(), pa.int32()
_TIME = pa.timestamp("s", tz="UTC")

_ADMISSIONS = {
    "encounter_id": _TEXT,
    "patient_id": _TEXT,
    "admitted": _TIME,
    "discharged": _TIME,
    "in_window": _FLAG,
    "eligible": _FLAG,
    "trigger": _TEXT,
    "cause": _TEXT,
    "true_risk": _REAL,
    "true_risk_full": _REAL,
    "readmitted_30d": _FLAG,
    "readmitted_at": _TIME,
    "died": _FLAG,
    "died_30d": _FLAG,
    "censored": _FLAG,
    "deterioration_risk": _REAL,
    "deteriorated": _FLAG,
    "deteriorated_at": _TIME,
    "age": _REAL,
    "prior_admissions": _COUNT,
    "prior_ed": _COUNT,
    "los_days": _REAL,
    "urgent": _FLAG,
    "oncology": _FLAG,
    "procedure": _FLAG,
    "meds": _COUNT,
    "disposition": _TEXT,
    "conditions": _TEXT,
    "hb": _REAL,
    "na": _REAL,
    "cr": _REAL,
    "alb": _REAL,
    "hr": _REAL,
    "sbp": _REAL,
    "spo2": _REAL,
}
_PATIENTS = {
    "patient_id": _TEXT,
    "frailty": _REAL,
    "ed_rate": _REAL,
    "ed_rate_full": _REAL,
    "observed_from": _TIME,
    "ed_expected_180d": _REAL,
    "ed_visits_180d": _COUNT,
    "admissions": _COUNT,
    "died_at": _TIME,
}
_NOTES = {
    "document_id": _TEXT,
    "start": _COUNT,
    "end": _COUNT,
    "layer": _TEXT,
    "kind": _TEXT,
    "code": _TEXT,
    "assertion": _TEXT,
}
SCHEMAS: dict[str, pa.Schema] = {
    "admissions": pa.schema(list(_ADMISSIONS.items())),
    "patients": pa.schema(list(_PATIENTS.items())),
    "notes": pa.schema(list(_NOTES.items())),
}


class Truth:
    """Collects the rows of one chunk of patients."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in SCHEMAS}
        self.zero = _epoch_seconds(world.calendar)

    def seconds(self, minute: float | None) -> int | None:
        """Seconds since 1970 UTC of a minute of the record."""
        return None if not minute else self.zero + int(minute) * 60

    def admission(self, history: History, stay: Stay) -> None:
        """A stay that ended within the record."""
        x, closes = stay.facts, self.world.calendar.closes
        censored = not stay.died and stay.discharged + QUIET > closes
        died_30d = history.died_at is not None and history.died_at <= stay.discharged + QUIET
        facts: tuple[Any, ...] = (None,) * 17
        if x is not None:
            known = ",".join(c.name for c in self.world.codes.chronic if c.name in x.conditions)
            facts = (
                x.age, x.prior_admissions, x.prior_ed, x.los, x.urgent, x.oncology, x.procedure, x.meds,
                x.disposition, known, x.hb, x.na, x.cr, x.alb, x.hr, x.sbp, x.spo2,
            )  # fmt: skip
        row = (
            stay.id, history.person.id, self.seconds(stay.admitted), self.seconds(stay.discharged),
            stay.admitted >= self.world.calendar.opens,
            not stay.died and not censored and stay.disposition != "hospice",
            stay.trigger, stay.cause.name,
            None if stay.died else stay.risk, None if stay.died else stay.risk_full,
            None if stay.died else stay.readmitted, self.seconds(stay.returns if stay.returns < closes else None),
            stay.died, died_30d, censored, stay.worse_risk, stay.worse > 0, self.seconds(stay.worse), *facts,
        )  # fmt: skip
        self.rows["admissions"].append(row)

    def patient(self, history: History) -> None:
        """The person's rate of emergency visits, and what it foretold for the last 180 days of the record."""
        person, rates = history.person, history.person.rates
        since = self.world.calendar.closes - HORIZON
        shape = self.world.model.arrivals.emergency_shape
        years = since / (365.25 * DAY)
        rate = emergency_rate(rates.emergency, shape, history.emergencies(0, since), rates.emergency * years)
        alive = history.died_at is None or history.died_at > since
        row = (
            person.id, person.frailty, rates.emergency, rates.emergency * rates.emergency_latent, self.seconds(since),
            rate * 180 / 365.25 if alive else None,
            history.emergencies(since, self.world.calendar.closes) if alive else None,
            len(history.stays), self.seconds(history.died_at),
        )  # fmt: skip
        self.rows["patients"].append(row)

    def note(self, document: str, note: Note) -> None:
        """The gold spans of a note."""
        self.rows["notes"].extend((document, *span) for span in note.spans)

    def batches(self) -> dict[str, pa.RecordBatch]:
        """The rows as Arrow."""
        out = {}
        for name, schema in SCHEMAS.items():
            columns = zip(*self.rows[name], strict=True) if self.rows[name] else [()] * len(schema)
            arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
            out[name] = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return out


def _epoch_seconds(calendar: Calendar) -> int:
    days = (calendar.epoch - type(calendar.epoch)(1970, 1, 1)) // timedelta(days=1)
    return days * 86400 + 5 * 3600  # the hospital keeps UTC-5
