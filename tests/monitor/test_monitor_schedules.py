"""Schedules in botocore's shapes; each due time is run once, and says how it went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import botocore.session
import pytest
from botocore.validate import ParamValidator

from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.monitor import cron, listing
from carelake.monitor.check import Monitor
from carelake.monitor.executions import Executions
from carelake.monitor.schedules import Schedules, window_of

_MODEL = botocore.session.get_session().get_service_model("sagemaker")


def _answers(operation: str, told: dict) -> dict:
    """What an operation answers, checked against botocore's model of it."""
    shape = _MODEL.operation_model(operation).output_shape
    report = ParamValidator().validate(told, shape)
    assert not report.has_errors(), report.generate_report()
    return told


def _request(name: str, endpoint: str = "readmission", **when: str) -> dict:
    job = {
        "MonitoringInputs": [{"EndpointInput": {"EndpointName": endpoint, "LocalPath": "/in"}}],
        "MonitoringOutputConfig": {"MonitoringOutputs": [{"S3Output": {"S3Uri": "s3://b/out", "LocalPath": "/out"}}]},
        "MonitoringResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 20}
        },
        "MonitoringAppSpecification": {"ImageUri": "carelake"},
        "RoleArn": "arn:aws:iam::123456789012:role/monitor",
    }
    config = {"ScheduleConfig": when, "MonitoringJobDefinition": job, "MonitoringType": "DataQuality"}
    request = {"MonitoringScheduleName": name, "MonitoringScheduleConfig": config}
    report = ParamValidator().validate(request, _MODEL.operation_model("CreateMonitoringSchedule").input_shape)
    assert not report.has_errors(), report.generate_report()
    return request


@pytest.mark.parametrize(
    ("expression", "after", "wanted"),
    [
        ("cron(0 * ? * * *)", "2026-01-02T03:04:05", "2026-01-02T04:00:00"),
        ("cron(0 12 ? * * *)", "2026-01-02T12:00:00", "2026-01-03T12:00:00"),
        ("cron(0 0 ? * * *)", "2026-01-02T23:59:59", "2026-01-03T00:00:00"),
        ("cron(0 17/12 ? * * *)", "2026-01-02T03:04:05", "2026-01-02T05:00:00"),
        ("cron(0 17/12 ? * * *)", "2026-01-02T05:00:00", "2026-01-02T17:00:00"),
        ("cron(0 0/2 ? * * *)", "2026-01-02T03:04:05", "2026-01-02T04:00:00"),
    ],
)
def test_the_next_time_of_an_expression(expression: str, after: str, wanted: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert cron.next_after(expression, moment) == datetime.fromisoformat(wanted).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "cron(* * * * *)", "cron(5 * ? * * *)", "cron(0 24 ? * * *)", "rate(1 hour)"])
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        cron.checked(text)
    with pytest.raises(Invalid):
        cron.offset(text)


def test_the_window_is_by_offsets_or_since_the_last_time() -> None:
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    told = _request("x", ScheduleExpression="cron(0 0/6 ? * * *)")["MonitoringScheduleConfig"]
    assert window_of(told, at) == (at - timedelta(hours=6), at)
    read = told["MonitoringJobDefinition"]["MonitoringInputs"][0]["EndpointInput"]
    read |= {"StartTimeOffset": "-P60D", "EndTimeOffset": "-P30D"}
    assert window_of(told, at) == (at - timedelta(days=60), at - timedelta(days=30))
    told["ScheduleConfig"] |= {"DataAnalysisStartTime": "-P30D", "DataAnalysisEndTime": "-PT1H30M"}
    assert window_of(told, at) == (at - timedelta(days=30), at - timedelta(hours=1, minutes=30))
    told["ScheduleConfig"] |= {"DataAnalysisStartTime": "-PT1H"}
    with pytest.raises(Invalid):
        window_of(told, at)


def test_schedules_are_made_listed_stopped_and_run(place, permit_for, rows_of: Callable) -> None:
    permit = permit_for(
        "clinical:write", "models:read", "lake:read", "rows:read", "rows:write",
        expires=place.clock.now() + timedelta(days=30),
    )  # fmt: skip
    place.endpoints.deploy(place.author, "readmission", place.approved())
    schedules = Schedules(place.vault)
    made = schedules.create(permit, _request("hourly", ScheduleExpression="cron(0 * ? * * *)"))
    _answers("CreateMonitoringSchedule", made)
    now = {"ScheduleExpression": "NOW", "DataAnalysisStartTime": "-P1D", "DataAnalysisEndTime": "PT0H"}
    schedules.create(permit, _request("once", **now))
    schedules.create(permit, _request("lost", endpoint="nowhere", ScheduleExpression="cron(0 * ? * * *)"))
    with pytest.raises(Conflict):
        schedules.create(permit, _request("once", **now))
    with pytest.raises(Invalid):
        schedules.create(permit, _request("half", ScheduleExpression="NOW"))
    listed = _answers("ListMonitoringSchedules", schedules.list(permit, {"SortBy": "Name", "SortOrder": "Ascending"}))
    names = [one["MonitoringScheduleName"] for one in listed["MonitoringScheduleSummaries"]]
    assert names == ["hourly", "lost", "once"]
    first = schedules.list(permit, {"MaxResults": 2, "SortBy": "Name", "SortOrder": "Ascending"})
    rest = schedules.list(permit, {"NextToken": first["NextToken"], "SortBy": "Name", "SortOrder": "Ascending"})
    assert [one["MonitoringScheduleName"] for one in rest["MonitoringScheduleSummaries"]] == ["once"]
    assert len(schedules.list(permit, {"EndpointName": "nowhere"})["MonitoringScheduleSummaries"]) == 1

    endpoint = place.endpoints.load(permit, "readmission")
    place.endpoints.predict(permit, endpoint, rows_of(300, 71))
    monitor = Monitor(place.vault, place.nouns, place.outbox)
    runner = Executions(place.vault, place.nouns, monitor, place.endpoints)

    @contextmanager
    def enter(target: str):
        yield permit

    assert [one["schedule"] for one in runner.run_due(enter)] == ["once"]
    assert runner.run_due(enter) == []
    place.clock.move(hours=1)
    told = {one["schedule"]: one for one in runner.run_due(enter)}
    assert {name: one["status"] for name, one in told.items()} == {"hourly": "Completed", "lost": "Failed"}
    assert told["hourly"]["finding"].startswith("finding:")
    found = _answers("ListMonitoringExecutions", schedules.executions(permit, {}))["MonitoringExecutionSummaries"]
    assert len(found) == 3
    failed = schedules.executions(permit, {"StatusEquals": "Failed"})["MonitoringExecutionSummaries"]
    assert "serving.no_such_endpoint" in failed[0]["FailureReason"]

    shown = _answers("DescribeMonitoringSchedule", schedules.describe(permit, {"MonitoringScheduleName": "hourly"}))
    assert shown["LastMonitoringExecutionSummary"]["MonitoringExecutionStatus"] == "Completed"
    schedules.stop(permit, {"MonitoringScheduleName": "hourly"})
    schedules.delete(permit, {"MonitoringScheduleName": "lost"})
    place.clock.move(hours=2)
    assert runner.run_due(enter) == []
    schedules.start(permit, {"MonitoringScheduleName": "hourly"})
    schedules.update(permit, _request("hourly", ScheduleExpression="cron(0 * ? * * *)"))
    place.clock.move(hours=1)
    # An hour in which nothing was predicted is no verdict, and not well.
    [quiet] = runner.run_due(enter)
    assert quiet["status"] == "Failed"
    with pytest.raises(NotFound):
        schedules.describe(permit, {"MonitoringScheduleName": "lost"})


def test_a_schedule_of_now_whose_run_was_killed_runs_again(place, permit_for, monkeypatch) -> None:
    permit = permit_for("models:read", "rows:read", "rows:write", expires=place.clock.now() + timedelta(days=30))
    schedules = Schedules(place.vault)
    now = {"ScheduleExpression": "NOW", "DataAnalysisStartTime": "-P1D", "DataAnalysisEndTime": "PT0H"}
    schedules.create(permit, _request("once", endpoint="nowhere", **now))
    monitor = Monitor(place.vault, place.nouns, place.outbox)
    runner = Executions(place.vault, place.nouns, monitor, place.endpoints)

    @contextmanager
    def enter(target: str):
        yield permit

    def waiting() -> bool:
        with place.vault.database.reading(permit) as tx:
            return listing.waits(tx, "production", iso(place.clock.now()))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "now", killed)
        with pytest.raises(KeyboardInterrupt):
            runner.run_due(enter)
    assert not waiting()
    assert runner.run_due(enter) == []  # it may be under way elsewhere
    place.clock.move(minutes=61)
    assert waiting()
    assert [one["status"] for one in runner.run_due(enter)] == ["Failed"]  # there is no such endpoint
    assert not waiting()
    found = schedules.executions(permit, {"SortBy": "ScheduledTime", "SortOrder": "Ascending"})
    failures = [one["FailureReason"].partition(":")[0] for one in found["MonitoringExecutionSummaries"]]
    assert failures == ["monitor.interrupted", "serving.no_such_endpoint"]
