"""The card of a forecasting model: JSON in the sections of SageMaker's schema 0.1.0, and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2

from carelake.models import plots
from carelake.models.forecast.fit import ForecastPlan
from carelake.models.forecast.scorer import ForecastScorer

__all__ = ["card", "html"]

_SYNTHETIC = (
    "Where the record is synthetic, these figures prove that the plumbing works and nothing else: made-up hospitals "
    "are busy as their maker thought, not as hospitals are."
)
_LIMITS = (
    "Counts of groups, for staffing and bed planning; no decision on a patient may rest on it.",
    "Days are UTC days; holidays, epidemics and closures are not known to it.",
    "Intervals hold what they say as long as the coming weeks are like those that set their margins.",
    "Judged on this record's own past; no external validation.",
)


def card(
    scorer: ForecastScorer, metrics: Mapping[str, Any], plan: ForecastPlan, *, author: str, days: Mapping[str, Any]
) -> dict[str, Any]:
    """The card as JSON.

    Args:
        days: what there is to say of the data: first and last day, series, and those that are too small.
    """
    said = scorer.description
    names = ("coverage", "nominal", "mase", "mae", "pinball", "width", "bias", "n", "origins")
    return {
        "schema": "SageMakerModelCardSchema 0.1.0",
        "model_overview": {
            "model_name": plan.name,
            "model_description": "Emergency visits, admissions and occupied beds of the next 14 days, by unit.",
            "model_creator": author,
            "algorithm_type": "LightGBM quantile regression over all series, conformalised",
            "problem_type": "Forecast of daily counts with prediction intervals",
        },
        "intended_uses": {
            "purpose_of_model": "Plan staff and beds for the coming two weeks with an honest range.",
            "intended_uses": "Read by bed managers beside the count of the same day last week.",
            "factors_affecting_model_efficiency": "Holidays, epidemics, changed services, late documentation.",
            "risk_rating": "Low",
            "explanations_for_risk_rating": "It foretells counts of groups, and triggers nothing by itself.",
        },
        "training_details": {
            "objective_function": "pinball loss at " + ", ".join(f"{q:g}" for q in plan.quantiles),
            "training_observations": "Daily counts of this workspace's encounters.",
            "training_job_details": {
                "training_datasets": [said.training_set],
                "training_environment": said.versions,
                "hyper_parameters": {
                    **said.parameters,
                    "rounds": said.rounds,
                    "calibration_days": plan.calibration_days,
                },
            },
            "days": dict(days),
            "features": len(scorer.names),
        },
        "evaluation_details": [
            {
                "name": metrics["methods"]["backtest"],
                "datasets": [said.training_set],
                "metric_groups": [
                    {
                        "name": "backtest",
                        "metric_data": [{"name": n, "type": "number", "value": metrics.get(n)} for n in names],
                    }
                ],
            }
        ],
        "additional_information": {
            "ethical_considerations": "Figures by unit and weekday are below; a unit served worse is planned worse.",
            "caveats_and_recommendations": [_SYNTHETIC, *_LIMITS],
            "custom_details": {
                "reproduce": f"Run the recipe again on {said.training_set}: the same counts give the same files."
            },
        },
        "metrics": dict(metrics),
    }


def html(content: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """The card as one page; every value from data is escaped.

    Args:
        shown: series to draw: ``name``, ``history``, ``low``, ``middle``, ``high``.
    """
    drawn = [
        {"name": one["name"], "plot": plots.fan(one["history"], one["low"], one["middle"], one["high"])}
        for one in shown
    ]
    source = files("carelake.models.forecast").joinpath("card.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(source).render(card=content, m=content["metrics"], drawn=drawn).lstrip()
