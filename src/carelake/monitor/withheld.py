"""What findings and reports do not tell: counts of few patients (`models.cells`).

Whoever runs a check sees identified data and gets all of it. A finding is a noun, which auditors and reviewers read
by way of lineage, and a report is handed on: what they hold goes through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from carelake.models.cells import SMALL, WITHHELD, count, suppressed

__all__ = ["least_of", "without_small_cells"]

_COUNTS = ("rows", "patients", "events", "waiting", "outside", "late", "replaced", "erased")
_ANSWERS = ("accepted", "overridden", "unanswered")
_RATES = ("acceptance_rate", "override_rate")


def least_of(k: int) -> int:
    """Patients that a count must be over, where the lake asks for ``k``."""
    return max(SMALL, k)


def without_small_cells(told: Mapping[str, Any], least: int) -> dict[str, Any]:
    """What a check tells, its small cells null, and ``withheld`` with the reason where there is one."""
    found = dict(told)
    small = False
    for name in _COUNTS:
        if isinstance(found.get(name), int) and count(found[name], least) is None:
            found[name], small = None, True
    rows, events = told.get("rows"), told.get("events")
    if isinstance(rows, int) and isinstance(events, int) and count(rows - events, least) is None:
        found["events"], small = None, True  # who has not had it would be the rest
    if groups := found.get("subgroups"):
        found["subgroups"] = _groups(groups, least)
    if cards := found.get("cards"):
        found["cards"] = [_card(one, least) for one in cards]
    if isinstance(guess := found.get("estimate"), Mapping) and count(int(guess["rows"]), least) is None:
        found["estimate"], small = {**guess, "rows": None}, True
    return {**found, "withheld": WITHHELD.format(least=least)} if small else found


def _groups(groups: Sequence[Mapping[str, Any]], least: int) -> list[dict[str, Any]]:
    shown = suppressed(groups, [int(one["patients"]) for one in groups], least)
    return [{name: value for name, value in one.items() if name != "patients"} for one in shown]


def _card(one: Mapping[str, Any], least: int) -> dict[str, Any]:
    """How cards were taken: of answers one of which is small all are left out, for the total would tell it."""
    few = any(count(n, least) is None for n in one["reasons"].values())
    found = {**one, "reasons": {} if few else one["reasons"]}  # together they are the overridden
    if found["reasons"] == one["reasons"] and all(count(one[name], least) is not None for name in _ANSWERS):
        return found
    small = dict.fromkeys((*_ANSWERS, *_RATES)) if any(count(one[name], least) is None for name in _ANSWERS) else {}
    return {**found, **small, "cards": count(one["cards"], least), "withheld": WITHHELD.format(least=least)}
