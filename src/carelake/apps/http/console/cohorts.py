"""The cohort builder: criteria one after another, how many people each leaves, and who is left by age and sex."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
from starlette.responses import Response

from carelake.apps.errors import message_of
from carelake.apps.http.calls import Call
from carelake.apps.http.console import charts, pages
from carelake.apps.http.console.charts import Chart
from carelake.apps.http.console.turns import turn
from carelake.apps.http.console.visits import visit
from carelake.core.errors import Invalid, Unavailable
from carelake.lake import asof, cohorts
from carelake.lake.cohorts import Criterion

__all__ = ["build", "count"]

_FIELDS = ("kind", "code", "comparator", "value", "since", "until", "without")
_ROWS = 4


@visit
def build(call: Call) -> Response:
    """An empty definition."""
    call.only()
    return _page([], None)


@visit
def count(call: Call) -> Response:
    """Count what the form defines."""
    said = _rows(call)
    try:
        wanted = [_criterion(row) for row in said if row["kind"]]
        if len(wanted) > cohorts.MOST:
            raise Invalid("lake.cohort", f"A cohort has at most {cohorts.MOST} criteria.")
        with turn(call), call.enter("lake:query", "lake") as permit:
            vault = call.door.vault
            snapshot = asof.as_of(permit, vault, call.door.nouns)
            found = cohorts.count(permit, vault, snapshot, wanted)
    except (Invalid, Unavailable) as error:
        return _page(said, None, status=422, wrong=message_of(error))
    left = pa.table(
        {"step": [f"{n}" for n in range(len(found.steps))], "people": [one["left"] for one in found.steps]}
    )
    told = {
        "steps": found.steps,
        "least": found.least,
        "funnel": _drawn(left, "step"),
        "people": _drawn(found.people, "age", "sex"),
        "statement": "" if found.least else cohorts.members(wanted),
        "snapshot": snapshot.ref,
    }
    return _page(said, told)


def _page(
    said: list[dict[str, str]], result: dict[str, Any] | None, *, status: int = 200, wrong: str = ""
) -> Response:
    rows = [row for row in said if row["kind"]]
    rows += [dict.fromkeys(_FIELDS, "") for _ in range(max(_ROWS - len(rows), 1))]
    return pages.render(
        "cohorts.html",
        status=status,
        rows=rows,
        kinds=cohorts.KINDS,
        comparators=list(cohorts.COMPARATORS),
        result=result,
        wrong=wrong,
    )


def _rows(call: Call) -> list[dict[str, str]]:
    """The form's fields, which come once for each row, row by row."""
    call.only(*_FIELDS)
    columns = {name: [value.strip() for key, value in call.pairs if key == name] for name in _FIELDS}
    if len({len(values) for values in columns.values()}) != 1:
        raise Invalid("http.form", "The form is not whole; open the page again.")
    return [dict(zip(_FIELDS, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _criterion(row: dict[str, str]) -> Criterion:
    try:
        return Criterion(
            row["kind"],
            row["code"],
            row["comparator"],
            float(row["value"]) if row["value"] else None,
            date.fromisoformat(row["since"]) if row["since"] else None,
            date.fromisoformat(row["until"]) if row["until"] else None,
            row["without"] == "without",
        )
    except ValueError:
        raise Invalid("lake.cohort", "A value is a number, and a day is like 2026-01-31.") from None


def _drawn(table: pa.Table, x: str, by: str = "") -> str:
    """The chart, "" where there is nothing to draw or nothing to draw with."""
    try:
        return pages.picture(charts.draw(table, Chart("bar", x, "people", by)))
    except (Invalid, Unavailable):
        return ""
