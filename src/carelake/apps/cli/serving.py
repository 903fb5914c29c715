"""``serve``: one process, or a parent and its workers.

A worker is ``python -m carelake.apps.cli.serving JSON DESCRIPTOR NUMBER FOLDER``; people have no use for it.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import socket
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from carelake.apps.cli.session import Options, Session, note, run
from carelake.apps.wiring import read_settings

__all__ = ["serve", "worker"]


def serve(options: Options, *, json_out: bool, port: int, host: str, workers: int | None) -> None:
    """Serve over HTTP until it is ended."""
    from carelake.apps.http.server import check_host
    from carelake.apps.http.tls import context_of

    told = read_settings(Session.root(options), os.environ).serve
    check_host(host, told)
    context_of(told)
    if (many := workers or told.workers) == 1:
        session = Session(options)
        try:
            _serve(session, host=host, port=port)
        finally:
            session.close()
        return
    from carelake.apps.http.crew import Crew

    said = {"workspace": str(Session.root(options)), "as": options.as_, "purpose": options.purpose}
    asked = json.dumps({**said, "account": options.account, "host": host})
    # Safe path (-P): nothing is imported from the folder that somebody happens to stand in.
    command = [sys.executable, "-P", "-m", "carelake.apps.cli.serving", asked]
    Crew(command, many, bool(told.tls_certificate), note, told.silent_seconds).run(host, port, _listening)


def worker(options: Options, *, json_out: bool, host: str, channel: int, number: int, folder: str) -> None:
    """One worker of several; the first one delivers events and follows the record for the lake."""
    from carelake.apps.http.crew import RATES
    from carelake.apps.http.rates import Table

    session = Session(options)
    try:
        with socket.socket(fileno=channel) as line:
            table = Table(Path(folder) / RATES)
            _serve(session, host=host, port=0, channel=line, table=table, delivers=number == 0)
    finally:
        session.close()


def _serve(session: Session, *, delivers: bool = True, **told: Any) -> None:
    from carelake.apps import following, guarding, monitoring, pipeline_follower
    from carelake.apps.courier import Courier
    from carelake.apps.http.server import serve as serve_http
    from carelake.pipelines.execution.triggers import Handlers

    caller = session.caller()
    if delivers:  # once for all workers
        with session.workspace.enter(caller, "status:read", "serve"):
            note(f"Serving as {caller.principal.name}'s workspace; end with Ctrl-C.")
    faulthandler.enable(file=2)  # what ends by a signal says where it stood: files and lines, no values

    def started(url: str) -> None:
        # Learning's libraries take seconds to import: the first prediction should not wait for them, nor the start.
        threading.Thread(target=lambda: session.workspace.platform.endpoints, daemon=True).start()
        if url:
            _listening(url)

    if not delivers:
        serve_http(session.workspace, started=started, **told)
        return
    with (
        following.beside(session.workspace, caller, lambda code: note(f"The lake is not followed: {code}")),
        guarding.beside(session.workspace, lambda code: note(f"Endpoints are not looked after: {code}")),
        monitoring.beside(session.workspace, caller, lambda code: note(f"Schedules are held up: {code}")),
        pipeline_follower.beside(
            session.workspace, caller, session.options.as_, lambda code: note(f"Pipelines are held up: {code}")
        ),
        Courier(session.workspace, caller, handlers=Handlers(session.workspace.vault)) as courier,
    ):
        deliver = partial(courier.round, patience=1.0)
        serve_http(session.workspace, started=started, deliver=deliver, **told)


def _listening(url: str) -> None:
    if importlib.util.find_spec("botocore"):
        note(f"For boto3: endpoint_url={url}/aws")
    note(f"Listening on {url}")


def _main() -> None:
    asked, channel, number, folder = sys.argv[1:]
    said = json.loads(asked)
    options = Options(Path(said["workspace"]), said["as"], said["purpose"], said["account"])
    told = {"host": said["host"], "channel": int(channel), "number": int(number), "folder": folder}
    run("serving:worker", options, opens=False, **told)


if __name__ == "__main__":
    _main()
