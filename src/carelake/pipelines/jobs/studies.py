"""Jobs of the recipes ``uci-readmission`` and ``utilisation``: their steps as a pipeline carries them out."""

from __future__ import annotations

from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.pipelines.execution.work import Files, Made, Work
from carelake.pipelines.uci import UciReadmission
from carelake.pipelines.utilisation import Utilisation

__all__ = ["uci_rows", "uci_train", "utilisation_days", "utilisation_train"]


def uci_rows(work: Work) -> Made:
    """The training set of the UCI file that the input ``source`` is."""
    said = UciReadmission(work.platform, work.caller, work.data("source")).training_set()
    return _told(said, {"dataset": said["training_set"]})


def uci_train(work: Work) -> Made:
    """Tune, train, calibrate, evaluate and register; with too few cases it says so and makes no model."""
    said = UciReadmission(work.platform, work.caller, b"").train(_dataset(work))
    return _told(said, {})


def utilisation_days(work: Work) -> Made:
    """Counts of every unit and day as of the input ``snapshot``."""
    said = Utilisation(work.platform, work.caller).daily(work.ref("snapshot"))
    return _told(said, {"dataset": said["training_set"]})


def utilisation_train(work: Work) -> Made:
    """Fit, judge by backtest, register, and foretell."""
    return _told(Utilisation(work.platform, work.caller).train(_dataset(work)), {})


def _dataset(work: Work) -> dict[str, Any]:
    """What the step before told of its training set."""
    with work.acting("pipeline:step", work.pipeline) as permit:
        found = msgspec.json.decode(work.read(permit, work.ref("report"), "report.json"))
    if not isinstance(found, dict) or "training_set" not in found:
        raise Invalid("pipelines.no_input", "The job needs the report of the step that made the training set.")
    return found


def _told(said: dict[str, Any], outputs: dict[str, str]) -> Made:
    made_from = list(outputs.values())
    return Made({**outputs, "report": Files({"report.json": canonical.dump(said)}, made_from)})
