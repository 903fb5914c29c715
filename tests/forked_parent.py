"""Begins commands by fork: each is a process of its own, without the second in which Python reads the package.

``python forked_parent.py light|heavy``. One JSON object a line: ``{"begin": {...}}`` on stdin is answered with
``{"pid": N}``, ``{"poll": PID}`` with ``{"code": N}``, null while it runs. What is imported before the fork starts no
Python thread and reads no setting; the commands themselves run the same scripts as ever, from their first line. Where
the way a process comes into being is what a test is about, it makes one from nothing (`Home.start` of the journeys).
"""

from __future__ import annotations

import atexit
import compileall
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

SHELVES = ("backup", "credentials", "emergency", "events", "finding", "keys", "objects", "object_files")
SHELVES += ("object_reports", "prove", "record", "restore", "rights", "session", "start", "tables", "trail", "use")
SHELVES += ("who",)
# What commands of the lake and of models read besides: it is large, and a child's memory begins with its parent's.
HEAVY = ("apps.cli.learn", "lake.following.sync", "lake.query", "pipelines.platform", "pipelines.predictions")
HEAVY += ("pipelines.jobs.readmission", "models.train", "models.card", "monitor.check", "serving.worklist")


def read_package(kind: str) -> None:
    """Import what commands share; compile the rest, so that no command does it again."""
    import carelake
    from carelake.access.policy import Policies
    from carelake.apps import wiring

    compileall.compile_dir(Path(carelake.__file__).parent, quiet=2)
    wiring.import_tables()
    for name in SHELVES:
        importlib.import_module(f"carelake.apps.cli.{name}")
    if kind == "heavy":
        for name in (*(f"carelake.{one}" for one in HEAVY), "lightgbm"):
            importlib.import_module(name)
    _read_declarations()
    Policies.load(Path("/nonexistent"))  # the package's own, with the actions and the types that they name
    assert threading.active_count() == 1, "what runs beside us does not come along"
    gc.collect()
    gc.freeze()  # a child's collector leaves our pages alone


def _read_declarations() -> None:
    """Make the tree of commands once: each process would make the same one from the same declarations."""
    import typer.main

    from carelake.apps.cli.main import app

    made, tree = typer.main.get_command, typer.main.get_command(app)
    typer.main.get_command = lambda one: tree if one is app else made(one)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        tree(["--version"])  # what the first reading of arguments imports


def begin(said: dict[str, Any]) -> int:
    """Fork a command; it leads a session of its own when this returns."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(told)
            os.setsid()
            os.close(tell)
            code = run(said)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(tell)
    os.read(told, 1)  # its end
    os.close(told)
    return pid


def run(said: dict[str, Any]) -> int:
    """The command, in the child."""
    for number, (path, flags) in enumerate(
        ((said["in"], os.O_RDONLY), (said["out"], os.O_WRONLY), (said["err"], os.O_WRONLY))
    ):
        handle = os.open(path, flags)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    os.environ.clear()
    os.environ.update(said["environment"])
    os.chdir(said["folder"])
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    sys.argv = said["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def end_of(pid: int) -> int | None:
    """How a child ended, as `subprocess` tells it; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    read_package(sys.argv[1])
    with open(0, "rb", buffering=0) as asked:  # no child is to have half a line of ours
        while line := asked.readline():
            one = json.loads(line)
            said = {"pid": begin(one["begin"])} if "begin" in one else {"code": end_of(one["poll"])}
            os.write(1, json.dumps(said).encode() + b"\n")
