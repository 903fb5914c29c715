"""A measure's result as a FHIR MeasureReport (https://hl7.org/fhir/R4/measurereport.html), of type summary."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from carelake.core.clock import iso
from carelake.lake.measures.catalogue import Measure, Period
from carelake.lake.measures.summary import Cell, Summary

__all__ = ["measure_report"]

_POPULATION = "http://terminology.hl7.org/CodeSystem/measure-population"
_BETTER = "http://terminology.hl7.org/CodeSystem/measure-improvement-notation"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_NAMES = {"band": "Age", "sex": "Sex", "race": "Race"}


def measure_report(asked: Measure, period: Period, summary: Summary, at: datetime) -> dict[str, Any]:
    """The resource, with exact decimals; a cell that is left out says ``masked`` where its counts would be."""
    group = {
        "code": {"text": asked.title},
        **_counts(summary.whole),
        "stratifier": [
            {
                "code": [{"text": _NAMES[by]}],
                "stratum": [{"value": {"text": value}, **_counts(cell)} for value, cell in cells.items()],
            }
            for by, cells in summary.strata.items()
            if cells
        ],
    }
    return {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": f"urn:carelake:measure:{asked.name}",
        "date": iso(at),
        "period": {"start": period.first.isoformat(), "end": period.last.isoformat()},
        "improvementNotation": {
            "coding": [{"system": _BETTER, "code": "increase" if asked.better == "higher" else "decrease"}]
        },
        "group": [{name: value for name, value in group.items() if value != []}],
    }


def _counts(cell: Cell) -> dict[str, Any]:
    told = {
        "initial-population": cell.initial,
        # FHIR's denominator has those in it who are then excluded.
        "denominator": None if cell.excluded is None else (cell.denominator or 0) + cell.excluded,
        "denominator-exclusion": cell.excluded,
        "numerator": cell.numerator,
    }
    made: dict[str, Any] = {"population": [_population(code, count) for code, count in told.items()]}
    if cell.rate is not None:
        made["measureScore"] = {"value": Decimal(f"{cell.rate:.4f}")}
    return made


def _population(code: str, count: int | None) -> dict[str, Any]:
    coded = {"code": {"coding": [{"system": _POPULATION, "code": code}]}}
    if count is None:
        return {**coded, "_count": {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}}
    return {**coded, "count": count}
