"""Quality gates: bounds, allowed values and completeness of each feature, checked over a batch.

A batch that breaks a gate is refused whole, or its rows that break one are set apart, as the group says. A batch that
is not complete enough has no rows that break anything: it is refused in either case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.features.groups.definition import Gate, Group

__all__ = ["REFUSE", "Report", "breaks", "check", "refuse"]

REFUSE, QUARANTINE = "refuse", "quarantine"
_SHOWN = 20


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        rows: how many were looked at.
        breaks: reasons by number of the row, from 0: ``FEATURE: GATE``, never a value.
        incomplete: shares of rows with a value, by feature, where that is less than the gate wants.
    """

    rows: int
    breaks: dict[int, str] = field(default_factory=dict)
    incomplete: dict[str, float] = field(default_factory=dict)

    def as_json(self, first_line: int = 1) -> dict[str, Any]:
        """With counts by reason and the first lines that broke something."""
        return {
            "rows": self.rows,
            "refused": len(self.breaks),
            "reasons": dict(sorted(Counter(self.breaks.values()).items())),
            "lines": [first_line + at for at in sorted(self.breaks)[:_SHOWN]],
            "incomplete": {name: round(share, 4) for name, share in self.incomplete.items()},
        }


def check(group: Group, rows: pa.Table, bad: Mapping[int, str] | None = None) -> Report:
    """Look through rows with a column for each feature.

    Args:
        bad: rows that are known to be wrong, with why.
    """
    report = Report(len(rows), dict(bad or {}))
    for name, gate in group.said.gates.items():
        if name in rows.column_names:
            _one(report, name, gate, rows.column(name).combine_chunks())
    return report


def _one(report: Report, name: str, gate: Gate, column: Any) -> None:
    present = len(column) - column.null_count
    if len(column) and present < gate.complete * len(column):
        report.incomplete[name] = present / len(column)
    if gate.low is not None:
        _mark(report, pc.less(column, gate.low), f"{name}: below {gate.low:g}")
    if gate.high is not None:
        _mark(report, pc.greater(column, gate.high), f"{name}: above {gate.high:g}")
    if pa.types.is_floating(column.type) and (gate.low is not None or gate.high is not None):
        _mark(report, pc.is_nan(column), f"{name}: no number")
    if gate.allowed:
        texts = pa.types.is_string(column.type)
        told = (
            pa.array(sorted(gate.allowed), pa.string()) if texts else pa.array(_numbers(gate.allowed), pa.float64())
        )
        known = pc.is_in(column.cast(told.type, safe=False), told)
        _mark(report, pc.and_(pc.is_valid(column), pc.invert(known)), f"{name}: not an allowed value")


def breaks(gate: Gate, value: Any) -> str:
    """Which of a gate's bounds one value breaks, "" for none."""
    if value is None:
        return ""
    if gate.low is not None and not value >= gate.low:
        return f"below {gate.low:g}"
    if gate.high is not None and not value <= gate.high:
        return f"above {gate.high:g}"
    if not gate.allowed:
        return ""
    known = value in gate.allowed if isinstance(value, str) else float(value) in _numbers(gate.allowed)
    return "" if known else "not an allowed value"


def _numbers(allowed: Collection[str]) -> list[float]:
    """Allowed numbers, however they are written; what is none allows none."""
    found: list[float] = []
    for one in allowed:
        with suppress(ValueError):
            found.append(float(one))
    return found


def _mark(report: Report, wrong: Any, reason: str) -> None:
    for at in pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
        report.breaks.setdefault(at, reason)


def refuse(group: Group, report: Report, first_line: int = 1) -> None:
    """Let pass what may be written, without the rows that broke something where the group sets these apart.

    Raises:
        Invalid: ``features.quality``, with the report as facts.
    """
    if report.incomplete:
        names = ", ".join(sorted(report.incomplete))
        raise Invalid(
            "features.quality",
            f"The batch is refused: too few of its {report.rows} rows have a value of {names}.",
            incomplete=sorted(report.incomplete),
        )
    if report.breaks and group.said.on_breach == REFUSE:
        said = report.as_json(first_line)
        reasons = "; ".join(f"{reason} ({count})" for reason, count in said["reasons"].items())
        raise Invalid(
            "features.quality",
            f"The batch is refused: {said['refused']} of {report.rows} rows break a gate: {reasons}. First lines: "
            f"{', '.join(map(str, said['lines']))}.",
            refused=said["refused"],
        )
