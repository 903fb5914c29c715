"""``run`` of a prediction study: a data set's recipe becomes a registered model."""

from __future__ import annotations

from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid

__all__ = ["KINDS", "run_study"]

KINDS = ("risk", "logistic", "boosting", "event_time")


def run_study(session: Session, *, json_out: bool, recipe: str, kind: str | None) -> None:
    """Build the recipe's data set, train on it, and register the version."""
    from carelake.features.datasets import design
    from carelake.pipelines.study import Study

    if kind not in (None, *KINDS):
        raise Invalid("apps.kind", f"There is no such kind of model; there are: {', '.join(KINDS)}.")
    wanted = design.read(recipe)
    workspace, caller = session.workspace, session.caller()
    with progress() as bars, workspace.enter(caller, "pipeline:run", wanted.name, job=True) as permit:
        task = bars.add_task(wanted.title, total=None)
        study = Study(workspace.platform, caller, wanted, kind or KINDS[0])
        made = study.run(lambda words: bars.update(task, description=words))
        bars.update(task, total=1, completed=1, description=wanted.title)
        said: dict[str, Any] = {"run": permit.act, **made}
    if json_out:
        answer(said)
        return
    if said["stopped"]:
        note(said["stopped"])
        return
    metrics = said["metrics"]
    rows = [{"model": "this model", **metrics}]
    rows += [{"model": name, **figures} for name, figures in metrics["baselines"].items()]
    show(["model", "auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"], rows)
    note(f"{metrics['n']} test rows, {metrics['events']} with the outcome.")
    note(f"Model {said['model_version']} ({said['state']}).")
