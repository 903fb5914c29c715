"""What must be there before a version may be approved: figures, card, baseline, origin; each named when it lacks.

A check that could not be made says so, and counts as lacking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carelake.core.nouns import Noun
from carelake.models.artifact import ModelFiles

__all__ = ["Evidence", "gather", "leaks_of"]

_CARD = ("model_overview", "intended_uses", "training_details", "evaluation_details")
_DISCRIMINATION = ("auroc", "c_index", "mae", "rmse", "pinball")
"""The figure that a report of its kind leads with; the first of these that it has."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that approval asks for.

    Attributes:
        name: a word.
        found: what was found, or what lacks; no clinical value.
    """

    name: str
    ok: bool
    found: str

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "ok": self.ok, "found": self.found}


def gather(files: ModelFiles, training_set: Noun | None, verdict: Noun | None, planned: bool) -> list[Evidence]:
    """All evidence of a version, what is there and what lacks.

    Args:
        training_set: the noun that it was trained on, None where it is not kept any more.
        verdict: of the group's change plan on it.
        planned: whether the group has a plan in force.
    """
    found = [*_figures(files.metrics), *_papers(files), *_origin(files, training_set)]
    if "model.onnx" in files.raw:
        found.append(_parity(files))
    if planned:
        found.append(_plan(verdict))
    return found


def _figures(metrics: Mapping[str, Any]) -> Iterator[Evidence]:
    reason = metrics.get("reason")
    figure = next((name for name in _DISCRIMINATION if name in metrics), "")
    figure = figure if _number(metrics.get(figure)) else ""
    yield Evidence("metrics", bool(figure) and not reason, figure if figure and not reason else "no figures")
    calibrated = _number(metrics.get("calibration_slope")) or _number(metrics.get("coverage")) or _covered(metrics)
    yield Evidence("calibration", calibrated, "measured" if calibrated else "no calibration")
    groups = metrics.get("subgroups")
    parts = len(groups) if isinstance(groups, list | dict) else 0
    yield Evidence("subgroups", parts > 0, f"{parts} groups" if parts else "no figures by subgroup")


def _covered(metrics: Mapping[str, Any]) -> bool:
    """Whether a forecast's intervals were held against what came."""
    intervals = metrics.get("interval_coverage") or metrics.get("calibration")
    return _number(intervals) or bool(isinstance(intervals, Mapping | list) and intervals)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _papers(files: ModelFiles) -> Iterator[Evidence]:
    lacking = [name for name in _CARD if not files.card.get(name)]
    yield Evidence("card", not lacking, f"lacks {', '.join(lacking)}" if lacking else "complete")
    yield Evidence("baseline", bool(files.baseline), "kept" if files.baseline else "no baseline for the monitors")


def _origin(files: ModelFiles, training_set: Noun | None) -> Iterator[Evidence]:
    there = training_set is not None and training_set.kind == "trainingset"
    yield Evidence("training set", there, files.manifest.training_set if there else "not in this account any more")
    report = training_set.body.get("leaks") if training_set is not None else None
    if report is not None:
        certain, suspect = leaks_of(report)
        yield Evidence("leak report", not certain, f"{certain} leaks, {suspect} to look at")


def leaks_of(report: object) -> tuple[int, int]:
    """How many findings of a training set's leak report are certain, and how many a person looks at.

    What cannot be read as a finding counts as certain.
    """
    found = report if isinstance(report, list | tuple) else [report]
    suspect = sum(isinstance(one, Mapping) and one.get("severity") == "suspect" for one in found)
    return len(found) - suspect, suspect


def _parity(files: ModelFiles) -> Evidence:
    from carelake.models.onnx.parity import claimed

    told = claimed(files.extra.get("parity.json", b""))
    if told is None:
        return Evidence("ONNX parity", False, "no report beside model.onnx")
    return Evidence("ONNX parity", told.holds, f"max |dp| {told.largest:.1e} on {told.rows} rows")


def _plan(verdict: Noun | None) -> Evidence:
    if verdict is None:
        return Evidence("change plan", False, "not checked; `carelake model plan check` does")
    return Evidence(
        "change plan", verdict.state == "InPlan", f"{verdict.state}, plan v{verdict.body['plan_version']}"
    )
