"""The process that begins steps of pipelines: ``python -m carelake.apps.stepping JSON DESCRIPTOR``.

People have no use for it. It imports what jobs need, once; each step is a process forked from it, which opens the
workspace for itself and works for whoever started the execution.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from carelake.access.identity import Caller
from carelake.apps.wiring import Workspace, import_tables
from carelake.core.errors import CarelakeError
from carelake.pipelines.execution.running import Task, failed, run_task
from carelake.pipelines.execution.warm import serve

__all__ = ["command", "work_in"]

_HEAVY = (
    "pipelines.platform",
    "lake.following.sync",
    "pipelines.jobs.releasing",
    "serving.endpoint",
    "pipelines.jobs.readmission",
)


def command(root: Path, as_: str | None, modules: tuple[str, ...] = ()) -> list[str]:
    """The command line of the warm process for a workspace, but for its descriptor.

    Args:
        modules: what it imports; default: what a learner needs.
    """
    said = json.dumps({"workspace": str(root), "as": as_, "modules": list(modules or _HEAVY)})
    # Safe path (-P): nothing is imported from the folder that somebody happens to stand in.
    return [sys.executable, "-P", "-m", "carelake.apps.stepping", said]


def work_in(root: Path, as_: str | None, task: Task) -> dict[str, Any]:
    """Do one step's work in a workspace that is opened for it."""
    try:
        workspace = Workspace.open(root, os.environ)
    except CarelakeError as error:
        return failed(error.code, error.message, "Step.SERVICE_FAULT")
    try:
        speaker = workspace.identity.local(os.getuid(), as_)
        who = speaker if speaker.name == task["principal"] else workspace.principal(task["principal"], speaker)
        return run_task(workspace.platform, Caller(who, task["purpose"], task["account"]), task)
    except CarelakeError as error:
        return failed(error.code, error.message, "")
    finally:
        # The trail is sealed by whoever carries the execution out.
        workspace.vault.close()


def _main() -> None:
    said, number = json.loads(sys.argv[1]), int(sys.argv[2])
    root = Path(said["workspace"])
    import_tables()
    # Before what libraries have to say at their end: reports of leaks, where there is nothing to leak any more.
    atexit.register(os._exit, 0)
    with socket.socket(fileno=number) as channel:
        modules = (importlib.import_module(f"carelake.{name}") for name in said["modules"])
        serve(channel, lambda task: work_in(root, said["as"], task), modules)


if __name__ == "__main__":
    _main()
