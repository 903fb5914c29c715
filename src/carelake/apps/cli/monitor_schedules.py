"""``monitor schedule`` and ``monitor follow``: checks that run by themselves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from carelake.apps import monitoring
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.audit.background import sealing_beside
from carelake.core.clock import iso

__all__ = ["create", "executions", "follow", "listed", "show_one", "switch"]


def follow(session: Session, *, json_out: bool, once: bool, seconds: float) -> None:
    """Run what is due, once or until ended."""
    workspace, caller = session.workspace, session.caller()
    stop, done = threading.Event(), []

    def look() -> None:
        for one in monitoring.look(workspace, caller):
            done.append(one)
            note(f"{one['scheduled']} {one['schedule']}: {one['status']}")

    if once:
        look()
    else:
        for kind in (signal.SIGINT, signal.SIGTERM):
            signal.signal(kind, lambda *_: stop.set())
        with sealing_beside(workspace.trail, workspace.gate.sealing, workspace.settings.serve.seal_seconds):
            note("Following; end with Ctrl-C.")
            while not stop.is_set():
                look()
                stop.wait(seconds)
    if json_out:
        answer(done)


def create(
    session: Session,
    *,
    json_out: bool,
    name: str,
    endpoint: str,
    kind: str,
    when: str,
    start: str | None,
    end: str | None,
) -> None:
    """Make a schedule."""
    told = {"ScheduleExpression": when, "DataAnalysisStartTime": start, "DataAnalysisEndTime": end}
    config = {
        "ScheduleConfig": {key: value for key, value in told.items() if value is not None},
        "MonitoringType": kind,
        "MonitoringJobDefinition": {"MonitoringInputs": [{"EndpointInput": {"EndpointName": endpoint}}]},
    }
    request = {"MonitoringScheduleName": name, "MonitoringScheduleConfig": config}
    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:schedule", endpoint) as permit:
        made = workspace.platform.schedules.create(permit, request)
    if json_out:
        answer(made)
    else:
        note(f"{name} checks {endpoint} ({kind}); `carelake monitor follow` runs it.")


def listed(session: Session, *, json_out: bool) -> None:
    """Schedules."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:read", "schedules") as permit:
        found = _all(lambda request: workspace.platform.schedules.list(permit, request))
    _tell(found, json_out, ["MonitoringScheduleName", "EndpointName", "MonitoringType", "MonitoringScheduleStatus"])


def show_one(session: Session, *, json_out: bool, name: str) -> None:
    """One schedule."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:read", "schedules") as permit:
        answer(_plain(workspace.platform.schedules.describe(permit, {"MonitoringScheduleName": name})))


def executions(session: Session, *, json_out: bool, name: str | None) -> None:
    """What schedules ran."""
    asked = {"MonitoringScheduleName": name} if name else {}
    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:read", "schedules") as permit:
        found = _all(lambda request: workspace.platform.schedules.executions(permit, {**asked, **request}))
    columns = ["ScheduledTime", "MonitoringScheduleName", "MonitoringExecutionStatus", "FailureReason"]
    _tell(found, json_out, columns)


def switch(session: Session, *, json_out: bool, name: str, to: str) -> None:
    """Start, stop or delete a schedule."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "monitor:schedule", "schedules") as permit:
        schedules = workspace.platform.schedules
        do = {"start": schedules.start, "stop": schedules.stop, "delete": schedules.delete}[to]
        told = do(permit, {"MonitoringScheduleName": name})
    if json_out:
        answer(told)
    else:
        note(f"{name}: {to}.")


def _all(of: Any) -> list[dict[str, Any]]:
    found, token = [], None
    while True:
        told = of({"NextToken": token} if token else {})
        found += next(value for value in told.values() if isinstance(value, list))
        token = told.get("NextToken")
        if not token:
            return [_plain(one) for one in found]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _tell(rows: list[dict[str, Any]], json_out: bool, columns: list[str]) -> None:
    if json_out:
        answer(rows)
    else:
        show(columns, rows)
