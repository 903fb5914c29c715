"""Monitoring schedules in SageMaker's shapes: what is checked, of which endpoint, when, over which window.

Requests and answers are dicts in botocore's shapes. A schedule says when it is due; whoever has a clock running
(`carelake monitor follow`, a server, a pipeline) calls `Schedules.run_due`. Two that call at once run nothing twice:
the due time is moved on, in one statement, before the check begins.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateMonitoringSchedule.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from carelake.core.arns import arn
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.monitor import cron, listing
from carelake.monitor.check import KINDS
from carelake.monitor.tables import execution, schedule
from carelake.vault.workspace import Vault

__all__ = ["Schedules", "window_of"]

Request = Mapping[str, Any]
_S = schedule.c
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


class Schedules:
    """The monitoring schedules of a workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def create(self, permit: Permit, request: Request) -> dict[str, Any]:
        """CreateMonitoringSchedule, with the job's definition inside. Needs ``rows:write``.

        Raises:
            Invalid: ``monitor.schedule``, ``monitor.kind``, ``monitor.schedule_expression``, ``monitor.offset``.
            Conflict: ``monitor.schedule_exists``.
        """
        name = str(request.get("MonitoringScheduleName", ""))
        if not _NAME.fullmatch(name):
            raise Invalid("monitor.schedule", "A schedule's name is 1 to 63 letters, digits and dashes in between.")
        config = request.get("MonitoringScheduleConfig") or {}
        row = self._row(permit, config)
        with self._vault.database.transaction(permit) as tx:
            if self._find(tx, permit, name) is not None:
                raise Conflict(
                    "monitor.schedule_exists", "There is a schedule of this name; update it, or delete it."
                )
            made = {**row, "account": permit.account, "name": name, "status": "Scheduled", "created": row["modified"]}
            tx.execute(insert(schedule).values(made))
        return {"MonitoringScheduleArn": _arn(permit.account, name)}

    def update(self, permit: Permit, request: Request) -> dict[str, Any]:
        """UpdateMonitoringSchedule. Needs ``rows:write``.

        Raises:
            NotFound: ``monitor.no_such_schedule``. Invalid: as `create`.
        """
        name = str(request.get("MonitoringScheduleName", ""))
        row = self._row(permit, request.get("MonitoringScheduleConfig") or {})
        with self._vault.database.transaction(permit) as tx:
            found = self._known(tx, permit, name)
            if found.status == "Stopped":
                row["due"] = ""
            tx.execute(update(schedule).where(_own(permit, name)).values(row))
        return {"MonitoringScheduleArn": _arn(permit.account, name)}

    def start(self, permit: Permit, request: Request) -> dict[str, Any]:
        """StartMonitoringSchedule. Needs ``rows:write``. Raises NotFound ``monitor.no_such_schedule``."""
        return self._switch(permit, str(request.get("MonitoringScheduleName", "")), "Scheduled")

    def stop(self, permit: Permit, request: Request) -> dict[str, Any]:
        """StopMonitoringSchedule; what runs is brought to its end. Raises NotFound ``monitor.no_such_schedule``."""
        return self._switch(permit, str(request.get("MonitoringScheduleName", "")), "Stopped")

    def delete(self, permit: Permit, request: Request) -> dict[str, Any]:
        """DeleteMonitoringSchedule, with its executions; findings stay. Raises NotFound."""
        name = str(request.get("MonitoringScheduleName", ""))
        with self._vault.database.transaction(permit) as tx:
            self._known(tx, permit, name)
            tx.execute(delete(schedule).where(_own(permit, name)))
            own = (execution.c.account == permit.account) & (execution.c.schedule == name)
            tx.execute(delete(execution).where(own))
        return {}

    def describe(self, permit: Permit, request: Request) -> dict[str, Any]:
        """DescribeMonitoringSchedule. Needs ``rows:read``. Raises NotFound ``monitor.no_such_schedule``."""
        with self._vault.database.reading(permit) as tx:
            row = self._known(tx, permit, str(request.get("MonitoringScheduleName", "")))
            last = listing.last_execution(tx, permit.account, row.name)
        told = {
            **listing.summary(row, _arn(permit.account, row.name)),
            "MonitoringScheduleConfig": msgspec.json.decode(row.config),
        }
        return {**told, "LastMonitoringExecutionSummary": last} if last else told

    def list(self, permit: Permit, request: Request | None = None) -> dict[str, Any]:
        """ListMonitoringSchedules. Needs ``rows:read``. Raises Invalid ``monitor.listing``."""
        with self._vault.database.reading(permit) as tx:
            rows = tx.execute(select(schedule).where(_S.account == permit.account)).all()
        found = [listing.summary(row, _arn(permit.account, row.name)) for row in rows]
        asked, key = request or {}, self._vault.keyring
        return listing.page(permit, key, found, asked, "MonitoringScheduleSummaries", listing.SCHEDULES)

    def executions(self, permit: Permit, request: Request | None = None) -> dict[str, Any]:
        """ListMonitoringExecutions. Needs ``rows:read``. Raises Invalid ``monitor.listing``."""
        with self._vault.database.reading(permit) as tx:
            rows = tx.execute(select(execution).where(execution.c.account == permit.account)).all()
        found = [listing.ran(row) for row in rows]
        asked, key = request or {}, self._vault.keyring
        return listing.page(permit, key, found, asked, "MonitoringExecutionSummaries", listing.EXECUTIONS)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _row(self, permit: Permit, config: Request) -> dict[str, Any]:
        kind = config.get("MonitoringType", "DataQuality")
        if kind not in KINDS:
            raise Invalid("monitor.kind", f"Unknown kind of monitor; expected one of {', '.join(KINDS)}.")
        now = self._vault.clock.now()
        expression, endpoint = _when(config), _endpoint(config)
        due = now if expression == cron.NOW else cron.next_after(expression, now)
        return {
            "endpoint": endpoint,
            "kind": kind,
            "config": msgspec.json.encode(config).decode(),
            "due": iso(due),
            "modified": iso(now),
            "act": permit.act,
        }

    def _switch(self, permit: Permit, name: str, status: str) -> dict[str, Any]:
        now = self._vault.clock.now()
        with self._vault.database.transaction(permit) as tx:
            row = self._known(tx, permit, name)
            expression = _when(msgspec.json.decode(row.config))
            due = "" if status == "Stopped" or expression == cron.NOW else iso(cron.next_after(expression, now))
            told = {"status": status, "due": due, "modified": iso(now), "act": permit.act}
            tx.execute(update(schedule).where(_own(permit, name)).values(told))
        return {}

    @staticmethod
    def _find(tx: Connection, permit: Permit, name: str) -> Any:
        return tx.execute(select(schedule).where(_own(permit, name))).first()

    def _known(self, tx: Connection, permit: Permit, name: str) -> Any:
        found = self._find(tx, permit, name)
        if found is None:
            raise NotFound("monitor.no_such_schedule", "No monitoring schedule of this name is in this account.")
        return found


def _own(permit: Permit, name: str) -> Any:
    return (_S.account == permit.account) & (_S.name == name)


def _arn(account: str, name: str) -> str:
    return arn("sagemaker", account, f"monitoring-schedule/{name}")


def _when(config: Request) -> str:
    """The expression of a configuration; without one it is daily at midnight, UTC."""
    told = config.get("ScheduleConfig") or {}
    expression = cron.checked(str(told.get("ScheduleExpression", "cron(0 0 ? * * *)")))
    for name in ("DataAnalysisStartTime", "DataAnalysisEndTime"):
        if told.get(name) is not None:
            cron.offset(str(told[name]))
        elif expression == cron.NOW:
            raise Invalid("monitor.schedule", f"A schedule of NOW needs {name}, for example -PT24H.")
    return expression


def _endpoint(config: Request) -> str:
    inputs = (config.get("MonitoringJobDefinition") or {}).get("MonitoringInputs") or []
    names = [str((one.get("EndpointInput") or {}).get("EndpointName", "")) for one in inputs]
    if len(names) != 1 or not names[0]:
        raise Invalid(
            "monitor.schedule",
            "Expected MonitoringJobDefinition with one of MonitoringInputs, an EndpointInput with its EndpointName.",
        )
    return names[0]


def window_of(config: Request, scheduled: datetime) -> tuple[datetime, datetime]:
    """The window of an execution: by offsets of the schedule, else of its input, else since it ran last."""
    told, expression = config.get("ScheduleConfig") or {}, _when(config)
    inputs = (config.get("MonitoringJobDefinition") or {}).get("MonitoringInputs") or [{}]
    read = inputs[0].get("EndpointInput") or {}
    first = told.get("DataAnalysisStartTime") or read.get("StartTimeOffset")
    last = told.get("DataAnalysisEndTime") or read.get("EndTimeOffset")
    until = scheduled + cron.offset(str(last)) if last else scheduled
    since = scheduled + cron.offset(str(first)) if first else scheduled - cron.period(expression, scheduled)
    if since >= until:
        raise Invalid("monitor.schedule", "The window of a schedule begins after its end; look at the offsets.")
    return since, until
