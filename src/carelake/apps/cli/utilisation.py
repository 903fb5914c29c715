"""``run utilisation``: foretell emergency visits, admissions and beds."""

from __future__ import annotations

from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show

__all__ = ["run_utilisation"]


def run_utilisation(session: Session, *, json_out: bool) -> None:
    """Count, fit, judge by backtest, register, and tell the next 14 days."""
    from carelake.pipelines.utilisation import NAME, Utilisation

    workspace, caller = session.workspace, session.caller()
    with progress() as bars, workspace.enter(caller, "pipeline:run", NAME, job=True) as permit:
        task = bars.add_task(NAME, total=None)
        made = Utilisation(workspace.platform, caller).run(lambda words: bars.update(task, description=words))
        bars.update(task, total=1, completed=1, description=NAME)
        said: dict[str, Any] = {"run": permit.act, **made}
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
