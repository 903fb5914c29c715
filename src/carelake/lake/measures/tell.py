"""Population and utilisation as one JSON value: counts, rates by 1,000 months of members, days of stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from carelake.lake.measures.summary import withheld

__all__ = ["population", "utilisation"]

_TOP = 20
Sections = Mapping[str, list[tuple[str, str, float]]]


def _sections(figures: pa.Table) -> Sections:
    found: dict[str, list[tuple[str, str, float]]] = {}
    for row in figures.to_pylist():
        found.setdefault(row["section"], []).append((row["a"], row["b"], row["n"]))
    return {name: sorted(rows) for name, rows in found.items()}


def _one(sections: Sections, name: str) -> float:
    return sum(n for *_, n in sections.get(name, []))


def _shown(counts: Mapping[str, float], threshold: int) -> dict[str, int | None]:
    """None where a count is small, and where it would help to tell a small one from the total."""
    small = withheld({name: (n,) for name, n in counts.items()}, threshold)
    return {name: None if name in small else int(n) for name, n in counts.items()}


def population(figures: pa.Table, threshold: int) -> dict[str, Any]:
    """People, and people by age and sex, race, ethnicity and payer; None is a cell that is left out."""
    sections = _sections(figures)
    told: dict[str, Any] = {"people": _shown({"": _one(sections, "people")}, threshold)[""]}
    for name in ("age and sex", "race", "ethnicity", "payer"):
        counts = {" ".join(filter(None, (a, b))): n for a, b, n in sections.get(name, [])}
        told[name.replace(" ", "_")] = _shown(counts, threshold)
    # What few people have as a payer may be the name of one of them.
    payers = told["payer"]
    told["payer"] = {name: n for name, n in payers.items() if n is not None}
    if len(told["payer"]) < len(payers):
        told["payer"]["others"] = None
    told["died"] = _shown({"": _one(sections, "died in the period")}, threshold)[""]
    return told


def utilisation(figures: pa.Table, threshold: int) -> dict[str, Any]:
    """Encounters and people by class with the rate by 1,000 months, days of stays, and the commonest conditions."""
    sections = _sections(figures)
    months = _one(sections, "months")
    people = {a: n for a, _, n in sections.get("patients", [])}
    shown = _shown(people, threshold)
    classes = {
        kind: None
        if shown.get(kind) is None
        else {
            "encounters": int(n),
            "people": shown[kind],
            "per_1000_months": round(1000 * n / months, 3) if months else None,
        }
        for kind, _, n in sections.get("encounters", [])
    }
    people_shown = _shown({"": _one(sections, "people")}, threshold)[""]
    return {
        "people": people_shown,
        "months": None if people_shown is None else round(months, 1),
        "encounters": classes,
        "stays": _stays(sections, threshold),
        "conditions": _conditions(sections, threshold),
    }


def _stays(sections: Sections, threshold: int) -> dict[str, Any] | None:
    days = sorted((int(b), int(n)) for _, b, n in sections.get("days", []))
    count = sum(n for _, n in days)
    if not count or _one(sections, "stayed") < threshold:
        return None
    mean = sum(day * n for day, n in days) / count
    return {"stays": count, "mean_days": round(mean, 2), "median_days": _median(days, count)}


def _median(days: list[tuple[int, int]], count: int) -> float:
    low, high = _nth(days, (count - 1) // 2), _nth(days, count // 2)
    return (low + high) / 2


def _nth(days: list[tuple[int, int]], place: int) -> int:
    for day, n in days:
        if place < n:
            return day
        place -= n
    raise AssertionError


def _conditions(sections: Sections, threshold: int) -> list[dict[str, Any]]:
    """ICD-10-CM categories with at least so many people, the commonest first."""
    counts = sorted(((-n, a) for a, _, n in sections.get("conditions", []) if n >= threshold))
    return [{"category": a, "people": int(-n)} for n, a in counts[:_TOP]]
