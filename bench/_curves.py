"""Figures over sizes as a drawing: both axes in powers of ten, a line for each, its numbers beside the points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["drawn"]

WIDTH, HEIGHT, EDGE, FOOT = 640, 360, 60, 40
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700")


def drawn(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """An SVG of named lines; points are size and seconds."""
    points = [one for some in lines.values() for one in some]
    left, right = (f(math.log10(x) for x, _ in points) for f in (min, max))
    low, high = math.floor(min(math.log10(y) for _, y in points)), math.ceil(max(math.log10(y) for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / max(right - left, 1e-9)
        up = (math.log10(y) - low) / max(high - low, 1)
        return EDGE + across * (WIDTH - 2 * EDGE), HEIGHT - FOOT - up * (HEIGHT - 2 * FOOT)

    parts = [_text(WIDTH / 2, 20, title, "middle")]
    for power in range(low, high + 1):
        at = place(10**left, 10**power)[1]
        parts.append(f'<line x1="{EDGE}" y1="{at:.0f}" x2="{WIDTH - EDGE}" y2="{at:.0f}" stroke="#ddd"/>')
        parts.append(_text(EDGE - 6, at + 4, f"{10.0**power:g} s", "end"))
    for power in range(math.ceil(left - 1e-9), math.floor(right + 1e-9) + 1):
        parts.append(_text(place(10**power, 10**low)[0], HEIGHT - FOOT + 18, f"{10**power:,}", "middle"))
    for number, (name, some) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.0f},{y:.0f}" for x, y in (place(*one) for one in some))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(_text(EDGE + 10, 40 + 16 * number, name, "start", colour))
        for x, y in some:
            across, down = place(x, y)
            parts.append(f'<circle cx="{across:.0f}" cy="{down:.0f}" r="3" fill="{colour}"/>')
            parts.append(_text(across, down - 8, f"{y:.2g}", "middle", colour))
    style = 'font-family="sans-serif" font-size="12"'
    body = "".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {style}>{body}</svg>\n'


def _text(x: float, y: float, said: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="{colour}">{said}</text>'
