"""``predict``, ``endpoint``: a model at work."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from carelake.apps.cli.session import Session, answer, note
from carelake.core.errors import Invalid
from carelake.monitor.check import Checked
from carelake.serving.predictions import Prediction
from carelake.serving.words import sentence

__all__ = ["check", "predict", "predict_all"]


def predict(session: Session, *, json_out: bool, endpoint: str, patient: str | None, days: float | None) -> None:
    """Predict for one patient or the morning list."""
    if (patient is None) == (days is None):
        raise Invalid("apps.predict", "Give --patient ID for one patient, or --days N for the morning list.")
    found = predict_all(session, session.caller(), endpoint, patient=patient, days=days)
    if json_out:
        said = [one.as_json() for one in found]
        answer(said[0] if patient is not None else said)
        return
    for one in found:
        note(
            f"{one.probability:6.1%}{' ALERT' if one.flagged else ''}  patient {one.subject}: {sentence(one.reasons)}"
        )


def predict_all(
    session: Session, caller: Any, endpoint: str, *, patient: str | None = None, days: float | None = None
) -> list[Prediction]:
    """Predictions, captured; for the list the lake is brought up first."""
    workspace = session.workspace
    if patient is None:
        with workspace.platform.acting("pipeline", caller, "lake:sync", "lake", job=True) as permit:
            workspace.platform.sync(permit)
    with workspace.enter(caller, "endpoint:invoke", endpoint) as permit:
        return workspace.predict(permit, endpoint, patient=patient, days=days)


def check(session: Session, caller: Any, endpoint: str, since: datetime) -> Checked:
    """Run the drift check."""
    workspace = session.workspace
    with workspace.enter(caller, "monitor:check", endpoint) as permit:
        loaded = workspace.platform.endpoints.load(permit, endpoint)
        return workspace.platform.monitor.check(permit, loaded, since)
