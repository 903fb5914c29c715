"""The model card as CHAI's Applied Model Card v0.2, XML.

What only people know (contact, funding, who was consulted) is taken from what was stated with the card, and otherwise
says that it is to be filled in: nothing is made up. ``chai.xsd`` beside this file has the elements and their order.
https://mc.chai.org/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from markupsafe import escape

from carelake.core import canonical

__all__ = ["OPEN", "Release", "applied_model_card"]

OPEN = "To be filled in by the developer."
_NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2
_FIGURES = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "ici", "mae", "rmse", "c_index")
Part = tuple[str, "str | Sequence[Part]"]


@dataclass(frozen=True)
class Release:
    """What the registry knows of a version.

    Attributes:
        state: ModelApprovalStatus. stage: of its lifecycle.
    """

    name: str
    version: int
    date: str
    state: str
    stage: str
    ref: str


def applied_model_card(card: Mapping[str, Any], metrics: Mapping[str, Any], release: Release) -> bytes:
    """The document, UTF-8."""
    told = _Said(card, metrics, release)
    parts: Sequence[Part] = (
        ("BasicInfo", told.basic()),
        ("ReleaseInfo", told.release()),
        ("ModelSummary", told.summary()),
        ("UsesAndDirections", told.uses()),
        ("Warnings", told.warnings()),
        ("TrustIngredients", (("AISystemFacts", told.facts()), ("TransparencyInformation", told.transparency()))),
        ("KeyMetrics", told.key_metrics()),
        ("Resources", told.resources()),
        ("Bibliography", told.stated("Bibliography", "")),
    )
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<AppliedModelCard xmlns="{_NAMESPACE}">']
    lines += [line for part in parts for line in _lines(part, 1)]
    return ("\n".join([*lines, "</AppliedModelCard>"]) + "\n").encode()


def _lines(part: Part, depth: int) -> Iterator[str]:
    name, inside = part
    pad = "  " * depth
    if isinstance(inside, str):
        yield f"{pad}<{name}>{escape(_ILLEGAL.sub(' ', inside))}</{name}>"
        return
    yield f"{pad}<{name}>"
    for one in inside:
        yield from _lines(one, depth + 1)
    yield f"{pad}</{name}>"


class _Said:
    """The card's content, section by section."""

    def __init__(self, card: Mapping[str, Any], metrics: Mapping[str, Any], release: Release) -> None:
        self._card, self._metrics, self._release = card, metrics, release
        self._more = _section(card, "additional_information")
        self._stated = _section(_section(self._more, "custom_details"), "stated")

    def stated(self, name: str, otherwise: str = OPEN) -> str:
        """What people stated under this name."""
        return str(self._stated.get(name) or otherwise)

    def _of(self, section: str, name: str, otherwise: str = OPEN) -> str:
        value = _section(self._card, section).get(name)
        return str(value) if value else otherwise

    def basic(self) -> Sequence[Part]:
        """Whose model it is."""
        return (
            ("ModelName", self._release.name),
            ("ModelDeveloper", self.stated("ModelDeveloper", self._of("model_overview", "model_creator"))),
            ("DeveloperContact", self.stated("DeveloperContact")),
        )

    def release(self) -> Sequence[Part]:
        """Which version, and how far it got."""
        told = self._release
        return (
            ("ReleaseStage", f"{told.stage or 'Development'}; {told.state}"),
            ("ReleaseDate", told.date),
            ("ReleaseVersion", f"{told.version} ({told.ref})"),
            ("GlobalAvailability", self.stated("GlobalAvailability")),
            ("RegulatoryApproval", self.stated("RegulatoryApproval", "None: not a medical device.")),
        )

    def summary(self) -> Sequence[Part]:
        """What it is, in a sentence, and words to find it by."""
        text = self._of("model_overview", "model_description")
        words = (self._release.name, self._of("model_overview", "problem_type", "prediction"))
        return (("Summary", text), ("Keywords", tuple(("Keyword", word) for word in words)))

    def uses(self) -> Sequence[Part]:
        """Intended use."""
        purpose, use = self._of("intended_uses", "purpose_of_model"), self._of("intended_uses", "intended_uses")
        threshold = _section(self._more, "custom_details").get("alert_threshold")
        how = f"An alert is raised from a risk of {threshold:g}." if isinstance(threshold, int | float) else OPEN
        return (
            ("IntendedUseAndWorkflow", f"{purpose} {use}"),
            ("PrimaryIntendedUsers", self.stated("PrimaryIntendedUsers", use)),
            ("HowToUse", self.stated("HowToUse", how)),
            ("TargetedPatientPopulation", self.stated("TargetedPatientPopulation", use)),
            (
                "CautionedOutOfScopeSettings",
                self.stated(
                    "CautionedOutOfScopeSettings", self._of("intended_uses", "factors_affecting_model_efficiency")
                ),
            ),
        )

    def warnings(self) -> Sequence[Part]:
        """Limits and risks."""
        caveats = self._more.get("caveats_and_recommendations") or [OPEN]
        level = self._of("intended_uses", "risk_rating")
        why = self._of("intended_uses", "explanations_for_risk_rating", "")
        return (
            (
                "KnownRisksAndLimitations",
                "\n".join(f"- {one}" for one in caveats) if _many(caveats) else str(caveats),
            ),
            ("KnownBiasesOrEthicalConsiderations", str(self._more.get("ethical_considerations") or OPEN)),
            ("ClinicalRiskLevel", f"{level}. {why}".strip()),
        )

    def facts(self) -> Sequence[Part]:
        """What goes in and comes out, and what it was made from."""
        details = _section(self._card, "training_details")
        job = _section(details, "training_job_details")
        attrition = details.get("attrition") or ()
        flow = "; ".join(f"{one['step']}: {one['n']}" for one in attrition)
        sets = ", ".join(map(str, job.get("training_datasets") or ())) or OPEN
        libraries = ", ".join(f"{name} {v}" for name, v in _section(job, "training_environment").items())
        return (
            ("OutcomesAndOutputs", self._of("model_overview", "problem_type")),
            ("ModelType", self._of("model_overview", "algorithm_type")),
            ("InputDataSource", self._of("training_details", "training_observations")),
            (
                "OutputAndInputDataTypes",
                f"Risk between 0 and 1 from {details.get('features', 'some')} numeric features.",
            ),
            ("DevelopmentDataCharacterization", f"{sets}. {flow}".strip()),
            ("BiasMitigationApproaches", self.stated("BiasMitigationApproaches")),
            ("OngoingMaintenance", self.stated("OngoingMaintenance", _MAINTAINED)),
            ("Security", f"Signed files, verified at load; made with {libraries or 'libraries that are not told'}."),
            ("Transparency", "Each prediction tells its reasons; this card and its figures are one signed version."),
        )

    def transparency(self) -> Sequence[Part]:
        """Who paid, who was asked."""
        return (
            ("FundingSource", self.stated("FundingSource")),
            ("StakeholdersConsulted", self.stated("StakeholdersConsulted")),
        )

    def key_metrics(self) -> Sequence[Part]:
        """The figures, as JSON; absent ones are told as null, not left out."""
        m = self._metrics
        whole = {name: m.get(name) for name in _FIGURES if name in m}
        useful = {**whole, "intervals": m.get("intervals"), "n": m.get("n"), "events": m.get("events")}
        safety = {name: m.get(name) for name in ("alert", "net_benefit", "curve", "observed_expected") if name in m}
        groups = {f"{one.get('group')}: {one.get('value')}": one for one in m.get("subgroups") or () if _map(one)}
        return (
            (
                "UsefulnessUsabilityEfficacy",
                self._measured("Risks that rank and are right", "discrimination", useful),
            ),
            ("FairnessEquity", self._measured("The same in every group", "subgroups", groups)),
            ("SafetyReliability", self._measured("Calibrated risks, and alerts that help", "calibration", safety)),
        )

    def _measured(self, goal: str, kind: str, figures: Mapping[str, Any]) -> Sequence[Part]:
        results = [
            ("MetricResult", (("Label", name), ("ValueJson", canonical.dump(value).decode())))
            for name, value in figures.items()
        ]
        absent: Part = ("MetricResult", (("Label", kind), ("ValueJson", "null")))
        evaluated: Sequence[Any] = self._card.get("evaluation_details") or ({},)
        methods = self._metrics.get("methods")
        how = "; ".join(f"{name}: {text}" for name, text in methods.items()) if _map(methods) else OPEN
        reason = self._metrics.get("reason")
        return (
            ("MetricGoal", goal),
            ("Results", tuple(results) or (absent,)),
            ("Interpretation", self.stated(f"Interpretation.{kind}")),
            ("TestType", "Internal: rows of patients that were not learned from"),
            ("TestingDataDescription", str(reason or evaluated[0].get("name") or OPEN)),
            ("ValidationProcessAndJustification", how or OPEN),
        )

    def resources(self) -> Sequence[Part]:
        """What is published about it."""
        return (
            ("PeerReviewedPublications", self.stated("PeerReviewedPublications", "None.")),
            ("PatientConsentOrDisclosure", self.stated("PatientConsentOrDisclosure")),
        )


_MAINTAINED = (
    "Monitors compare inputs, risks and outcomes with the training baseline; a retrained version is held against the "
    "group's change plan, where it has one, and approved by a second person."
)


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    return found if _map(found) else {}


def _map(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _many(value: object) -> bool:
    return isinstance(value, list | tuple)
