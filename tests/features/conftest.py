"""Tiny hand-made flat views: a few stays are enough to see each rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from carelake.lake.flat import flatten

sys.path.append(str(Path(__file__).parent))  # for `import feed_data`

Tables = dict[str, pa.Table]
DAY0 = datetime(2022, 1, 1)  # noqa: DTZ001 - the views' times are UTC without a zone


def day(number: float) -> datetime:
    """Days since the first of January 2022."""
    return DAY0 + timedelta(days=number)


@cache
def schemas() -> dict[str, pa.Schema]:
    """The columns of the flat views."""
    return {name: table.schema for name, table in flatten([]).items()}


class Chart:
    """Rows of the views, added one by one."""

    def __init__(self) -> None:
        self._schemas = schemas()
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self._schemas}

    def patient(self, subject: str = "p", born: date | None = date(1950, 6, 1), **more: Any) -> Chart:
        said = {"subject_id": subject, "sex": "female", "birth_date": born, "deceased_day_only": False}
        self.rows["patients"].append({**said, **more})
        return self

    def stay(self, name: str, start: float, end: float | None, subject: str = "p", **more: Any) -> Chart:
        return self.visit(name, "IMP", start, end, subject, **more)

    def visit(self, name: str, kind: str, start: float, end: float | None, subject: str = "p", **more: Any) -> Chart:
        said = {
            "encounter_id": name,
            "subject_id": subject,
            "class": kind,
            "status": "finished" if end is not None else "in-progress",
            "start_time": day(start),
            "end_time": None if end is None else day(end),
        }
        self.rows["encounters"].append({**said, **more})
        return self

    def reading(self, code: str, value: float, at: float, issued: float | None = None, **more: Any) -> Chart:
        said = {
            "observation_id": f"o{len(self.rows['observations'])}",
            "component": 0,
            "subject_id": "p",
            "status": "final",
            "system": "http://loinc.org",
            "code": code,
            "time": day(at),
            "issued": None if issued is None else day(issued),
            "value": value,
        }
        self.rows["observations"].append({**said, **more})
        return self

    def condition(self, code: str, at: float, recorded: float | None = None, **more: Any) -> Chart:
        said = {
            "condition_id": f"c{len(self.rows['conditions'])}",
            "subject_id": "p",
            "system": "http://hl7.org/fhir/sid/icd-10-cm",
            "code": code,
            "time": day(at),
            "recorded_time": None if recorded is None else day(recorded),
        }
        self.rows["conditions"].append({**said, **more})
        return self

    def other(self, view: str, **said: Any) -> Chart:
        self.rows[view].append({"subject_id": "p", **said})
        return self

    def tables(self) -> Tables:
        return {
            name: pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in self.rows[name]], schema)
            for name, schema in self._schemas.items()
        }


@pytest.fixture
def chart() -> Chart:
    return Chart()


@pytest.fixture
def at_day() -> Callable[[float], datetime]:
    return day
