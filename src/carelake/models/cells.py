"""Small cells: counts and figures of so few patients that they could be told of single ones are not there.

What is shown to who sees no patient data (cards, figures of models, findings) goes through here. A group of fewer
than `SMALL` patients has no figures; a count that is smaller is null, and so is one that it could be worked out of:
where a single group of a grouping is hidden, or hidden ones are few together, the total less the others would tell,
so the next ones go as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["SMALL", "WITHHELD", "count", "suppressed"]

SMALL = 20
"""Patients that a figure must be over."""
WITHHELD = "counts of fewer than {least} patients, and what they could be worked out of, are not shown"
_KEPT = ("group", "value", "n", "events", "patients", "intervals", "reason")


def count(number: int, least: int = SMALL) -> int | None:
    """A count of patients or rows; None where it is small, and is not none."""
    return None if 0 < number < least else number


def suppressed(
    found: Sequence[Mapping[str, Any]], patients: Sequence[int], least: int = SMALL
) -> list[dict[str, Any]]:
    """Figures of subgroups without small cells.

    Args:
        found: with ``group``, ``value``, ``n``, ``events``, ``reason``, and figures.
        patients: of each, how many different ones.
    """
    out = [dict(one) for one in found]
    for name in dict.fromkeys(one["group"] for one in found):
        places = [at for at, one in enumerate(found) if one["group"] == name]
        few = {at for at in places if patients[at] < least}
        rare = few | {at for at in places if min(found[at]["events"], found[at]["n"] - found[at]["events"]) < least}
        for at in few:
            out[at] = {key: value if key in _KEPT else None for key, value in out[at].items()}
            out[at] |= {"intervals": {}, "reason": f"fewer than {least} patients"}
        hidden = {
            "n": _and_others(few, places, found, lambda one: (one["n"],), least),
            "events": _and_others(rare, places, found, lambda one: (one["events"], one["n"] - one["events"]), least),
        }
        for key, which in hidden.items():
            for at in which:
                # Shares of an alert, of the outcome and of all are three equations: both counts follow from one.
                alert = {"alert": None} if "alert" in out[at] else {}
                out[at] |= {key: None, **alert, "withheld": WITHHELD.format(least=least)}
    return out


def _and_others(
    hidden: set[int],
    places: Sequence[int],
    found: Sequence[Mapping[str, Any]],
    counts: Callable[[Mapping[str, Any]], tuple[int, ...]],
    least: int,
) -> set[int]:
    """With as many more, the smallest first, as it takes: not one alone, and not together so few."""
    out = set(hidden)
    left = sorted((at for at in places if at not in hidden), key=lambda at: int(found[at]["n"]), reverse=True)

    def few() -> bool:
        told = [counts(found[at]) for at in out]
        return len(out) == 1 or min(map(sum, zip(*told, strict=True))) < least

    while out and left and few():
        out.add(left.pop())
    return out
