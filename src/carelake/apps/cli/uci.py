"""``run uci-readmission``: learn from the UCI file, score a file of strangers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carelake.apps.cli.object_files import clear_file
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import progress, show
from carelake.core.errors import Conflict, Invalid

__all__ = ["run_uci"]

_MAX_FILE = 1 << 30


def run_uci(session: Session, *, json_out: bool, source: Path | None, score: Path | None, out: Path | None) -> None:
    """Train on ``source``, register the version, and write risks of ``score`` to ``out``.

    Raises:
        Invalid: ``apps.uci``, ``apps.no_such_path``; as `UciReadmission.run`.
        Conflict: ``apps.uci_unscored``, after the answer: there is no model, so nothing was scored.
    """
    from carelake.pipelines.uci import NAME, UciReadmission

    if source is None or (score is None) != (out is None):
        raise Invalid("apps.uci", "Give --source TRAIN.csv; and --score UNSEEN.csv with --out P.csv, or neither.")
    if out is not None and str(out) != "-" and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise Invalid("apps.no_such_path", "The file cannot be opened; check the path given.")  # not after training
    workspace, caller = session.workspace, session.caller()
    steps = UciReadmission(workspace.platform, caller, _read(source), _read(score) if score else None)
    scored = None
    with progress() as bars, workspace.enter(caller, "pipeline:run", NAME, job=True) as permit:
        task = bars.add_task(NAME, total=None)
        made = steps.run(lambda words: bars.update(task, description=words))
        if made["model_version"] and out is not None:
            bars.update(task, description="Scoring the file of strangers")
            data, scored = steps.scored(made["model_version"])
            with clear_file(str(out), "wb") as file:
                file.write(data)
        bars.update(task, total=1, completed=1, description=NAME)
        said = {"run": permit.act, **made, "scored": scored, "out": str(out) if scored is not None else None}
    if json_out:
        answer(said)
    else:
        _tell(said)
    if out is not None and scored is None:  # a file of an earlier run may stand there
        raise Conflict("apps.uci_unscored", "No model was made, so nothing was scored and --out was not written.")


def _read(path: Path) -> bytes:
    with clear_file(str(path), "rb") as file:
        data: bytes = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise Invalid("apps.uci", "The file is longer than this command takes (1 GiB).")
    return data


def _tell(said: Mapping[str, Any]) -> None:
    metrics, scored = said["metrics"], said["scored"]
    if metrics.get("reason"):
        note(metrics["reason"])
        return
    rows = [{"model": "this model", **metrics}]
    rows += [{"model": name, **figures} for name, figures in metrics["baselines"].items()]
    show(["model", "auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"], rows)
    show(["group", "value", "n", "events", "auroc", "calibration_slope"], metrics["subgroups"])
    note(f"{metrics['n']} test encounters of patients not trained on, {metrics['events']} readmitted.")
    note(f"Model {said['model_version']} ({said['state']}).")
    if scored is not None:
        note(f"Scored {scored['rows']} encounters into {said['out']}.")
        for one in scored["unscored"]:
            note(f"Not scored: line {one['line']}: {one['reason']}.")
