"""Lists of schedules and executions: summaries in botocore's shapes, filtered, sorted and cut into pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from carelake.core.clock import instant, iso
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.monitor.tables import execution, schedule
from carelake.vault.keyring import Keyring
from carelake.vault.paging import paged

__all__ = ["EXECUTIONS", "LONGEST", "SCHEDULES", "last_execution", "page", "ran", "summary", "waits"]

LONGEST = timedelta(hours=1)
"""How long an execution may take: one that is under way for longer was left by a process that ended."""

_SAME = ("EndpointName", "MonitoringScheduleName", "MonitoringJobDefinitionName")
SCHEDULES = {"Name": "MonitoringScheduleName", "CreationTime": "CreationTime", "Status": "MonitoringScheduleStatus"}
"""What schedules are sorted by."""
EXECUTIONS = {
    "CreationTime": "CreationTime",
    "ScheduledTime": "ScheduledTime",
    "Status": "MonitoringExecutionStatus",
}
"""What executions are sorted by."""


def summary(row: Any, arn: str) -> dict[str, Any]:
    """A schedule as MonitoringScheduleSummary."""
    return {
        "MonitoringScheduleName": row.name,
        "MonitoringScheduleArn": arn,
        "CreationTime": instant(row.created),
        "LastModifiedTime": instant(row.modified),
        "MonitoringScheduleStatus": row.status,
        "EndpointName": row.endpoint,
        "MonitoringType": row.kind,
    }


def ran(row: Any) -> dict[str, Any]:
    """An execution as MonitoringExecutionSummary."""
    told = {
        "MonitoringScheduleName": row.schedule,
        "ScheduledTime": instant(row.scheduled),
        "CreationTime": instant(row.created),
        "LastModifiedTime": instant(row.modified),
        "MonitoringExecutionStatus": row.status,
        "EndpointName": row.endpoint,
        "MonitoringType": row.kind,
    }
    return {**told, "FailureReason": row.failure} if row.failure else told


def waits(tx: Connection, account: str, moment: str) -> bool:
    """Whether at an instant a schedule of the account is due, or an execution was left by a process that ended."""
    due = (schedule.c.account == account) & (schedule.c.due != "") & (schedule.c.due <= moment)
    left = (execution.c.account == account) & (execution.c.status == "InProgress")
    left &= execution.c.created < iso(instant(moment) - LONGEST)
    asked = (
        select(schedule.c.name).where(due, schedule.c.status == "Scheduled"),
        select(execution.c.schedule).where(left),
    )
    return any(tx.execute(one.limit(1)).first() is not None for one in asked)


def last_execution(tx: Connection, account: str, name: str) -> dict[str, Any] | None:
    """The newest execution of a schedule."""
    own = (execution.c.account == account) & (execution.c.schedule == name)
    row = tx.execute(select(execution).where(own).order_by(execution.c.scheduled.desc()).limit(1)).first()
    return ran(row) if row else None


def page(
    permit: Permit,
    keyring: Keyring,
    found: Sequence[Mapping[str, Any]],
    request: Mapping[str, Any],
    answer: str,
    by: Mapping[str, str],
) -> dict[str, Any]:
    """One page of what a request asks for; the newest first where it says nothing else.

    Raises:
        Invalid: ``monitor.listing``.
    """
    status = by["Status"]
    key = by.get(str(request.get("SortBy", "CreationTime")))
    most = request.get("MaxResults", 100)
    if key is None or not isinstance(most, int) or not 1 <= most <= 100:
        raise _wrong()
    rows = [one for one in found if _asked(one, request, status)]
    rows.sort(key=lambda one: (one[key], one["MonitoringScheduleName"]))
    if request.get("SortOrder", "Descending") == "Descending":
        rows.reverse()
    try:
        shown, more = paged(permit, keyring, answer, request, rows, most)
    except Invalid:
        raise _wrong() from None
    return {answer: shown, **more}


def _wrong() -> Invalid:
    return Invalid("monitor.listing", "SortBy, MaxResults (1 to 100) or NextToken is not as this list takes it.")


def _asked(one: Mapping[str, Any], request: Mapping[str, Any], status: str) -> bool:
    same = {name: request[name] for name in _SAME if request.get(name)}
    if request.get("StatusEquals"):
        same[status] = request["StatusEquals"]
    if request.get("MonitoringTypeEquals"):
        same["MonitoringType"] = request["MonitoringTypeEquals"]
    named = str(request.get("NameContains") or "")
    return (
        all(one.get(name) == value for name, value in same.items())
        and named in one["MonitoringScheduleName"]
        and all(_in_time(one, request, name) for name in ("CreationTime", "LastModifiedTime", "ScheduledTime"))
    )


def _in_time(one: Mapping[str, Any], request: Mapping[str, Any], name: str) -> bool:
    before, after = request.get(f"{name}Before"), request.get(f"{name}After")
    if before is None and after is None:
        return True
    at = one[name]
    return (before is None or at <= _moment(before)) and (after is None or at >= _moment(after))


def _moment(told: Any) -> datetime:
    if isinstance(told, datetime):
        return told if told.tzinfo else told.replace(tzinfo=UTC)
    if isinstance(told, int | float):
        return datetime.fromtimestamp(told, UTC)
    try:
        return instant(str(told))
    except ValueError:
        raise Invalid("monitor.listing", "A time of the list is no timestamp.") from None
