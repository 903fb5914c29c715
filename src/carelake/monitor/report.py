"""The monitors' report: one HTML page that needs nothing but itself, out of checks and a window of time.

It shows distances, shares and figures of groups, and no row: days with fewer than ten predictions are blank, and
counts of fewer than 20 patients are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from math import sqrt
from typing import Any

import jinja2

from carelake.core.clock import iso
from carelake.core.nouns import Noun
from carelake.models import plots
from carelake.models.cells import SMALL, count
from carelake.monitor import drawn
from carelake.monitor.baseline import Baseline
from carelake.monitor.check import Ran
from carelake.monitor.drift import linf
from carelake.monitor.profiles import Window
from carelake.monitor.spread import FEW
from carelake.serving.endpoint import Endpoint

__all__ = ["gather", "html"]

_ROWS, _OVERLAYS, _DAYS, _FINDINGS = 30, 12, 120, 100


def gather(
    endpoint: Endpoint, seen: Window, runs: Sequence[Ran], findings: Sequence[Noun], end: datetime
) -> dict[str, Any]:
    """All that the page shows.

    Args:
        findings: of the endpoint, the newest first.
    """
    baseline = Baseline.from_json(endpoint.files.baseline)
    distances = _ranked(baseline, seen)
    by_kind = {ran.kind: ran for ran in runs}
    # As the findings have it, without small cells: the page is handed on.
    quality = by_kind["ModelQuality"].finding.body if "ModelQuality" in by_kind else {}
    data = by_kind["DataQuality"].finding.body if "DataQuality" in by_kind else {}
    words = getattr(endpoint.files.scorer.description, "words", {})
    return {
        "endpoint": endpoint.name,
        "model": endpoint.files.ref,
        "until": iso(end),
        "rows": count(seen.rows),
        "patients": count(seen.patients),
        "days": len(seen.days),
        "merged": seen.merged,
        "runs": [_run(ran) for ran in runs],
        "quality": quality,
        "bias": by_kind["ModelBias"].told.get("bias", {}) if "ModelBias" in by_kind else {},
        "cards": data.get("cards", []),
        "plots": {
            "heat": _heat(baseline, seen, distances, words),
            "overlays": [
                drawn.distribution(words.get(name, name), baseline.spread[name], seen.seen[name])
                for name, _ in (distances[:_OVERLAYS] if seen.patients >= SMALL else ())
            ],
            "timeline": drawn.timeline(_timed(findings)),
            **_performance(quality),
        },
    }


def _run(ran: Ran) -> dict[str, Any]:
    told = {"kind": ran.kind, "state": ran.finding.state, "status": ran.status, "reason": ran.reason}
    return {**told, "ref": ran.finding.ref, "violations": list(ran.violations)}


def _ranked(baseline: Baseline, seen: Window) -> list[tuple[str, float]]:
    found = [(name, linf(baseline.spread[name], counts)) for name, counts in seen.seen.items()]
    return sorted(found, key=lambda one: -one[1])


def _heat(baseline: Baseline, seen: Window, distances: Sequence[tuple[str, float]], words: Mapping[str, str]) -> Any:
    days = list(seen.days)[-_DAYS:]

    def far(name: str, day: str) -> tuple[float, float] | None:
        counts = seen.days[day].get(name)
        if counts is None or counts.rows < FEW:
            return None
        column = baseline.spread[name]
        # The 95th percentile of Kolmogorov and Smirnov's distance.
        chance = 1.36 * sqrt(1 / max(1, counts.present) + 1 / max(1, column.present))
        return linf(column, counts), chance

    rows = [(words.get(name, name), [far(name, day) for day in days]) for name, _ in distances[:_ROWS]]
    return drawn.heat(days, rows)


def _timed(findings: Sequence[Noun]) -> list[dict[str, str]]:
    chosen = [one for one in findings if "check" in one.body][:_FINDINGS]
    return [
        {"check": str(one.body["check"]), "state": one.state, "until": str(one.body.get("until", ""))}
        for one in reversed(chosen)
    ]


def _performance(quality: Mapping[str, Any]) -> dict[str, Any]:
    if "calibration" not in quality:
        return {}
    return {
        "calibration": plots.calibration(quality["calibration"]["curve"]),
        "decision": plots.decision(quality["net_benefit"]),
        "forest": plots.forest(quality["subgroups"], quality["figures"]["auc"]["value"]),
    }


def html(content: Mapping[str, Any]) -> str:
    """The page; every value from data is escaped."""
    source = files("carelake.monitor").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(source).render(c=content, plots=content["plots"]).lstrip()
