"""``run`` of a prediction study: a data set's recipe becomes a registered model."""

from __future__ import annotations

from typing import Any

from carelake.apps.cli.learn import output_of, through
from carelake.apps.cli.object_files import clear_file
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Invalid

__all__ = ["run_study"]


def run_study(session: Session, *, json_out: bool, recipe: str, kind: str | None, new: bool = False) -> None:
    """Build the recipe's data set, train on it, and register the version."""
    from carelake.pipelines.shipped import shipped
    from carelake.pipelines.study import KINDS

    if kind not in (None, *KINDS):
        raise Invalid("apps.kind", f"There is no such kind of model; there are: {', '.join(KINDS)}.")
    asked = kind or KINDS[0]
    said = _carried(session, recipe, asked, new=new) if recipe in shipped() else _of_file(session, recipe, asked)
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


def _carried(session: Session, recipe: str, kind: str, *, new: bool) -> dict[str, Any]:
    """A study that comes along is a pipeline: its steps are cached, resumed, and held to limits."""
    made = through(session, session.caller(), recipe, {"Kind": kind}, new=new)
    dataset = made.reports.get("dataset", {})
    figures = made.reports.get("train") or dataset.get("metrics") or made.reports.get("sync", {}).get("metrics") or {}
    return {
        "run": made.execution.id,
        "training_set": dataset.get("training_set"),
        "attrition": dataset.get("attrition", {}),
        "model_version": output_of(made, "register", "ModelPackageName"),
        "state": output_of(made, "register", "ModelApprovalStatus"),
        "metrics": figures,
        "stopped": None if "train" in made.reports else figures.get("reason"),
    }


def _of_file(session: Session, recipe: str, kind: str) -> dict[str, Any]:
    """A study of a file on this machine, in this process: a definition has no place for its text."""
    from carelake.features.datasets import design
    from carelake.pipelines.study import Study

    wanted = design.of_toml(_text(recipe)) if recipe.endswith(".toml") else design.read(recipe)
    workspace, caller = session.workspace, session.caller()
    with progress() as bars, workspace.enter(caller, "pipeline:run", wanted.name, job=True) as permit:
        task = bars.add_task(wanted.title, total=None)
        study = Study(workspace.platform, caller, wanted, kind)
        made = study.run(lambda words: bars.update(task, description=words))
        bars.update(task, total=1, completed=1, description=wanted.title)
        return {"run": permit.act, **made}


def _text(path: str) -> bytes:
    """A recipe; what is longer than one may be is read no further, and refused where it is checked."""
    with clear_file(path, "rb") as file:
        data: bytes = file.read((1 << 20) + 1)
    return data
