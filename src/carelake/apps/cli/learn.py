"""``run``, ``model``: from tables to a released model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carelake.apps.cli.prove import noun_json
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.pipelines.recipe import recipe as recipe_of
from carelake.pipelines.runs import Run

__all__ = ["carry_out", "model_card", "model_decide", "model_list", "model_show", "run_recipe", "told"]


def run_recipe(
    session: Session, *, json_out: bool, recipe: str, approve_as: str, new: bool, as_of: str | None
) -> None:
    """Carry out a recipe."""
    made = carry_out(session, session.caller(), recipe, approve_as=approve_as, new=new, as_of=as_of or "")
    said = told(made)
    if json_out:
        answer(said)
        return
    if made.resumed_at:
        note(f"Resumed at step {made.resumed_at}.")
    metrics = said["metrics"]
    if not metrics or metrics.get("reason"):
        note(metrics.get("reason") or made.stopped)
        if said["training_set"]:
            note(f"Training set {said['training_set']}")
        return
    rows = [{"model": "this model", **metrics}]
    rows += [{"model": name, **figures} for name, figures in metrics["baselines"].items()]
    show(["model", "auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"], rows)
    note(f"{metrics['n']} test admissions, {metrics['events']} readmitted.")
    note(f"Model {said['model_version']} ({said['state']}), endpoint {said['endpoint'] or 'none'}")
    if made.stopped:
        note(made.stopped)


def carry_out(
    session: Session, caller: Any, recipe: str, *, approve_as: str, new: bool = False, as_of: str = ""
) -> Run:
    """Carry out a recipe with progress; resumes an interrupted run with the same parameters."""
    from carelake.pipelines.readmission import Readmission

    workspace = session.workspace
    plan = recipe_of(recipe)
    approves = workspace.settings.approval.local
    steps = Readmission(workspace.platform, caller, approve_as=approve_as, approves=approves, as_of=as_of)
    told = {"approve_as": approve_as, **({"as_of": as_of} if as_of else {})}
    with progress() as bars, workspace.enter(caller, "pipeline:run", recipe, job=True) as permit:
        task = bars.add_task(plan.title, total=len(plan.steps))

        def tell(position: int, step: Any) -> None:
            bars.update(task, completed=position, description=step.title)

        made = workspace.platform.runs.carry_out(permit, plan, steps.functions(), told, new=new, progress=tell)
        bars.update(task, completed=len(plan.steps), description=plan.title)
    return made


def told(made: Run) -> dict[str, Any]:
    """A run as ``run --json`` prints it."""
    outputs = made.outputs
    return {
        "run": made.id,
        "training_set": outputs.get("dataset", {}).get("training_set"),
        "model_version": outputs.get("train", {}).get("model_version"),
        "metrics": outputs.get("train", outputs.get("sync", {})).get("metrics", {}),
        "attrition": outputs.get("dataset", {}).get("attrition", {}),
        "state": outputs.get("approve", {}).get("state"),
        "endpoint": outputs.get("deploy", {}).get("endpoint"),
        "resumed_at": made.resumed_at or None,
        "stopped": made.stopped or None,
    }


def model_list(session: Session, *, json_out: bool) -> None:
    """List model versions."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", "models") as permit:
        found = workspace.platform.registry.versions(permit)
    rows = [{"ref": n.ref, "state": n.state, **n.body} for n in found]
    if json_out:
        answer(rows)
    else:
        show(["name", "version", "state", "author", "ref"], rows)


def model_show(session: Session, *, json_out: bool, ref: str) -> None:
    """Show a model version."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        noun = workspace.platform.registry.get(permit, ref)
        files = workspace.platform.registry.files(permit, ref)
    said = {**noun_json(noun), "metrics": files.metrics}
    if json_out:
        answer(said)
    else:
        figures = {k: v for k, v in files.metrics.items() if isinstance(v, float | int)}
        show(["figure", "value"], [{"figure": k, "value": v} for k, v in figures.items()])
        note(f"{noun.ref}: {noun.state}")


def model_decide(session: Session, *, json_out: bool, ref: str, approve: bool) -> None:
    """Approve or reject a model version."""
    workspace = session.workspace
    registry = workspace.platform.registry
    with workspace.enter(session.caller(), "model:approve", ref) as permit:
        noun = registry.approve(permit, ref) if approve else registry.reject(permit, ref)
    if json_out:
        answer(noun_json(noun))
    else:
        note(f"{ref} is {noun.state}.")


def model_card(session: Session, *, json_out: bool, ref: str, out: Path) -> None:
    """Write a model version's card; it holds figures of groups, never of a patient."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "model:read", ref) as permit:
        files = workspace.platform.registry.files(permit, ref)
    out.write_text(files.card_html, encoding="utf-8")
    if json_out:
        answer({"model": ref, "out": str(out)})
    else:
        note(f"Wrote {out}.")
