"""Charts of a result, drawn by matplotlib (extra ``explore``) as SVG for the page or PNG to keep."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as pt

from carelake.apps.asking import values_of
from carelake.core.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["KINDS", "MOST_BARS", "MOST_POINTS", "Chart", "draw"]

KINDS = ("bar", "line", "scatter", "histogram")
MOST_BARS, MOST_POINTS, _MOST_SERIES, _MOST_WORDS = 60, 20_000, 12, 200
_LONGEST = 24
_PATIENCE = 10.0
_COLOURS = ("#0b6e99", "#c4572b", "#0b6e4f", "#7a4fa3", "#8a5a00", "#5a6875")
_ONE_AT_A_TIME = Lock()
"""matplotlib's caches of fonts know nothing of threads."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw.

    Attributes:
        kind: of `KINDS`.
        x, y: columns; a histogram has no ``y``.
        by: column whose values are series of their own, "" for none.
    """

    kind: str
    x: str
    y: str = ""
    by: str = ""

    def as_json(self) -> dict[str, str]:
        """As it is kept with a question."""
        return {"kind": self.kind, "x": self.x, "y": self.y, "by": self.by}


def draw(table: pa.Table, chart: Chart, form: str = "svg") -> bytes:
    """The drawing; rows beyond `MOST_BARS` bars or `MOST_POINTS` points are an error, not left out in silence.

    Args:
        form: ``svg`` or ``png``.

    Raises:
        Invalid: ``http.chart``. Unavailable: ``http.no_charts``, without matplotlib.
    """
    x, y, series = _columns(table, chart)
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise Unavailable("http.no_charts", "Charts need matplotlib: pip install 'carelake[explore]'.") from None
    made = io.BytesIO()
    with _alone(), rc_context({"svg.hashsalt": "carelake", "font.size": 9, "text.parse_math": False}):
        figure: Figure = Figure(figsize=(7.2, 4), dpi=110, layout="constrained")
        axes = figure.subplots()
        axes.set_prop_cycle(color=_COLOURS)
        _drawn(axes, chart, x, y, series)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(_label(chart.x))
        axes.set_ylabel(_label(chart.y) if chart.y else "rows")
        if series is not None:
            figure.legend(loc="outside right upper", title=_label(chart.by), frameon=False)
        figure.savefig(made, format=form, metadata={"Date": None} if form == "svg" else None)
    return made.getvalue()


@contextmanager
def _alone() -> Iterator[None]:
    """Draw while nobody else does. What matplotlib says of values goes nowhere: they are patients'."""
    if not _ONE_AT_A_TIME.acquire(timeout=_PATIENCE):
        raise Unavailable("http.busy", "Too many charts are drawn here; try again in a moment.", retry_after=2)
    try:
        logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, TypeError, ArithmeticError):
        message = "These values cannot be drawn: too large, too far apart, or of a kind that has no place on an axis."
        raise Invalid("http.chart", message) from None
    finally:
        _ONE_AT_A_TIME.release()


def _columns(table: pa.Table, chart: Chart) -> tuple[list[Any], list[Any], list[Any] | None]:
    wanted = [chart.x] if chart.kind == "histogram" else [chart.x, chart.y]
    wanted += [chart.by] if chart.by else []
    if chart.kind not in KINDS or any(table.column_names.count(name) != 1 for name in wanted):
        raise Invalid("http.chart", f"A chart is one of {', '.join(KINDS)}, of columns that the result has once.")
    if not len(table):
        raise Invalid("http.chart", "There are no rows to draw.")
    numbers = [chart.x] if chart.kind in ("scatter", "histogram") else []
    numbers += [chart.y] if chart.kind != "histogram" else []
    for name in numbers:
        if not _numeric(table.schema.field(name).type):
            raise Invalid("http.chart", "The column to measure holds no numbers; choose another one.")
    if len(table) > (MOST_BARS * _MOST_SERIES if chart.kind == "bar" else MOST_POINTS):
        most = f"{MOST_BARS} bars" if chart.kind == "bar" else f"{MOST_POINTS} points"
        raise Invalid(
            "http.chart", f"There are more rows than a chart shows ({most}); count or limit in the question."
        )
    columns = _values(table.select(wanted))
    x = columns[0]
    if not _placed(table.schema.field(chart.x).type):
        x = [None if one is None else _label(one) for one in x]
    y = [] if chart.kind == "histogram" else columns[1]
    by = [_label(one) for one in columns[-1]] if chart.by else None
    if by is not None and len(set(by)) > _MOST_SERIES:
        raise Invalid("http.chart", f"There are more than {_MOST_SERIES} series; choose another column for them.")
    if chart.kind == "bar" and len(dict.fromkeys(map(str, x))) > MOST_BARS:
        raise Invalid("http.chart", f"There are more than {MOST_BARS} bars; count or limit in the question.")
    if len({one for one in x if isinstance(one, str)}) > _MOST_WORDS:  # each has a mark of its own on the axis
        raise Invalid("http.chart", f"There are more than {_MOST_WORDS} words along the chart; count or limit.")
    return x, y, by


def _values(table: pa.Table) -> list[list[Any]]:
    """Columns as Python's values."""
    rows = [row for batch in table.to_batches() for row in values_of(batch)]
    return [list(column) for column in zip(*rows, strict=True)]


def _placed(kind: pa.DataType) -> bool:
    """Whether values have places on an axis of their own; of all others the label is told."""
    return _numeric(kind) or bool(pt.is_date(kind) or pt.is_timestamp(kind))


def _drawn(axes: Axes, chart: Chart, x: list[Any], y: list[Any], by: list[Any] | None) -> None:
    if chart.kind == "histogram":
        groups = {name: [value for _, value in points] for name, points in _series(x, x, by).items()}
        axes.hist(list(groups.values()), bins=30, label=list(map(_label, groups)))
        return
    parts = _series(x, y, by)
    if chart.kind == "bar":
        _bars(axes, parts)
        return
    for name, points in parts.items():
        if chart.kind == "line":
            ordered = sorted(points, key=lambda point: (str(type(point[0])), point[0]))
            axes.plot([p[0] for p in ordered], [p[1] for p in ordered], marker=".", label=_label(name))
        else:
            axes.plot([p[0] for p in points], [p[1] for p in points], ".", alpha=0.6, label=_label(name))
    _turned(axes, [point[0] for points in parts.values() for point in points])


def _bars(axes: Axes, parts: dict[Any, list[tuple[Any, float]]]) -> None:
    names = list(dict.fromkeys(_label(x) for points in parts.values() for x, _ in points))
    width = 0.8 / len(parts)
    for n, (name, points) in enumerate(parts.items()):
        places = [names.index(_label(x)) - 0.4 + width * (n + 0.5) for x, _ in points]
        axes.bar(places, [value for _, value in points], width, label=_label(name))
    axes.set_xticks(range(len(names)), names)
    _turned(axes, names)


def _series(x: list[Any], y: list[Any], by: list[Any] | None) -> dict[Any, list[tuple[Any, float]]]:
    """Points of each series; those without a value are none."""
    found: dict[Any, list[tuple[Any, float]]] = {}
    for n, (across, up) in enumerate(zip(x, y, strict=True)):
        if across is not None and up is not None and math.isfinite(up) and _finite(across):
            found.setdefault(by[n] if by is not None else "", []).append((across, float(up)))
    if not found:
        raise Invalid("http.chart", "There are no values to draw.")
    return found


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _turned(axes: Axes, names: Sequence[Any]) -> None:
    if sum(len(_label(name)) for name in set(map(str, names))) > 60 and any(isinstance(n, str) for n in names):
        axes.tick_params("x", rotation=60)


def _label(value: Any) -> str:
    text = "none" if value is None else "".join(one if one.isprintable() else " " for one in str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _numeric(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))
