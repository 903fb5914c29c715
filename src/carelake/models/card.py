"""The model card: what the model is for, what it was made from, how it did, and where it must not be trusted.

JSON in the sections of SageMaker's model card schema 0.1.0, and one HTML page that needs nothing but itself.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-cards.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import jinja2

from carelake.models import boosting, plots, tripod
from carelake.models.scorer import Scorer
from carelake.models.train import Plan

__all__ = ["SYNTHETIC", "About", "card", "html"]

SYNTHETIC = (
    "The patients are synthetic. These figures prove that the plumbing works, from raw records to a monitored "
    "prediction; they say nothing about how well the model would do for real patients."
)

_LIMITS = (
    "Not a medical device; no clinical decision may rest on it without local validation on real, recent data.",
    "Judged on one site's later admissions; no external validation.",
    "Deaths after discharge and admissions elsewhere are seen only as far as the records hold them.",
    "Reasons tell what moved this model's figure, not what causes readmission.",
    "Subgroup intervals are wide where a group is small; an absent figure means too few, not no difference.",
)


@dataclass(frozen=True)
class About:
    """What a card says that neither the model nor its metrics know.

    Attributes:
        training_set: ref.
        author: principal that trained it.
        attrition: steps of the cohort's making, as (what was left out or kept, how many remain).
        synthetic: whether the data are made up.
        data: a sentence on where the data come from.
        description, uses: what the model tells, and of whom.
        limits: where it must not be trusted.
        lineage: what it was made from, as (a word, its ref), the nearest first.
        stated: what only people know, by CHAI's name of it: ``DeveloperContact``, ``FundingSource``...
    """

    training_set: str
    author: str
    attrition: Sequence[tuple[str, int]] = ()
    synthetic: bool = True
    data: str = "FHIR R4 records of this workspace, as known at each prediction time."
    description: str = "Risk of an unplanned readmission within 30 days of discharge."
    uses: str = "Adult inpatients at discharge, read by clinical staff who see the reasons beside it."
    limits: Sequence[str] = _LIMITS
    lineage: Sequence[tuple[str, str]] = ()
    stated: Mapping[str, str] = field(default_factory=dict)


def card(scorer: Scorer, metrics: Mapping[str, Any], plan: Plan, about: About) -> dict[str, Any]:
    """The card as JSON."""
    caveats = [SYNTHETIC, *about.limits] if about.synthetic else list(about.limits)
    return {
        "schema": "SageMakerModelCardSchema 0.1.0",
        "kind": scorer.description.kind,
        "model_overview": {
            "model_name": plan.name,
            "model_description": about.description,
            "model_creator": about.author,
            "algorithm_type": "Logistic regression and LightGBM, stacked by cross-fitting and calibrated",
            "problem_type": "Binary classification with calibrated risks",
        },
        "intended_uses": {
            "purpose_of_model": "Order a morning list of patients by risk, so that follow-up starts with those who "
            "need it most.",
            "intended_uses": about.uses,
            "factors_affecting_model_efficiency": "Late or missing results, changes of coding, another population.",
            "risk_rating": "Medium",
            "explanations_for_risk_rating": "It can shift attention between patients; it triggers no treatment.",
        },
        "training_details": {
            "objective_function": "log loss",
            "training_observations": about.data,
            "training_job_details": {
                "training_datasets": [about.training_set],
                "training_environment": scorer.description.versions,
                "hyper_parameters": {
                    **boosting.PARAMETERS,
                    **scorer.description.parameters,
                    "rounds": scorer.description.rounds,
                    "folds": plan.folds,
                },
            },
            "attrition": [{"step": step, "n": n} for step, n in about.attrition],
            "lineage": [{"what": what, "ref": ref} for what, ref in about.lineage],
            "features": len(scorer.names),
        },
        "evaluation_details": [
            {
                "name": "patient-grouped, later admissions" if plan.temporal else "patient-grouped",
                "datasets": [about.training_set],
                "metric_groups": [{"name": "test set", "metric_data": _metric_data(metrics)}],
            }
        ],
        "additional_information": {
            "ethical_considerations": "Figures by sex, race and age group are below; look at them before approval.",
            "caveats_and_recommendations": caveats,
            "custom_details": {
                "alert_threshold": scorer.threshold,
                "stated": dict(about.stated),
                "reproduce": f"Run the recipe again on {about.training_set}: the same rows and library versions give "
                "the same files, so the same model ref.",
            },
        },
        "metrics": dict(metrics),
    }


def _metric_data(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "ici", "n", "events")
    return [{"name": name, "type": "number", "value": metrics.get(name)} for name in names]


def html(content: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """The card as one page; every value from data is escaped.

    Args:
        content: what `card` returned.
        words: readable names of features.
    """
    metrics = content["metrics"]
    named = [(words.get(i["feature"], i["feature"]), i["mean_abs_logit"]) for i in metrics.get("importance", ())]
    drawn = {
        "calibration": plots.calibration(metrics["curve"]),
        "roc": plots.roc(metrics["roc"]),
        "decision": plots.decision(metrics["net_benefit"]),
        "forest": plots.forest(metrics["subgroups"], metrics["auroc"]),
        "importance": plots.bars(named),
    }
    source = files("carelake.models").joinpath("card.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    told = {"card": content, "metrics": metrics, "model": {"kind": content.get("kind", "risk")}}
    return (
        page.from_string(source)
        .render(card=content, m=metrics, plots=drawn, checklist=tripod.checklist(told))
        .lstrip()
    )
