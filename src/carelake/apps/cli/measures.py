"""``measure``: quality measures and summaries over the lake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.lake import asof
from carelake.lake.measures import catalogue, run, summary, tell
from carelake.lake.measures.report import measure_report
from carelake.lake.seeing.sight import sight_of

__all__ = ["listed", "run_measure"]

_FORMS = ("table", "json", "fhir")
_COLUMNS = {
    "of": "initial_population",
    "excluded": "denominator_exclusion",
    "denominator": "denominator",
    "numerator": "numerator",
}
_MAX_FILE = 16 * 1024 * 1024


def listed(options: Options, *, json_out: bool) -> None:
    """The measures."""
    rows = [
        {"name": one.name, "title": one.title, "like": one.like, "unit": one.unit, "simplified": list(one.simplified)}
        for one in catalogue.measures().values()
    ]
    if json_out:
        answer({"measures": rows, "summaries": list(catalogue.FIGURES)})
        return
    show(["name", "title", "like"], rows)
    note(f"Summaries: {', '.join(catalogue.FIGURES)}. What is simplified is in docs/measures.md and in --json.")


def run_measure(
    session: Session,
    *,
    json_out: bool,
    name: str,
    period: str,
    as_of: str | None,
    threshold: int | None,
    value_sets_at: Path | None,
    form: str,
) -> None:
    """A measure's counts on stdout."""
    form = "json" if json_out else form
    if form not in _FORMS or (form == "fhir" and name in catalogue.FIGURES):
        raise Invalid("apps.format", "There is no such format; expected table, json, or, of a measure, fhir.")
    asked = None if name in catalogue.FIGURES else catalogue.measure(name)
    days, sets = catalogue.period_of(period), catalogue.value_sets(_text(value_sets_at))
    workspace = session.workspace
    vault, now = workspace.vault, workspace.vault.clock.now()
    with progress() as bars, workspace.enter(session.caller(), "lake:query", "lake") as permit:
        least = _threshold(permit, threshold, vault.settings.lake)
        snapshot = asof.as_of(permit, vault, workspace.nouns, as_of)
        task = bars.add_task("Patients", total=None)

        def step(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)

        if asked is None:
            counts = run.figures(permit, vault, snapshot, name, days, sets, step)
        else:
            counts = run.units(permit, vault, snapshot, asked, days, sets, step)
    about: dict[str, Any] = {
        "measure": name,
        "period": [days.first.isoformat(), days.last.isoformat()],
        "snapshot": snapshot.ref,
        "threshold": least,
    }
    if asked is None:
        told = (tell.population if name == "population" else tell.utilisation)(counts, least)
        _answer(form, {**about, **told}, _flat(told))
        return
    found = summary.summarised(counts, least)
    if form == "fhir":
        answer(measure_report(asked, days, found, now))
        return
    _answer(form, {**about, "simplified": list(asked.simplified), **found.as_json()}, _rows(found))


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > _MAX_FILE:
            raise Invalid("measures.value_sets", f"The file is larger than {_MAX_FILE} bytes; expected value sets.")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise Invalid("measures.value_sets", "The file of value sets is not UTF-8 text.") from None
    except OSError:
        raise NotFound("apps.file", "The file cannot be read; check its name.") from None


def _threshold(permit: Permit, said: int | None, limits: LakeSettings) -> int:
    """Who sees less than the whole account may not see smaller cells than the settings say."""
    least = limits.k if said is None else said
    if least < limits.k and not sight_of(permit).whole:
        raise Refused(
            "measures.threshold", f"Cells under {limits.k} are not shown to you; leave --threshold out or raise it."
        )
    return least


def _answer(form: str, told: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    if form == "json":
        answer(told)
    else:
        show(list(rows[0]) if rows else [], rows)


def _rows(found: summary.Summary) -> list[dict[str, Any]]:
    cells = [("all", "", found.whole)]
    cells += [(by, value, cell) for by, of in found.strata.items() for value, cell in of.items()]
    return [{"by": by, "value": value, **_cell(cell)} for by, value, cell in cells]


def _cell(cell: summary.Cell) -> dict[str, Any]:
    said = cell.as_json()
    low, high = said.get("interval") or (None, None)
    return {
        **{name: _count(said.get(key)) for name, key in _COLUMNS.items()},
        "rate": "" if said.get("rate") is None else f"{said['rate']:.1%}",
        "95 %": "" if low is None else f"{low:.1%} to {high:.1%}",
    }


def _count(value: int | None) -> int | str:
    return "small" if value is None else value


def _flat(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"what": name, "value": "small" if value is None else value} for name, value in _leaves("", told)]


def _leaves(above: str, told: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(told, Mapping):
        for name, value in told.items():
            yield from _leaves(f"{above} {name}".strip(), value)
    elif isinstance(told, list):
        for one in told:
            yield f"{above} {one['category']}", one["people"]
    else:
        yield above, told
