"""Small SVG plots for the monitors' report, written as text: heat map, distributions, time line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from carelake.monitor.spread import Column, Counts

__all__ = ["distribution", "heat", "timeline"]

_STATES = {"ok": "ok", "drift": "bad", "unknown": "dim"}


Far = tuple[float, float]


def heat(days: Sequence[str], rows: Sequence[tuple[str, Sequence[Far | None]]]) -> Markup:
    """How far each column lay from its baseline on each day: the darker, the further beyond chance.

    Args:
        rows: names with a distance and what chance gives, of each day; None for too few rows.
    """
    left, step, high = 210, max(4.0, min(26.0, 680.0 / max(1, len(days)))), 20
    width = left + step * len(days) + 10
    cells = [
        _cell(left + step * at, high * line + 4, step - 1, f"{name}, {days[at]}", far)
        for line, (name, found) in enumerate(rows)
        for at, far in enumerate(found)
    ]
    names = [
        Markup('<text class="tick" font-size="12" x="{}" y="{}" text-anchor="end">{}</text>').format(
            left - 8, high * line + 17, name
        )
        for line, (name, _) in enumerate(rows)
    ]
    ends = {0: "start", len(days) - 1: "end"} if len(days) > 1 else {0: "start"}
    ticks = [
        Markup('<text class="tick" font-size="12" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
            left + step * (at + (anchor == "end")), high * len(rows) + 18, anchor, days[at]
        )
        for at, anchor in ends.items()
        if days
    ]
    return _svg(f"0 0 {width:.0f} {high * len(rows) + 26}", "Distance by column and day", [*cells, *names, *ticks])


def _cell(x: float, y: float, wide: float, what: str, far: Far | None) -> Markup:
    tone = 0.03 if far is None else min(1.0, 0.06 + max(0.0, far[0] - far[1]) * 3)
    told = "too few rows" if far is None else f"{far[0]:.3f}, by chance {far[1]:.3f}"
    return Markup(
        '<rect class="heat" fill="#c2571a" fill-opacity="{:.2f}" x="{:.1f}" y="{}" width="{:.1f}" height="17">'
        "<title>{}: {}</title></rect>"
    ).format(tone, x, y, wide, what, told)


def distribution(name: str, base: Column, seen: Counts) -> Markup:
    """Two distribution functions over each other, or of text the shares of words: baseline and now."""
    if base.text:
        return _words(name, base, seen)
    wide, high, left, low = 240.0, 130.0, 8.0, 22.0
    points = np.asarray(base.points)
    if not len(points) or not seen.present:
        return _svg("0 0 256 160", name, [_title(name)])
    first, last = float(points[0]), float(points[-1])
    reach = last - first or 1.0

    def path(below: Sequence[float], tone: str, colour: str) -> Markup:
        steps: list[str] = []
        y_before = high
        for value, share in zip(points.tolist(), below, strict=True):
            x, y = left + (value - first) / reach * wide, low + high - share * high - 6
            steps += [f"{x:.1f},{y_before:.1f}" if steps else f"{left:.1f},{low + high - 6:.1f}", f"{x:.1f},{y:.1f}"]
            y_before = y
        joined = " ".join(steps)
        return Markup('<polyline class="line {}" fill="none" stroke="{}" points="{}"/>').format(tone, colour, joined)

    now = (np.cumsum(seen.cells) / seen.present)[1:-1].tolist()
    ends = [
        Markup('<text class="tick" font-size="11" x="{:.0f}" y="162" text-anchor="{}">{:g}</text>').format(
            x, anchor, v
        )
        for x, anchor, v in ((left, "start", round(first, 3)), (left + wide, "end", round(last, 3)))
    ]
    drawn = [_title(name), path(base.below, "c1", "#0b6e99"), path(now, "c2", "#c2571a"), *ends]
    return _svg("0 0 256 168", f"Distribution of {name}", drawn)


def _words(name: str, base: Column, seen: Counts) -> Markup:
    total = max(1, seen.present)
    drawn = [_title(name)]
    for at, (word, share) in enumerate(zip(base.words[:6], base.below, strict=False)):
        now, y = float(seen.cells[at]) / total, 26 + at * 22
        drawn.append(
            Markup(
                '<text class="tick" font-size="11" x="70" y="{t}" text-anchor="end">{w}</text>'
                '<rect class="bar c1" fill="#0b6e99" x="76" y="{y}" width="{a:.1f}" height="8"/>'
                '<rect class="bar c2" fill="#c2571a" x="76" y="{z}" width="{b:.1f}" height="8"/>'
            ).format(t=y + 12, w=word[:12], y=y, z=y + 9, a=share * 170, b=now * 170)
        )
    return _svg("0 0 256 168", f"Shares of {name}", drawn)


def timeline(found: Sequence[Mapping[str, str]]) -> Markup:
    """Findings over time, a row a kind of check, the oldest first."""
    kinds = list(dict.fromkeys(one["check"] for one in found))
    step = min(26.0, 620.0 / max(1, len(found)))
    dots = [
        Markup('<circle class="dot {}" cx="{:.1f}" cy="{}" r="6"><title>{} {}: {}</title></circle>').format(
            _STATES.get(one["state"], "dim"), 130 + step * at, 18 + 26 * kinds.index(one["check"]), one["until"],
            one["check"], one["state"],
        )
        for at, one in enumerate(found)
    ]  # fmt: skip
    names = [
        Markup('<text class="tick" font-size="12" x="112" y="{}" text-anchor="end">{}</text>').format(
            22 + 26 * at, kind
        )
        for at, kind in enumerate(kinds)
    ]
    return _svg(f"0 0 780 {26 * max(1, len(kinds)) + 12}", "Findings over time", [*names, *dots])


def _title(name: str) -> Markup:
    return Markup('<text class="axis" font-size="13" x="8" y="13">{}</text>').format(name[:34])


def _svg(box: str, title: str, inside: Sequence[Markup]) -> Markup:
    return Markup('<svg viewBox="{}" role="img" aria-label="{}">{}</svg>').format(box, title, Markup("").join(inside))
