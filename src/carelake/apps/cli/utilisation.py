"""``run utilisation``: foretell emergency visits, admissions and beds."""

from __future__ import annotations

from typing import Any

from carelake.apps.cli.learn import through
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show

__all__ = ["run_utilisation"]


def run_utilisation(session: Session, *, json_out: bool, new: bool = False) -> None:
    """Count, fit, judge by backtest, register, and tell the next 14 days."""
    from carelake.pipelines.utilisation import NAME, empty

    made = through(session, session.caller(), NAME, {}, new=new)
    told = {**made.reports["dataset"], **made.reports["train"]} if "train" in made.reports else empty()
    said: dict[str, Any] = {"run": made.execution.id, **told}
    if json_out:
        answer(said)
        return
    metrics = said["metrics"]
    if said["stopped"]:
        note(said["stopped"])
        return
    show(["unit", "measure", "day", "low", "middle", "high"], said["forecast"])
    rows = [
        {"forecast": "this model", **metrics},
        {"forecast": "seasonal naive", **metrics["baselines"]["seasonal_naive"]},
    ]
    show(["forecast", "coverage", "width", "mase", "mae", "pinball"], rows)
    note(f"The interval is meant to hold {metrics['nominal']:.0%}; {metrics['methods']['backtest']}.")
    note(f"Model {said['model_version']} ({said['state']}).")
