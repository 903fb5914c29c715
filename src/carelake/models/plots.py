"""Small SVG plots for the card, written as text: no script, no font, no library to load.

The page's style sheet colours them; attributes say the same in plain, for readers that pass the sheet over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

__all__ = ["bars", "calibration", "decision", "fan", "forest", "roc"]

_WIDE, _HIGH, _LEFT, _LOW, _TOP, _RIGHT = 340, 300, 46, 42, 12, 12
_TONES = ("c1", "c2", "c3", "c4", "c5")
Place = Callable[[float], float]


def _frame(x: str, y: str, ticks: Sequence[float], top: float, inner: Markup, title: str) -> Markup:
    """Axes from 0 to ``top`` on both sides, with ticks, around a plot's content."""
    across, up = _scales(top)
    lines = [
        Markup(
            '<line class="grid" stroke="#ddd" x1="{a}" x2="{a}" y1="{t}" y2="{b}"/>'
            '<line class="grid" stroke="#ddd" x1="{l}" x2="{r}" y1="{u}" y2="{u}"/>'
            '<text class="tick" font-size="11" x="{a}" y="{ty}" text-anchor="middle">{v}</text>'
            '<text class="tick" font-size="11" x="{tx}" y="{uy}" text-anchor="end">{v}</text>'
        ).format(
            a=_n(across(tick)), u=_n(up(tick)), uy=_n(up(tick) + 4), v=f"{tick:g}",
            t=_TOP, b=_HIGH - _LOW, l=_LEFT, r=_WIDE - _RIGHT, ty=_HIGH - _LOW + 16, tx=_LEFT - 6,
        )
        for tick in ticks
    ]  # fmt: skip
    names = Markup(
        '<text class="axis" font-size="12" x="{mx}" y="{by}" text-anchor="middle">{x}</text>'
        '<text class="axis" font-size="12" transform="translate(12 {my}) rotate(-90)" text-anchor="middle">{y}</text>'
    ).format(mx=(_LEFT + _WIDE - _RIGHT) / 2, by=_HIGH - 6, my=(_TOP + _HIGH - _LOW) / 2, x=x, y=y)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        _WIDE, _HIGH, title, Markup("").join(lines), inner, names
    )


def _scales(top: float) -> tuple[Place, Place]:
    def across(value: float) -> float:
        return _LEFT + min(value, top) / top * (_WIDE - _RIGHT - _LEFT)

    def up(value: float) -> float:
        return _HIGH - _LOW - max(0.0, min(value, top)) / top * (_HIGH - _LOW - _TOP)

    return across, up


def _n(value: float) -> str:
    return f"{value:.1f}"


def _path(points: Sequence[tuple[float, float]], tone: str) -> Markup:
    joined = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return Markup('<polyline class="line {}" fill="none" stroke="#0b6e99" points="{}"/>').format(tone, joined)


def _ticks(top: float) -> list[float]:
    step = next(s for s in (0.05, 0.1, 0.2, 0.25, 0.5) if top / s <= 5.5)
    return [round(step * i, 4) for i in range(int(top / step + 1e-9) + 1)]


def calibration(curve: Sequence[Mapping[str, Any]]) -> Markup:
    """Observed rate over predicted risk in bins with their intervals; the diagonal is perfect."""
    top = min(1.0, max(0.1, *(max(b["high"], b["predicted"]) for b in curve)) * 1.05) if curve else 1.0
    across, up = _scales(top)
    drawn = [
        Markup(
            '<line class="whisker" stroke="#5d6b7c" x1="{x}" x2="{x}" y1="{lo}" y2="{hi}"/>'
            '<circle class="dot c1" fill="#0b6e99" cx="{x}" cy="{y}" r="4">'
            "<title>predicted {p:.3f}, observed {o:.3f}, n {n}</title></circle>"
        ).format(
            x=_n(across(b["predicted"])), y=_n(up(b["observed"])), lo=_n(up(b["low"])), hi=_n(up(b["high"])),
            p=b["predicted"], o=b["observed"], n=b["n"],
        )
        for b in curve
    ]  # fmt: skip
    diagonal = _path([(across(0), up(0)), (across(top), up(top))], "ideal")
    inner = diagonal + Markup("").join(drawn)
    return _frame("predicted risk", "observed rate", _ticks(top), top, inner, "Calibration curve")


def roc(curves: Mapping[str, Sequence[Sequence[float]]]) -> Markup:
    """True over false positive rate, one line a model."""
    across, up = _scales(1.0)
    lines = [_path([(across(0), up(0)), (across(1), up(1))], "ideal")]
    lines += [
        _path([(across(x), up(y)) for x, y in points], tone)
        for tone, points in reversed(list(zip(_TONES, curves.values(), strict=False)))
    ]
    title = "ROC curves of the model and its baselines"
    return _frame("false positive rate", "true positive rate", _ticks(1.0), 1.0, Markup("").join(lines), title)


def decision(points: Sequence[Mapping[str, float]]) -> Markup:
    """Net benefit over the threshold, beside treating all; treating none is the axis."""
    wide = max((p["threshold"] for p in points), default=1.0)
    high = max(0.02, *(max(p["model"], p["all"]) for p in points)) if points else 1.0
    across, up = _scales(1.0)
    lines = [
        _path([(across(p["threshold"] / wide), up(p[key] / high)) for p in points], tone)
        for key, tone in (("all", "ideal"), ("model", "c1"))
    ]
    marks = [
        Markup('<text class="tick" font-size="11" x="{}" y="{}" text-anchor="middle">{:g}</text>').format(
            _n(across(p["threshold"] / wide)), _HIGH - _LOW + 16, p["threshold"]
        )
        for p in points
    ]
    marks += [
        Markup('<text class="tick" font-size="11" x="{}" y="{}" text-anchor="end">{:.2f}</text>').format(
            _LEFT - 6, _n(up(part) + 4), part * high
        )
        for part in (0.0, 0.5, 1.0)
    ]
    inner = Markup("").join([*lines, *marks])
    return _frame("threshold", "net benefit", [], 1.0, inner, "Decision curve")


def forest(rows: Sequence[Mapping[str, Any]], middle: float) -> Markup:
    """AUROC of each subgroup with its interval; the line is that of all."""
    known = [r for r in rows if r.get("auroc") is not None and r["intervals"].get("auroc")]
    lows = [r["intervals"]["auroc"][0] for r in known]
    floor = min(0.5, *lows) if lows else 0.5
    high = 26 * max(1, len(known)) + 30

    def across(value: float) -> float:
        return 150 + (value - floor) / (1.0 - floor) * 400

    drawn = [
        Markup(
            '<text class="tick" font-size="11" x="140" y="{ty}" text-anchor="end">{g}: {v}</text>'
            '<line class="whisker" stroke="#5d6b7c" x1="{a}" x2="{b}" y1="{y}" y2="{y}"/>'
            '<circle class="dot c1" fill="#0b6e99" cx="{m}" cy="{y}" r="4"/>'
            '<text class="tick" font-size="11" x="560" y="{ty}">{e:.3f} ({lo:.3f}–{hi:.3f})</text>'
        ).format(
            y=20 + 26 * i, ty=24 + 26 * i, g=r["group"], v=r["value"], e=r["auroc"], m=_n(across(r["auroc"])),
            a=_n(across(r["intervals"]["auroc"][0])), b=_n(across(r["intervals"]["auroc"][1])),
            lo=r["intervals"]["auroc"][0], hi=r["intervals"]["auroc"][1],
        )
        for i, r in enumerate(known)
    ]  # fmt: skip
    all_rows = Markup('<line class="line ideal" stroke="#999" x1="{x}" x2="{x}" y1="6" y2="{h}"/>')
    line = all_rows.format(x=_n(across(middle)), h=high - 20)
    title = "AUROC of each subgroup with its interval"
    return Markup('<svg class="wide" viewBox="0 0 700 {}" role="img" aria-label="{}">{}{}</svg>').format(
        high, title, line, Markup("").join(drawn)
    )


def bars(rows: Sequence[tuple[str, float]]) -> Markup:
    """Named sizes, the largest filling the width."""
    most = max((size for _, size in rows), default=1.0) or 1.0
    drawn = [
        Markup(
            '<text class="tick" font-size="11" x="290" y="{ty}" text-anchor="end">{n}</text>'
            '<rect class="bar c1" fill="#0b6e99" x="300" y="{y}" width="{w}" height="14" rx="2"/>'
            '<text class="tick" font-size="11" x="{vx}" y="{ty}">{s:.3f}</text>'
        ).format(y=8 + 24 * i, ty=19 + 24 * i, n=name, w=_n(long := size / most * 330), vx=_n(306 + long), s=size)
        for i, (name, size) in enumerate(rows)
    ]
    frame = Markup('<svg class="wide" viewBox="0 0 700 {}" role="img" aria-label="Features by weight">{}</svg>')
    return frame.format(24 * len(rows) + 16, Markup("").join(drawn))


def fan(history: Sequence[float], low: Sequence[float], middle: Sequence[float], high: Sequence[float]) -> Markup:
    """Counts of the last days, and what is foretold after them with its interval."""
    top = max(1.0, *history, *high) * 1.05
    days = len(history) + len(middle)

    def at(day: int, count: float) -> tuple[float, float]:
        return 40 + day / max(1, days - 1) * 640, 10 + (1 - count / top) * 150

    start = len(history)
    band = [at(start + i, value) for i, value in enumerate(high)]
    band += [at(start + i, value) for i, value in reversed(list(enumerate(low)))]
    shape = Markup('<polygon fill="#0b6e99" fill-opacity="0.2" points="{}"/>').format(
        " ".join(f"{_n(x)},{_n(y)}" for x, y in band)
    )
    seen = _path([at(day, value) for day, value in enumerate(history)], "c2")
    told = _path([at(start + i, value) for i, value in enumerate(middle)], "c1")
    marks = [
        Markup('<text class="tick" font-size="11" x="34" y="{}" text-anchor="end">{:.0f}</text>').format(
            _n(at(0, part * top)[1] + 4), part * top
        )
        for part in (0.0, 0.5, 1.0)
    ]
    inner = Markup("").join([shape, seen, told, *marks])
    frame = Markup('<svg class="wide" viewBox="0 0 700 175" role="img" aria-label="Counts and forecast">{}</svg>')
    return frame.format(inner)
