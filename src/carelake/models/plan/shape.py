"""A change plan's shape: the three sections of FDA's guidance, with bounds that a program can check.

    1. Description of Modifications     what may change, how often, by itself or by hand, and which parts bound it
    2. Modification Protocol            data management, re-training, performance evaluation, update procedures
    3. Impact Assessment                with and without, risks and what is done about them; for people

"Marketing Submission Recommendations for a Predetermined Change Control Plan for Artificial Intelligence-Enabled
Device Software Functions" (FDA-2022-D-2628). Following it does not make a device, nor a submission.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

__all__ = [
    "Change",
    "DataManagement",
    "Features",
    "ImpactAssessment",
    "MetricBound",
    "Modification",
    "ModificationProtocol",
    "PerformanceEvaluation",
    "Plan",
    "Retraining",
    "Span",
    "Subgroups",
    "UpdateProcedures",
]

Part = Literal["data_management", "retraining", "performance_evaluation", "update_procedures"]
Change = Literal["training data", "features", "hyperparameters", "threshold", "calibration", "libraries"]


class Modification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One modification that is planned.

    Attributes:
        changes: what of a model differs after it; a difference that no modification names is out of plan.
        protocol: the parts of the protocol that bound it (traceability); at least one.
        automatic: whether it may go out by itself.
        scope: ``global``: the same for every site; ``local``: adapted at one.
    """

    id: str
    title: str
    changes: tuple[Change, ...]
    protocol: tuple[Part, ...]
    rationale: str
    automatic: bool = False
    scope: Literal["global", "local"] = "global"

    def __post_init__(self) -> None:
        if not self.changes or not self.protocol:
            raise ValueError("a modification names what it changes, and the parts of the protocol that bound it")


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From, to; both inclusive, either may be open."""

    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        told = [one for one in (self.at_least, self.at_most) if one is not None]
        if not told or not all(map(math.isfinite, told)) or told != sorted(told):
            raise ValueError("a span has at_least, at_most or both, finite and in this order")


class MetricBound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a figure must be, and how much worse than the deployed version's it may be.

    Attributes:
        drop_at_most: by how much it may lie below that of the deployed version.
        rise_at_most: above it.
    """

    at_least: float | None = None
    at_most: float | None = None
    drop_at_most: float | None = None
    rise_at_most: float | None = None

    def __post_init__(self) -> None:
        told = (self.at_least, self.at_most, self.drop_at_most, self.rise_at_most)
        if all(one is None for one in told) or not all(math.isfinite(one) for one in told if one is not None):
            raise ValueError("a bound has at_least, at_most, drop_at_most or rise_at_most, finite")


class Features(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which features may come and go, against the deployed version; without names, none."""

    may_add: tuple[str, ...] = ()
    may_drop: tuple[str, ...] = ()
    must_have: tuple[str, ...] = ()


class DataManagement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the data must be.

    Attributes:
        minimum_rows, minimum_events: of the test set that judges it.
        minimum_training_rows: of the training set.
        newest_within_days: how old the newest data may be when the version is checked; None for any age.
        practices: how data are collected, labelled and kept apart, in words.
    """

    minimum_rows: int
    minimum_events: int
    practices: str
    minimum_training_rows: int = 1
    newest_within_days: int | None = None
    features: Features = Features()

    def __post_init__(self) -> None:
        if min(self.minimum_rows, self.minimum_events, self.minimum_training_rows) < 1:
            raise ValueError("minimum_rows, minimum_events and minimum_training_rows are 1 or more")


class Retraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it may be trained.

    Attributes:
        intended_use_unchanged: that the card's intended uses are those of the deployed version; never false: a new
            use is a new model, and no modification of this one.
        hyperparameters: spans of numbers by name; one without a span stays as it is deployed.
        libraries: whether libraries may be of other versions than those of the deployed model.
    """

    practices: str
    intended_use_unchanged: bool = True
    hyperparameters: dict[str, Span] = {}
    libraries: Literal["same", "any"] = "any"

    def __post_init__(self) -> None:
        if not self.intended_use_unchanged:
            raise ValueError("intended_use_unchanged is true: a new use is a new model")


class Subgroups(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold in every subgroup that is large enough to tell.

    Attributes:
        by: groupings that must be in the report.
        metrics: bounds by figure; ``drop_at_most`` is against the same subgroup of the deployed version.
        gap_at_most: by figure, how far below that of all a subgroup may lie.
        minimum_events: a smaller subgroup is told of, not judged.
    """

    by: tuple[str, ...]
    metrics: dict[str, MetricBound] = {}
    gap_at_most: dict[str, float] = {}
    minimum_events: int = 30


class PerformanceEvaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Acceptance criteria, set before.

    Attributes:
        metrics: bounds by figure of ``metrics.json``, among them one of calibration.
    """

    metrics: dict[str, MetricBound]
    subgroups: Subgroups
    practices: str

    def __post_init__(self) -> None:
        if not any(name.startswith("calibration") or name in ("ici", "coverage") for name in self.metrics):
            raise ValueError("performance_evaluation.metrics bounds calibration: a calibration_..., ici or coverage")


class UpdateProcedures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an update reaches users.

    Attributes:
        approval: ``automatic``: a version that is inside the plan is approved by it, with no person; ``person``.
    """

    approval: Literal["automatic", "person"]
    rollout: str
    monitoring: str
    rollback: str
    communication: str
    labelling: str = ""


class ModificationProtocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The four parts of the second section."""

    data_management: DataManagement
    retraining: Retraining
    performance_evaluation: PerformanceEvaluation
    update_procedures: UpdateProcedures


class ImpactAssessment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The third section, for people.

    Attributes:
        each: by id of a modification, its benefits and risks.
    """

    with_and_without: str
    each: dict[str, str]
    cumulative: str
    risks: tuple[str, ...]
    mitigations: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change plan of a model group."""

    title: str
    group: str
    description_of_modifications: tuple[Modification, ...]
    modification_protocol: ModificationProtocol
    impact_assessment: ImpactAssessment

    def __post_init__(self) -> None:
        ids = [one.id for one in self.description_of_modifications]
        if not ids or len(set(ids)) != len(ids):
            raise ValueError("description_of_modifications has one or more, each with an id of its own")
        if set(self.impact_assessment.each) != set(ids):
            raise ValueError("impact_assessment.each has each modification by its id, and no other")
