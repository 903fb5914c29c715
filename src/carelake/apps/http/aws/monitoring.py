"""Monitoring schedules, their executions, and job definitions, which have a name here alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.aws.lists import listed
from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.named import Named
from carelake.apps.http.aws.served import Asked, Run, Served
from carelake.core.errors import Invalid

__all__ = ["operations"]

_READS, _CHANGES = "monitor:read", "monitor:schedule"
_TARGET = "monitors"
_KINDS = {
    "DataQuality": "data-quality-job-definition",
    "ModelQuality": "model-quality-job-definition",
    "ModelBias": "model-bias-job-definition",
    "ModelExplainability": "model-explainability-job-definition",
}
"""MonitoringType, and what a definition's ARN has for it."""
_SCHEDULES = {
    "CreateMonitoringSchedule": "create",
    "UpdateMonitoringSchedule": "update",
    "StartMonitoringSchedule": "start",
    "StopMonitoringSchedule": "stop",
    "DeleteMonitoringSchedule": "delete",
}
_READINGS = {
    "DescribeMonitoringSchedule": "describe",
    "ListMonitoringSchedules": "list",
    "ListMonitoringExecutions": "executions",
}


def operations() -> list[Served]:
    """What is served of them."""
    found = [_changing(name, _of_schedules(method)) for name, method in _SCHEDULES.items()]
    found += [_reading(name, _of_schedules(method)) for name, method in _READINGS.items()]
    for word in _KINDS:
        found += [
            _changing(f"Create{word}JobDefinition", _creator(word)),
            _changing(f"Delete{word}JobDefinition", _deleter(word)),
            _reading(f"Describe{word}JobDefinition", _describer(word)),
            _reading(f"List{word}JobDefinitions", _lister(word)),
        ]
    return found


def _changing(name: str, run: Run) -> Served:
    return Served(SAGEMAKER, name, _CHANGES, _TARGET, run, changes=True)


def _reading(name: str, run: Run) -> Served:
    return Served(SAGEMAKER, name, _READS, _TARGET, run)


# -- schedules


def _of_schedules(method: str) -> Run:
    def run(asked: Asked) -> Mapping[str, Any]:
        told = _resolved(asked) if "MonitoringScheduleConfig" in asked.said else asked.said
        done: Mapping[str, Any] = getattr(asked.door.platform.schedules, method)(asked.permit, told)
        return done

    return run


def _resolved(asked: Asked) -> Mapping[str, Any]:
    """The request, with the definition in it that it names: so a schedule stands when its definition goes."""
    config = dict(asked.said["MonitoringScheduleConfig"])
    if "MonitoringJobDefinitionName" not in config:
        return asked.said
    if "MonitoringJobDefinition" in config or "MonitoringType" not in config:
        raise Invalid(
            "http.aws_input", "A MonitoringJobDefinitionName goes with a MonitoringType, and no definition."
        )
    word = config["MonitoringType"]
    one = _definitions(asked, word).get(asked.permit, config["MonitoringJobDefinitionName"]).said
    config["MonitoringJobDefinition"] = {
        "MonitoringInputs": [{"EndpointInput": one[f"{word}JobInput"]["EndpointInput"]}],
        "MonitoringOutputConfig": one[f"{word}JobOutputConfig"],
        "MonitoringResources": one["JobResources"],
        "MonitoringAppSpecification": {"ImageUri": one[f"{word}AppSpecification"]["ImageUri"]},
        "RoleArn": one["RoleArn"],
    }
    return {**asked.said, "MonitoringScheduleConfig": config}


# -- job definitions


def _definitions(asked: Asked, word: str) -> Named:
    return Named(asked.door.vault, _KINDS[word], "job definition")


def _arn(asked: Asked, word: str, name: str) -> str:
    return asked.arn(f"{_KINDS[word]}/{name}")


def _creator(word: str) -> Run:
    def create(asked: Asked) -> Mapping[str, Any]:
        said, name = asked.said, asked.said["JobDefinitionName"]
        if "EndpointInput" not in said[f"{word}JobInput"]:
            raise Invalid(
                "http.aws_input", f"{word}JobInput: expected an EndpointInput; there is no other input here."
            )
        kept = {member: value for member, value in said.items() if member != "Tags"}
        _definitions(asked, word).create(asked.permit, name, kept)
        return {"JobDefinitionArn": _arn(asked, word, name)}

    return create


def _deleter(word: str) -> Run:
    def delete(asked: Asked) -> Mapping[str, Any]:
        _definitions(asked, word).delete(asked.permit, asked.said["JobDefinitionName"])
        return {}

    return delete


def _describer(word: str) -> Run:
    def describe(asked: Asked) -> Mapping[str, Any]:
        one = _definitions(asked, word).get(asked.permit, asked.said["JobDefinitionName"])
        return {**one.said, "JobDefinitionArn": _arn(asked, word, one.name), "CreationTime": one.created}

    return describe


def _lister(word: str) -> Run:
    def lists(asked: Asked) -> Mapping[str, Any]:
        found = [
            {
                "MonitoringJobDefinitionName": one.name,
                "MonitoringJobDefinitionArn": _arn(asked, word, one.name),
                "CreationTime": one.created,
                "EndpointName": one.said[f"{word}JobInput"]["EndpointInput"]["EndpointName"],
            }
            for one in _definitions(asked, word).all(asked.permit)
        ]
        if "EndpointName" in asked.said:
            found = [one for one in found if one["EndpointName"] == asked.said["EndpointName"]]
        key, name = "JobDefinitionSummaries", "MonitoringJobDefinitionName"
        return listed(asked, f"List{word}JobDefinitions", key, found, name)

    return lists
