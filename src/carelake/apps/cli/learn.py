"""``run``: from tables to a released model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.apps.pipelining import executor_of, launching, pipelines_of
from carelake.pipelines.execution.rows import Execution, Rows, StepRow

__all__ = ["Done", "carry_out", "output_of", "run_recipe", "through", "told"]

_PAST = "A run as of then ends with its training set: what is released is made of the newest data."
_WAITING = "The model version waits for approval: `carelake model approve REF --as REVIEWER`, then run again."


@dataclass(frozen=True)
class Done:
    """An execution of a recipe that came to its end.

    Attributes:
        reports: by step, the JSON that it left.
        resumed_at: the step it was resumed at, "" for a new one.
    """

    execution: Execution
    steps: Mapping[str, StepRow]
    reports: Mapping[str, Mapping[str, Any]]
    resumed_at: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


def run_recipe(
    session: Session,
    *,
    json_out: bool,
    recipe: str,
    approve_as: str,
    new: bool,
    as_of: str | None,
    engine: str | None,
) -> None:
    """Carry out a recipe."""
    caller, asked = session.caller(), {"as_of": as_of or "", "engine": engine or ""}
    made = carry_out(session, caller, recipe, approve_as=approve_as, new=new, **asked)
    said = told(made)
    if json_out:
        answer(said)
        return
    if made.resumed_at:
        note(f"Resumed at step {made.resumed_at}.")
    metrics = said["metrics"]
    if not metrics or metrics.get("reason"):
        note(metrics.get("reason") or said["stopped"])
        if said["training_set"]:
            note(f"Training set {said['training_set']}")
        return
    rows = [{"model": "this model", **metrics}]
    rows += [{"model": name, **figures} for name, figures in metrics["baselines"].items()]
    show(["model", "auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"], rows)
    note(f"{metrics['n']} test admissions, {metrics['events']} readmitted.")
    note(f"Model {said['model_version']} ({said['state']}), endpoint {said['endpoint'] or 'none'}")
    if said["stopped"]:
        note(said["stopped"])


def carry_out(
    session: Session,
    caller: Any,
    recipe: str,
    *,
    approve_as: str,
    new: bool = False,
    as_of: str = "",
    engine: str = "",
) -> Done:
    """Carry out a recipe that releases a model, see `through`."""
    approves = "true" if session.workspace.settings.approval.in_run else "false"
    given = {"ApproveAs": approve_as, "Approves": approves, "AsOf": as_of, "Engine": engine}
    return through(session, caller, recipe, given, new=new)


def through(session: Session, caller: Any, recipe: str, given: Mapping[str, str], *, new: bool = False) -> Done:
    """Carry out a shipped recipe with progress; resumes an interrupted one with the same parameters."""
    from carelake.pipelines import shipped
    from carelake.pipelines.resuming import begin_or_resume, enter

    workspace, pipelines = session.workspace, pipelines_of(session.workspace)
    plan = shipped.definition(recipe)
    with workspace.enter(caller, "pipeline:define", recipe) as permit:
        enter(permit, workspace.vault, workspace.outbox, recipe, shipped.shipped()[recipe])
    with (
        progress() as bars,
        launching(workspace, session.options.as_, caller) as launcher,
        workspace.enter(caller, "pipeline:run", recipe, job=True) as permit,
    ):
        task = bars.add_task(recipe, total=len(plan.steps))

        def tell(_: Any, steps: Mapping[str, StepRow]) -> None:
            under_way = [row.output.get("title", "") for row in steps.values() if row.status == "Executing"]
            done = sum(row.status == "Succeeded" for row in steps.values())
            bars.update(task, completed=done, description=(under_way or [recipe])[-1])

        executor = executor_of(workspace, launcher)
        name, before = begin_or_resume(permit, pipelines, executor, recipe, given, new=new, local=True)
        one = executor.carry_out(permit, name, told=tell)
        bars.update(task, total=1, completed=1, description=recipe)
        with workspace.vault.database.reading(permit) as tx:
            steps = Rows(tx, permit.account).steps(name)
        _raise(steps)
        reports = {step: _report(workspace, permit, row) for step, row in steps.items()}
    resumed = next((row.name for row in steps.values() if before and _open(before, row)), "")
    seconds = {row.name: row.milliseconds / 1000 for row in steps.values()}
    return Done(one, steps, reports, resumed, seconds)


def _open(before: Mapping[str, StepRow], row: StepRow) -> bool:
    return row.name not in before or before[row.name].status != "Succeeded"


def _raise(steps: Mapping[str, StepRow]) -> None:
    """The error of the step that failed, as it was."""
    from carelake.pipelines.execution.running import error_of

    for row in steps.values():
        if row.status == "Failed":
            raise error_of(row.output["error"])


def _report(workspace: Any, permit: Any, row: StepRow) -> dict[str, Any]:
    """What a step left as ``report.json``; of a training, the figures of its model."""
    import msgspec

    from carelake.pipelines.execution import artifacts

    outputs = row.output.get("outputs", {})
    for output, file in (("report", "report.json"), ("model", "metrics.json")):
        if str(outputs.get(output, "")).startswith("artifact:"):
            with workspace.vault.database.reading(permit) as tx:
                noun = workspace.nouns.get(tx, outputs[output], account=permit.account)
            found = msgspec.json.decode(artifacts.read(permit, workspace.vault, noun, file))
            assert isinstance(found, dict)
            return found
    return {}


def told(made: Done) -> dict[str, Any]:
    """A recipe's execution as ``run --json`` prints it."""
    data = made.reports.get("sync", {})
    dataset = made.reports.get("dataset", {})
    as_of = made.execution.parameters.get("AsOf", "")
    metrics = made.reports.get("train") or data.get("metrics") or ({} if as_of else dataset.get("metrics")) or {}
    state = output_of(made, "approve", "OutputParameters['state']")
    stopped = metrics.get("reason") or (_PAST if as_of else None)
    if stopped is None and state != "Approved":
        stopped = _WAITING
    return {
        "run": made.execution.id,
        "training_set": dataset.get("training_set"),
        "model_version": output_of(made, "register", "ModelPackageName"),
        "metrics": metrics,
        "attrition": dataset.get("attrition", {}),
        "state": state,
        "endpoint": output_of(made, "deploy", "OutputParameters['endpoint']"),
        "resumed_at": made.resumed_at or None,
        "stopped": stopped,
    }


def output_of(made: Done, step: str, path: str) -> Any:
    """A property of a step, None where it was not reached."""
    row = made.steps.get(step)
    return None if row is None else row.output.get("properties", {}).get(path)
