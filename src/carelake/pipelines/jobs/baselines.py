"""What a check step is held against, what it leaves, and when it fails.

https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-quality-clarify-baseline-lifecycle.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.models.packages.groups import group_name
from carelake.models.registry import APPROVED
from carelake.monitor.baseline import Baseline
from carelake.pipelines.definition.shapes import BASELINES
from carelake.pipelines.execution.properties import VIOLATIONS
from carelake.pipelines.execution.work import Files, Made, Work, given

__all__ = ["FILE", "concluded", "of_figures", "too_few"]

FILE = "baseline.json"
"""Where a check leaves what later ones are held against, with its standard deviations."""


@dataclass(frozen=True)
class _Standing:
    """A baseline that there is already, and what it is a part of."""

    content: Baseline
    place: str


def of_figures(rows: int, source: str, **figures: Any) -> Baseline:
    """A baseline of some figures alone."""
    return Baseline({}, {}, {}, rows, source, **figures)


def concluded(
    work: Work,
    kind: str,
    baseline: Baseline,
    files: Mapping[str, Any],
    held: Callable[[Baseline], tuple[Mapping[str, Any], Sequence[str]]],
    made_from: Sequence[str] = (),
) -> Made:
    """What a check leaves: its own baseline and files, and how these compare with the baseline that there was.

    The baseline is the one supplied, else that of the newest approved version of ``ModelPackageGroupName``. A check
    that finds violations fails, unless ``FailOnViolation`` is false; its files stay.

    Args:
        kind: CheckType.
        files: SageMaker's, by name; ``statistics.json`` and one with constraints.
        held: holds the figures against a baseline: ``constraint_violations.json``, and names of what violates.

    Raises:
        Invalid: ``pipelines.no_baseline``: there is none of this kind, and the check is not skipped.
    """
    told = work.request.get("Check") or {}
    skips = _flag(told, "SkipCheck", False)
    fails = _flag(told, "FailOnViolation", True)
    _flag(told, "RegisterNewBaseline", False)
    standing = _standing(work, kind, told)
    if standing is None and not skips:
        raise _none()
    left = {name: canonical.dump(one) for name, one in files.items()}
    left[FILE] = baseline.to_bytes()
    wrong: Sequence[str] = ()
    if standing is not None and not skips:
        report, wrong = held(standing.content)
        left[VIOLATIONS] = canonical.dump(dict(report))
    constraints = "constraints.json" if "constraints.json" in files else "analysis.json"
    named = {"Constraints": constraints, **({"Statistics": "statistics.json"} if "statistics.json" in files else {})}
    values = {"files": named, "baseline": standing.place if standing else "", "violations": len(wrong)}
    said = f"The baseline is not met by: {', '.join(sorted(set(wrong))[:20])}." if wrong and fails else ""
    return Made({"result": Files(left, made_from)}, values, violated=said)


def too_few(needed: str) -> Invalid:
    """A check that cannot be made must not look like one that was passed. How few they are is not told."""
    return Invalid("pipelines.too_few", f"The check was not made: its rows are too few; {needed} are needed.")


def _flag(told: Mapping[str, Any], name: str, default: bool) -> bool:
    found = told.get(name, default)
    if not isinstance(found, bool):
        raise Invalid("pipelines.parameter", f"{name} is true or false; give it a parameter of type Boolean.")
    return found


def _standing(work: Work, kind: str, told: Mapping[str, Any]) -> _Standing | None:
    supplied = told.get("SuppliedBaselineConstraints") or told.get("SuppliedBaselineStatistics")
    with work.acting("model:read", work.pipeline) as permit:
        if supplied:
            return _at(work, permit, given(str(supplied), local=False).ref)
        group = told.get("ModelPackageGroupName")
        return _of_group(work, permit, kind, group_name(permit.account, str(group))) if group else None


def _of_group(work: Work, permit: Permit, kind: str, group: str) -> _Standing | None:
    """Of the newest approved version: what was registered with it, else what it was trained with."""
    ref = next((one.ref for one in work.platform.registry.versions(permit, group) if one.state == APPROVED), None)
    if ref is None:
        return None
    section, member = BASELINES[kind]
    said = work.platform.model_packages.find(permit, ref).said.get("DriftCheckBaselines") or {}
    uri = str(((said.get(section) or {}).get(member) or {}).get("S3Uri") or "")
    return _at(work, permit, given(uri, local=False).ref if uri.startswith(("artifact:", "model:")) else ref)


def _at(work: Work, permit: Permit, ref: str) -> _Standing:
    if ref.startswith("model:"):
        return _Standing(Baseline.from_json(work.platform.registry.files(permit, ref).baseline), ref)
    return _Standing(Baseline.from_json(msgspec.json.decode(work.read(permit, ref, FILE))), ref)


def _none() -> Invalid:
    return Invalid(
        "pipelines.no_baseline",
        "There is nothing to check against: supply a baseline, name a group with an approved version, or SkipCheck.",
    )
